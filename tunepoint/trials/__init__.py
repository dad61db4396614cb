"""Answers, scored."""
