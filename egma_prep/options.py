"""Every option: one frozen dataclass per stage, from TOML files and ``--set``."""

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from egma_prep.errors import BadUsageError, unknown_name
from egma_prep.gaze.align import WINDOWS
from egma_prep.gaze.detect import DETECTORS
from egma_prep.gaze.frame import FITS
from egma_prep.gaze.heatmaps import NORMALISATIONS
from egma_prep.gaze.kernels import kernel, kernel_names
from egma_prep.storage.paths import shipped_folder

LEVELS = ("sentence", "word")
FORMATS = ("npz", "parquet")
DICOM_GREYS = ("mimic-cxr-jpg", "window")
EMPTY_SENTENCES = ("null", "reading")
COLOURS = ("refuse", "luma")
GAZE_FROM = ("fixations", "samples")
BORDERS = ("open", "shown", "mirror")
WEIGHTS = ("seconds", "count")
# By sigma's unit: frame pixels, degrees of visual angle, pixels of the original image.
_WIDEST = {"deg": 45.0, "imagepx": 5000.0, "": 224.0}
_NARROWEST_PRIVATE = {"": 4.0, "deg": 0.25, "imagepx": 40.0}
EYE_GAZE_VERTICALS = ("released", "stretched", "letterboxed")


@dataclass(frozen=True)
class SourceOptions:
    """How raw files are understood."""

    eye_gaze_audio_offset_s: float = 0.0
    """Seconds added to EYE GAZE's transcript times to bring them onto the gaze clock."""
    eye_gaze_vertical: str = "released"
    """How the screen showed EYE GAZE's 1920 x 1024 canvas: Y_ORIGINAL as released, or mapped
    again as if the canvas had been stretched or letterboxed to 1080 lines."""
    gaze_from: str = "fixations"
    """Gaze is the ``fixations`` that the tracker's program found, or those found here in the
    ``samples``: of REFLACX's gaze.csv, EYE GAZE's eye_gaze.csv, a laboratory's own."""
    detector: str = "idt"
    """Fixations in samples are found by dispersion (``idt``) or by velocity (``ivt``)."""
    dispersion_deg: float = 1.0
    """A fixation's width and height together, at most; 0.5 to 1 by Salvucci and Goldberg."""
    velocity_deg_per_s: float = 30.0
    """Of the eye in a fixation, at most; the default of Tobii's I-VT."""
    shortest_fixation_s: float = 0.1
    """Shorter ones are none; 0.1 to 0.2 by Salvucci and Goldberg."""
    as_published: bool = True
    """Refuse files that differ from the release's SHA256SUMS.txt, where that lies at its root."""

    def __post_init__(self) -> None:
        if not isinstance(self.as_published, bool):
            raise BadUsageError(f"source.as_published is {self.as_published!r}; give true or false")
        _number("source.eye_gaze_audio_offset_s", self.eye_gaze_audio_offset_s)
        _choice("source.gaze_from", self.gaze_from, GAZE_FROM)
        _choice("source.detector", self.detector, DETECTORS)
        for name in ("dispersion_deg", "velocity_deg_per_s", "shortest_fixation_s"):
            _number(f"source.{name}", getattr(self, name), above=0)
        _choice("source.eye_gaze_vertical", self.eye_gaze_vertical, EYE_GAZE_VERTICALS)


@dataclass(frozen=True)
class ImageOptions:
    """How an image becomes the 224 frame."""

    fit: str = "pad"
    """``pad`` to a centred square, or ``stretch``."""
    max_megapixels: float = 100.0
    """Larger images are rejected undecoded; chest X-rays have about 10."""
    dicom_grey: str = ""
    """Stored DICOM values become grey as MIMIC-CXR-JPG was made (``mimic-cxr-jpg``), so that both
    releases give one picture, or by the header's ``window``; empty: as the source declares."""
    colour: str = ""
    """Images of many hues are rejected (``refuse``), or taken by their ``luma``, as photographs
    are; empty: as the source declares. A tinted X-ray has one hue and is taken by either."""

    def __post_init__(self) -> None:
        _choice("image.fit", self.fit, FITS)
        _choice("image.dicom_grey", self.dicom_grey, ("", *DICOM_GREYS))
        _number("image.max_megapixels", self.max_megapixels, above=0)
        _choice("image.colour", self.colour, ("", *COLOURS))


