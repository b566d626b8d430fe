"""What Python users call, by the names that the package hands on."""

import asyncio
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import egma_prep

import egma_prep as package
from egma_prep import BadUsageError, heatmap, open_run, open_shards, render_heatmaps, run_etl

THREADS = {"execution": {"processes": False, "readings_per_part": 8}}


def quietly(_: str) -> None:
    pass


def test_every_name_that_is_handed_on_is_there_and_listed() -> None:
    assert set(package.__all__) < set(dir(package))
    assert all(callable(getattr(package, name)) for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'run_elt'"):
        package.run_elt  # noqa: B018


def test_importing_sets_nothing_in_other_libraries_and_loads_none() -> None:
    code = (
        "import sys, egma_prep; print(sorted({'numpy', 'pandas', 'dask', 'cv2'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
    code = (
        "import cv2, logging, pydicom;"
        "before = cv2.getNumThreads(), pydicom.config.settings.reading_validation_mode,"
        " logging.getLogger('pydicom').level;"
        "from egma_prep import *;import egma_prep.cli, egma_prep.etl.run, egma_prep.images.dicom;"
        "print(before == (cv2.getNumThreads(), pydicom.config.settings.reading_validation_mode,"
        " logging.getLogger('pydicom').level))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


def test_a_run_from_python_has_the_content_of_the_command(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    summary = run_etl(str(phantom), str(tmp_path / "out"), options=THREADS, say=quietly)
    assert summary.counts == json.loads((clean_out / "run.json").read_text())["counts"]
    for path in clean_out.glob("shards/*.parquet"):
        assert pq.read_table(tmp_path / "out" / "shards" / path.name) == pq.read_table(path)


def test_a_run_and_a_rendering_work_inside_a_running_event_loop(
    phantom: Path, tmp_path: Path
) -> None:
    async def cell() -> int:  # as a notebook runs one
        run_etl(phantom, tmp_path / "out", THREADS, say=quietly)
        return render_heatmaps(tmp_path / "out", {"render": {"sigma": 8}, **THREADS}, say=quietly)

    assert asyncio.run(cell()) == open_run(tmp_path / "out").counts["written"]
    assert open_shards(tmp_path / "out").metadata["sigma"] == "8.0"


def test_a_runs_tables_are_data_frames_by_name(phantom: Path, clean_out: Path) -> None:
    run = open_run(clean_out)
    for name in ("readings", "words", "fixations", "alignment", "sentences"):
        frame = getattr(run, name)
        assert len(frame) == pq.read_metadata(clean_out / "tables" / f"{name}.parquet").num_rows
    assert len(run.rejects) == run.counts["rejected"]
    known = run.inputs.set_index("path")
    for path in list(known.index)[::20]:
        told = known.loc[path]
        if told["size"] == -1:  # looked for, and not there
            assert not (phantom / path).exists()
            continue
        content = (phantom / path).read_bytes()
        assert (told["size"], told["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert len(run.shards) == run.counts["written"] == len(run.readings)
    assert run.options["render"]["sigma"] == 16.0
    assert repr(run) == f"<run in {clean_out}, {run.counts['written']} readings>"


def test_a_run_with_privacy_says_that_it_has_no_fixations(phantom: Path, tmp_path: Path) -> None:
    run_etl(phantom, tmp_path, {**THREADS, "output": {"privacy": True}}, say=quietly)
    with pytest.raises(BadUsageError, match="made with --privacy and has no table of fixations"):
        open_run(tmp_path).fixations  # noqa: B018
    assert open_run(tmp_path).words["gaze_seconds"].isna().all()


@pytest.mark.parametrize("place", ["out", "out/shards"])
def test_shards_of_an_unfinished_run_are_refused(
    clean_out: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "out" / "state").mkdir(parents=True)
    (tmp_path / "out" / "shards").symlink_to(clean_out / "shards")
    assert len(open_shards(tmp_path / place))
    (tmp_path / "out" / "run.json").write_text('{"status": "running"}')
    with pytest.raises(BadUsageError, match="is not finished; wait, or repeat: egma-prep run"):
        open_shards(tmp_path / place)
    (tmp_path / "out" / "state" / "swap.json").write_text("{}")
    with pytest.raises(BadUsageError, match="are being replaced; wait, or repeat"):
        open_shards(tmp_path / place)


def test_options_are_checked_before_any_work(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(BadUsageError, match="sigmaa"):
        run_etl(phantom, tmp_path / "out", {"render": {"sigmaa": 8}})
    assert not (tmp_path / "out").exists()


# -- a heatmap of one's own -----------------------------------------------------------------------


def test_a_heatmap_of_ones_own_is_the_sum_of_its_gaussians() -> None:
    x, y, weight = [100.0, 30.5], [50.0, 200.25], [0.5, 0.25]
    total = np.zeros((224, 224))
    for column, row, seconds in zip(x, y, weight, strict=True):
        for v in range(224):
            for u in range(224):
                if abs(u - column) <= 24 and abs(v - row) <= 24:
                    away = (u - column) ** 2 + (v - row) ** 2
                    total[v, u] += seconds * np.exp(-away / (2 * 8.0**2))
    wanted = np.floor(255 * total / total.max() + 0.5)
    found = heatmap(x, y, weight, sigma_px=8)
    assert found is not None and found.shape == (224, 224) and found.dtype == np.uint8
    assert np.abs(found - wanted).max() == 0


def test_no_gaze_makes_no_heatmap() -> None:
    assert heatmap([], [], []) is None
    assert heatmap([1.0], [2.0], [0.0]) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (([1.0, 2.0], [1.0], [1.0]), "2 x, 1 y, 1 weights"),
        (([np.nan], [1.0], [1.0]), "finite"),
        (([1.0], [1.0], [-1.0]), "weights 0 or more"),
        (([1.0], [1.0], [1.0], 0), "sigma_px is 0"),
    ],
)  # fmt: skip
def test_a_heatmap_of_what_cannot_be_is_refused(given: tuple, said: str) -> None:
    with pytest.raises(BadUsageError, match=said):
        heatmap(*given)


def test_a_script_below_its_main_guard_runs_with_processes(phantom: Path, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "from egma_prep import run_etl\n"
        "if __name__ == '__main__':\n"
        f"    done = run_etl({str(phantom)!r}, 'out', {{'execution': {{'workers': 1}}}})\n"
        "    print('written', done.counts['written'])\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path
    )  # fmt: skip
    assert done.returncode == 0 and "written" in done.stdout, done.stderr
    assert egma_prep("verify", "--out", tmp_path / "out").exit_code == 0
