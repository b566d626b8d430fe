"""What one fixation adds to a map: each module here with ``footprints`` is a kernel."""

import importlib
import pkgutil
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Separable(NamedTuple):
    """Footprints that are products of two factors: ``rows[k, v] * columns[k, u]``."""

    rows: FloatArray
    columns: FloatArray


class Kernel(Protocol):
    """How wide gaze is spread around a fixation's centre."""

    def footprints(
        self,
        x_px: FloatArray,
        y_px: FloatArray,
        sigma_x_px: FloatArray,
        sigma_y_px: FloatArray,
        truncate: float,
    ) -> Separable | NDArray[np.floating | np.bool_]:
        """Spread k fixations over the frame; all ``(k,)`` in its pixels, centres at integers.

        Returns
        -------
        Separable or ndarray
            Factors of ``(k, FRAME_PX)`` each, or ``(k, FRAME_PX, FRAME_PX)``, row-major; finite,
            nowhere below 0.
        """


def kernel_names() -> list[str]:
    """List every kernel in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def kernel(name: str) -> Kernel:
    """Return one of them, imported where it is first asked for."""
    return cast(Kernel, importlib.import_module(f"{__name__}.{name}"))