@dataclass(frozen=True)
class SentenceOptions:
    """How a transcript is cut."""

    pause_s: float = 0.7
    """Silence that ends a sentence where no punctuation was dictated at all."""

    def __post_init__(self) -> None:
        _number("sentences.pause_s", self.pause_s, above=0)


@dataclass(frozen=True)
class RenderOptions:
    """How gaze becomes heatmaps; ``render-heatmaps`` can change these without the raw data."""

    sigma: float | str = 16.0
    """Width of a fixation: frame pixels, degrees of visual angle such as ``1deg``, or pixels of
    the original image such as ``150imagepx``."""
    truncate: float = 3.0
    """A kernel is zero beyond this many sigma."""
    kernel: str = "gaussian"
    """A fixation adds a ``gaussian`` of height 1, or a ``density`` of volume 1, or a kernel of your
    own."""
    border: str = "open"
    """Gaze may reach into the padding (``open``), is cut where the part of the image that was
    ``shown`` on the screen ended, or turned back at the image's edge (``mirror``)."""
    weights: str = "seconds"
    """Fixations weigh their ``seconds`` in the window, or each one: ``count``."""
    normalise: str = "peak"
    """Grids are of a map whose ``peak`` is 1, or whose ``sum`` is."""
    window: str = "spoken"
    """``spoken``: first word to last, the paper's; ``pause``: with the silence before."""
    lead: float = 0.0
    """Seconds that a window starts earlier; REFLACX's authors found 1.5 best."""
    level: str = "sentence"
    """Render a map per ``sentence``, or per ``word`` (the paper's Fig. 3)."""
    empty_sentence: str = "null"
    """A sentence without gaze has no map, or the ``reading``'s as in the published code."""
    format: str = "parquet"
    """How shards are stored."""

    def __post_init__(self) -> None:
        sigma, unit = self.sigma_and_unit
        if not 0 < sigma <= _WIDEST[unit]:
            raise BadUsageError(
                f"render.sigma is {self.sigma!r}; give a number above 0, of {_WIDEST[unit]:g}{unit}"
                " or less: maps of wider ones are flat"
            )
        if isinstance(self.sigma, str):  # "1 deg" and "1deg" are one option, "16" is 16.0
            object.__setattr__(self, "sigma", f"{sigma:g}{unit}" if unit else sigma)
        _choice("render.kernel", self.kernel, (*kernel_names(),))
        kernel(self.kernel)  # one of the user's own that cannot be imported is told here
        _choice("render.border", self.border, BORDERS)
        _choice("render.weights", self.weights, WEIGHTS)
        _choice("render.normalise", self.normalise, NORMALISATIONS)
        _number("render.truncate", self.truncate, above=0)
        _choice("render.window", self.window, WINDOWS)
        _number("render.lead", self.lead, at_least=0)
        _choice("render.level", self.level, LEVELS)
        _choice("render.empty_sentence", self.empty_sentence, EMPTY_SENTENCES)
        _choice("render.format", self.format, FORMATS)

    @cached_property
    def sigma_and_unit(self) -> tuple[float, str]:
        """Sigma as a number, and its unit: ``deg``, ``imagepx``, or none, which is frame pixels."""
        text = str(self.sigma).strip()
        unit = next(one for one in _WIDEST if text.endswith(one))
        try:
            return float(text.removesuffix(unit)), unit
        except ValueError:
            raise BadUsageError(
                f"render.sigma is {self.sigma!r}; give frame pixels (16), degrees (1deg) or pixels"
                " of the original image (150imagepx)"
            ) from None


