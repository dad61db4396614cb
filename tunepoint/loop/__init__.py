"""The whole circle."""
