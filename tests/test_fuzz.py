"""Any bytes in any input file: records or a named reject, never another error, never a hang."""

import contextlib
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Campaign, egma_prep
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from egma_prep import open_shards
from egma_prep.errors import BadInputError, BadUsageError, Reject
from egma_prep.etl.make_part import load_reading
from egma_prep.etl.parts import Job
from egma_prep.etl.run import planned_subjects
from egma_prep.gaze.frame import frame_of
from egma_prep.images import framed, image_size
from egma_prep.options import Options, read_config, with_changes
from egma_prep.sources.files import InputFiles
from egma_prep.sources.reading import PlannedReading
from egma_prep.sources.recognisers import WordsFile, dictated
from egma_prep.sources.registry import SubjectPlan, choose_source, sources
from egma_prep.storage.atomic import read_json
from egma_prep.synth import write_tree
from egma_prep.synth.dictation import Token
from egma_prep.synth.recogniser_files import WORDS_FILES
from egma_prep.synth.tracker_files import GAZE_FILES as GAZE
from egma_train.data.shards import read_shard
from egma_train.errors import BadUsageError as BadTrainingUsageError

SECONDS_PER_INPUT = 300

# -- damage ---------------------------------------------------------------------------------------

TOKENS = [
    b"", b"NaN", b"-inf", b"1e400", b"-1e308", b"1_000", b"0x1f", b"9" * 400, b"-0.0", b"1e-320",
    "\N{ARABIC-INDIC DIGIT THREE}".encode(), "\N{SKULL}".encode(), b"\xed\xa0\x80", b"\xff\xfe",
    b"\0", b"\n", b"\r", b",", b'"', b'""', b";", b"../../x", b"true", b"null", b"{}", b"[" * 9000,
    b'\\ud800', b"<script>", b"=1+1", b"\xff\xd9", b"\xff\xda\x00\x08", b"\x1f\x8b", b"PK\x03\x04",
]  # fmt: skip

PLACES = st.floats(0, 1, exclude_max=True)
MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), PLACES, st.integers(0, 7)),
        st.tuples(st.just("cut"), PLACES, st.none()),
        st.tuples(st.just("insert"), PLACES, st.sampled_from(TOKENS)),
        st.tuples(st.just("cell"), PLACES, st.sampled_from(TOKENS)),
        st.tuples(st.just("overwrite"), PLACES, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("repeat"), PLACES, st.integers(1, 4000)),
        st.tuples(st.just("drop"), PLACES, st.integers(1, 4000)),
    ),
    min_size=1,
    max_size=4,
)
SEPARATORS = b',\n\r:{}[]"'


def mutated(data: bytes, mutations: list[tuple[str, float, Any]]) -> bytes:
    """Apply damage, one after the other, at places given as shares of the length."""
    for kind, place, what in mutations:
        at = int(place * len(data))
        data = DAMAGE[kind](data, at, what)
    return data


def replace_cell(data: bytes, at: int, token: bytes) -> bytes:
    """Put a token in the place of the cell, number or string around a position."""
    begin, end = at, at
    while begin and data[begin - 1] not in SEPARATORS:
        begin -= 1
    while end < len(data) and data[end] not in SEPARATORS:
        end += 1
    return data[:begin] + token + data[end:]


DAMAGE: dict[str, Callable[[bytes, int, Any], bytes]] = {
    "flip": lambda d, at, bit: d[:at] + bytes(b ^ 1 << bit for b in d[at : at + 1]) + d[at + 1 :],
    "cut": lambda d, at, _: d[:at],
    "insert": lambda d, at, token: d[:at] + token + d[at:],
    "cell": replace_cell,
    "overwrite": lambda d, at, new: d[:at] + new + d[at + len(new) :],
    "repeat": lambda d, at, n: d[: at + n] + d[at:],
    "drop": lambda d, at, n: d[:at] + d[at + n :],
}


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"still at work after {SECONDS_PER_INPUT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS_PER_INPUT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# -- files of trees -------------------------------------------------------------------------------

