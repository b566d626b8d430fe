"""A Hugging Face folder's preprocessor_config.json: how pictures reach its model."""

import math
from collections.abc import Mapping
from typing import Any

from egma_train.errors import BadUsageError
from egma_train.geometry import Geometry

GEOMETRY = "egma_geometry"
"""Our own entry: no processor of transformers pads to a square."""
_RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def preparation(
    told: Mapping[str, Any], vision: Mapping[str, Any], *, any_size: bool = False
) -> dict[str, Any]:
    """Take mean, deviation and geometry from the file, or what ViTs have.

    Parameters
    ----------
    vision : mapping
        Sizes of the image tower.
    any_size : bool
        The tower takes pictures of any size.

    Raises
    ------
    BadUsageError
        If a deviation is no positive number, or the size is not the tower's.
    """
    own_px = int(vision.get("image_size", 224))
    size, crop = told.get("size", {}), told.get("crop_size", {})
    size = size if isinstance(size, Mapping) else {"height": size}
    crop_px = crop.get("height") if isinstance(crop, Mapping) else crop
    shorter = size.get("shortest_edge")
    whole = int(shorter or size.get("height") or own_px)
    cropped = told.get("do_center_crop", bool(shorter)) and crop_px
    # By its shorter side alone a picture is not square.
    px = int(crop_px or 0) if cropped else min(whole, own_px) if shorter else whole
    if px != own_px and not any_size:
        raise BadUsageError(
            f"preprocessor_config.json makes pictures of {px} px, the image tower sees {own_px};"
            " take both from one model"
        )
    mean, std = (list(told.get(f"image_{one}", (0.5,))) for one in ("mean", "std"))
    if len(mean) != len(std) or len(std) not in (1, 3) or not all(map(_is_positive, std)):
        raise BadUsageError(f"preprocessor_config.json has image_mean {mean}, image_std {std}")
    how = _RESAMPLE.get(told.get("resample", 2), "bilinear")
    geometry = told.get(GEOMETRY) or ["shorter" if shorter else "squash", whole, px, how, False]
    return {"mean": mean, "std": std, "geometry": geometry, "image_px": px}


def prepared(details: Mapping[str, Any], **usual: Any) -> dict[str, Any]:
    """Take mean, deviation and geometry for `Facts`: a folder's own, or what is usual."""
    own = usual | details.get("prepared", {})
    means = {name: tuple(own[name]) for name in ("mean", "std")}
    return means | {"geometry": Geometry(*own["geometry"])}


def of_open_clip(told: Mapping[str, Any], px: int) -> dict[str, Any]:
    """Take what an open_clip_config.json says of pictures.

    Raises
    ------
    BadUsageError
        For a way of resizing that is not known here.
    """
    fits = {"shortest": "shorter", "squash": "squash"}
    fit = fits.get(str(told.get("resize_mode", "shortest")))
    how = str(told.get("interpolation", "bicubic"))
    if fit is None or how not in _RESAMPLE.values():
        raise BadUsageError(f"open_clip_config.json resizes by {told.get('resize_mode')}, {how}")
    made: dict[str, Any] = {"geometry": [fit, px, px, how, False]}
    return made | {name: list(told[name]) for name in ("mean", "std") if told.get(name)}


def described(
    geometry: Geometry, side_px: int, mean: tuple[float, ...], std: tuple[float, ...], kind: str
) -> dict[str, Any]:
    """Write what `preparation` reads, and what a processor of transformers can do of it.

    What is padded to a square is to be padded before; the processor then resizes the square.
    """
    square = {"height": side_px, "width": side_px}
    by_edge = geometry.fit == "shorter"
    names = {how: number for number, how in _RESAMPLE.items()}
    return {
        "image_processor_type": kind,
        "image_mean": list(mean) * (3 // len(mean)),
        "image_std": list(std) * (3 // len(std)),
        "do_resize": True,
        "size": {"shortest_edge": geometry.resize_px} if by_edge else square,
        "do_center_crop": by_edge,
        "crop_size": square,
        "resample": names.get(geometry.interpolation, 2),
        GEOMETRY: list(geometry),
    }


def _is_positive(number: object) -> bool:
    return isinstance(number, int | float) and 0 < number < math.inf
