"""Every source in the folder keeps the contract; a new one needs no edit elsewhere."""

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path

import numpy as np
import pytest
from conftest import egma_prep, run_etl

import egma_prep.sources as layouts
from egma_prep.errors import BadInputError
from egma_prep.images import image_size
from egma_prep.options import SourceOptions
from egma_prep.sources import manifests, registry
from egma_prep.sources.check_reading import MENDED, check_reading
from egma_prep.sources.files import InputFiles
from egma_prep.sources.reading import typed_reading
from egma_prep.sources.registry import choose_source, sources
from egma_prep.storage.paths import shipped_folder
from egma_prep.synth import LAYOUTS, write_tree

SAFE_ID = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
PAGE = (Path(__file__).parent.parent / "docs" / "new_source.md").read_text()
MODULE, DECLARATION = (
    re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[1]  # type: ignore[index]
    for kind in ("python", "toml")
)
READING = {
    "reading.csv": "patient,image\n{patient},{name}-1\n",
    "gaze.csv": "start,stop,x,y\n0.1,0.4,100,120\n0.5,0.9,{x},90.5\n",
    "words.csv": "word,start,stop\nheart,0.1,0.35\nnormal,0.5,0.8\n.,0.8,0.8\n",
}


@pytest.fixture
def lab(tmp_path: Path, phantom: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Drop the page's source and declaration into their folders, and write a tree of its layout."""
    folder = tmp_path / "dropped"
    folder.mkdir()
    (folder / "lab.py").write_text(MODULE)
    declared = tmp_path / "data_manifests"
    shutil.copytree(shipped_folder("data_manifests"), declared)
    (declared / "lab.toml").write_text(DECLARATION)
    monkeypatch.setattr(manifests, "shipped_folder", lambda _: declared)
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(folder)])
    image = next(phantom.glob("patient_*/CXR-JPG/s*/*.jpg")).read_bytes()
    for name, x in (("bear", 200), ("car", -5), ("doll", 210)):
        reading = tmp_path / "data" / "readings" / name
        reading.mkdir(parents=True)
        for file, text in READING.items():
            patient = "P1" if name == "bear" else "P2"
            (reading / file).write_text(text.format(name=name, patient=patient, x=x))
        (reading / f"{name}-1.jpg").write_bytes(image)
    importlib.invalidate_caches()
    yield tmp_path / "data"
    sys.modules.pop("egma_prep.sources.lab", None)
    registry.code_of.cache_clear()
    manifests.manifest.cache_clear()


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tree for every source: the phantom generator's, the images of a native one, and those
    that a module in ``example_trees/`` writes for a source of its name.
    """
    root = tmp_path_factory.mktemp("trees")
    for layout in LAYOUTS:
        write_tree(root / layout, 24, small=True, seed=3, layout=layout)
    found = {layout: root / layout for layout in LAYOUTS}
    found["mimic_cxr"] = root / "reflacx" / "images"
    image = next(found["mimic_eye"].glob("patient_*/CXR-JPG/s*/*.jpg"))
    for path in (Path(__file__).parent / "example_trees").glob("*.py"):
        module = SourceFileLoader(f"example_trees.{path.stem}", str(path)).load_module()
        module.write(root / path.stem, image)
        found[path.stem] = root / path.stem
    return found


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
            assert typed_reading(raw, planned).notes == raw.notes  # nothing was left out
            assert (raw.dataset, raw.reading_id) == planned.key
            for one in (raw.reading_id, raw.subject_id, raw.study_id, raw.dicom_id):
                assert SAFE_ID.fullmatch(one)
            assert raw.width > 0 and raw.height > 0
            assert files.has(raw.image_path)
            gaze = np.array(raw.fixations[:6])
            shown = raw.fixations.shown_px
            assert shown is None or (
                shown.shape == (len(gaze[0]), 4) and (shown[:, 2] > shown[:, 0]).all()
            )
            assert np.isfinite(gaze[:4]).all() and (gaze[1] >= gaze[0]).all()
            assert np.isnan(gaze[4:]).all() or (gaze[4:] > 0).all()  # a screen that is not known
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


def test_the_pages_source_keeps_the_contract(lab: Path) -> None:
    assert_keeps_the_contract("lab", lab)


def test_the_pages_source_has_at_most_a_hundred_lines() -> None:
    assert len(MODULE.splitlines()) <= 100


def test_the_pages_source_runs_end_to_end(lab: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run_etl(lab, out)
    assert result.exit_code == 0, result.output
    assert "lab: 3 readings planned" in result.output
    assert "planned 3 = written 3 (lab 3) + rejected 0" in result.output
    assert "1 fixations off the image" in result.output
    shown = egma_prep("inspect", "bear", "--out", out)
    assert shown.exit_code == 0, shown.output
    checked = egma_prep("verify", "--out", out, "--against", lab)
    assert checked.exit_code == 0, checked.output
    card = (out / "README.md").read_text()
    assert "lab: CC0 1.0 (https://example.org/lab)." in card and "PhysioNet" not in card
    scanned = egma_prep("scan", lab)
    assert scanned.exit_code == 0, scanned.output
    assert "lab tree of 2 patients" in scanned.output
    assert re.search(r"lab +3 +120 readings", scanned.output)


def test_a_changed_source_makes_its_parts_again(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_etl(lab, tmp_path / "out").exit_code == 0
    assert "nothing to do" in run_etl(lab, tmp_path / "out").output
    module = tmp_path / "dropped" / "lab.py"
    module.write_text(module.read_text() + "# changed\n")
    registry.code_of.cache_clear()  # as in another process
    assert "again, other module or declaration" in run_etl(lab, tmp_path / "out").output


def test_a_changed_declaration_makes_its_parts_again(lab: Path, tmp_path: Path) -> None:
    assert run_etl(lab, tmp_path / "out").exit_code == 0
    declaration = tmp_path / "data_manifests" / "lab.toml"
    declaration.write_text(declaration.read_text().replace("40.0", "41.0"))
    registry.code_of.cache_clear()  # as in another process
    assert "again, other module or declaration" in run_etl(lab, tmp_path / "out").output


def test_a_reading_whose_folder_no_file_can_be_named_by_is_rejected(
    lab: Path, tmp_path: Path
) -> None:
    (lab / "readings" / "bear").rename(lab / "readings" / "my bear")
    result = run_etl(lab, tmp_path / "out", "--max-reject-share", 1)
    assert "rejected my bear (bad_id)" in result.output and "written 2 (lab 2)" in result.output
    assert egma_prep("inspect", "--out", tmp_path / "out").exit_code == 0


def test_a_scan_rejects_what_a_run_rejects_and_for_the_same_reason(
    lab: Path, tmp_path: Path
) -> None:
    give_bear(lab, "Words(", "text", "[' x', 'y', 'z']")
    assert re.search(r"would be rejected: 1\n +1 wrong_type", egma_prep("scan", lab).output)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("dropped/lab.py", "def (", r"sources/lab.py cannot be imported \(SyntaxError"),
        (
            "data_manifests/lab.toml",
            "name = ",
            r"lab.toml is no TOML \(Invalid value .*\); mend it",
        ),
        ("data_manifests/lab.toml", None, r"lab.toml is missing; declare the dataset there"),
    ],
)
def test_a_broken_source_or_declaration_is_one_line(
    lab: Path, tmp_path: Path, file: str, text: str | None, said: str
) -> None:
    path = tmp_path / file
    path.unlink() if text is None else path.write_text(text)
    result = run_etl(lab, tmp_path / "out")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert re.search(said, result.stderr), result.stderr


def test_a_fault_of_a_source_and_a_reason_that_is_none_say_where(lab: Path, tmp_path: Path) -> None:
    give_bear(lab, "labels=", "{}", "1 / 0")
    result = run_etl(lab, tmp_path / "out", "--max-reject-share", 1)
    assert "ZeroDivisionError: division by zero (lab.py:" in result.output
    assert "1 unexpected" in egma_prep("scan", lab).output
    with pytest.raises(ValueError, match=r"'bad_jsn' is no reason; errors\.REASONS has"):
        BadInputError("bad_jsn", "x", "y")


def test_an_unknown_source_lists_the_dropped_one_too(lab: Path, tmp_path: Path) -> None:
    result = run_etl(lab, tmp_path / "out", "--source", "game")
    assert result.exit_code == 2
    assert "lab" in sources() and ", ".join(sorted(sources())) in result.stderr


EXTRAS = {  # where in the source, what it gives there, what instead
    "an int split": ("split=", "None", "7"),
    "a split that pandas left blank": ("split=", "None", "np.nan"),
    "a split of another name": ("split=", "None", "'val'"),
    "a label of nobody": ("labels=", "{}", "{'Edema': 1.0}"),
    "an int view": ("view=", "None", "2"),
    "an int study": ("study_id=", "planned.study_id", "1"),
    "a label that is text": ("labels=", "{}", "{'lab:Edema': '1.0'}"),
    "a label that is no number": ("labels=", "{}", "{'lab:Edema': np.inf}"),
    "a box with a corner as text": ("regions=", "[]", "[Region('chest', 'box', 0, '1', 2, 3)]"),
}
NEEDED = {
    "an image's width as text": ("width=", "width", "str(width)", "width", "in another type"),
    "a number as a word": ("Words(", "text", "[7, 7, 7]", "words.text", "in another type"),
    "half a character": ("Words(", "text", "['x\\ud800', 'y', 'z']", "words.text", "in another"),
    "a word with a blank": ("Words(", "text", "[' x', 'y', 'z']", "words.text", "with blanks ar"),
    "a word of nothing": ("Words(", "text", "['', 'y', 'z']", "words.text", "with blanks around"),
    "too many times": (
        "Words(text, ", 'words.numbers(said["begin"])', "np.zeros(9)", "words", "in another type",
    ),
    "a word without a time": (
        "Words(text, ", 'words.numbers(said["begin"])', "np.array([0.1, np.nan, 0.8])", "words",
        "without times, though",
    ),
    "gaze with a report": (
        "words=", 'Words(text, words.numbers(said["begin"]), words.numbers(said["end"]))',
        "Words(text, *np.full((2, 3), np.nan))", "words", "without times, though there is gaze",
    ),
    "a fixation nowhere": (
        "Fixations(begin, end, ", "x", "np.nan * x", "fixations", "in another type",
    ),
    "no pixels a degree": (
        "end, x, y, ", "degree_px", "0 * degree_px", "fixations", "with 0 or fewer pixels",
    ),
    "an absolute path": ("image_path=", "image", "'/etc/passwd'", "image_path", "not below DATA"),
    "a path that leads out": ("image_path=", "image", "'../x'", "image_path", "not below DATA"),
    "a path that leads out of the images": (
        "image_path=", "image", "'images:../x'", "image_path", "not below DATA",
    ),
    "an absolute path below the images": (
        "image_path=", "image", "'images:/etc/passwd'", "image_path", "not below DATA",
    ),
    "an id that no file can have": (
        "dicom_id=", "planned.dicom_id", "'my bear'", "", "",
    ),
    "another reading's id": (
        "subject_id=", "planned.subject_id", "'P9'", "dataset, reading_id and subject_id",
        "other than it planned",
    ),
}  # fmt: skip


def give_bear(lab: Path, where: str, usual: str, other: str) -> None:
    """Let the source give one of its readings otherwise."""
    path = lab.parent / "dropped" / "lab.py"
    text = path.read_text().replace("RawReading, RowsOfFile", "RawReading, Region, RowsOfFile")
    assert text.count(where + usual) == 1
    chosen = f"({other} if planned.reading_id == 'bear' else {usual})"
    path.write_text(text.replace(where + usual, where + chosen))


@pytest.mark.parametrize("what", EXTRAS)
def test_an_extra_of_another_type_costs_nothing_but_itself(
    lab: Path, tmp_path: Path, what: str
) -> None:
    give_bear(lab, *EXTRAS[what])
    result = run_etl(lab, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "written 3 (lab 3)" in result.output
    assert "noted: 1 labels, boxes, splits or views that their source gives" in result.output


@pytest.mark.parametrize("what", NEEDED)
def test_what_a_heatmap_needs_and_cannot_be_rejects_its_reading_by_name(
    lab: Path, tmp_path: Path, what: str
) -> None:
    *change, name, how = NEEDED[what]
    give_bear(lab, *change)
    result = run_etl(lab, tmp_path / "out", "--max-reject-share", 1)
    assert result.exit_code == 0, result.output
    says = f"rejected bear (wrong_type): its source gives {name} of reading 'bear' {how}"
    if not name:
        says = "rejected bear (bad_id): : its source gives the dicom_id 'my bear'"
    assert says.replace(": : ", ": ") in result.output and "written 2 (lab 2)" in result.output