FILES = {
    "REFLACX metadata": ("mimic_eye", "*/REFLACX/metadata.csv"),
    "REFLACX fixations": ("mimic_eye", "*/REFLACX/main_data/*/fixations.csv"),
    "REFLACX words": ("mimic_eye", "*/REFLACX/main_data/*/timestamps_transcription.csv"),
    "REFLACX ellipses": ("mimic_eye", "*/REFLACX/main_data/*/anomaly_location_ellipses.csv"),
    "REFLACX chest boxes": ("mimic_eye", "*/REFLACX/main_data/*/chest_bounding_box.csv"),
    "EYE GAZE master sheet": ("mimic_eye", "*/EyeGaze/master_sheet.csv"),
    "EYE GAZE fixations": ("mimic_eye", "*/EyeGaze/fixations.csv"),
    "EYE GAZE boxes": ("mimic_eye", "*/EyeGaze/bounding_boxes.csv"),
    "EYE GAZE transcripts": ("mimic_eye", "*/EyeGaze/*/*/transcript.json"),
    "MIMIC-CXR image metadata": ("mimic_eye", "*/CXR-JPG/cxr_meta.csv"),
    "MIMIC-CXR splits": ("mimic_eye", "*/CXR-JPG/cxr_split.csv"),
    "MIMIC-CXR labels": ("mimic_eye", "*/CXR-JPG/cxr_chexpert.csv"),
    "JPEG images": ("mimic_eye", "*/CXR-JPG/*/*.jpg"),
    "MIMIC-CXR reports": ("mimic_cxr", "files/*/*/s*.txt"),
    "gzipped MIMIC-CXR metadata": ("mimic_cxr", "*metadata.csv.gz"),
    "DICOM images": ("reflacx", "**/*.dcm"),
    "native REFLACX metadata": ("reflacx", "main_data/metadata_phase_*.csv"),
    "native EYE GAZE master sheet": ("eye_gaze", "master_sheet.csv"),
    "native EYE GAZE fixations": ("eye_gaze", "fixations.csv"),
    "facts of recordings": ("recordings csv", "dataset.toml"),
    "recordings' table": ("recordings csv", "readings.csv"),
    **{f"gaze of {name}": (f"recordings {name}", f"*/{one.file}") for name, one in GAZE.items()},
}

EXTRAS = {
    "REFLACX ellipses", "REFLACX chest boxes", "EYE GAZE boxes", "MIMIC-CXR image metadata",
    "MIMIC-CXR splits", "MIMIC-CXR labels",
}  # fmt: skip
"""Of these no damage rejects a reading."""


class Overlaid(InputFiles):
    """A tree of which one file has other bytes."""

    def __init__(self, root: Path, images: Path | None) -> None:
        super().__init__(root, images)
        self.victim, self.bytes = Path(), b""
        self.asked: set[Path] = set()

    def read(self, path: str) -> bytes:
        self.asked.add(self.place(path))
        if self.place(path) != self.victim:
            return super().read(path)
        self.fingerprints[path] = {"size": len(self.bytes)}
        return self.bytes


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path | None]]:
    """Roots of small trees by layout, and their folders of images."""
    home = tmp_path_factory.mktemp("fuzz")
    write_tree(home / "mimic_eye", 3, small=True, seed=3)
    write_tree(home / "reflacx", 3, small=True, seed=3, layout="reflacx", dicom=True)
    write_tree(home / "eye_gaze", 3, small=True, seed=3, layout="eye_gaze")
    for name in GAZE:
        folder = home / f"recordings {name}"
        write_tree(folder, 3, small=True, seed=3, layout="recordings", gaze=name)
    return {
        **{f"recordings {name}": (home / f"recordings {name}", None) for name in GAZE},
        "mimic_eye": (home / "mimic_eye", None),
        "reflacx": (home / "reflacx", home / "reflacx" / "images"),
        "eye_gaze": (home / "eye_gaze", home / "eye_gaze" / "images"),
        "mimic_cxr": (home / "eye_gaze" / "images", None),
    }


