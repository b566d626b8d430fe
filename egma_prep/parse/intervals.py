"""Checks that words and fixations share."""

import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError


def check_intervals(begin_s: NDArray[np.float64], end_s: NDArray[np.float64], path: str) -> None:
    """Reject a table with an interval that ends before it begins."""
    reversed_rows = np.flatnonzero(end_s < begin_s)
    if reversed_rows.size:
        row = int(reversed_rows[0])
        what = f"{path}, row {row + 1} runs from {begin_s[row]:g} to {end_s[row]:g} s"
        raise BadInputError("reversed_time", path, what)
