"""What a dataset layout is, and which there are: each module here with a ``SOURCE``."""

import hashlib
import importlib
import pkgutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

from egma_prep.errors import BadUsageError, Reject, unknown_name
from egma_prep.options import Options, SourceOptions, with_changes
from egma_prep.sources.files import InputFiles
from egma_prep.sources.manifests import declaration_of, declared
from egma_prep.sources.reading import PlannedReading, RawReading
from egma_prep.storage.paths import Fingerprint


@dataclass
class SubjectPlan:
    """What one patient's metadata promise.

    Attributes
    ----------
    rejects : list of Reject
        Readings that are already known to be unusable, and files that hide theirs.
    inputs : dict
        Fingerprints of metadata that are this patient's alone.
    """

    subject_id: str
    readings: list[PlannedReading] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    inputs: dict[str, Fingerprint] = field(default_factory=dict)

    def add(self, plan: PlannedReading | Reject) -> None:
        """Add a reading or a reject."""
        if isinstance(plan, Reject):
            self.rejects.append(plan)
        else:
            self.readings.append(plan)


class Source(Protocol):
    """A dataset layout: recognises a tree, plans its readings, loads one.

    It may also say how its images become grey unless a user says otherwise (see `ImageOptions`):
    ``dicom_grey``, else ``window``; ``colour``, ``luma`` for photographs, else ``refuse``. If its
    trees tell licence, terms and citation themselves, ``declaration(files)`` maps these to text.
    """

    name: str
    looks_like: str

    def recognises(self, files: InputFiles) -> bool:
        """Tell whether the tree has this layout."""

    def plan(self, files: InputFiles) -> Iterable[SubjectPlan]:
        """List every reading that the metadata promise, patient by patient."""

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read one reading's files, the image excepted.

        Raises
        ------
        BadInputError
            If anything that it needs is missing or cannot be parsed.
        """


def sources() -> dict[str, Source]:
    """Find every layout in this folder, by name.

    Raises
    ------
    BadUsageError
        If a module there cannot be imported.
    """
    package = importlib.import_module("egma_prep.sources")
    found = {}
    for name in (module.name for module in pkgutil.iter_modules(package.__path__)):
        try:
            module = importlib.import_module(f"{package.__name__}.{name}")
        except BadUsageError:
            raise
        except Exception as error:  # of a source of one's own
            what = f"{type(error).__name__}: {error}"
            raise BadUsageError(
                f"egma_prep/sources/{name}.py cannot be imported ({what}); mend it there"
            ) from error
        if hasattr(module, "SOURCE"):
            found[module.SOURCE.name] = module.SOURCE
    return found


@cache
def code_of(name: str) -> str:
    """Hash a layout's module and declaration: of changed ones, parts are made again."""
    module = sys.modules[type(sources()[name]).__module__]
    code = Path(str(module.__file__)).read_bytes()
    return hashlib.sha256(code + declaration_of(name)).hexdigest()


def choose_source(files: InputFiles, name: str | None = None) -> Source:
    """Pick the layout by name, or by what the tree looks like."""
    known = sources()
    if name:
        if name not in known:
            raise unknown_name("source", name, known)
        return known[name]
    fitting = [source for source in known.values() if source.recognises(files)]
    if len(fitting) != 1:
        wanted = "; ".join(f"{source.name}: {source.looks_like}" for source in known.values())
        found = "several layouts" if fitting else "no known layout"
        packed = [] if fitting else files.packed_in("")
        more = f", or unpack {packed[0]} first" if packed else ""
        raise BadUsageError(
            f"{files.root} has {found}; expected {wanted}. Give its root, or say which by --source"
            f"{more}"
        )
    return fitting[0]


def with_defaults_of(source: Source, options: Options) -> Options:
    """Fill in what a source declares where the user chose nothing."""
    usual = {"dicom_grey": "window", "colour": "refuse"}
    chosen = {
        name: getattr(options.image, name) or getattr(source, name, value)
        for name, value in usual.items()
    }
    check_degrees(source, options)
    return with_changes(options, {"image": chosen})


def check_degrees(source: Source, options: Options) -> None:
    """Refuse a sigma in degrees where the declaration says that nobody knows how wide one was."""
    if options.render.sigma_and_unit[1] == "deg" and not declared(source.name).get("degrees", True):
        raise BadUsageError(
            f"render.sigma is {options.render.sigma!r}, but {source.name} does not tell how wide"
            " its images were seen; give frame pixels, such as --sigma 16"
        )
