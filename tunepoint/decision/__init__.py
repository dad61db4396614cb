"""Trials, costs and limits in; a decision out."""
