"""The unit of work: which patients a part holds, and whether it is still current."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from egma_prep.errors import Reject
from egma_prep.input_files import Fingerprint, InputFiles
from egma_prep.options import Options
from egma_prep.out_folder import OutFolder
from egma_prep.readings import PlannedReading
from egma_prep.schema import SCHEMA_VERSION
from egma_prep.sources import SubjectPlan


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

    def key(self, source: str, options: Options) -> str:
        """Digest what decides the part's data besides its input files."""
        decides = [
            SCHEMA_VERSION,
            source,
            options.data_half,
            [reading.content for reading in self.readings],
            [asdict(reject) for reject in self.rejects],
        ]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """What every part of a run shares."""

    data: Path
    images: Path | None
    out: Path
    source: str
    options: Options

    def files(self) -> InputFiles:
        """Open the door to the raw data."""
        return InputFiles(self.data, self.images)


def part_of(subject_id: str, parts: int) -> int:
    """Assign a patient to a part, the same on every machine."""
    digest = hashlib.sha256(subject_id.encode()).digest()
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


def is_current(plan: PartPlan, job: Job) -> bool:
    """Tell whether a part's record, inputs and outputs still agree with the plan."""
    out, files = OutFolder(job.out), job.files()
    record = out.record(plan.part)
    if record is None or record["key"] != plan.key(job.source, job.options):
        return False
    written = [
        (out.shard(plan.part, job.options.render.format), "shard"),
        (out.image_part(plan.part), "images"),
    ]
    return all(_has_size(path, record["outputs"].get(kind)) for path, kind in written) and all(
        plan.inputs[path].get("sha256") == known.get("sha256")  # read again a moment ago
        if path in plan.inputs
        else files.unchanged(path, known)
        for path, known in record["inputs"].items()
    )


def _has_size(path: Path, known: Fingerprint | None) -> bool:
    if known is None:
        return not path.exists()
    return path.exists() and path.stat().st_size == known["size"]