_REFLACX = {
    "sigma": "1deg",
    "truncate": 8.0,  # theirs are not cut: a density is 1e-14 of its peak there
    "kernel": "density",
    "border": "shown",
    "weights": "seconds",
    "window": "spoken",
    "lead": 0.0,
}
RECIPES: dict[str, dict[str, Any]] = {
    "egma": {
        "sigma": 16.0,
        "truncate": 3.0,
        "kernel": "gaussian",
        "border": "open",
        "weights": "seconds",
        "normalise": "peak",
        "window": "spoken",
        "lead": 0.0,
    },
    "reflacx": _REFLACX | {"normalise": "sum"},
    "eye-gaze": {
        "sigma": "150imagepx",
        "truncate": 4.0,
        "kernel": "density",
        "border": "mirror",  # scipy's filter, which they use, does so, and cuts at four sigma
        "weights": "count",
        "normalise": "peak",
        "window": "spoken",
        "lead": 0.0,
    },
    "look-back-1.5s": _REFLACX | {"normalise": "peak", "lead": 1.5},
}
"""Published choices by name: all that decides what a map means, see docs/gaze.md."""


def recipe(name: str) -> dict[str, Any]:
    """Return a recipe's options by stage, as a configuration file would give them."""
    _choice("recipe", name, (*RECIPES,))
    return {"render": RECIPES[name]}


@dataclass(frozen=True)
class OutputOptions:
    """What is written at all."""

    privacy: bool = False
    """Write no raw gaze: no fixations, no alignment, no gaze of single words."""

    def __post_init__(self) -> None:
        if not isinstance(self.privacy, bool):
            raise BadUsageError(f"output.privacy is {self.privacy!r}; give true or false")


@dataclass(frozen=True)
class ExecutionOptions:
    """What changes only how the work is done, never its result."""

    workers: int = 0
    """Processes of the embedded Dask cluster; 0: one a core. Never more than memory allows."""
    scheduler: str = ""
    """Address of an existing Dask scheduler, such as ``tls://host:8786``."""
    tls_ca: str = ""
    """Certificate of the authority that the existing scheduler's and workers' ones are of; empty:
    as Dask is configured."""
    tls_cert: str = ""
    """Certificate to show to them."""
    tls_key: str = ""
    """Its key, unless the certificate's file holds it."""
    processes: bool = True
    """Workers are processes; false: threads of this process."""
    readings_per_part: int = 32
    """About; decided at the first run into an output folder, kept after."""

    def __post_init__(self) -> None:
        _number("execution.workers", self.workers, at_least=0, whole=True)
        _number("execution.readings_per_part", self.readings_per_part, at_least=1, whole=True)
        if not isinstance(self.scheduler, str) or not isinstance(self.processes, bool):
            raise BadUsageError("execution.scheduler is an address, execution.processes a boolean")
        if self.scheduler and "://" not in self.scheduler:
            raise BadUsageError(
                f"execution.scheduler is {self.scheduler!r}; give an address like tls://host:8786"
            )
        for name in ("tls_ca", "tls_cert", "tls_key"):
            path = getattr(self, name)
            if not isinstance(path, str) or (path and not os.access(path, os.R_OK)):
                raise BadUsageError(f"execution.{name} is {path!r}, which is no file to read")


@dataclass(frozen=True)
class Options:
    """All stages; every stage but `execution` changes outputs and is kept in ``run.json``."""

    source: SourceOptions = field(default_factory=SourceOptions)
    image: ImageOptions = field(default_factory=ImageOptions)
    sentences: SentenceOptions = field(default_factory=SentenceOptions)
    render: RenderOptions = field(default_factory=RenderOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)

    def __post_init__(self) -> None:
        if self.output.privacy and self.render.level == "word":
            raise BadUsageError(
                "maps of single words are raw gaze; add --level sentence or --no-privacy"
            )
        sigma, unit = self.render.sigma_and_unit
        least = _NARROWEST_PRIVATE[unit]
        if self.output.privacy and (sigma < least or self.render.truncate < 1):
            raise BadUsageError(
                "narrow maps show each fixation, which is raw gaze; with --privacy give a sigma of"
                f" {least:g}{unit} or more and a render.truncate of 1 or more, or add --no-privacy"
            )

    @property
    def data_half(self) -> dict[str, Any]:
        """Options that change the tables and images."""
        stages = ("source", "image", "sentences", "output")
        return {name: asdict(getattr(self, name)) for name in stages}

    @property
    def output_half(self) -> dict[str, Any]:
        """Options that change any output."""
        return self.data_half | {"render": asdict(self.render)}


