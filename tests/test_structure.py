"""The facts and their one home; who may import whom stands in pyproject.toml."""

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from egma_prep.errors import REASONS
from egma_prep.sources.registry import sources

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "egma_prep"


def modules_of(package: str) -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((ROOT / package).rglob("*.py"))
    }


PREP, TRAIN = modules_of("egma_prep"), modules_of("egma_train")
MODULES = PREP | TRAIN
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


@pytest.mark.parametrize("name", ["loss_oracle"])
def test_the_oracle_of_the_losses_imports_nothing_of_ours(name: str) -> None:
    text = (ROOT / "tests" / f"{name}.py").read_text()
    assert not re.search(r"^\s*(from|import) +(egma|torch)", text, re.MULTILINE)


# -- reasons --------------------------------------------------------------------------------------


def literal_reasons() -> dict[str, set[str]]:
    """Map each reason that is raised anywhere to the modules that raise it."""
    found: dict[str, set[str]] = {}
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if called and node.func.id == "BadInputError":
                first = node.args[0]
                assert isinstance(first, ast.Constant), f"{name}, line {node.lineno}"
                found.setdefault(first.value, set()).add(name)
    return found


def test_every_raised_reason_is_known() -> None:
    assert set(literal_reasons()) <= set(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_every_known_reason_is_raised_somewhere(reason: str) -> None:
    assert reason in literal_reasons()


def test_every_reason_says_how_to_mend_in_one_line() -> None:
    assert all(text and "\n" not in text for text in REASONS.values())


# -- declarations ---------------------------------------------------------------------------------

MANIFESTS = {
    path.stem: tomllib.loads(path.read_text())
    for path in sorted((ROOT / "data_manifests").glob("*.toml"))
}
RELEASES = ("eye-gaze", "mimic-cxr", "mimic-eye", "reflacx")
"""What the phantom trees imitate; a dataset of one's own has an example tree of its own."""
COLUMNS = [
    (dataset, table, column)
    for dataset, manifest in MANIFESTS.items()
    if dataset in RELEASES
    for table, declared in manifest.get("tables", {}).items()
    for column in declared["columns"].values()
]


def headers(phantom: Path, file: str) -> list[set[str]]:
    paths = [path for path in phantom.rglob(file) if "spreadsheets" not in path.parts]
    return [set(path.read_text().splitlines()[0].split(",")) for path in paths]


@pytest.mark.parametrize(("dataset", "table", "column"), COLUMNS)
def test_every_declared_column_is_in_the_phantom_trees(
    phantom: Path, dataset: str, table: str, column: str
) -> None:
    declared = MANIFESTS[dataset]["tables"][table]
    found = headers(phantom, declared.get("file", "metadata.csv"))
    # EYE GAZE and REFLACX have a fixations.csv each.
    assert any(set(declared["columns"].values()) <= header for header in found)
    assert any(column in header for header in found)


@pytest.mark.parametrize("dataset", sorted({*MANIFESTS} - {"recordings"}))
def test_a_declaration_says_where_to_get_the_data_and_under_which_licence(dataset: str) -> None:
    declared = MANIFESTS[dataset]
    assert declared["access"].startswith("https://")
    assert {"name", "version", "licence", "counts"} <= set(declared)


@pytest.mark.parametrize("column", sorted({column for _, _, column in COLUMNS if len(column) > 4}))
def test_a_column_name_is_written_in_its_declaration_only(column: str) -> None:
    # Names that our own tables share with the release are not told apart by their text.
    ours = {"dicom_id", "study_id", "subject_id", "certainty", "split", "image"}
    formats = (
        "egma_prep.images.dicom",
        "egma_train.evaluate.images.dicom",
        "egma_prep.sources.trackers",
    )  # have names of their own: a format is no dataset
    writers = {
        name
        for name, tree in TREES.items()
        if not name.startswith(("egma_prep.synth", *formats))
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value == column
    }
    assert column in ours or not writers


def test_every_source_is_one_module_with_a_name_and_a_look() -> None:
    modules = {path.stem for path in (PACKAGE / "sources").glob("*.py")}
    assert set(sources()) <= modules
    assert all(source.looks_like for source in sources().values())


# -- the project ----------------------------------------------------------------------------------


def wanted(optional: bool = True) -> set[str]:
    """Name the packages that the project asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    lines = [line for group in groups[: None if optional else 1] for line in group]
    return {re.split(r"[><=\[; ]", line)[0].lower() for line in lines}


def pinned() -> set[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {line.partition("==")[0].lower() for line in lines}


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_no_vision_library_is_needed(name: str) -> None:
    assert importlib.util.find_spec(name) is None
    assert name not in wanted() | pinned()


def test_torch_is_pinned_and_not_needed_to_preprocess() -> None:
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()
    assert not {"torch", "transformers"} & wanted(optional=False)


def test_every_dependency_is_pinned() -> None:
    assert wanted() <= pinned()


def test_outputs_are_not_committed() -> None:
    assert "/out/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("package", ["egma_prep", "egma_train"])
def test_a_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_written_by_what_an_allowed_version_takes_for_data(name: str) -> None:
    """As numpy before 2.2 does with ``allow_pickle`` of its savez."""
    calls = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    saves = [one for one in calls if "savez" in ast.unparse(one.func)]
    assert not [one for one in saves if "allow_pickle" in {word.arg for word in one.keywords}]
