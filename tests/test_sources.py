"""Every source in the folder keeps the contract; a new one needs no edit elsewhere."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import egma_prep, run_etl

from egma_prep.errors import BadInputError
from egma_prep.images import image_size
from egma_prep.options import SourceOptions
from egma_prep.sources import registry
from egma_prep.sources.check_reading import MENDED, check_reading
from egma_prep.sources.files import InputFiles
from egma_prep.sources.reading import typed_reading
from egma_prep.sources.registry import choose_source, sources
from egma_prep.synth import LAYOUTS, write_tree

SAFE_ID = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
TOY = '''
"""One folder a reading: word.txt, and image.jpg. Everybody looks at the middle for a second."""

import numpy as np

from egma_prep.images import image_size
from egma_prep.sources.reading import Fixations, PlannedReading, RawReading, Words
from egma_prep.sources.registry import SubjectPlan


class Toy:
    name = "toy"
    looks_like = "toys/<id>/word.txt"

    def recognises(self, files):
        return files.has("toys")

    def plan(self, files):
        for name in files.folders("toys"):
            yield SubjectPlan(name, [PlannedReading("toy", name, name, f"toys/{name}/word.txt")])

    def load(self, planned, files, options):
        word = files.read(planned.metadata_path).decode().strip()
        image = f"toys/{planned.reading_id}/image.jpg"
        width, height = image_size(files.read(image), image)
        one, middle = np.array([1.0]), (np.array([width / 2]), np.array([height / 2]))
        return RawReading(
            *planned.key, subject_id=planned.subject_id, study_id="1", dicom_id=planned.reading_id,
            split=None, view=None, image_path=image, width=width, height=height,
            fixations=Fixations(0 * one, one, *middle, 50 * one, 50 * one),
            words=Words([word], 0 * one, one), labels={}, regions=[],
        )


SOURCE = Toy()
'''


@pytest.fixture
def toy(tmp_path: Path, phantom: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Drop a source into the registry's folder, and write a tree of its layout."""
    folder = tmp_path / "dropped"
    folder.mkdir()
    (folder / "toy.py").write_text(TOY)
    monkeypatch.setattr(registry, "__path__", [*registry.__path__, str(folder)])
    image = next(phantom.glob("patient_*/CXR-JPG/s*/*.jpg")).read_bytes()
    for name in ("bear", "car"):
        (tmp_path / "data" / "toys" / name).mkdir(parents=True)
        (tmp_path / "data" / "toys" / name / "word.txt").write_text(f"{name}.")
        (tmp_path / "data" / "toys" / name / "image.jpg").write_bytes(image)
    importlib.invalidate_caches()
    yield tmp_path / "data"
    sys.modules.pop("egma_prep.sources.registry.toy", None)


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tree for every source: the phantom generator's, and the images of a native one."""
    root = tmp_path_factory.mktemp("trees")
    for layout in LAYOUTS:
        write_tree(root / layout, 24, small=True, seed=3, layout=layout)
    found = {layout: root / layout for layout in LAYOUTS}
    return found | {"mimic_cxr": root / "reflacx" / "images"}


def assert_keeps_the_contract(name: str, tree: Path) -> None:
    source, files = sources()[name], InputFiles(tree)
    assert source.name == name and source.looks_like
    assert choose_source(files) is source
    subjects = list(source.plan(files))
    readings = [reading for subject in subjects for reading in subject.readings]
    assert readings
    keys = [reading.key for reading in readings]
    assert len(set(keys)) == len(keys)
    loaded = 0
    for subject in subjects:
        files.forget_tables()
        for planned in subject.readings:
            assert planned.subject_id == subject.subject_id
            try:
                raw = source.load(planned, files, SourceOptions())
            except BadInputError:
                continue
            loaded += 1
            assert typed_reading(raw).notes == raw.notes  # nothing was left out
            assert (raw.dataset, raw.reading_id) == planned.key
            for one in (raw.reading_id, raw.subject_id, raw.study_id, raw.dicom_id):
                assert SAFE_ID.fullmatch(one)
            assert raw.width > 0 and raw.height > 0
            assert files.has(raw.image_path)
            gaze = np.array(raw.fixations)
            assert np.isfinite(gaze).all() and (gaze[1] >= gaze[0]).all()
            assert len(raw.words.text) == len(raw.words.begin_s) == len(raw.words.end_s) > 0
            assert not (raw.words.end_s < raw.words.begin_s).any()
            true = check_reading(raw, image_size(files.read(raw.image_path), raw.image_path))
            assert not {note: true.notes[note] for note in MENDED if true.notes.get(note)}
            assert all(np.isfinite(value) for value in raw.labels.values())
            assert all(region.x0 <= region.x1 for region in raw.regions)
    assert loaded


