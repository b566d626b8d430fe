"""Fixations of a recording that has samples of gaze alone, or whose samples are preferred."""

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.gaze.detect import Detector, fixations_in, require_detectors
from egma_prep.options import SourceOptions
from egma_prep.sources.reading import Fixations, RowsOfFile


def detected(
    samples: Fixations, rows: RowsOfFile, options: SourceOptions
) -> tuple[Fixations, RowsOfFile, dict[str, int]]:
    """Find the fixations in samples, and count the samples that are in none.

    Parameters
    ----------
    samples : Fixations
        Each a sample, which begins and ends at one time; positions are NaN where the eye was lost.

    Returns
    -------
    Fixations, RowsOfFile, dict
        The fixations, each at the mean of its samples, and what to call them in messages.

    Raises
    ------
    BadInputError
        If nobody tells how many pixels a degree is, or no fixation is there.
    """
    require_detectors()
    seen = np.isfinite(samples.x_px + samples.y_px)
    degrees = np.stack([samples.px_per_deg_x, samples.px_per_deg_y])
    if not np.isfinite(degrees[:, seen]).all():
        what = f"{rows.path} has samples, and nobody tells how many pixels are a degree"
        raise BadInputError("no_angle", rows.path, what)
    detector = Detector(
        options.detector,
        options.dispersion_deg,
        options.velocity_deg_per_s,
        options.shortest_fixation_s,
    )
    x_deg, y_deg = samples.x_px / degrees[0], samples.y_px / degrees[1]
    spans = fixations_in(samples.begin_s, x_deg, y_deg, detector)
    if not len(spans):
        what = f"{rows.path} has {len(seen):,} samples and no fixation in them"
        raise BadInputError("no_fixations", rows.path, what)
    first, last = spans.T
    means = (
        np.array([column[begin : end + 1].mean() for begin, end in spans])
        for column in samples[2:6]
    )
    shown_px = None if samples.shown_px is None else samples.shown_px[first]
    found = Fixations(samples.begin_s[first], samples.end_s[last], *means)._replace(
        shown_px=shown_px
    )
    where = RowsOfFile(rows.path, lambda at: rows.place(int(first[at])), rows.is_cut)
    in_one = int((last - first + 1).sum())
    return found, where, {"samples_outside_fixations": len(seen) - in_one}
