"""Tensors come out of any container; whatever else a file asks for is never made or run."""

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from published_systems import CLIP_PATCH, clip_shapes, drawn, save_lightning, save_torchscript
from safetensors.torch import save_file

from egma_train.errors import BadUsageError
from egma_train.model.tensor_files import read_tensors

STATE = drawn({"tower.a.weight": (3, 4), "tower.b.bias": (5,), "n": ()})


class Evil:
    """Runs a command where a pickle is trusted."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def same(path: Path, container: str) -> None:
    read = read_tensors(path)
    assert read.container == container
    assert read.state.keys() >= STATE.keys()
    for name, tensor in STATE.items():
        assert torch.equal(read.state[name], tensor)


def test_plain_state_dicts_of_every_age_and_safetensors_give_the_same_tensors(
    tmp_path: Path,
) -> None:
    torch.save(STATE, tmp_path / "new.pt")
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "x.safetensors")
    same(tmp_path / "new.pt", "torch")
    same(tmp_path / "old.pt", "torch before 1.6")
    same(tmp_path / "x.safetensors", "safetensors")


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
def test_lightnings_objects_are_named_and_not_made(tmp_path: Path, old: bool) -> None:
    path = save_lightning(tmp_path / "x.ckpt", STATE, old=old)
    read = read_tensors(path)
    assert read.state.keys() == STATE.keys()
    assert "omegaconf.dictconfig.DictConfig" in read.inert


def test_an_archive_of_torchscript_gives_its_tensors_as_torch_reads_them(tmp_path: Path) -> None:
    state = drawn(clip_shapes(50))
    path = save_torchscript(tmp_path / "ViT-B-32.pt", state)
    read = read_tensors(path)
    assert read.container == "TorchScript" and read.state["visual.proj"].dtype == torch.float16
    by_torch = torch.jit.load(path).state_dict()
    assert read.state.keys() == by_torch.keys()
    assert all(torch.equal(read.state[name], one) for name, one in by_torch.items())
    assert read.state["visual.conv1.weight"].shape[-1] == CLIP_PATCH


@pytest.mark.parametrize("wrapping", ["state_dict", "model", "model_state_dict"])
def test_the_tensors_are_found_under_the_usual_names(tmp_path: Path, wrapping: str) -> None:
    torch.save({wrapping: STATE, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "x.tar")
    assert read_tensors(tmp_path / "x.tar").state.keys() == STATE.keys()


@pytest.mark.parametrize("kind", ["torch", "torch before 1.6", "TorchScript"])
def test_a_hostile_object_beside_the_weights_is_inert(tmp_path: Path, kind: str) -> None:
    trace, path = tmp_path / "it-ran", tmp_path / "x.pt"
    whole = {"state_dict": STATE, "callbacks": {Evil(trace): Evil(trace)}, "more": [Evil(trace)]}
    torch.save(whole, path, _use_new_zipfile_serialization=kind != "torch before 1.6")
    if kind == "TorchScript":  # the same pickle beside what marks such an archive, and code
        with zipfile.ZipFile(path, "a") as archive:
            root = archive.namelist()[0].partition("/")[0]
            archive.writestr(f"{root}/constants.pkl", pickle.dumps(()))
            archive.writestr(f"{root}/code/__torch__.py", f"import os; os.system('touch {trace}')")
    read = read_tensors(path)
    assert not trace.exists() and read.container == kind
    assert all(torch.equal(read.state[name], one) for name, one in STATE.items())
    assert any(name.endswith(".system") for name in read.inert)
    if kind != "TorchScript":  # which torch reads by rules of its own
        torch.load(path, weights_only=False)  # what this guards against
        assert trace.exists()


def test_a_hostile_object_in_a_tensors_place_is_none(tmp_path: Path) -> None:
    torch.save(STATE | {"evil": Evil(tmp_path / "it-ran")}, tmp_path / "x.pt")
    assert read_tensors(tmp_path / "x.pt").state.keys() == STATE.keys()
    assert not (tmp_path / "it-ran").exists()


def test_numbers_that_call_themselves_more_are_refused(tmp_path: Path) -> None:
    for old in (False, True):
        torch.save(
            {"a": torch.zeros(1).expand(10**9, 32)}, tmp_path / "x.pt",
            _use_new_zipfile_serialization=not old,
        )  # fmt: skip
        with pytest.raises(BadUsageError, match="call themselves 32,000,000,000"):
            read_tensors(tmp_path / "x.pt")


def test_other_archives_are_refused_in_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("pytorch_model.bin", b"PHANTOM")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    for name in ("x.zip", "x.tar"):
        with pytest.raises(BadUsageError, match=r"unpack it\); give a state dict") as caught:
            read_tensors(tmp_path / name)
        assert "\n" not in str(caught.value)
