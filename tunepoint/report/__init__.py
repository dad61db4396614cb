"""The decision for a person."""
