"""Which counts may be shown to others: one rule, of shareable.json and of the shareable report."""

LEAST = 10
"""Nothing is told of fewer patients, and counts are told to the tens below."""


def coarse(number: int, patients: int | None = None, least: int = LEAST) -> int | str | None:
    """Make a count one that may be shown.

    Parameters
    ----------
    patients : int, optional
        How many have what is counted; without it, patients are counted, or files.

    Returns
    -------
    int, str or None
        A multiple of `least`, so that no small count can be had by subtraction; ``<10``; None where
        more is counted, but of too few patients.
    """
    if 0 < number < least:
        return f"<{least}"
    if number and patients is not None and patients < least:
        return None
    return int(number) // least * least
