"""A look at a raw tree before a long run: what is there, what would be rejected, what it takes."""

import contextlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from egma_prep.errors import BadInputError, BadUsageError, noted
from egma_prep.etl.make_part import make_part, read_image
from egma_prep.etl.own_cluster import default_workers
from egma_prep.etl.parts import Job, PartPlan
from egma_prep.etl.run import open_tree, planned_subjects
from egma_prep.images import image_size
from egma_prep.look import first_contact, odd_readings
from egma_prep.look.checksums import Comparison
from egma_prep.look.inspect import SOFTWARE_MARK, save_figure
from egma_prep.options import ImageOptions, Options
from egma_prep.sources import eye_gaze, reflacx
from egma_prep.sources.check_reading import check_reading
from egma_prep.sources.files import InputFiles, told
from egma_prep.sources.manifests import declared, manifest
from egma_prep.sources.reading import PlannedReading, RawReading, Size, typed_reading
from egma_prep.sources.registry import Source, choose_source, with_defaults_of
from egma_prep.storage.atomic import refuse_foreign
from egma_prep.storage.paths import make_folder
from egma_prep.storage.progress import Progress

# Shares of a tenth of a percent are seen among so many, loaded in a minute or two; decoding and
# rendering, which take longer, are measured on a few.
_CHECKED, _TIMED = 5000, 16
_DRAWN, _NAMED = 2, 10


