"""How novel inputs are."""

from __future__ import annotations

COMPARED = 2_000
"""Inputs of train, and of the test, that are compared at most."""