class Bench:
    """Plans and loads a tree again and again; what a file has no part in is done once."""

    def __init__(self, job: Job) -> None:
        self.job, self.files = job, Overlaid(job.data, job.images)
        self.subjects = self.planned()
        self.for_the_plan = set(self.files.asked)
        self.images: dict[str, Any] = {}
        self.readers: dict[Path, list[PlannedReading]] = defaultdict(list)
        for reading in self.readings():
            self.files.asked.clear()
            self.turns = 9  # the whole way, so that the image is asked for
            self.loaded(reading, self.images)
            for path in self.files.asked:
                self.readers[path].append(reading)

    def planned(self) -> list[SubjectPlan]:
        self.files.forget_tables()
        return planned_subjects(choose_source(self.files, self.job.source), self.files)

    def readings(self) -> list[PlannedReading]:
        return [reading for subject in self.subjects for reading in subject.readings]

    def loaded(self, reading: PlannedReading, images: dict[str, Any]) -> str:
        """Parse a reading's files; every tenth time align and render it too."""
        self.files.forget_tables()
        self.turns += 1
        if self.turns % 10:
            return self.parsed(reading)
        made = load_reading(reading, self.job, self.files, images)
        if not isinstance(made, Reject):
            return "written"
        assert made.reason != "unexpected", made.message
        return made.reason

    def parsed(self, reading: PlannedReading) -> str:
        options = self.job.options
        try:
            raw = sources()[self.job.source].load(reading, self.files, options.source)
            if self.files.place(raw.image_path) == self.files.victim:
                width, height = image_size(self.files.bytes, raw.image_path)
                if width * height < options.image.max_megapixels * 1e6:
                    framed(self.files.bytes, raw.image_path, frame_of(width, height, "pad"))
        except BadInputError as error:
            return error.reason
        return "written"

    def outcomes(self, victim: Path, instead: bytes) -> list[str]:
        """Say what becomes of every reading that a file has a part in."""
        self.files.victim, self.files.bytes = victim, instead
        found: list[str] = []
        readings = self.readers[victim]
        if victim in self.for_the_plan:
            try:
                subjects = self.planned()
            except BadUsageError:
                return ["refused"]
            found = [reject.reason for subject in subjects for reject in subject.rejects]
            known = self.readings()
            planned = [reading for subject in subjects for reading in subject.readings]
            readings = [one for one in planned if one in self.readers[victim] or one not in known]
            found += ["as before"] * (len(planned) - len(readings))
        is_image = victim.suffix in (".jpg", ".dcm")
        return found + [self.loaded(one, {} if is_image else self.images) for one in readings]


def fuzz_row(name: str) -> Any:
    return pytest.mark.fault(
        f"random damage to {name}",
        "property-based: bits flipped, cells replaced, cut, inserted, repeated, dropped",
        "records or a named reject; never another error, never a hang",
    )


@pytest.mark.parametrize("name", [pytest.param(name, marks=fuzz_row(name)) for name in FILES])
def test_any_damage_to_a_file_gives_records_or_a_named_reject(
    trees: dict[str, tuple[Path, Path | None]], tmp_path: Path, campaign: Campaign, name: str
) -> None:
    layout, pattern = FILES[name]
    root, images = trees[layout]
    victims = sorted(root.glob(pattern))
    assert victims
    source = layout.partition(" ")[0]
    bench = Bench(Job(root, images, tmp_path, source, Options()))
    seen: Counter[str] = Counter()

    @settings(
        max_examples=campaign.inputs, deadline=timedelta(seconds=SECONDS_PER_INPUT),
        suppress_health_check=list(HealthCheck), database=None, derandomize=True,
    )  # fmt: skip
    @given(which=st.integers(0, len(victims) - 1), mutations=MUTATIONS)
    @example(which=0, mutations=[])  # what is whole is written, whatever versions draw below
    def holds(which: int, mutations: list[tuple[str, float, Any]]) -> None:
        victim = victims[which]
        other = mutated(victim.read_bytes(), mutations)
        with no_hang():
            seen.update(bench.outcomes(victim, other))

    holds()
    if name in EXTRAS:
        assert seen.keys() <= {"written", "as before"}
    else:
        assert (
            seen["written"] + seen["as before"] and len(seen) > 1
        )  # some damage does no harm, some does
    campaign.say(f"{name}: {campaign.inputs} damaged files", seen)


