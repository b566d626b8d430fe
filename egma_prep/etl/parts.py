"""The unit of work: which patients a part holds, and whether it is still current."""

import hashlib
import json
import socket
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from egma_prep.errors import OF_THE_MACHINE, BadUsageError, Reject
from egma_prep.etl.out_folder import OutFolder
from egma_prep.options import Options
from egma_prep.shards.schema import RULES_VERSION, SCHEMA_VERSION, part_tables
from egma_prep.sources.files import InputFiles
from egma_prep.sources.manifests import declaration_of
from egma_prep.sources.reading import PlannedReading
from egma_prep.sources.registry import Source, SubjectPlan, code_of, sources
from egma_prep.storage.atomic import is_as_written
from egma_prep.storage.paths import Fingerprint, Stamps

NEW = "not made yet"


@dataclass(frozen=True)
class PartPlan:
    """What one part will hold.

    Attributes
    ----------
    rejects : list of Reject
        Known before any reading is loaded.
    inputs : dict
        Fingerprints of the metadata that planned it.
    """

    part: int
    readings: list[PlannedReading]
    rejects: list[Reject]
    inputs: dict[str, Fingerprint]

    @property
    def planned(self) -> int:
        """How many readings and files must be accounted for."""
        return len(self.readings) + len(self.rejects)

    def key(self, source: str, options: Options) -> dict[str, Any]:
        """Name what decides the part's outputs besides its input files."""
        promised = [
            [reading.content for reading in self.readings],
            [asdict(reject) for reject in self.rejects],
        ]
        text = json.dumps(promised, sort_keys=True)
        return {
            "schema": SCHEMA_VERSION,
            "rules": RULES_VERSION,
            "words": hashlib.sha256(declaration_of("words/mentions")).hexdigest(),
            "layout": source,
            "module or declaration": code_of(source),
            "options": options.data_half,
            "render": asdict(options.render),
            "metadata": hashlib.sha256(text.encode()).hexdigest(),
        }


class Stale(NamedTuple):
    """Why a part is made again: in words, and the file in question where there is one."""

    why: str
    path: str = ""


@dataclass(frozen=True)
class Job:
    """What every part of a run shares.

    Attributes
    ----------
    token : str
        Of the lock object, in a store.
    landmarks : tuple of str
        Some names in DATA, by which a worker on another machine tells that it is there.
    """

    data: Path
    images: Path | None
    out: Path
    source: str
    options: Options
    token: str = ""
    landmarks: tuple[str, ...] = ()

    def files(self) -> InputFiles:
        """Open the door to the raw data."""
        return InputFiles(self.data, self.images, self.options.source.as_published)

    @cached_property
    def folder(self) -> OutFolder:
        """The output folder, under this run's lock."""
        return OutFolder(self.out, self.token)

    @cached_property
    def layout(self) -> Source:
        """Look the source up by its name, once."""
        return sources()[self.source]

    def check_sight(self) -> None:
        """Stop where DATA or OUT is not what the command sees, which no reading is to blame for.

        Raises
        ------
        BadUsageError
            If so, naming this machine.
        """
        if not self.landmarks:
            return
        seen = {
            self.data: any((self.data / name).exists() for name in self.landmarks),
            self.out: self.folder.run_file.exists(),
        }
        for place, there in seen.items():
            if not there:
                raise BadUsageError(
                    f"the worker on {socket.gethostname()} does not see {place} as this command"
                    " does; mount it there under the same path, then repeat the same command"
                )


def part_of(subject_id: str, parts: int) -> int:
    """Assign a patient to a part, the same on every machine."""
    digest = hashlib.sha256(subject_id.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % parts


def plan_parts(subjects: list[SubjectPlan], parts: int) -> list[PartPlan]:
    """Group patients into parts; parts without any are left out."""
    groups: dict[int, list[SubjectPlan]] = {}
    for subject in subjects:
        groups.setdefault(part_of(subject.subject_id, parts), []).append(subject)
    return [
        PartPlan(
            part,
            sorted((r for s in group for r in s.readings), key=lambda reading: reading.key),
            sorted(reject for s in group for reject in s.rejects),
            {path: known for s in group for path, known in s.inputs.items()},
        )
        for part, group in sorted(groups.items())
        if any(s.readings or s.rejects for s in group)
    ]


def why_stale(plan: PartPlan, job: Job, files: InputFiles, stamps: Stamps | None) -> Stale | None:
    """Tell why a part must be made: None where record, inputs and outputs agree with the plan.

    Parameters
    ----------
    stamps : dict, optional
        Those of all objects of ``out/``, which are not read again then.
    """
    out = job.folder
    record = out.record(plan.part)
    if record is None:
        damaged = out.record_file(plan.part).exists()
        return Stale("its record is damaged" if damaged else NEW)
    key = plan.key(job.source, job.options)
    if other := [name for name in key if key[name] != record["key"].get(name)]:
        return Stale(f"other {' and '.join(other)}")
    if lost := OF_THE_MACHINE & {reject["reason"] for reject in record["rejects"]}:
        return Stale(f"readings were rejected as {' and '.join(sorted(lost))}")
    for path, known in record["inputs"].items():
        same = (
            plan.inputs[path].get("sha256") == known.get("sha256")  # read again a moment ago
            if path in plan.inputs
            else files.unchanged(path, known)
        )
        if not same:
            return Stale("an input file is another", path)
    damaged_outputs = damaged_files(out, plan.part, record, job.options.output.privacy, stamps)
    return Stale("not as it was written", damaged_outputs[0]) if damaged_outputs else None


def damaged_files(
    out: OutFolder,
    part: int,
    record: dict[str, Any],
    privacy: bool,
    stamps: Stamps | None = None,
) -> list[str]:
    """List the files of a part that are not as its record says, by their names in the folder."""
    paths = {name: out.part_table(part, name) for name in part_tables(privacy)}
    paths |= {"shard": out.shard(part, record["key"]["render"]["format"])}
    paths |= {"images": out.image_part(part)}
    known = record["outputs"]
    return [
        out.relative(path)
        for name, path in paths.items()
        if not is_as_written(path, known.get(name), stamps)
    ]
