"""What we learn from: examples, read, checked, de-duplicated and split."""
