"""Checkpoints of published systems load whole and say what independent code says."""

from pathlib import Path
from typing import Any

import published_systems as published
import pytest
import torch
from published_systems import Published
from torch import Tensor

from egma_train.data.loading import tokenized
from egma_train.model.weights import Start, load_start, open_model
from egma_train.options import ModelOptions

SYSTEMS: dict[str, Any] = {
    "GLoRIA of Lightning 1.1": published.gloria,
    "MGCA with a ViT": lambda folder: published.mgca(folder, "mgca-vit"),
    "MGCA with a ResNet": lambda folder: published.mgca(folder, "mgca-resnet"),
    "MedCLIP with a ResNet": published.medclip_resnet,
    "BioViL": lambda folder: published.biovil(folder, "biovil"),
    "BioViL-T": lambda folder: published.biovil(folder, "biovil-t"),
    "CXR-CLIP with a ResNet": lambda folder: published.cxr_clip(folder, "cxr-clip"),
    "CXR-CLIP with a Swin": lambda folder: published.cxr_clip(folder, "cxr-clip-swin"),
    "BiomedCLIP": published.biomedclip,
    "OpenAI's archive": published.openai_clip,
    "open_clip's LAION": published.laion_clip,
    "CheXzero": published.chexzero,
}
TEXTS = ["no pneumonia", "the lungs are clear opacity effusions", "heart size is normal ."]


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Published]:
    """Write each system once."""
    return {name: make(tmp_path_factory.mktemp("published")) for name, make in SYSTEMS.items()}


@pytest.fixture(scope="module")
def started(systems: dict[str, Published]) -> dict[str, Start]:
    """Load each by its family's name."""
    options = ModelOptions(geometry="own")
    return {
        name: load_start([f"{one.family}={one.place}"], options) for name, one in systems.items()
    }


def tokens_of(start: Start, texts: list[str] = TEXTS) -> tuple[Tensor, Tensor]:
    read = tokenized(start.tokenizer, texts, start.model.facts.max_tokens)
    return read["input_ids"], read["attention_mask"]


def pixels_of(start: Start) -> Tensor:
    px = start.model.facts.image_px
    return torch.randn(2, 3, px, px, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", SYSTEMS)
@torch.inference_mode()
def test_a_checkpoint_loads_whole_and_says_what_its_published_code_says(
    systems: dict[str, Published], started: dict[str, Start], name: str
) -> None:
    system, start = systems[name], started[name]
    (report,) = start.reports
    assert [key for key in report.missing if key != "logit_scale"] == []
    assert report.unexpected == []
    assert set(report.reasons) == set(report.left_out) and all(report.reasons.values())
    model = start.model.eval()
    assert model.family == system.family and model.facts.grid == system.grid
    pixels, (ids, mask) = pixels_of(start), tokens_of(start)
    expected = system.says(system.state, pixels, ids, mask)
    made = model(pixels, ids, mask)
    assert made.patches.shape == (2, system.grid**2, expected.patches.shape[-1])
    torch.testing.assert_close(made.patches, expected.patches, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made.images, expected.pooled, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made.whole_texts, expected.texts, atol=1e-5, rtol=1e-4)
    sentences = expected.texts if expected.sentences is None else expected.sentences
    torch.testing.assert_close(made.sentences, sentences, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "CheXzero"])
def test_a_family_is_told_by_its_keys(
    systems: dict[str, Published], started: dict[str, Start], name: str
) -> None:
    found = load_start([str(systems[name].place)], ModelOptions())
    assert type(found.model) is type(started[name].model)


@pytest.mark.parametrize("name", SYSTEMS)
@torch.inference_mode()
def test_a_saved_system_is_the_same_system(
    started: dict[str, Start], tmp_path: Path, name: str
) -> None:
    start = started[name]
    start.model.save_pretrained(tmp_path)
    again = open_model(tmp_path).eval()
    again.reader(getattr(start.tokenizer, "tokenizer", start.tokenizer))
    assert again.facts == start.model.facts
    asked = (pixels_of(start), *tokens_of(start))
    for one, other in zip(start.model.eval()(*asked), again(*asked), strict=True):
        assert torch.equal(one, other)
