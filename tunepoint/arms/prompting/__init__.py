"""Arms that change the words and leave the weights alone."""
