"""Other heatmaps from what the output folder holds, whole even when cut in between."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from conftest import IN_THREADS, egma_prep, run_etl
from tables import by_reading, contents, shards, table

from egma_prep.etl import out_folder, render_again

IN_THREAD = IN_THREADS[:2]


def render(out: Path, *options: object) -> Result:
    result = egma_prep("render-heatmaps", "--out", out, *IN_THREAD, *options)
    assert result.exit_code == 0, result.output
    return result


def stamps(root: Path, *names: str) -> dict[str, tuple[int, int, bytes]]:
    """Modification time, inode and content of the files of some folders."""
    paths = [path for name in names for path in sorted((root / name).rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(root)): (
            path.stat().st_mtime_ns,
            path.stat().st_ino,
            path.read_bytes(),
        )
        for path in paths
    }


def sigmas(out: Path) -> set[str]:
    """Read what sigma the shards say they have."""
    files = list((out / "shards").glob("*.parquet"))
    return {pq.read_schema(path).metadata[b"egma.sigma"].decode() for path in files}


def recorded(out: Path, name: str) -> Any:
    return json.loads((out / "run.json").read_text())["options"]["render"][name]


@pytest.fixture
def out(clean_out: Path, tmp_path: Path) -> Path:
    """A finished run at sigma 16, for a test to change."""
    shutil.copytree(clean_out, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def at_8(clean_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rendered at sigma 8, not to be changed."""
    place = tmp_path_factory.mktemp("eight") / "out"
    shutil.copytree(clean_out, place)
    render(place, "--sigma", 8)
    return place


# -- what it does ---------------------------------------------------------------------------------


