"""Mistakes on the command line: one line that says what, where and how to mend; exit code 2."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result
from conftest import IN_THREADS, PATIENCE_S, egma_prep, run_etl
from tables import write_sealed

from egma_prep.cli import main
from egma_prep.errors import BadUsageError
from egma_prep.options import Options, parse_assignments, with_changes

HEAVY = ("numpy", "pandas", "pyarrow", "spacy", "torch", "dask", "distributed", "cv2", "scipy")


def refusal(result: Result) -> str:
    """Return the one line on standard error of a command that refused."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def assert_says(line: str, *parts: str) -> None:
    """Check that a line has every part; parts are regular expressions."""
    for part in parts:
        assert re.search(part, line), f"{line!r} says nothing of {part!r}"


# -- DATA -----------------------------------------------------------------------------------------


def nothing_there(place: Path) -> Path:
    return place / "no-such-folder"


def a_file(place: Path) -> Path:
    (place / "data.zip").write_bytes(b"PK")
    return place / "data.zip"


def an_empty_folder(place: Path) -> Path:
    (place / "empty").mkdir()
    return place / "empty"


def an_unknown_layout(place: Path) -> Path:
    (place / "photos" / "holidays").mkdir(parents=True)
    (place / "photos" / "index.html").write_text("<html></html>")
    return place / "photos"


def a_layout_without_readings(place: Path) -> Path:
    (place / "mimic-eye" / "patient_10000001" / "CXR-JPG").mkdir(parents=True)
    return place / "mimic-eye"


