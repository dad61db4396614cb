"""Types of arrays; docstrings give their shapes, as in `(n, A)`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
"""Scores, dollars, seconds."""
Flags = NDArray[np.bool_]
"""Masks."""
Integers = NDArray[np.intp]
"""Positions and codes of groups."""
