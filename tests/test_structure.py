"""What the code may know of what: the flow, the facts and their one home."""

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
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

NUMERICS = ("align", "sentences", "geometry", "render")
FILES_AND_CLUSTERS = ("os", "pathlib", "shutil", "io", "dask", "distributed", "pyarrow")
ENDS = (
    "sources", "parse", "input_files", "out_folder", "whole_files", "parts", "shards", "run",
    "cluster", "render_again", "cli", "picture", "progress", "manifests",
)  # fmt: skip


def imports(name: str) -> set[str]:
    """Name every module that a module imports, wherever in it, with what it takes from it."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            found |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return found


def reaches(name: str, *targets: str) -> set[str]:
    return {
        one
        for one in imports(name)
        for target in targets
        if one == target or one.startswith(f"{target}.")
    }


def below(package: str) -> list[str]:
    prefix = f"egma_prep.{package}"
    return [name for name in MODULES if name == prefix or name.startswith(f"{prefix}.")]


def test_the_parser_of_imports_sees_what_there_is() -> None:
    assert "egma_prep.gaze.align" in imports("egma_prep.shards.assemble")
    assert "egma_prep.synth.gaze" in imports("egma_prep.synth.readings")  # from . import gaze
    assert "egma_prep.etl.run" in imports("egma_prep.cli")  # inside a function


@pytest.mark.parametrize("name", below("synth"))
def test_the_phantom_generator_knows_nothing_of_the_pipeline(name: str) -> None:
    ours = reaches(name, "egma_prep")
    assert {one for one in ours if not f"{one}.".startswith("egma_prep.synth.")} <= {"egma_prep"}
    assert not ours & {f"egma_prep.{module}" for module in ENDS + NUMERICS}


@pytest.mark.parametrize("name", NUMERICS)
def test_numerics_know_no_files_and_no_cluster(name: str) -> None:
    assert not reaches(f"egma_prep.{name}", *FILES_AND_CLUSTERS)
    calls = [node for node in ast.walk(TREES[f"egma_prep.{name}"]) if isinstance(node, ast.Call)]
    assert "open" not in {call.func.id for call in calls if isinstance(call.func, ast.Name)}


@pytest.mark.parametrize("name", NUMERICS)
def test_numerics_know_nothing_of_the_stages_around_them(name: str) -> None:
    assert not reaches(f"egma_prep.{name}", *(f"egma_prep.{end}" for end in ENDS))


def test_only_the_command_line_knows_click() -> None:
    users = [name for name in MODULES if reaches(name, "click")]
    assert users == ["egma_prep.cli", "egma_train.cli", "egma_train.evaluate.cli"]


def test_only_the_modules_of_clusters_know_dask() -> None:
    users = [name for name in MODULES if reaches(name, "dask", "distributed")]
    assert users == [f"egma_prep.{name}" for name in ("cluster", "outside_cluster", "own_cluster")]


@pytest.mark.parametrize("name", [*below("sources"), *below("parse")])
def test_sources_know_nothing_of_what_becomes_of_a_reading(name: str) -> None:
    later = ("render", "assemble", "shards", "parts", "run", "render_again", "out_folder")
    later += ("whole_files", "schema")
    later += ("cluster", "cli", "picture", "align", "sentences", "geometry", "images")
    assert not reaches(name, *(f"egma_prep.{module}" for module in later))


@pytest.mark.parametrize("name", below("parse"))
def test_parsers_take_bytes_and_know_no_files(name: str) -> None:
    assert not reaches(
        name, "os", "pathlib", "shutil", "egma_prep.sources.files", "egma_prep.sources.registry"
    )


VIEWERS = (
    "egma_prep.shards.encode",
    "egma_prep.exports.export",
    "egma_prep.look.inspect",
    *below("exports"),
    *below("report"),
)


@pytest.mark.parametrize("name", VIEWERS)
def test_what_shows_and_hands_on_knows_only_what_is_written(name: str) -> None:
    before = ("sources", "parse", "align", "assemble", "input_files", "planning", "run", "shards")
    assert not reaches(name, *(f"egma_prep.{module}" for module in before))


@pytest.mark.parametrize("name", PREP)
def test_nothing_of_preprocessing_knows_training(name: str) -> None:
    assert not reaches(name, "egma_train", "torch", "torchvision", "timm", "transformers")


@pytest.mark.parametrize("name", TRAIN)
def test_training_knows_the_shards_only(name: str) -> None:
    assert not reaches(name, "egma_prep", "dask", "spacy", "torchvision", "timm")


def test_the_losses_know_tensors_only() -> None:
    ours = imports("egma_train.losses")
    assert {one.split(".")[0] for one in ours} == {"collections", "typing", "torch"}


# Each module of training knows only those before it.
TRAIN_LAYERS = (
    ("errors",), ("safe_text", "whole_files", "lock", "losses", "key_names", "vocabulary"),
    ("parquet_pages", "cache_folder"),
    ("own_process", "shards", "processes"), ("options", "store"), ("cache", "augment"),
    ("model", "sampling"), ("loading", "weights", "run_folder"), ("train",), ("start",),
    ("cli",), ("__main__",),
    *(tuple(f"evaluate.{one}" for one in names) for names in (
        ("colour",), ("pictures", "dicom"),
        ("shipped", "frames", "intervals", "reports", "user_files", "image_files"), ("metrics",),
        ("prompts", "image_lists", "encoder"),
        ("chexpert", "rsna", "siim", "compare"),
        ("tasks", "zero_shot", "retrieval", "grounding", "embeddings"),
        ("differences",), ("table", "ablation"), ("cli",),
    )),
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(TRAIN) - {"egma_train", "egma_train.evaluate"}))
def test_training_flows_one_way(name: str) -> None:
    layer_of = {f"egma_train.{one}": i for i, names in enumerate(TRAIN_LAYERS) for one in names}
    known = {one for one in imports(name) if one in layer_of and one != name}
    assert all(layer_of[one] < layer_of[name] for one in known)


@pytest.mark.parametrize("name", ["loss_oracle"])
def test_the_oracle_of_the_losses_imports_nothing_of_ours(name: str) -> None:
    text = (ROOT / "tests" / f"{name}.py").read_text()
    assert not re.search(r"^\s*(from|import) +(egma|torch)", text, re.MULTILINE)


def test_no_module_imports_in_a_circle() -> None:
    def visit(name: str, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if name in above:
            yield (*above[above.index(name) :], name)
        elif name not in done:
            for other in sorted(imports(name) & set(MODULES) - {"egma_prep", "egma_train"}):
                yield from visit(other, (*above, name))
            done.add(name)

    done: set[str] = set()
    circles = [circle for name in MODULES for circle in visit(name, ())]
    # A package's __init__ may be reached from its own modules.
    assert not [circle for circle in circles if len({c.split(".")[1] for c in circle}) > 1]


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
COLUMNS = [
    (dataset, table, column)
    for dataset, manifest in MANIFESTS.items()
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


@pytest.mark.parametrize("dataset", MANIFESTS)
def test_a_declaration_says_where_to_get_the_data_and_under_which_licence(dataset: str) -> None:
    declared = MANIFESTS[dataset]
    assert declared["access"].startswith("https://")
    assert {"name", "version", "licence", "counts"} <= set(declared)


@pytest.mark.parametrize("column", sorted({column for _, _, column in COLUMNS if len(column) > 4}))
def test_a_column_name_is_written_in_its_declaration_only(column: str) -> None:
    # Names that our own tables share with the release are not told apart by their text.
    ours = {"dicom_id", "study_id", "subject_id", "certainty", "split", "image"}
    dicom = (
        "egma_prep.images.dicom",
        "egma_train.evaluate.images.dicom",
    )  # has keywords of its own
    writers = {
        name
        for name, tree in TREES.items()
        if not name.startswith(("egma_prep.synth", *dicom))
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value == column
    }
    assert column in ours or not writers


def test_every_source_is_one_module_with_a_name_and_a_look() -> None:
    modules = {path.stem for path in (PACKAGE / "sources").glob("*.py")} - {"__init__"}
    assert set(sources()) == modules
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