# -- recognisers' exports -------------------------------------------------------------------------

SAID = [
    Token(word, at / 2, at / 2 + 0.4, at // 6)
    for at, word in enumerate(["no", "effusion", ",", "2", "cm", "nodule", ".", "clear", "."])
]


@pytest.mark.parametrize("name", sorted(WORDS_FILES))
def test_any_damage_to_a_recognisers_export_gives_words_or_a_named_reject(
    name: str, campaign: Campaign
) -> None:
    written = WORDS_FILES[name].write(SAID)
    kept = written.encode() if isinstance(written, str) else written
    facts = WordsFile(format=name)
    seen: Counter[str] = Counter()

    @settings(
        max_examples=campaign.inputs, deadline=timedelta(seconds=SECONDS_PER_INPUT),
        suppress_health_check=list(HealthCheck), database=None, derandomize=True,
    )  # fmt: skip
    @given(MUTATIONS)
    @example([])
    def holds(mutations: list[tuple[str, float, Any]]) -> None:
        try:
            with no_hang():
                words = dictated(mutated(kept, mutations), "words", facts).words
            assert np.isfinite([words.begin_s, words.end_s]).all()
            assert len(words.text) == len(words.begin_s) == len(words.end_s)
            seen["read"] += 1
        except BadInputError as error:
            assert "\n" not in str(error)
            seen[error.reason] += 1

    holds()
    assert seen["read"] and len(seen) > 1
    campaign.say(f"words as {name}: {campaign.inputs} damaged files", seen)


# -- files of ours, and options -------------------------------------------------------------------


def read_back(path: Path) -> None:
    len([reading.image for reading in open_shards(path)])


def train_from(path: Path) -> None:
    list(read_shard(path))


OURS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "Parquet shards, by open_shards": ("shards/*.parquet", read_back),
    "NPZ shards, by open_shards": ("npz/*.npz", read_back),
    "Parquet shards, by egma-train": ("shards/*.parquet", train_from),
    "NPZ shards, by egma-train": ("npz/*.npz", train_from),
    "run.json": ("run.json", read_json),
    "a TOML of options": (
        "options.toml", lambda path: with_changes(Options(), read_config(str(path)))
    ),
}  # fmt: skip
OPTIONS = '[render]\nsigma = 16.0\nlead = 1.5\nwindow = "spoken"\n[image]\nmax_megapixels = 200\n'


@pytest.mark.parametrize("name", [pytest.param(name, marks=fuzz_row(name)) for name in OURS])
def test_any_damage_to_a_file_of_ours_is_refused_by_name_or_harmless(
    trees: dict[str, tuple[Path, Path | None]], tmp_path: Path, campaign: Campaign, name: str
) -> None:
    pattern, read = OURS[name]
    out = tmp_path / "out"
    quietly = ("--set", "execution.processes=false")
    assert egma_prep("run", trees["mimic_eye"][0], "--out", out, *quietly).exit_code == 0
    egma_prep("export", out / "npz", "--to", "npz", "--out", out)
    (out / "options.toml").write_text(OPTIONS)
    victim = sorted(out.glob(pattern))[0]
    kept, seen = victim.read_bytes(), {"read": 0, "refused": 0}

    @settings(
        max_examples=campaign.inputs, deadline=timedelta(seconds=SECONDS_PER_INPUT),
        suppress_health_check=list(HealthCheck), database=None, derandomize=True,
    )  # fmt: skip
    @given(MUTATIONS)
    def holds(mutations: list[tuple[str, float, Any]]) -> None:
        victim.write_bytes(mutated(kept, mutations))
        try:
            with no_hang():
                read(victim)
            seen["read"] += 1
        except (BadUsageError, BadTrainingUsageError) as error:
            seen["refused"] += 1
            assert "\n" not in str(error)

    holds()
    assert seen["refused"]
    campaign.say(f"{name}: {campaign.inputs} damaged files", seen)