@dataclass
class Scan:
    """What a scan found; counts alone, nothing of a row, but for the paths of missing files."""

    planned: Counter[str] = field(default_factory=Counter)
    subjects: int = 0
    checked: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    missing: set[str] = field(default_factory=set)
    tally: first_contact.Tally = field(default_factory=first_contact.Tally)
    odd: list[tuple[float, odd_readings.Fit, RawReading]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    seconds_each: float = 0.0
    bytes_each: float = 0.0

    def keep_odd(self, raw: RawReading, sound: bool) -> None:
        """Measure how a reading fits together, and keep the oddest; what cannot be comes first."""
        fit = odd_readings.fit_of(raw)
        if fit is None:
            return
        of = raw.dataset
        self.tally.measure(f"{of}: share of the gaze's seconds that are on the image", fit.on_image)
        self.tally.measure(f"{of}: seconds by which words begin after the gaze", fit.begins_s)
        self.tally.measure(f"{of}: seconds by which words end after the gaze", fit.ends_s)
        self.odd.append((fit.oddness + 2 * (not sound), fit, raw))
        self.odd.sort(key=lambda one: (-one[0], one[2].reading_id))
        del self.odd[_DRAWN:]


def scan_tree(
    data: Path,
    images: Path | None,
    source_name: str | None,
    comparison: Comparison | None = None,
    figures: Path | None = None,
    options: Options | None = None,
) -> Iterator[str]:
    """Look at a tree; yield lines that hold no rows and no ids, those about a comparison excepted.

    Parameters
    ----------
    data : Path
        Root of the raw tree.
    images : Path, optional
        MIMIC-CXR-JPG or MIMIC-CXR, for layouts that have no images of their own.
    source_name : str, optional
        Layout; detected if None.
    comparison : Comparison, optional
        Of the files with their releases; it is summed up, and those named that readings lack.
    figures : Path, optional
        A folder for figures of the two readings whose gaze, image and words fit least; the lines
        then name them, and readings that would be rejected.
    options : Options, optional
        How the files are understood.
    """
    options = options or Options()
    files = open_tree(data, images)
    source = choose_source(files, source_name)
    subjects = planned_subjects(source, files)
    found = Scan(subjects=sum(bool(subject.subject_id) for subject in subjects))
    chosen = _spread([one for subject in subjects for one in subject.readings], _CHECKED)
    for subject in subjects:
        found.planned.update(reading.dataset for reading in subject.readings)
        found.planned.update(reject.dataset or "unknown" for reject in subject.rejects)
        found.rejects.update(reject.reason for reject in subject.rejects)
        found.told += [f"  {r.reading_id} ({r.reason}): {r.message}" for r in subject.rejects]
    usable = _check_readings(chosen, files, source, options, found)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(data, images, Path(folder), source.name, with_defaults_of(source, options))
        _measure(_spread(usable, _TIMED), job, found)
    yield from _lines(source, found, told(files.remarks, with_paths=False))
    if figures is not None:
        yield from _drawn(found, files, figures)
    if comparison is not None:
        needed = sorted(found.missing & comparison.absent)
        yield from (f"{path}: not here, and a reading needs it; download it" for path in needed)
        read = [path for path, known in files.fingerprints.items() if known["size"] >= 0]
        yield comparison.told(len(needed), {*read} - {*files.releases()})


def _spread(readings: list[PlannedReading], number: int) -> list[PlannedReading]:
    """Choose some evenly, in order."""
    # The first ones would be those of the lowest ids: of one dataset, or of one phase.
    return readings[:: max(1, -(-len(readings) // number))]


def _check_readings(
    chosen: list[PlannedReading],
    files: InputFiles,
    source: Source,
    options: Options,
    found: Scan,
) -> list[PlannedReading]:
    """Load every chosen reading and look at its image; return those that would be written."""
    usable, sizes, roots = [], {}, set()
    subject = None
    with Progress("readings", len(chosen)) as progress:
        for planned in chosen:
            if planned.subject_id != subject:
                files.forget_tables()
                subject = planned.subject_id
            found.checked += 1
            progress.advance(1)
            raw, size, notes = _load(planned, files, source, options, found)
            found.notes.update(notes or {})
            if raw is not None:
                first_contact.tally_reading(raw, size, found.tally)
                found.keep_odd(raw, sound=notes is not None)
                sizes[raw.dicom_id] = size or (raw.width, raw.height)
                usable += [planned] * (notes is not None)
            root = planned.metadata_path.rpartition("/")[0]
            _check_files(planned, files, f"{root}/" if root else "", sizes, found.tally)
            roots |= {root} if planned.dataset == eye_gaze.DATASET else set()
    for root in sorted(roots):
        place = f"{root}/" if root else ""
        first_contact.check_eye_gaze_tables(files, place, sizes, found.tally)
        samples = manifest("eye-gaze")["tables"]["fixations"]["samples"]
        first_contact.check_samples(files, f"{place}{samples}", found.tally)
    patients = files.matching("", manifest("mimic-eye")["layout"]["patient"])
    first_contact.check_mimic_eye(files, patients, found.tally)
    return usable


def _check_files(
    planned: PlannedReading,
    files: InputFiles,
    root: str,
    sizes: dict[str, tuple[int, int]],
    tally: first_contact.Tally,
) -> None:
    """Check the files of a reading's own folder, beside or below its metadata."""
    if planned.dataset == reflacx.DATASET:
        homes = [root, f"{root}{manifest('reflacx')['layout']['readings']}/"]
        places = [f"{home}{planned.reading_id}" for home in homes]
        for place in filter(files.has, places):
            first_contact.check_reflacx_folder(files, place, tally)
    elif planned.dataset == eye_gaze.DATASET and planned.reading_id in sizes:
        folder = f"{root}{manifest('eye-gaze')['transcripts']['folder']}/{planned.reading_id}"
        first_contact.check_transcript(files, folder, sizes[planned.reading_id], tally)


def _load(
    planned: PlannedReading, files: InputFiles, source: Source, options: Options, found: Scan
) -> tuple[RawReading | None, Size | None, Mapping[str, int] | None]:
    """Load a reading as its source has it, its image's size, and what a run would note of it."""
    raw = size = None
    try:
        raw = typed_reading(source.load(planned, files, options.source), planned)
        size = image_size(files.read(raw.image_path), raw.image_path)
        return raw, size, check_reading(raw, size).notes
    except BadInputError as error:
        found.rejects[error.reason] += 1
        found.told.append(f"  {planned.reading_id} ({error.reason}): {error}")
        found.missing |= {error.path} if error.reason == "missing_file" else set()
    except BadUsageError:
        raise
    except Exception:  # a run rejects such a reading, too, and says where
        found.rejects["unexpected"] += 1
    return raw, size, None


def _measure(readings: list[PlannedReading], job: Job, found: Scan) -> None:
    """Make a few readings for the time and the space they take."""
    if not readings:
        return
    begin = time.perf_counter()
    make_part(PartPlan(0, readings, [], {}), job)
    found.seconds_each = (time.perf_counter() - begin) / len(readings)
    written = sum(path.stat().st_size for path in job.out.rglob("*") if path.is_file())
    found.bytes_each = written / len(readings)


def _lines(source: Source, found: Scan, remarks: Iterable[str]) -> Iterator[str]:
    yield f"{source.name} tree of {found.subjects} patients"
    yield from (f"  {line}" for line in remarks)
    yield from _table(
        ("dataset", "readings here", "published"),
        [
            (name, str(n), ", ".join(f"{count} {of}" for of, count in published.items()))
            for name, n in sorted(found.planned.items())
            for published in [declared(name).get("counts", {})]
        ],
    )
    total = found.planned.total()
    yield f"checked {found.checked} of {total} readings; would be rejected: {found.rejects.total()}"
    yield from (f"  {number} {reason}" for reason, number in found.rejects.most_common())
    yield from (f"  {line}" for line in noted(found.notes))
    workers = default_workers()
    minutes = found.seconds_each * total / workers / 60
    yield (
        f"needs about {found.bytes_each * total / 1e9:.2f} GB in --out and {minutes:.1f} minutes"
        f" with {workers} workers (measured on {min(_TIMED, found.checked)} readings);"
        f" {shutil.disk_usage('.').free / 1e9:.0f} GB are free here"
    )
    yield "first contact: what the documents say, and how often it held (no rows, no ids)"
    tally = found.tally
    yield from _table(
        ("held", "broken", "statement"),
        [
            (str(tally.held[name]), str(tally.broken[name]), name)
            for name in sorted({*tally.held, *tally.broken})
        ],
    )
    yield from _table(
        ("median", "of"),
        [(f"{value:.4g}", name) for name, value in sorted(tally.medians().items())],
    )
    yield from _canvas(tally.vertical_scale())


def _drawn(found: Scan, files: InputFiles, figures: Path) -> Iterator[str]:
    """Name what would be rejected, and draw what fits least."""
    yield from found.told[:_NAMED]
    if len(found.told) > _NAMED:
        yield f"  and {len(found.told) - _NAMED} more, which a run lists in rejects.parquet"
    make_folder(figures)
    for oddness, fit, raw in found.odd:
        image = None
        with contextlib.suppress(BadInputError):
            image = read_image(raw.image_path, files, ImageOptions())
        path = figures / f"{raw.dataset}-{raw.reading_id}.png"
        figure = odd_readings.figure_of(raw, image)
        refuse_foreign(path, SOFTWARE_MARK)
        save_figure(figure, path)
        why = "cannot be true" if oddness >= 2 else "fits least"
        yield (
            f"drawn, as it {why}: {path}; {fit.on_image:.0%} of its gaze is on the image, its words"
            f" begin {fit.begins_s:.1f} s and end {fit.ends_s:.1f} s after the gaze"
        )


def _canvas(ratio: float | None) -> Iterator[str]:
    if ratio is not None:
        yield (
            f"eye_gaze: gaze follows named boxes down the image {ratio:.3f} times as far as across;"
            " 1 if the canvas filled the screen, 0.948 if it was letterboxed"
        )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows) if rows else ():
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)]
        yield f"  {'  '.join(cells).rstrip()}"