@pytest.mark.parametrize("name", sorted(sources()))
def test_a_source_keeps_the_contract_on_a_tree_of_its_layout(
    name: str, trees: dict[str, Path]
) -> None:
    assert_keeps_the_contract(name, trees[name])


@pytest.mark.parametrize("name", sorted(sources()))
def test_a_source_recognises_no_other_tree(
    name: str, trees: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<html></html>")
    source = sources()[name]
    assert not source.recognises(InputFiles(tmp_path))
    for other, tree in trees.items():
        assert source.recognises(InputFiles(tree)) == (other == name)


def test_a_source_dropped_into_the_folder_keeps_the_contract(toy: Path) -> None:
    assert_keeps_the_contract("toy", toy)


def test_a_source_dropped_into_the_folder_runs_end_to_end(toy: Path, tmp_path: Path) -> None:
    result = run_etl(toy, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "toy: 2 readings planned" in result.output
    assert "planned 2 = written 2 (toy 2) + rejected 0" in result.output
    shown = egma_prep("inspect", "bear", "--out", tmp_path / "out")
    assert shown.exit_code == 0, shown.output
    scanned = egma_prep("scan", toy)
    assert scanned.exit_code == 0, scanned.output
    assert "toy tree of 2 patients" in scanned.output


def test_an_unknown_source_lists_the_dropped_one_too(toy: Path, tmp_path: Path) -> None:
    result = run_etl(toy, tmp_path / "out", "--source", "game")
    assert result.exit_code == 2
    assert "eye_gaze, mimic_cxr, mimic_eye, reflacx, toy" in result.stderr


EXTRAS = {  # where in the source, what it gives there, what instead
    "an int split": ("split=", "None", "7"),
    "a split that pandas left blank": ("split=", "None", "np.nan"),
    "an int view": ("view=", "None", "2"),
    "an int study": ("study_id=", '"1"', "1"),
    "a label that is text": ("labels=", "{}", "{'toy:Edema': '1.0'}"),
    "a label that is no number": ("labels=", "{}", "{'toy:Edema': np.inf}"),
    "a box with a corner as text": ("regions=", "[]", "[Region('chest', 'box', 0, '1', 2, 3)]"),
}
NEEDED = {
    "an image's width as text": ("width=", "width", "str(width)", "width"),
    "a number as a word": ("Words(", "[word]", "[7]", "words.text"),
    "half a character": ("Words(", "[word]", "['bear\\ud800']", "words.text"),
    "two times for one word": ("Words([word], ", "0 * one", "np.zeros(2)", "words"),
    "a fixation nowhere": ("Fixations(0 * one, ", "one", "np.nan * one", "fixations"),
    "a fixation as text": ("*middle, ", "50 * one", "['50px']", "fixations"),
}


def give_bear(toy: Path, where: str, usual: str, other: str) -> None:
    """Let the source give one of its readings otherwise."""
    path = toy.parent / "dropped" / "toy.py"
    text = path.read_text().replace("import Fixations,", "import Fixations, Region,")
    assert text.count(where + usual) == 1
    chosen = f"({other} if planned.reading_id == 'bear' else {usual})"
    path.write_text(text.replace(where + usual, where + chosen))


@pytest.mark.parametrize("what", EXTRAS)
def test_an_extra_of_another_type_costs_nothing_but_itself(
    toy: Path, tmp_path: Path, what: str
) -> None:
    give_bear(toy, *EXTRAS[what])
    result = run_etl(toy, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "written 2 (toy 2)" in result.output
    assert "noted: 1 labels, boxes, splits or views that their source gives" in result.output


@pytest.mark.parametrize("what", NEEDED)
def test_what_a_heatmap_needs_in_another_type_rejects_its_reading_by_name(
    toy: Path, tmp_path: Path, what: str
) -> None:
    *change, name = NEEDED[what]
    give_bear(toy, *change)
    result = run_etl(toy, tmp_path / "out", "--max-reject-share", 1)
    assert result.exit_code == 0, result.output
    says = f"rejected bear (wrong_type): its source gives {name} of reading 'bear' in another type"
    assert says in result.output and "written 1 (toy 1)" in result.output
