"""Arms that change the prompt and leave the weights alone."""
