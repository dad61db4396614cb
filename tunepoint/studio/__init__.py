"""The studio: the whole circle in a browser on this machine, over files that the command line reads."""