def test_rendering_again_needs_no_data(phantom: Path, at_8: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(phantom, data)
    assert run_etl(data, out).exit_code == 0
    data.rename(tmp_path / "elsewhere")
    assert "22 readings rendered" in render(out, "--sigma", 8).stdout
    assert shards(out) == shards(at_8)


def test_rendering_again_touches_no_image_and_no_table(out: Path) -> None:
    before = stamps(out, "images", "tables", ".")
    render(out, "--sigma", 8)
    after = stamps(out, "images", "tables", ".")
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    of_shards = {name for name in changed if name.startswith("shards/")}
    told = ("run.json", "README.md", "shareable.json", "record.json")  # they name the options
    bookkeeping = {name for name in changed if name.endswith(told)}
    assert changed == of_shards | bookkeeping
    assert of_shards == {name for name in before if name.startswith("shards/")}


def test_rendering_again_changes_heatmaps_only(clean_out: Path, at_8: Path) -> None:
    before, after = shards(clean_out), shards(at_8)
    assert before.keys() == after.keys()
    kept = {"begin", "end", "text", "words", "fixations", "gaze_seconds"}
    for one, row in after.items():
        old = before[one]
        assert {name for name in row if row[name] != old[name]} <= {"heatmap", "sentences"}
        for ours, theirs in zip(row["sentences"], old["sentences"], strict=True):
            assert {name: ours[name] for name in kept} == {name: theirs[name] for name in kept}
    with_gaze = [one for one, row in after.items() if row["heatmap"]]
    assert all(after[one]["heatmap"] != before[one]["heatmap"] for one in with_gaze)


RENDERINGS = {
    "sigma 8": ("--sigma", "8"),
    "one degree": ("--sigma", "1deg"),
    "pauses and a lead": ("--window", "pause", "--lead", "1.5"),
    "words": ("--level", "word"),
    "wide kernels and filled sentences": (
        *("--set", "render.truncate=4"),
        *("--set", "render.empty_sentence=reading"),
    ),
    "a config": ("--config", "mimic-eye", "--lead", "0.5"),
}


@pytest.mark.parametrize("how", RENDERINGS)
def test_rendering_again_equals_a_fresh_run_with_those_options(
    phantom: Path, out: Path, tmp_path: Path, how: str
) -> None:
    before = shards(out)
    render(out, *RENDERINGS[how])
    fresh = tmp_path / "fresh"
    assert run_etl(phantom, fresh, *RENDERINGS[how]).exit_code == 0
    assert shards(out) == shards(fresh)
    assert shards(out) != before
    for path in (fresh / "shards").iterdir():
        ours, theirs = pq.read_table(out / "shards" / path.name), pq.read_table(path)
        assert ours.equals(theirs, check_metadata=True)
    ours, theirs = (json.loads((one / "run.json").read_text()) for one in (out, fresh))
    assert ours["options"] == theirs["options"]


def test_run_json_counts_what_was_rendered_again(phantom: Path, out: Path, tmp_path: Path) -> None:
    options = ("--window", "pause", "--lead", "1.5")
    render(out, *options)
    assert run_etl(phantom, tmp_path / "fresh", *options).exit_code == 0
    ours, theirs = (
        json.loads((one / "run.json").read_text())["counts"] for one in (out, tmp_path / "fresh")
    )
    assert ours == theirs


def test_options_add_up_over_several_renderings(out: Path, tmp_path: Path, clean_out: Path) -> None:
    shutil.copytree(clean_out, tmp_path / "at-once")
    render(tmp_path / "at-once", "--sigma", 8, "--lead", 1.5)
    render(out, "--sigma", 8)
    render(out, "--lead", 1.5)
    assert shards(out) == shards(tmp_path / "at-once")
    render(out, "--lead", 0, "--sigma", 16)
    assert shards(out) == shards(clean_out)


def test_words_get_maps_of_their_own_at_word_level(out: Path) -> None:
    cut = table(out, "sentences")
    render(out, "--level", "word")
    words = by_reading(table(out, "words"))
    for one, row in shards(out).items():
        spoken = [word for word in words[one] if any(map(str.isalnum, word["text"]))]
        passages = row["sentences"]
        assert [passage["text"] for passage in passages] == [word["text"] for word in spoken]
        assert {passage["words"] for passage in passages} == {1}
        for passage, word in zip(passages, spoken, strict=True):
            assert (passage["begin"], passage["end"]) == (word["begin"], word["end"])
            assert passage["gaze_seconds"] == pytest.approx(word["gaze_seconds"], abs=1e-6)
            assert (passage["heatmap"] is None) == (passage["gaze_seconds"] == 0)
    assert table(out, "sentences") == cut
    assert recorded(out, "level") == "word"


def test_a_sentence_without_gaze_can_get_the_map_of_the_reading(out: Path) -> None:
    before = shards(out)
    render(out, "--set", "render.empty_sentence=reading")
    filled = 0
    for one, row in shards(out).items():
        for ours, theirs in zip(row["sentences"], before[one]["sentences"], strict=True):
            if theirs["heatmap"] is not None or row["heatmap"] is None:
                assert ours == theirs
                continue
            filled += 1
            assert ours["gaze_seconds"] == 0
            assert ours["heatmap"] == row["heatmap"]
            values = np.frombuffer(row["heatmap"], np.uint8).reshape(7, 32, 7, 32) / 255
            np.testing.assert_allclose(ours["grid"], values.mean(axis=(1, 3)).ravel(), atol=1e-6)
    assert filled, "the phantom has no sentence without gaze"


# -- run after it ---------------------------------------------------------------------------------


def test_run_keeps_the_options_that_were_last_rendered(phantom: Path, out: Path) -> None:
    render(out, "--sigma", 8)
    before = stamps(out, ".")
    result = run_etl(phantom, out)
    assert "nothing to do" in result.stdout
    assert stamps(out, ".") == before
    assert recorded(out, "sigma") == 8


def test_run_with_another_sigma_renders_again_without_redoing_parts(
    phantom: Path, clean_out: Path, out: Path
) -> None:
    render(out, "--sigma", 8)
    before = stamps(out, "images", "tables")
    result = run_etl(phantom, out, "--sigma", 16)
    assert result.exit_code == 0
    assert "rendering again" in result.stdout and "parts to make" not in result.stdout
    assert stamps(out, "images", "tables") == before
    assert shards(out) == shards(clean_out)
    assert recorded(out, "sigma") == 16


def test_run_with_another_sigma_and_another_input_leaves_one_sigma(
    phantom: Path, out: Path, tmp_path: Path, truth: dict[str, Any]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom, data)
    victim = next(one for one in truth["readings"] if not one["reject"])
    (data / victim["image"]).unlink()
    assert run_etl(data, out, "--sigma", 8).exit_code == 0
    assert run_etl(data, tmp_path / "fresh", "--sigma", 8).exit_code == 0
    assert contents(out) == contents(tmp_path / "fresh")
    assert sigmas(out) == {"8.0"}


def test_run_on_more_data_uses_the_sigma_that_was_last_rendered(
    phantom: Path, at_8: Path, tmp_path: Path, truth: dict[str, Any]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    late = f"patient_{next(one for one in truth['readings'] if not one['reject'])['subject_id']}"
    shutil.copytree(phantom, data, ignore=shutil.ignore_patterns(late))
    assert run_etl(data, out).exit_code == 0
    render(out, "--sigma", 8)
    shutil.copytree(phantom / late, data / late)
    assert run_etl(data, out).exit_code == 0
    assert sigmas(out) == {"8.0"}
    assert contents(out) == contents(at_8)


# -- cut in between -------------------------------------------------------------------------------


class Killed(BaseException):
    """Passes every handler, as a killed process would."""


Step = tuple[str, str]


def kill_before(step: int, monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Raise instead of the step of that number of a swap; return the steps as they are met."""
    met: list[Step] = []

    def meet(what: str, name: str) -> None:
        met.append((what, name))
        if len(met) > step:
            raise Killed(f"before step {step}, {what} {name}")

    def watched(what: str, real: Callable[..., Any], names: set[str]) -> Callable[..., Any]:
        def wrapper(path: Path, *args: Any, **kwargs: Any) -> Any:
            if Path(path).name in names:
                meet(what, Path(path).name)
            return real(path, *args, **kwargs)

        return wrapper

    written = {"swap.json", "record.json", "run.json"}
    folders = {"shards", "shards-old", "shards-next"}
    write = watched("write", out_folder.write_json, written)
    for module in (out_folder, render_again):
        monkeypatch.setattr(module, "write_json", write)
    monkeypatch.setattr(Path, "rename", watched("rename", Path.rename, folders))
    monkeypatch.setattr(Path, "unlink", watched("unlink", Path.unlink, {"swap.json"}))
    monkeypatch.setattr(
        shutil, "rmtree", watched("remove", shutil.rmtree, folders - {"shards-next"})
    )
    return met


@pytest.fixture(scope="module")
def decided(clean_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sigma 8 rendered beside sigma 16 and decided for, but killed before the swap."""
    out = tmp_path_factory.mktemp("decided") / "out"
    shutil.copytree(clean_out, out)
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        kill_before(1, monkeypatch)
        egma_prep("render-heatmaps", "--out", out, "--sigma", 8, *IN_THREAD)
    assert (out / "state" / "swap.json").exists()
    assert sigmas(out) == {"16.0"}
    return out


# What a decided swap of three parts does, in order; the first is the decision itself.
STEPS = [
    "the old shards move away",
    "what lies in their place is removed",
    "the new shards move in",
    "the first record",
    "the second record",
    "the third record",
    "run.json",
    "the old shards are removed",
    "the decision is removed",
]


def run_without_options(phantom: Path, out: Path) -> Result:
    return run_etl(phantom, out)


def render_as_before(phantom: Path, out: Path) -> Result:
    return egma_prep("render-heatmaps", "--out", out, *IN_THREAD)


def inspect(phantom: Path, out: Path) -> Result:
    return egma_prep("inspect", "--out", out, "--png", out.parent / "reading.png")


NEXT = {"run": run_without_options, "render-heatmaps": render_as_before, "inspect": inspect}


def test_the_steps_of_a_swap_are_these(
    decided: Path, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(decided, tmp_path / "out")
    met = kill_before(99, monkeypatch)
    assert run_etl(phantom, tmp_path / "out").exit_code == 0
    done = " ".join(what for what, _ in met)
    assert done == "rename remove rename write write write write remove unlink"
    assert len(met) == len(STEPS)


@pytest.mark.parametrize("after", NEXT)
@pytest.mark.parametrize("step", range(len(STEPS)), ids=[f"before {name}" for name in STEPS])
def test_the_next_command_finishes_a_swap_that_was_cut(
    decided: Path,
    at_8: Path,
    phantom: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    after: str,
) -> None:
    out = tmp_path / "out"
    shutil.copytree(decided, out)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_before(step, patched)
        run_etl(phantom, out)
    assert len(sigmas(out)) <= 1, "a reader would see two sigmas"
    result = NEXT[after](phantom, out)
    assert result.exit_code == 0, result.output
    assert recorded(out, "sigma") == 8
    assert sigmas(out) == {"8.0"}
    assert shards(out) == shards(at_8)
    assert not (out / "state" / "swap.json").exists()
    assert not (out / "state" / "shards-old").exists()
    assert "nothing to do" in run_etl(phantom, out).stdout


@pytest.mark.parametrize("after", NEXT)
def test_a_rendering_that_was_cut_before_its_decision_leaves_the_old_shards(
    clean_out: Path,
    phantom: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: str,
) -> None:
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_before(0, patched)
        egma_prep("render-heatmaps", "--out", out, "--sigma", 8, *IN_THREAD)
    assert shards(out) == shards(clean_out)
    result = NEXT[after](phantom, out)
    assert result.exit_code == 0, result.output
    assert shards(out) == shards(clean_out)
    assert sigmas(out) == {"16.0"}
    assert recorded(out, "sigma") == 16


def test_a_rendering_that_was_cut_can_be_repeated(
    at_8: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_before(0, patched)
        egma_prep("render-heatmaps", "--out", out, "--sigma", 4, *IN_THREAD)
    render(out, "--sigma", 8)
    assert shards(out) == shards(at_8)


def test_a_fault_in_one_part_leaves_all_the_old_shards(
    clean_out: Path, phantom: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = render_again.write_table

    def full_disk(path: Path, content: Any) -> Any:
        if path.name == "part-00001.parquet":
            raise OSError(28, "No space left on device")
        return real(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(render_again, "write_table", full_disk)
        result = egma_prep("render-heatmaps", "--out", out, "--sigma", 8, *IN_THREAD)
    assert result.exit_code == 2
    assert "No space left" in result.stderr and "Traceback" not in result.output
    assert shards(out) == shards(clean_out)
    assert "nothing to do" in run_etl(phantom, out).stdout


def test_a_damaged_shard_is_refused_in_one_line(out: Path) -> None:
    path = sorted((out / "shards").iterdir())[0]
    path.write_bytes(path.read_bytes()[:1000])
    result = egma_prep("render-heatmaps", "--out", out, "--sigma", 8, *IN_THREAD)
    assert result.exit_code == 2, result.exception
    said = [line for line in result.stderr.splitlines() if line.startswith("egma-prep: ")]
    assert len(said) == 1
    assert path.name in said[0] and "egma-prep run" in said[0]


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_no_shard_is_lost_where_the_record_of_its_part_is(
    damage: str, out: Path, clean_out: Path, phantom: Path
) -> None:
    record = sorted(out.glob("state/part-*/record.json"))[0]
    if damage == "removed":
        record.unlink()
    else:
        record.write_bytes(record.read_bytes()[:-99])
    before = stamps(out, "shards")
    result = egma_prep("render-heatmaps", "--out", out, *IN_THREAD, "--sigma", "8")
    assert result.exit_code == 2
    assert "records of parts" in result.output and "mend them first: egma-prep run" in result.output
    assert stamps(out, "shards") == before
    assert run_etl(phantom, out).exit_code == 0
    render(out, "--sigma", "16")
    assert contents(out) == contents(clean_out)
