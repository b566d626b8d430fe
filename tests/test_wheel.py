"""The built wheel, away from the checkout, runs the demo."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import PATIENCE_S
from evaluation import picture, save_tiny_model, write_picture

ROOT = Path(__file__).parent.parent
EVALUATION = ROOT / "data_manifests" / "evaluation"
TEMPLATES = ROOT / "egma_prep" / "look" / "report" / "templates"
PAGES = ROOT / "egma_train" / "evaluate" / "templates"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--quiet", "--wheel-dir", str(place), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content alone."""
    place = tmp_path_factory.mktemp("elsewhere") / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def python(site: Path, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code where the dependencies are found, but the checkout is not.

    Without the site module the path file of an editable install is not read.
    """
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    env = {name: value for name, value in os.environ.items() if not name.startswith("EGMA_")}
    return subprocess.run(
        [sys.executable, "-S", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=site.parent,
        env=env | {"PYTHONPATH": os.pathsep.join([str(site), *libraries])},
    )


COMMAND = "from egma_prep.cli import main; main()"


@pytest.mark.parametrize(
    "inside",
    [
        "egma_prep/cli.py",
        "egma_prep/synth/tree.py",
        "egma_prep/py.typed",
        *(
            f"egma_prep/data_manifests/{path.name}"
            for path in (ROOT / "data_manifests").glob("*.toml")
        ),
        *(f"egma_train/evaluate/data/{path.name}" for path in EVALUATION.iterdir()),
        *(f"egma_prep/look/report/templates/{path.name}" for path in TEMPLATES.iterdir()),
        *(f"egma_train/evaluate/templates/{path.name}" for path in PAGES.iterdir()),
        *(f"egma_prep/pipelines/{path.name}" for path in (ROOT / "pipelines").iterdir()),
    ],
)
def test_the_wheel_contains(wheel: Path, inside: str) -> None:
    assert inside in zipfile.ZipFile(wheel).namelist()


def test_the_wheel_contains_every_module_and_the_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "egma_prep").rglob("*.py")}
    assert modules <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_contains_nothing_but_the_package(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} <= {"egma_prep", "egma_train"}


def test_the_wheel_installs_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "egma-prep = egma_prep.cli:main" in archive.read(entry).decode()


def test_the_package_comes_from_the_wheel_and_finds_its_own_data(site: Path) -> None:
    code = """
import egma_prep, egma_prep.sources.manifests as manifests
print(egma_prep.__file__)
print(manifests.shipped_folder("data_manifests"))
print(manifests.shipped_folder("pipelines"))
"""
    done = python(site, code)
    assert done.returncode == 0, done.stderr
    assert [Path(line).is_relative_to(site) for line in done.stdout.splitlines()] == [True] * 3


def test_the_checkout_cannot_be_imported_beside_the_wheel(site: Path) -> None:
    done = python(site, "import sys; print(*sys.path, sep='\\n')")
    reachable = [Path(line).resolve() for line in done.stdout.splitlines() if line]
    assert ROOT.resolve() not in reachable


def test_the_demo_runs_from_the_wheel(site: Path) -> None:
    place = site.parent
    synth = python(site, COMMAND, "synth", "phantom", "--readings", 6, "--small")
    assert synth.returncode == 0, synth.stderr
    run = python(site, COMMAND, "run", "phantom", "--out", "out", "--config", "phantom")
    assert run.returncode == 0, run.stderr
    assert "planned 6 = written 6" in run.stdout
    report = python(site, COMMAND, "report", "--out", "out")
    assert report.returncode == 0, report.stderr
    inspect = python(site, COMMAND, "inspect", "--out", "out", "--png", "reading.png")
    assert inspect.returncode == 0, inspect.stderr
    assert (place / "reading.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_is_measured_from_the_wheel(site: Path) -> None:
    code = "from egma_train.evaluate.cli import main; main()"
    model = save_tiny_model(site.parent / "untrained")
    rows = ["path,label"]
    for i, label in enumerate(["Pneumonia", "No Finding"]):
        write_picture(site.parent / f"pictures/{i}.png", picture(i))
        rows.append(f"{i}.png,{label}")
    (site.parent / "own.csv").write_text("\n".join(rows))
    where = ("--images", "pictures", "--labels", "own.csv", "--out", "eval")
    measured = python(site, code, "zero-shot", "--task", "csv", *where, model)
    assert measured.returncode == 0, measured.stderr
    assert "2 of 2 images" in measured.stdout
    table = python(site, code, "table", "--data", "nowhere", "--out", "eval", model)
    assert table.returncode == 2 and "no test has its files below --data" in table.stderr
