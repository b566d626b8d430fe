"""Every file of training and evaluation is the owner's alone, whatever the umask."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluation import egma_eval, picture, write_picture
from test_train import SMALL, egma_train

from egma_train.data.cache import open_cache


@pytest.fixture(params=[0, 0o022], ids=["umask 0", "umask 022"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> tuple[set[int], set[int]]:
    """Modes of folders and of files, below and with a folder."""
    every = [folder, *folder.rglob("*")]
    kinds = [[one for one in every if one.is_dir() == wanted] for wanted in (True, False)]
    found, files = ({one.stat().st_mode & 0o777 for one in own} for own in kinds)
    return found, files


PLAN = """
[arms]
objectives = ["egma"]
gaze_fractions = []
seeds = [0]
[start]
preset = "tiny"
[options.train]
epochs = 1
batch_size = 8
[options.model]
swin_width = 12
text_width = 32
text_heads = 2
projection = 32
[[tests]]
task = "siim"
images = "images"
labels = "siim.csv"
"""


@pytest.mark.fault(
    "a umask that lets others read",
    "umask 0, and 022 with --shared; egma-train and every command of egma-eval",
    "folders 700 and files 600, with --shared 750 and 640; git sees none of them",
)
def test_everything_written_is_the_owners_alone(
    clean_out: Path, tmp_path: Path, umask: int
) -> None:
    shared = umask == 0o022
    out, data = tmp_path / "out", tmp_path / "data"
    shutil.copytree(clean_out / "shards", tmp_path / "shards")
    for i in range(4):
        write_picture(data / "images" / f"{i}.png", picture(i % 2))
    (data / "own.csv").write_text(
        "path,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(4))
    )
    (data / "siim.csv").write_text(
        "ImageId,EncodedPixels\n" + "".join(f"{i},{['-1', '1 5'][i % 2]}\n" for i in range(4))
    )
    (data / "own.toml").write_text('a = ["the lungs are clear"]\nb = ["pneumonia"]\n')
    (data / "plan.toml").write_text(PLAN)
    more = ("--out", out, *(["--shared"] if shared else []))
    shards = ("--shards", tmp_path / "shards")
    run = out / "runs" / "one"
    own = ("--task", "csv", "--images", data / "images", "--labels", data / "own.csv")
    plan = ("--config", data / "plan.toml", "--data", data)
    train = ("--name", "one", *SMALL, "--epochs", 1, "--set", f"execution.cache={out / 'cache'}")
    commands = [
        egma_train(*more, *shards, *train),
        egma_eval("table", *more, *plan, run),
        egma_eval("zero-shot", *more, *own, "--prompts", data / "own.toml", run),
        egma_eval("embed", *more, *own, run),
        egma_eval("grounding", *more, *shards, run),
        *([] if shared else [egma_eval("ablation", *more, *shards, *plan)]),
    ]
    assert [one.exit_code for one in commands] == [0] * len(commands), [
        one.output for one in commands
    ]
    wanted = ({0o750}, {0o640}) if shared else ({0o700}, {0o600})
    assert modes(out) == wanted and (shared or modes(tmp_path / "cache") == wanted)
    ignored = {one.parent for one in out.rglob(".gitignore")}
    for path in out.rglob("*"):
        assert {path, *path.parents} & ignored or path in (out / "runs", out / "evaluation"), path
    assert os.umask(umask) == umask  # the caller's is as it was


def test_a_library_call_makes_no_cache_that_others_read(
    clean_out: Path, tmp_path: Path, umask: int
) -> None:
    open_cache(clean_out, tmp_path / "cache")
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
