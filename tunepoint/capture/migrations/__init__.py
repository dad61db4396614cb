"""Steps from one schema of the capture store to the next."""
