"""Tensors out of anybody's checkpoint: every other object in it becomes an inert one.

Lightning keeps options, callbacks and their classes beside the weights, TorchScript code: nothing
of that is imported, called or run, whatever it asks for.
"""

import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from egma_train.errors import BadUsageError, first_line

_CONTAINERS = ("state_dict", "model_state_dict", "model", "module")  # Lightning's, DeepSpeed's
_MOST_DEPTH = 32
_DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip


class TensorFile(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    state : dict
        Tensors by name.
    container : str
        In words: ``safetensors``, ``torch``, ``TorchScript``, ``torch before 1.6``.
    inert : list of str
        Full names of the classes and functions that were asked for and not given.
    """

    state: dict[str, Tensor]
    container: str
    inert: list[str]


class _Inert:
    """Stands for any object: takes whatever a pickle does to it, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "_Inert":
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        self.inside: Any = None

    def __call__(self, *_: Any, **__: Any) -> "_Inert":
        return _Inert()

    def __setstate__(self, state: Any) -> None:
        self.inside = state

    def __setitem__(self, *_: Any) -> None:
        """Take an item of a dict-like object."""

    def append(self, _: Any) -> None:
        """Take an item of a list-like object."""

    extend = add = append


def read_tensors(path: Path) -> TensorFile:
    """Read a file of weights.

    Raises
    ------
    BadUsageError
        If it holds none, or is damaged or packed.
    """
    inert: set[str] = set()
    try:
        if path.suffix == ".safetensors":
            stored: Any = load_file(path)
            container = "safetensors"
        elif zipfile.is_zipfile(path):
            refuse_packed(path)
            container, stored = _from_zip(path, inert)
        elif tarfile.is_tarfile(path):
            raise ValueError("a tar archive; unpack it")
        else:
            container, stored = "torch before 1.6", _from_old(path, inert)
    except Exception as error:  # each library has its own for damage
        raise BadUsageError(
            f"{path} holds no weights ({_what_else(path) or _why(error)}); give a state dict, a"
            " checkpoint of Lightning, or safetensors"
        ) from None
    for name in _CONTAINERS:
        if isinstance(stored, Mapping) and isinstance(stored.get(name), Mapping):
            stored = stored[name]
            break
    state = dict(_tensors_in(stored))
    if not state:
        raise BadUsageError(f"{path} holds no weights (no tensor in it); save model.state_dict()")
    return TensorFile(state, container, sorted(inert))


def refuse_packed(path: Path) -> None:
    """Refuse tensors that would grow a thousandfold: torch writes them as they are."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        unpacked = sum(one.file_size for one in entries)
        ours = any(one.filename.endswith("/data.pkl") for one in entries)
        if ours and unpacked > path.stat().st_size:
            raise ValueError(f"it unpacks to {unpacked:,} bytes")


def _from_zip(path: Path, inert: set[str]) -> tuple[str, Any]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("an archive; unpack it")  # as MedCLIP's are downloaded
        root = pickles[0].removesuffix("data.pkl")
        order = root + "byteorder"
        if order in names and archive.read(order) != b"little":
            raise ValueError("it was written on a machine of other byte order")
        scripted = root + "constants.pkl" in names
        with archive.open(pickles[0]) as file:
            # Tensors may share a storage, as tied weights do: each is read once.
            loaded: dict[tuple[str, str], Tensor] = {}

            def storage(identity: Any) -> Tensor:
                _, kind, key, *_ = identity
                # New files name an untyped storage: its bytes.
                dtype = kind if isinstance(kind, torch.dtype) else torch.uint8
                if (key, str(dtype)) not in loaded:
                    data = bytearray(archive.read(f"{root}data/{key}"))
                    made = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0)
                    loaded[key, str(dtype)] = made.to(dtype)
                return loaded[key, str(dtype)]

            reader = _Unpickler(file, inert)
            reader.persistent_load = storage  # type: ignore[method-assign]
            return ("TorchScript" if scripted else "torch"), reader.load()


def _from_old(path: Path, inert: set[str]) -> Any:
    """Read what torch wrote before 1.6: pickles one behind the other, then the numbers."""

    class Restricted(_Unpickler):
        def __init__(self, file: Any, **_: Any) -> None:
            super().__init__(file, inert)

        def find_class(self, module: str, name: str) -> Any:
            if name in _DTYPES and module.startswith("torch"):
                return getattr(torch, name)  # torch's own reader makes its storages
            if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                return torch._utils._rebuild_tensor_v2
            return super().find_class(module, name)

    restricted = SimpleNamespace(
        Unpickler=Restricted, load=lambda file, **how: Restricted(file).load(), __name__="pickle"
    )
    with path.open("rb") as file:
        return torch.load(file, "cpu", pickle_module=restricted, weights_only=False)


class _Unpickler(pickle.Unpickler):
    """Knows tensors and plain containers by name; everything else is inert."""

    def __init__(self, file: Any, inert: set[str]) -> None:
        super().__init__(file, encoding="utf-8")
        self._inert = inert
        self._made: dict[str, type[_Inert]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Hand out what makes tensors, and an inert class of that name for anything else."""
        if name in _DTYPES and module.startswith("torch"):
            return _DTYPES[name]
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch", "Size"): torch.Size,
        }
        if (module, name) in known:
            return known[module, name]
        # Not imported: to import a module runs it.
        full = f"{module}.{name}"
        if not full.startswith("__torch__."):
            self._inert.add(full[:200])
        return self._made.setdefault(full, type("Inert", (_Inert,), {}))


def _tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    """Lay a tensor over its numbers; one that repeats them to seem larger is refused."""
    made = torch.as_strided(storage, size, stride, offset)
    if made.numel() > storage.numel():
        raise ValueError(f"{storage.numel():,} numbers call themselves {made.numel():,}")
    return made


def _tensors_in(stored: Any, at: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Name all tensors in dicts, and in the modules of a TorchScript archive."""
    inside = stored.inside if isinstance(stored, _Inert) else stored
    if isinstance(inside, Tensor):
        whole = inside.numel() <= inside.untyped_storage().nbytes() // inside.element_size()
        if not whole:
            raise BadUsageError(f"{at}: a few numbers call themselves {inside.numel():,}")
        yield at, inside
    elif isinstance(inside, Mapping) and depth < _MOST_DEPTH:
        for name, one in inside.items():
            if isinstance(name, str):
                yield from _tensors_in(one, f"{at}.{name}" if at else name, depth + 1)


def _why(error: Exception) -> str:
    """Tell what safetensors says of a header, or we; torch's words advise to run the file."""
    ours = isinstance(error, ValueError) or "header" in str(error)
    return first_line(error) if ours else type(error).__name__


def _what_else(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(23) == b"version https://git-lfs":
            return "a pointer of Git LFS; fetch the file by git lfs pull"
    return ""
