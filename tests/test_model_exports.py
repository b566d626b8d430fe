"""A model in another format gives the similarities that it gives here."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import published_systems as published
import pytest
import torch
from evaluation import egma_eval, save_tiny_model
from PIL import Image
from test_train import SMALL, egma_train

from egma_train.evaluate.checkpoints import load_encoder
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.export import _card

TEXTS = ["no pneumonia", "the lungs are clear", "heart size is normal ."]
MODELS: dict[str, Any] = {
    "clip": published.laion_clip,
    "gloria": published.gloria,
    "mgca": lambda folder: published.mgca(folder, "mgca-vit"),
    "siglip": published.siglip,
    "cxr-clip": lambda folder: published.cxr_clip(folder, "cxr-clip-swin"),
    "dual-encoder": published.dual_encoder,
}


def own_similarities(encoder: Encoder, frames: Any) -> Any:
    pooled, _ = encoder.images(frames)
    return (encoder.scale * pooled @ encoder.texts(TEXTS).T).numpy()


def exported(kind: str, checkpoint: str, tmp_path: Path) -> Path:
    result = egma_eval("export", "--to", kind, checkpoint, tmp_path / "exported")
    assert result.exit_code == 0, result.output
    return tmp_path / "exported"


@pytest.mark.skipif(torch.__version__ < (2, 6), reason="this torch cannot write its attention")
@pytest.mark.parametrize("name", [*MODELS, "own"])
def test_onnx_gives_the_same_similarities(name: str, tmp_path: Path) -> None:
    if name == "own":
        checkpoint = str(save_tiny_model(tmp_path / "own"))
    else:
        checkpoint = f"{name}={MODELS[name](tmp_path / name).place}"
    place = exported("onnx", checkpoint, tmp_path)
    encoder = load_encoder(checkpoint)
    side = 224 if encoder.preparation[0].fit == "frame" else encoder.preparation[1]
    frames = np.random.default_rng(0).integers(0, 255, (3, side, side), np.uint8)
    pooled, patches = onnxruntime.InferenceSession(place / "images.onnx").run(
        None, {"frames": frames}
    )
    most = encoder.model.facts.max_tokens
    tokens = encoder.tokenizer(
        TEXTS, padding=True, truncation=True, max_length=most, return_tensors="np"
    )
    given = {one: tokens[one].astype(np.int64) for one in ("input_ids", "attention_mask")}
    texts, sentences = onnxruntime.InferenceSession(place / "texts.onnx").run(None, given)
    made = encoder.scale * pooled @ texts.T
    np.testing.assert_allclose(made, own_similarities(encoder, frames), atol=2e-3)
    np.testing.assert_allclose(sentences, encoder.sentences(TEXTS).numpy(), atol=1e-5)
    by_us = encoder.images(frames)[1].numpy()
    np.testing.assert_allclose(patches, by_us, atol=1e-4)


@pytest.mark.parametrize("name", ["clip", "siglip", "dual-encoder"])
def test_a_hugging_face_folder_gives_the_same_similarities(name: str, tmp_path: Path) -> None:
    checkpoint = f"{name}={MODELS[name](tmp_path / name).place}"
    place = exported("hugging-face", checkpoint, tmp_path)
    # The card's own example, on pixels of noise in place of zeros.
    code = re.findall(r"```python\n(.*?)```", (place / "README.md").read_text(), re.DOTALL)[0]
    code = code.replace('from_pretrained(".")', f"from_pretrained({str(place)!r})")
    code = code.replace('["no pneumonia"]', repr(TEXTS))
    code = re.sub(r"torch\.zeros\(1, 3, (\d+), \d+\)", r"PIXELS", code)
    encoder = load_encoder(checkpoint)
    facts = encoder.model.facts
    frames = np.random.default_rng(0).integers(
        0, 255, (2, facts.image_px, facts.image_px), np.uint8
    )
    middle, spread = (torch.tensor(one).reshape(1, -1, 1, 1) for one in (facts.mean, facts.std))
    grey = torch.from_numpy(frames)[:, None] / 255
    names: dict[str, Any] = {"PIXELS": ((grey - middle) / spread).expand(-1, 3, -1, -1)}
    with torch.inference_mode():
        exec(code, names)
    made = names["made"].logits_per_image
    if name == "siglip":
        made = made - encoder.model.logit_bias
    torch.testing.assert_close(
        made, torch.from_numpy(own_similarities(encoder, frames)), atol=2e-3, rtol=1e-4
    )


def test_a_system_without_a_class_of_transformers_is_told_in_one_line(tmp_path: Path) -> None:
    place = published.gloria(tmp_path / "gloria").place
    result = egma_eval("export", "--to", "hugging-face", f"gloria={place}", tmp_path / "x")
    assert result.exit_code == 2 and not (tmp_path / "x").exists()
    assert "no class of transformers computes the features of a gloria" in result.stderr
    (tmp_path / "x").mkdir()
    result = egma_eval("export", "--to", "onnx", f"gloria={place}", tmp_path / "x")
    assert result.exit_code == 2 and "is there already" in result.stderr


def test_what_was_exported_keeps_its_preparation(tmp_path: Path) -> None:
    chexzero = f"chexzero={published.chexzero(tmp_path / 'chexzero').place}"
    place = exported("hugging-face", chexzero, tmp_path)
    (first, again) = (load_encoder(one) for one in (chexzero, f"clip={place}"))
    assert again.preparation == first.preparation
    assert again.model.facts.mean == pytest.approx(first.model.facts.mean * 3)
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64), np.uint8)
    torch.testing.assert_close(again.images(frames)[0], first.images(frames)[0])


@pytest.mark.parametrize("name", ["clip", "siglip", "dual-encoder"])
def test_transformers_prepares_wide_pictures_to_the_models_square(
    name: str, tmp_path: Path
) -> None:
    from transformers import AutoImageProcessor

    place = exported("hugging-face", f"{name}={MODELS[name](tmp_path / name).place}", tmp_path)
    processor = AutoImageProcessor.from_pretrained(place)
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 60), np.uint8))
    made = processor(images=grey.convert("RGB"), return_tensors="pt")["pixel_values"]
    px = load_encoder(str(place)).model.facts.image_px
    assert made.shape == (1, 3, px, px)


def test_an_exported_run_keeps_its_terms_of_use(clean_out: Path, tmp_path: Path) -> None:
    small = (*SMALL, "--epochs", 1)
    made = egma_train("--shards", clean_out, "--out", tmp_path, "--name", "r", *small)
    assert made.exit_code == 0, made.output
    result = egma_eval("export", "--to", "hugging-face", tmp_path / "runs/r", tmp_path / "x")
    assert result.exit_code == 2 and "no class of transformers computes" in result.stderr
    encoder = load_encoder(tmp_path / "runs/r")
    card = _card(encoder, "print()", tmp_path / "runs/r/README.md")
    assert "PhysioNet Credentialed Health Data licence" in card and "## Use" in card
    assert "Licence of the weights" in _card(encoder, "print()", None)


def test_what_a_continued_systems_model_folder_gives_keeps_its_terms_too(
    clean_out: Path, tmp_path: Path
) -> None:
    clip = published.laion_clip(tmp_path / "clip").place
    call = ("--shards", clean_out, "--out", tmp_path, "--name", "r", "--epochs", 1)
    made = egma_train(*call, "--batch-size", 8, "--init", f"clip={clip}")
    assert made.exit_code == 0, made.output
    for checkpoint, place in ((tmp_path / "runs/r/model", "x"), (tmp_path / "x", "y")):
        result = egma_eval("export", "--to", "hugging-face", checkpoint, tmp_path / place)
        assert result.exit_code == 0, result.output
        card = (tmp_path / place / "README.md").read_text()
        assert "PhysioNet Credentialed Health Data licence" in card
    result = egma_eval("export", "--to", "onnx", tmp_path / "runs/r", tmp_path / "z")
    said = "ONNX cannot shrink the frame of 224 px to 64|needs torch 2.6"
    assert result.exit_code == 2 and re.search(said, result.stderr)
