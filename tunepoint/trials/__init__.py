"""Trials: scored answers, how they are scored, and the tables that the statistics read."""
