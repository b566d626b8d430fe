"""The documents say what the code does."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import fault_of

import egma_train.options
from egma_prep.errors import REASONS
from egma_prep.options import Options
from egma_prep.shards.schema import IMAGES, REGION, REJECTS, SCHEMA_VERSION, SENTENCE, SHARD, TABLES
from egma_train.model.backbones.registry import NAMES

ROOT = Path(__file__).parent.parent


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def _table(page: str, heading: str) -> dict[str, str]:
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip(" `"): row[1].strip() for row in rows}


def test_every_option_is_documented_with_its_default() -> None:
    known = {
        f"{stage}.{name}": str(value).lower() if isinstance(value, bool) else str(value)
        for stage, values in asdict(Options()).items()
        for name, value in values.items()
    }
    documented = _table(_page("semantics.md"), "Options")
    assert {
        name: text.strip("`").replace("(empty)", "") for name, text in documented.items()
    } == known


def test_every_option_of_training_is_documented_with_its_defaults() -> None:
    def told(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return str(list(value)) if isinstance(value, tuple) else str(value) or "(empty)"

    section = _page("training.md").split("## Options\n")[1].split("\n## ")[0]
    rows = [
        tuple(cell.strip(" `") for cell in line.strip("|").split("|"))
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    assert rows == [
        (
            f"{stage}.{name}",
            told(value),
            told(tiny) if (tiny := small.get(name)) is not None else "",
        )
        for stage, values in asdict(egma_train.options.Options()).items()
        for small in [egma_train.options.PRESETS["tiny"].get(stage, {})]
        for name, value in values.items()
    ]


def test_every_switch_of_the_published_code_is_documented() -> None:
    section = _page("training.md").split("## What differs")[1].split("\n## ")[0]
    switched = {
        f"{stage}.{name}"
        for stage, values in egma_train.options.PRESETS["official-code"].items()
        for name in values
    }
    assert set(re.findall(r"`(\w+\.\w+)`", section)) == switched


def test_every_family_of_models_has_a_row_with_its_licence() -> None:
    rows = re.findall(r"^\| (`.*?) \|", _page("models.md"), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert told == {*NAMES, "medclip-vit"}


def test_every_reject_reason_is_documented_with_its_remedy() -> None:
    assert _table(_page("semantics.md"), "Rejects") == REASONS


def test_every_column_of_every_output_is_documented() -> None:
    page = _page("shard-format.md")
    columns = {*SHARD.names, *IMAGES.names, *REJECTS.names}
    columns |= {f"sentences.{field.name}" for field in SENTENCE}
    columns |= {f"regions.{field.name}" for field in REGION}
    columns |= {name for schema in TABLES.values() for name in schema.names}
    assert columns - set(re.findall(r"`([\w.]+)`", page)) == set()
    assert f"schema {SCHEMA_VERSION}" in page


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], ids=lambda p: p.name
)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or page.parent.joinpath(target).exists(), target


@pytest.mark.parametrize("package", ["egma_prep", "egma_train"])
def test_the_modules_that_the_readme_lists_are_there(package: str) -> None:
    tree = re.split(rf"^{package}/.*\n", (ROOT / "README.md").read_text(), flags=re.MULTILINE)[1]
    listed = re.findall(
        r"^  (\w+)[./]", re.split(r"^\S", tree, flags=re.MULTILINE)[0], re.MULTILINE
    )
    assert listed and set(listed) <= {path.stem for path in (ROOT / package).iterdir()}


def test_the_page_of_faults_has_the_rows_that_the_tests_declare(
    request: pytest.FixtureRequest,
) -> None:
    lines = _page("reliability.md").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if re.match(r"\| \d", line)]
    told = {tuple(cells[1:4]) for cells in rows}
    declared = {fault for item in request.session.items if (fault := fault_of(item))}
    assert declared <= told
    collected = {item.path for item in request.session.items}
    if collected >= set((ROOT / "tests").glob("test_*.py")):  # the whole suite
        assert declared == told and len(told) >= 60
    assert not [cells for cells in rows if "held" not in cells[4] and "not run" not in cells[4]]