BAD_DATA: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "that does not exist": (nothing_there, "does not exist", "give"),
    "that is a file": (a_file, "is a file", "give the folder"),
    "that is an empty folder": (an_empty_folder, "is empty", "give"),
    "of an unknown layout": (an_unknown_layout, "no known layout", "expected.*patient_.*--source"),
    "without any reading": (a_layout_without_readings, "no reading", "give|choose|check|download"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_run_refuses_data(tmp_path: Path, kind: str) -> None:
    make, what, mend = BAD_DATA[kind]
    data, out = make(tmp_path), tmp_path / "out"
    line = refusal(run_etl(data, out))
    assert_says(line, re.escape(str(data)), what, mend)
    assert not (out / "run.json").exists()


def test_run_refuses_to_run_without_data(tmp_path: Path) -> None:
    line = refusal(egma_prep("run", "--out", tmp_path / "out"))
    assert_says(line, "Missing argument", "DATA")
    assert not (tmp_path / "out").exists()


def test_run_says_where_to_look_when_every_reading_is_rejected(
    phantom: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    one = next(path for path in sorted(phantom.glob("patient_*")) if (path / "REFLACX").is_dir())
    shutil.copytree(one, data / one.name)
    for image in data.rglob("*.jpg"):
        image.unlink()
    result = run_etl(data, out)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    said = [line for line in result.stderr.splitlines() if line.startswith("egma-prep: ")]
    assert len(said) == 1
    assert_says(said[0], "no usable reading", re.escape(str(data)), "see .*rejects.parquet")
    assert (out / "rejects.parquet").exists()
    assert "Traceback" not in result.output


# -- OUT ------------------------------------------------------------------------------------------


def test_run_refuses_an_output_folder_below_a_file(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    line = refusal(run_etl(phantom, tmp_path / "file" / "out"))
    assert_says(line, re.escape(str(tmp_path / "file" / "out")), "cannot write", "choose .*--out")
    assert (tmp_path / "file").read_text() == "mine"


def test_run_refuses_an_output_folder_that_is_a_file(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    line = refusal(run_etl(phantom, tmp_path / "file"))
    assert_says(line, re.escape(str(tmp_path / "file")), "cannot write", "choose .*--out")
    assert (tmp_path / "file").read_text() == "mine"


def test_run_refuses_an_output_folder_where_nobody_can_write(phantom: Path) -> None:
    line = refusal(run_etl(phantom, Path("/proc/egma-out")))
    assert_says(line, "/proc/egma-out", "cannot write", "choose .*--out")


def test_run_refuses_to_write_into_data(phantom: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom, data)
    there = sorted(data.rglob("*"))
    line = refusal(run_etl(data, data))
    assert_says(line, re.escape(str(data)), "DATA itself", "choose another")
    assert sorted(data.rglob("*")) == there


def test_run_refuses_to_write_into_data_by_another_name(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(phantom)
    line = refusal(run_etl(phantom, tmp_path / "link"))
    assert_says(line, re.escape(str(tmp_path / "link")), "DATA itself", "choose another")
    assert not (phantom / "run.json").exists()


# -- options --------------------------------------------------------------------------------------

BAD_OPTIONS = {
    "--window x": ("x", "spoken"),
    "--level x": ("x", "sentence, word"),
    "--sigma banana": ("banana", "give .*1deg"),
    "--sigma -1": ("-1", "give a number above 0"),
    "--sigma 0": ("0", "give a number above 0"),
    "--sigma nan": ("nan", "give a number above 0"),
    "--sigma inf": ("inf", "give a number above 0"),
    "--sigma 0deg": ("0", "give a number above 0"),
    "--sigma 16px": ("16px", "give .*1deg"),
    "--lead -1": ("-1", "give a number at least 0"),
    "--lead nan": ("nan", "give a number at least 0"),
    "--lead soon": ("soon", "not a valid float"),
    "--workers -2": ("-2", "give a number at least 0"),
    "--workers x": ("x", "not a valid integer"),
    "--source x": ("x", "there are: .*mimic_eye"),
    "--config nosuch": ("nosuch", "shipped ones: .*phantom"),
    "--set nonsense": ("nonsense", "write stage.field=value"),
    "--set render=8": ("render", "write stage.field=value|NAME=VALUE"),
    "--set render.nosuch=1": ("nosuch", "there are: .*sigma"),
    "--set nosuch.x=1": ("nosuch", "there are: .*render"),
    "--set render.truncate=0": ("truncate is 0", "give a number above 0"),
    "--set render.truncate=true": ("True", "give a number above 0"),
    "--set render.truncate=": ("truncate is ''", "give a number above 0"),
    "--set render.sigma=[1]": (r"\[1\]", "give "),
    "--set image.fit=1": ("1", "there are: pad, stretch"),
    "--set image.fit=[1]": (r"\[1\]", "there are: pad, stretch"),
    "--set execution.workers=1.5": ("1.5", "give a (whole )?number"),
    "--set sentences.pause_s=long": ("long", "give a number above 0"),
    "--scheduler banana": ("banana", "give an address like tls://"),
    "--scheduler banana://127.0.0.1:1": ("banana://127.0.0.1:1", "give|check|start"),
    "--max-reject-share 2": ("2", "0<=x<=1"),
    "--nosuch 1": ("--nosuch", "No such option"),
}


@pytest.mark.parametrize("given", BAD_OPTIONS)
def test_run_refuses_the_option(phantom: Path, tmp_path: Path, given: str) -> None:
    line = refusal(run_etl(phantom, tmp_path / "out", *given.split(" ", 1)))
    assert_says(line, *BAD_OPTIONS[given])
    assert not (tmp_path / "out" / "run.json").exists()


RENDER_OPTIONS = [
    one
    for one in BAD_OPTIONS
    if not one.startswith(("--source", "--max", "--scheduler b", "--set image"))
]


@pytest.mark.parametrize("given", RENDER_OPTIONS)
def test_render_heatmaps_refuses_the_option(clean_out: Path, given: str) -> None:
    before = (clean_out / "run.json").read_bytes()
    line = refusal(egma_prep("render-heatmaps", "--out", clean_out, *given.split(" ", 1)))
    assert_says(line, *BAD_OPTIONS[given])
    assert (clean_out / "run.json").read_bytes() == before


BAD_CONFIGS = {
    "that is not TOML": ("[render\nsigma = 8\n", "not TOML"),
    "that is not text": ("\udcff\udcfe", "not TOML"),
    "with an unknown stage": ("[paint]\ncolour = 1\n", "paint.*there are: .*render"),
    "with an unknown field": ("[render]\nsigmma = 8\n", "sigmma.*there are: .*sigma"),
    "with a bad value": ('[render]\nwindow = "x"\n', "x.*spoken"),
    "with a field outside a stage": ("sigma = 8\n", "sigma.*there are: .*render"),
}


@pytest.mark.parametrize("kind", BAD_CONFIGS)
def test_run_refuses_a_config(phantom: Path, tmp_path: Path, kind: str) -> None:
    text, says = BAD_CONFIGS[kind]
    config = tmp_path / "mine.toml"
    config.write_bytes(text.encode(errors="surrogateescape"))
    assert_says(refusal(run_etl(phantom, tmp_path / "out", "--config", config)), says)
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.fixture(scope="module")
def unanswered(
    phantom: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A run that names a port where nobody listens, and its output folder.

    In a process of its own: what Dask's loggers write there must not reach the user either.
    """
    out = tmp_path_factory.mktemp("unanswered") / "out"
    command = [sys.executable, "-c", "from egma_prep.cli import main; main()", "run", str(phantom)]
    more = ["--out", str(out), "--scheduler", "tcp://127.0.0.1:9"]
    return subprocess.run(
        [*command, *more], capture_output=True, text=True, timeout=PATIENCE_S
    ), out


def test_run_refuses_a_scheduler_that_does_not_answer(
    unanswered: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, _ = unanswered
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    assert_says(lines[0], "tcp://127.0.0.1:9", "give|check|start|leave out")


def test_a_scheduler_that_does_not_answer_leaves_no_run_behind(
    unanswered: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    _, out = unanswered
    assert not (out / "run.json").exists()


# -- the other commands ---------------------------------------------------------------------------


def test_render_heatmaps_refuses_an_empty_folder(tmp_path: Path) -> None:
    line = refusal(egma_prep("render-heatmaps", "--out", tmp_path))
    assert_says(line, re.escape(str(tmp_path)), "no run", "egma-prep run DATA")
    assert not list(tmp_path.iterdir())


def test_render_heatmaps_refuses_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    line = refusal(egma_prep("render-heatmaps", "--out", tmp_path / "out"))
    assert_says(line, "out", "no run", "egma-prep run DATA")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    ["{}", "[]", '{"name": "another program"}', '{"schema_version": "1"}', "not JSON", ""],
)
@pytest.mark.parametrize("command", ["run", "render-heatmaps", "inspect"])
def test_a_run_json_of_another_program_is_refused(
    phantom: Path, tmp_path: Path, command: str, content: str
) -> None:
    (tmp_path / "run.json").write_text(content)
    data = [phantom, *IN_THREADS] if command == "run" else []
    line = refusal(egma_prep(command, *data, "--out", tmp_path))
    assert_says(line, re.escape(str(tmp_path)), "choose|delete|egma-prep run")
    assert (tmp_path / "run.json").read_text() == content


@pytest.mark.parametrize("command", ["run", "render-heatmaps", "inspect"])
def test_an_output_folder_of_another_schema_is_refused(
    phantom: Path, clean_out: Path, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(clean_out, out)
    run = json.loads((out / "run.json").read_text())
    write_sealed(out / "run.json", run | {"schema_version": "99"})
    data = [phantom, *IN_THREADS] if command == "run" else []
    line = refusal(egma_prep(command, *data, "--out", out))
    assert_says(line, re.escape(str(out)), "99", "choose another|egma-prep run")


def test_render_heatmaps_refuses_options_that_need_the_data(clean_out: Path) -> None:
    before = (clean_out / "run.json").read_bytes()
    more = ("--out", clean_out, "--set", "image.fit=stretch")
    line = refusal(egma_prep("render-heatmaps", *more))
    assert_says(line, "image|fit", "egma-prep run DATA")
    assert (clean_out / "run.json").read_bytes() == before


@pytest.mark.parametrize("status", ["running", "another"])
@pytest.mark.parametrize("command", ["render-heatmaps", "inspect"])
def test_an_unfinished_run_is_refused(
    clean_out: Path, tmp_path: Path, command: str, status: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(clean_out, out)
    run = json.loads((out / "run.json").read_text())
    write_sealed(out / "run.json", run | {"status": status})
    line = refusal(egma_prep(command, "--out", out))
    assert_says(line, re.escape(str(out)), "not finished", "egma-prep run")


def test_inspect_refuses_an_unknown_reading(clean_out: Path, tmp_path: Path) -> None:
    png = tmp_path / "reading.png"
    line = refusal(egma_prep("inspect", "P999R999999", "--out", clean_out, "--png", png))
    assert_says(line, "P999R999999", re.escape(str(clean_out)), r"see .*readings\.parquet")
    assert not png.exists()


def test_inspect_refuses_a_folder_without_a_run(tmp_path: Path) -> None:
    line = refusal(egma_prep("inspect", "--out", tmp_path))
    assert_says(line, re.escape(str(tmp_path)), "egma-prep run DATA")


def test_inspect_refuses_a_figure_that_cannot_be_written(clean_out: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    png = tmp_path / "file" / "reading.png"
    line = refusal(egma_prep("inspect", "--out", clean_out, "--png", png))
    assert_says(line, re.escape(str(tmp_path / "file")))


def test_synth_refuses_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    line = refusal(egma_prep("synth", tmp_path, "--readings", 2, "--small"))
    assert_says(line, re.escape(str(tmp_path)), "not an empty folder", "choose another")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("given", ["--readings 0", "--readings many", "--readings 2 --seed -1", ""])
def test_synth_refuses_the_option(tmp_path: Path, given: str) -> None:
    line = refusal(egma_prep("synth", tmp_path / "new", *given.split()))
    assert_says(line, given.rpartition(" ")[2], "--readings|--seed", "range|integer|Missing option")
    assert not (tmp_path / "new").exists()


def test_an_unknown_command_is_refused() -> None:
    assert_says(refusal(egma_prep("rander-heatmaps")), "rander-heatmaps", "No such command")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = egma_prep("run", tmp_path / "none", "--out", tmp_path / "out", "--debug")
    assert result.exception is not None and not isinstance(result.exception, SystemExit)


# -- help -----------------------------------------------------------------------------------------

COMMANDS = sorted(main.commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(command: str) -> None:
    result = egma_prep(command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert f"egma-prep {command}" in result.stdout.split("Example")[1]


def test_help_has_an_example_and_lists_the_commands() -> None:
    result = egma_prep("--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_about_twelve_flags(command: str) -> None:
    flags = [one for one in main.commands[command].params if isinstance(one, click.Option)]
    everywhere = {"out", "debug", "shared", "replace"}  # where and for whom, not what is made
    of_a_scheduler = {"tls_ca", "tls_cert", "tls_key"}
    of_a_map = {"recipe", "weights", "normalise"}  # what published maps differ in
    assert len({flag.name for flag in flags} - everywhere - of_a_scheduler - of_a_map) <= 14


@pytest.mark.parametrize(
    "arguments", [None, "", "--help", "--version", *(f"{one} --help" for one in COMMANDS)]
)
def test_nothing_heavy_is_imported_before_a_command_runs(arguments: str | None) -> None:
    # None: importing the package alone.
    what = "import egma_prep" if arguments is None else "from egma_prep.cli import main"
    code = f"""
import sys
{what}
try:
    {"pass" if arguments is None else f"main({(arguments or '').split()!r})"}
finally:
    loaded = sorted(set(sys.modules) & set({HEAVY!r}))
    print("LOADED", *loaded, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.stdout.splitlines()[-1] == "LOADED"
    if arguments:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["render.sigma", "render.lead", "image.max_megapixels"])
def test_a_number_of_hundreds_of_digits_is_refused(name: str) -> None:
    with pytest.raises(BadUsageError, match=f"{name} is inf; give a number"):
        with_changes(Options(), parse_assignments([f"{name}={'9' * 400}"]))