Changes = Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""Options by stage, ``{"render": {"sigma": 8}}``, or several such, of which later ones win."""


def in_order(changes: Changes) -> list[Mapping[str, Any]]:
    """Make a list of one or several."""
    return [changes] if isinstance(changes, Mapping) else list(changes)


def with_changes(options: Options, *changes: Mapping[str, Any]) -> Options:
    """Replace fields named stage by stage.

    Parameters
    ----------
    options : Options
        What to start from.
    *changes : mapping
        ``{"render": {"sigma": 8}, ...}`` as parsed from TOML or ``run.json``; later ones win.

    Raises
    ------
    BadUsageError
        For unknown stages, fields and values.
    """
    stages = {stage.name: getattr(options, stage.name) for stage in fields(options)}
    for stage, values in (item for change in changes for item in change.items()):
        if stage not in stages:
            raise unknown_name("option stage", stage, stages)
        if not isinstance(values, Mapping):
            raise BadUsageError(f"option {stage} is a stage; set its fields, {stage}.NAME=VALUE")
        known = {option.name: option.default for option in fields(stages[stage])}
        for name in values:
            if name not in known:
                raise unknown_name(f"option in {stage}", name, known)
        # 16 and 16.0 are one option, also in the files' metadata.
        same_type = {
            name: _as_float(value) if type(value) is int and type(known[name]) is float else value
            for name, value in values.items()
        }
        stages[stage] = replace(stages[stage], **same_type)
    return Options(**stages)


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:  # of hundreds of digits; no option takes infinity
        return float("inf")


def differences(old: Options, new: Options) -> str:
    """Describe how options that change outputs differ, such as ``render.sigma 16.0 -> 8.0``."""
    return ", ".join(
        f"{stage}.{name} {before} -> {new.output_half[stage][name]}"
        for stage, fields_before in old.output_half.items()
        for name, before in fields_before.items()
        if before != new.output_half[stage][name]
    )


def read_config(name: str) -> dict[str, Any]:
    """Parse a TOML file, or a shipped pipeline by its name (``phantom``)."""
    path = Path(name)
    shipped = shipped_folder("pipelines") / f"{name}.toml"
    if not path.is_file() and shipped.is_file():
        path = shipped
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        there = sorted(item.stem for item in shipped_folder("pipelines").glob("*.toml"))
        raise BadUsageError(
            f"cannot read config {name}: {error.strerror}; shipped ones: {', '.join(there)}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadUsageError(f"config {name} is not TOML: {error}") from None


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse ``stage.field=value`` texts; values are TOML, bare words are strings."""
    changes: dict[str, dict[str, Any]] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        stage, dot, option = name.strip().partition(".")
        if not equals or not dot:
            raise BadUsageError(f"--set {text!r}: write stage.field=value, such as render.sigma=8")
        changes.setdefault(stage, {})[option] = _toml_value(value.strip())
    return changes


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise unknown_name(name, value, choices)


def _number(
    name: str,
    value: object,
    *,
    above: float = float("-inf"),
    at_least: float = float("-inf"),
    whole: bool = False,
) -> None:
    kind = int if whole else int | float
    good = isinstance(value, kind) and not isinstance(value, bool)
    if not good or not (above < value < float("inf") and value >= at_least):  # type: ignore[operator]
        bound = f"above {above:g}" if above > float("-inf") else f"at least {at_least:g}"
        unbounded = above == at_least == float("-inf")
        wanted = "a number" if unbounded else f"a number {bound}"
        raise BadUsageError(f"{name} is {value!r}; give {wanted}")
