"""Models of known worth, and images made in the formats that datasets are published in."""

import itertools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import torch
from click.testing import Result
from conftest import invoked
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian

from egma_train.evaluate.cli import main
from egma_train.evaluate.datasets.image_lists import ImageList
from egma_train.evaluate.encoder import Encoder
from egma_train.geometry import FRAME
from egma_train.model.egma import EgmaModel, new_configs
from egma_train.model.tokenizer import make_tokenizer
from egma_train.options import options_of

GREY_PER_CLASS = 20
SMALL = {"model": {"swin_width": 12, "text_width": 32, "text_heads": 2, "projection": 32}}


def egma_eval(*arguments: object) -> Result:
    return invoked(main, *arguments)


def written(out: Path, task: str, suffix: str = ".json", name: str = "untrained") -> Path:
    """The one report of a model on a task."""
    (path,) = (out / "evaluation" / task).glob(f"{name}-????????{suffix}")
    return path


class OracleEncoder(Encoder):
    """Knows the class that an image's grey level stands for, and the class of each query."""

    def __init__(self, queries: Mapping[str, Sequence[str]], classes: Sequence[str]) -> None:
        super().__init__("oracle", "0" * 64, None, None, torch.device("cpu"))  # type: ignore[arg-type]
        self.class_of = {text: classes.index(name) for name in classes for text in queries[name]}
        self.class_of |= {name.lower(): i for i, name in enumerate(classes)}
        self.n = len(classes)

    preparation = (FRAME, 224)  # type: ignore[assignment]
    grid = 7  # type: ignore[assignment]

    @property
    def scale(self) -> float:
        return 10.0

    def texts(self, texts: Sequence[str], *, unit: bool = True) -> torch.Tensor:
        known = torch.cat([torch.eye(self.n), torch.zeros(1, self.n)])  # of no class: nothing
        return known[[self.class_of.get(text, self.n) for text in texts]]

    def images(self, frames: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        seen = np.rint(frames[:, 112, 112] / GREY_PER_CLASS).astype(np.int64) - 1
        pooled = torch.eye(self.n)[torch.from_numpy(seen)]
        return pooled, pooled[:, None].expand(-1, 49, -1)


class RandomEncoder(OracleEncoder):
    """Knows nothing: each image and text is a direction of its own."""

    def texts(self, texts: Sequence[str], *, unit: bool = True) -> torch.Tensor:
        return torch.stack([direction(text.encode()) for text in texts])

    def images(self, frames: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = torch.stack([direction(frame.tobytes()) for frame in frames])
        return pooled, pooled[:, None].expand(-1, 49, -1)


def direction(seed: bytes) -> torch.Tensor:
    drawn = np.random.default_rng(zlib.crc32(seed)).normal(size=16)
    return torch.from_numpy(drawn / np.linalg.norm(drawn)).float()


def save_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write an untrained model and its tokenizer."""
    options = options_of("tiny", SMALL).model
    words = ["the lungs are clear", "pneumonia is present", "an apical pneumothorax"]
    tokenizer = make_tokenizer(itertools.repeat(" ".join(words), 3), 200, options.max_tokens)
    torch.manual_seed(seed)
    EgmaModel(*new_configs(options, len(tokenizer)), options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def picture(label: int, width: int = 60, height: int = 50) -> NDArray[np.uint8]:
    """Draw an image whose centre has its class's grey level."""
    return np.full((height, width), GREY_PER_CLASS * (label + 1), np.uint8)


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def list_of_pictures(
    root: Path, classes: Sequence[str], of_each: int
) -> tuple[ImageList, list[Path]]:
    """Write pictures of each class, no two the same, and list them."""
    labels = np.arange(of_each * len(classes)) % len(classes)
    ids = tuple(f"{i}.png" for i in range(len(labels)))
    for i, label in enumerate(labels):
        pixels = picture(int(label))
        pixels[:5] = np.random.default_rng(i).integers(0, 255, (5, 60))
        write_picture(root / ids[i], pixels)
    return ImageList("made", tuple(classes), ids, labels), [root / one for one in ids]


def write_dicom(path: Path, pixels: NDArray[Any], **more: Any) -> None:
    """Write an uncompressed grey image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3"
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PixelRepresentation = 1, 0
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8 * pixels.dtype.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelData = pixels.tobytes()
    for name, value in more.items():
        setattr(made, name, value)
    made.save_as(path, enforce_file_format=True)
