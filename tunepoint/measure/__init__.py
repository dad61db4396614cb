"""Every arm on the same examples."""
