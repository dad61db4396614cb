"""Examples: read, checked, de-duplicated and split."""
