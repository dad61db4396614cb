"""Arms that change the weights."""
