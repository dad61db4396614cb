"""Candidate ways of doing a task."""
