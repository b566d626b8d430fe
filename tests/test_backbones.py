"""Checkpoints of published systems load whole and say what independent code says."""

import copy
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import published_systems as published
import pytest
import torch
from evaluation import egma_eval, write_dicom
from published_systems import Published, write_wordpiece
from safetensors.torch import load_file, save_file
from test_train import egma_train
from torch import Tensor

from egma_train.data.augment import draw
from egma_train.data.cache import open_cache
from egma_train.data.loading import BatchLoader, tokenized
from egma_train.errors import BadUsageError
from egma_train.evaluate.checkpoints import load_encoder
from egma_train.evaluate.encoder import Encoder
from egma_train.model.backbones.clip_sizes import heads_of_clip
from egma_train.model.weights import Start, hash_of_sources, load_start, open_model
from egma_train.options import ModelOptions, options_of
from egma_train.processes import ALONE
from egma_train.train.loop import own_grid
from egma_train.train.step import Progress, batch_loss, make_trainer

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
    "PubMedCLIP's own file": published.pubmed_clip,
    "CLIPModel with QuickGELU": lambda folder: published.hugging_face_clip(folder, "quick_gelu"),
    "CLIPModel with GELU": lambda folder: published.hugging_face_clip(folder, "gelu"),
    "SigLIP": published.siglip,
    "VisionTextDualEncoderModel": published.dual_encoder,
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
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
@torch.inference_mode()
def test_texts_are_padded_further_only_where_that_changes_none(
    started: dict[str, Start], name: str
) -> None:
    model, (ids, mask) = started[name].model.eval(), tokens_of(started[name])
    assert model.padding_counts == (name == "SigLIP")
    if name == "SigLIP":  # whose texts are padded to its full length already, and all attended to
        ids, mask = ids[:, :-5], mask[:, :-5]
    longer = (torch.nn.functional.pad(one, (0, 5)) for one in (ids, mask))
    for one, other in zip(model.read(ids, mask), model.read(*longer), strict=True):
        moved = float((one - other).abs().max() / one.abs().max())
        assert moved > 1e-3 if model.padding_counts else moved < 1e-5


@pytest.mark.parametrize(
    ("vision", "text"), [("vit", "bert"), ("dinov2", "roberta"), ("resnet", "roberta")]
)
def test_any_two_towers_get_new_projections(tmp_path: Path, vision: str, text: str) -> None:
    places = published.two_folders(tmp_path, vision, text)
    options = ModelOptions(projection=24, max_tokens=40)
    start = load_start([f"vision={places[0]}", f"text={places[1]}"], options)
    (report,) = start.reports
    assert report.missing == ["logit_scale", "image_head.weight", "text_head.weight"]
    with pytest.raises(BadUsageError, match=r"image_head\.weight is missing"):
        report.check_complete()
    model = start.model.eval()
    (tower, grid), words = published.vision_tower(vision), published.text_tower(text)
    pixels, (ids, mask) = pixels_of(start), tokens_of(start)
    with torch.inference_mode():
        seen = tower.eval()(pixels).last_hidden_state
        read = words.eval()(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        tokens = published.rows(seen) if seen.dim() == 4 else seen[:, 1:]
        pooled = tokens.mean(1) if seen.dim() == 4 else seen[:, 0]
        texts = published.mean_of_tokens(sum(read.hidden_states[-4:]) / 4, mask)
        made = model(pixels, ids, mask)
        image_head, text_head = model.image_head, model.text_head
        torch.testing.assert_close(made.patches, image_head(tokens), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(made.images, image_head(pooled), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(made.sentences, text_head(texts), atol=1e-5, rtol=1e-4)
    assert made.patches.shape == (2, grid**2, 24)
    model.save_pretrained(tmp_path / "saved")
    assert open_model(tmp_path / "saved").facts == model.facts


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("visual.attnpool.positional_embedding", "a CLIP with a ResNet"),
        ("image_encoder.res_l1.weight", "a ConVIRT, which its authors never released"),
        ("module.disease_book", "a MedKLIP"),
        ("decoder.layers.0.multihead_attn.in_proj_weight", "a KAD or MedKLIP"),
    ],
)
def test_what_is_left_out_is_refused_by_name(tmp_path: Path, key: str, said: str) -> None:
    torch.save({"model": {key: torch.zeros(2)}}, tmp_path / "x.pt")
    with pytest.raises(BadUsageError, match=f"x.pt: this is {said}"):
        load_start([str(tmp_path / "x.pt")], ModelOptions())


def test_a_file_of_another_family_is_told_by_what_it_looks_like(
    systems: dict[str, Published],
) -> None:
    with pytest.raises(BadUsageError, match=r"this is no mgca, .* looks like a gloria"):
        load_start([f"mgca={systems['GLoRIA of Lightning 1.1'].place}"], ModelOptions())


def test_a_tower_of_which_a_layer_lacks_is_refused_and_fewer_layers_are_told(
    systems: dict[str, Published], tmp_path: Path
) -> None:
    system = systems["CXR-CLIP with a ResNet"]
    write_wordpiece(tmp_path)
    at = "text_encoder.text_encoder.encoder.layer."

    def without(*lacking: str) -> str:
        kept = {k: v for k, v in system.state.items() if not k.startswith(lacking)}
        torch.save({"model": kept}, tmp_path / "r50_m.tar")
        return f"cxr-clip={tmp_path / 'r50_m.tar'}"

    with pytest.raises(BadUsageError, match="the text tower has no layer 2, but a later one"):
        load_start([without(f"{at}2.")], ModelOptions())
    (report,) = load_start([without(f"{at}3.")], ModelOptions()).reports
    assert "the text tower has 3 layers, cxr-clip's 12" in report.note
    assert "the image tower has 1, 2, 1, 1 blocks, a ResNet-50 3, 4, 6, 3" in report.note
    with pytest.raises(BadUsageError, match=r"\d+% of the tower is missing, such as text"):
        load_start([without(f"{at}1.attention.")], ModelOptions())


# -- what would load silently and be wrong ---------------------------------------------------------


def worst(
    name: str, started: dict[str, Start], systems: dict[str, Published], change: Any
) -> float:
    """Change a loaded model and tell by how much its features then miss the oracle's."""
    start, system = started[name], systems[name]
    other = copy.deepcopy(start.model).eval()
    change(other)
    pixels, (ids, mask) = pixels_of(start), tokens_of(start)
    with torch.inference_mode():
        expected = system.says(system.state, pixels, ids, mask)
        made = other(pixels, ids, mask)
    pairs = [
        (made.patches, expected.patches),
        (made.images, expected.pooled),
        (made.whole_texts, expected.texts),
    ]
    return max(float((one - two).abs().max()) for one, two in pairs)


def gelu_instead(model: Any) -> None:
    for module in model.modules():
        if hasattr(module, "activation_fn"):
            module.activation_fn = torch.nn.GELU()


def epsilon_of_transformers(model: Any) -> None:
    for module in model.vision.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-12


def ordinary_positions(model: Any) -> None:
    model._read = lambda ids, mask: model.text(ids, attention_mask=mask).last_hidden_state


def padding_is_averaged(model: Any) -> None:
    model.texts = lambda ids, mask: type(model).texts(model, ids, torch.ones_like(mask))


def statistics_of_the_batch(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.train()


def mean_of_patches(model: Any) -> None:
    def images(pixels: Tensor) -> tuple[Tensor, Tensor]:
        patches, _ = type(model).images(model, pixels)
        return patches, patches.mean(1)

    model.images = images


@pytest.mark.parametrize(
    ("name", "change", "least"),
    [
        ("OpenAI's archive", gelu_instead, 1e-2),
        ("MGCA with a ViT", epsilon_of_transformers, 1.2e-5),
        ("MGCA with a ViT", ordinary_positions, 1e-2),
        ("CXR-CLIP with a ResNet", padding_is_averaged, 1e-2),
        ("GLoRIA of Lightning 1.1", padding_is_averaged, 1e-2),
        ("GLoRIA of Lightning 1.1", statistics_of_the_batch, 1e-2),
        ("CXR-CLIP with a Swin", mean_of_patches, 1e-2),
        ("SigLIP", mean_of_patches, 1e-2),
    ],
)
def test_what_loads_silently_and_is_wrong_is_told_apart_by_the_oracle(
    systems: dict[str, Published],
    started: dict[str, Start],
    name: str,
    change: Any,
    least: float,
) -> None:
    assert worst(name, started, systems, lambda model: None) < 1e-4
    assert worst(name, started, systems, change) > least


# -- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SYSTEMS if "CLIPModel" not in name])
def test_two_steps_of_training_lower_the_loss_and_leave_running_statistics(
    systems: dict[str, Published], shards: Path, name: str
) -> None:
    start = load_start([f"{systems[name].family}={systems[name].place}"], ModelOptions())
    options = options_of("paper", {"train": {"learning_rate": 1e-4, "warmup_epochs": 0.0}})
    cache = open_cache(shards, maps=True)
    loader = BatchLoader(
        cache, start.tokenizer, cache.readings_with_gaze(), start.model.facts.max_tokens,
        grid=own_grid(start.model, options),
    )  # fmt: skip
    loader = replace(loader, draws=draw(options.data, len(cache), 0, 0))
    batch = loader.load(np.arange(3))
    assert batch.grid.shape[-1] == systems[name].grid ** 2
    trainer = make_trainer(start.model, options, ALONE, torch.device("cpu"))
    trainer.parallel.train()
    running = {
        key: value.clone()
        for key, value in start.model.state_dict().items()
        if "running_" in key or key.endswith("num_batches_tracked")
    }

    @torch.no_grad()
    def loss() -> float:
        start.model.eval()  # no dropout
        found = batch_loss(trainer.encoded(0, batch, 0), batch, options)
        start.model.train()
        return float(found.total)

    before = loss()
    for _ in range(2):
        trainer.step(batch, Progress(), 1e-4)
    assert loss() < before
    now = start.model.state_dict()
    assert all(torch.equal(now[key], value) for key, value in running.items())
    assert bool(running) == any(word in name for word in ("MGCA", "ResNet", "BioViL", "GLoRIA"))


@pytest.mark.parametrize("name", ["GLoRIA of Lightning 1.1", "OpenAI's archive", "SigLIP"])
def test_recomputed_activations_give_the_same_gradients(
    started: dict[str, Start], name: str
) -> None:
    start = started[name]
    asked = (pixels_of(start), *tokens_of(start))
    gradients = []
    for recompute in (False, True):
        model = copy.deepcopy(start.model).train()
        if recompute:
            model.checkpoint_gradients()
        torch.manual_seed(0)  # of dropout, which is drawn again as it was
        made = model(*asked)
        (made.patches.sum() + made.images.square().sum() + made.sentences.square().sum()).backward()
        gradients.append([one.grad for one in model.parameters() if one.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_a_checkpoint_of_a_continued_system_goes_on_as_if_undisturbed(
    systems: dict[str, Published], shards: Path, tmp_path: Path
) -> None:
    def trained(name: str, *more: object) -> Path:
        call = ["--shards", shards, "--out", tmp_path, "--name", name, "--epochs", 2]
        place = systems["GLoRIA of Lightning 1.1"].place
        result = egma_train(*call, "--init", f"gloria={place}", "--batch-size", 8, *more)
        assert result.exit_code in (0, 130), result.output
        return tmp_path / "runs" / name

    whole = trained("whole")
    first = trained("first", "--set", "execution.checkpoint_steps=1")
    shutil.copytree(first, again := tmp_path / "runs" / "again")
    # A run is as after its first epoch where its record says so and a checkpoint lies there.
    record = json.loads((again / "run.json").read_text())
    (again / "run.json").write_text(json.dumps(record | {"status": "running"}))
    shutil.rmtree(again / "model")
    shutil.rmtree(again / "checkpoints")
    result = trained("again", "--resume")
    for other in (first, result):
        assert load_file(other / "model/model.safetensors").keys()
        for key, value in load_file(whole / "model/model.safetensors").items():
            assert torch.equal(load_file(other / "model/model.safetensors")[key], value), key
    assert json.loads((whole / "model/egma.json").read_text())["family"] == "gloria"


# -- each system's own scores ----------------------------------------------------------------------


def by_words(state: dict[str, Tensor], pixels: Tensor, text: str, tokenizer: Any) -> list[float]:
    """GLoRIA's local score of one text, word by word in loops, of the published names."""
    tokens = tokenizer([text], padding=True, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    regions = published.of_gloria(state, pixels, ids, mask).patches  # (k, n, d)
    states = sum(published.bert(state, "gloria.text_encoder.model.", ids, mask)[-4:])[0]
    words: list[Tensor] = []
    for number, vector in zip(ids[0].tolist()[1:-1], states[1:-1], strict=True):
        if published.VOCABULARY[number].startswith("##"):
            words[-1] = words[-1] + vector
        else:
            words.append(vector)
    scores = []
    for own in regions:
        products = torch.stack([own @ word for word in words], 1)  # (n, words)
        shares = torch.stack([row.softmax(0) for row in products])
        best = -math.inf
        for j, word in enumerate(words):
            weights = (4 * shares[:, j]).softmax(0)
            seen = (weights[:, None] * own).sum(0)
            best = max(best, 5 * float(torch.cosine_similarity(word, seen, dim=0)))
        scores.append(best)
    return scores


@torch.inference_mode()
def test_glorias_own_score_counts_words_and_lets_each_look_at_the_patches(
    systems: dict[str, Published], started: dict[str, Start]
) -> None:
    name = "GLoRIA of Lightning 1.1"
    start, state = started[name], systems[name].state
    # Products of random features saturate every softmax: the shares must count.
    start = Start(copy.deepcopy(start.model).eval(), start.tokenizer, [])
    for key in ("local_head.weight",):
        start.model.get_parameter(key).mul_(0.05)
    state = dict(state)
    state["gloria.img_encoder.local_embedder.weight"] = (
        0.05 * state["gloria.img_encoder.local_embedder.weight"]
    )
    encoder = Encoder("PHANTOM", "0" * 64, start.model, start.tokenizer, torch.device("cpu"))
    frames = np.random.default_rng(0).integers(0, 255, (2, 224, 224), np.uint8)
    found = encoder.local_similarities(frames, TEXTS)
    pixels = encoder._pixels(frames)
    for i, text in enumerate(TEXTS):
        expected = by_words(state, pixels, text.replace(" .", ""), start.tokenizer)
        assert found[:, i].tolist() == pytest.approx(expected, abs=1e-4)
    with pytest.raises(BadUsageError, match="is no GLoRIA"):
        other = started["BiomedCLIP"]
        Encoder("x", "", other.model, other.tokenizer, torch.device("cpu")).local_similarities(
            frames, TEXTS
        )


@torch.inference_mode()
def test_best_patches_are_compared_with_what_reads_for_patches(started: dict[str, Start]) -> None:
    start = started["MGCA with a ViT"]
    encoder = Encoder("x", "", start.model, start.tokenizer, torch.device("cpu"))
    model, (ids, mask) = start.model.eval(), tokens_of(start)
    own = torch.nn.functional.normalize(model.sentences(ids, mask), dim=-1)
    torch.testing.assert_close(encoder.sentences(TEXTS), own)
    assert not torch.allclose(encoder.sentences(TEXTS), encoder.texts(TEXTS), atol=0.1)


# -- evaluation ------------------------------------------------------------------------------------


def write_siim(root: Path) -> Path:
    """Write six pictures of noise in the published format, wide and high ones."""
    rows = ["ImageId, EncodedPixels"]
    rng = np.random.default_rng(0)
    for i in range(6):
        shape = (90, 60) if i % 2 else (60, 80)
        write_dicom(root / f"siim/{i}/1.2.{i}.dcm", rng.integers(0, 255, shape, np.uint8))
        rows.append(f"1.2.{i}, {'1 2' if i % 2 else '-1'}")
    (root / "siim/train-rle.csv").write_text("\n".join(rows))
    return root


def test_one_command_measures_ten_families_and_says_how_each_was_fed(
    systems: dict[str, Published], tmp_path: Path
) -> None:
    write_siim(tmp_path / "data")
    named = {
        one.family: f"{one.family}={one.place}"
        for name, one in systems.items()
        if name not in ("open_clip's LAION", "PubMedCLIP's own file") and "CLIPModel" not in name
    }
    assert len(named) >= 10
    result = egma_eval(
        "table", "--out", tmp_path / "out", "--data", tmp_path / "data", *named.values()
    )
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out/evaluation/tables.md").read_text()
    for family in named:
        assert f"| {family} | ours |" in page
        (path,) = (tmp_path / "out/evaluation/zero-shot-siim").glob(f"{family}-????????.json")
        system = json.loads(path.read_text())["checkpoint"]["system"]
        assert system["family"] == family
        parts = {"container", "scale", "grid", "geometry", "pooling", "activation", "licence"}
        assert system.keys() >= parts and all(system[one] for one in parts)
    of_clip = json.loads(
        next((tmp_path / "out/evaluation/zero-shot-siim").glob("clip-*")).read_text()
    )
    system = of_clip["checkpoint"]["system"]
    assert system["activation"] == "quick_gelu" and system["container"] == "TorchScript"
    assert system["geometry"] == "shorter side 64 px bicubic" and system["grid"] == "4 x 4"


def test_one_command_continues_systems_and_tells_what_each_gained(
    systems: dict[str, Published], shards: Path, tmp_path: Path
) -> None:
    write_siim(tmp_path / "data")
    clip, mgca = systems["OpenAI's archive"].place, systems["MGCA with a ViT"].place
    call = (
        "continue", "--shards", shards, "--out", tmp_path / "out", "--data", tmp_path / "data",
        "--set", "train.epochs=1", "--set", "train.batch_size=8", f"clip={clip}", f"mgca={mgca}",
    )  # fmt: skip
    result = egma_eval(*call)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out/evaluation/tables.md").read_text()
    (table,) = (one for one in page.split("## ") if one.startswith("Table IV"))
    ours = [line for line in table.splitlines() if "| ours |" in line]
    assert [line.split(" | ")[0] for line in ours] == ["| egma on clip", "| egma on mgca-vit"]
    accuracy = {
        name: next(iter(json.loads(path.read_text())["metrics"]["accuracy"].values()))
        for path in (tmp_path / "out/evaluation/zero-shot-siim").glob("*-????????.json")
        for name in [path.stem[:-9]]
    }
    for line, name in zip(ours, ("continued-clip-seed0", "continued-mgca-seed0"), strict=True):
        gained = 100 * (accuracy[name] - accuracy[f"{name}-untrained"])
        assert f"({gained:+.2f})" in line.split(" | ")[6]
    again = egma_eval(*call)
    assert again.exit_code == 0 and "training" not in again.output


def test_a_system_is_trained_and_grounded_on_what_its_own_crop_leaves(
    systems: dict[str, Published], shards: Path, tmp_path: Path
) -> None:
    place = systems["MGCA with a ViT"].place
    own = ("--set", "model.geometry=own", "--epochs", 1, "--batch-size", 8)
    call = ("--shards", shards, "--out", tmp_path, "--init", f"mgca={place}", *own)
    result = egma_train(*call, "--name", "own")
    assert result.exit_code == 0, result.output
    run = tmp_path / "runs/own"
    for checkpoint in (run, f"mgca={place}"):
        result = egma_eval("grounding", "--shards", shards, "--out", tmp_path, checkpoint)
        assert result.exit_code == 0, result.output
    for path in (tmp_path / "evaluation/grounding-gaze").glob("*.json"):
        told = json.loads(path.read_text())["protocol"]["geometry"]
        assert told == "padded to a square 256 px area, centre 224"


# -- what stands beside weights --------------------------------------------------------------------


def clip_of_heads(folder: Path, heads: int, eps: float) -> Any:
    """Save a CLIPModel of other heads than of 64 and another epsilon, by transformers."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    rows = published.write_bpe(folder)
    common = {"num_hidden_layers": 2, "num_attention_heads": heads, "layer_norm_eps": eps}
    vision = {"hidden_size": 128, "intermediate_size": 256, "image_size": 64, "patch_size": 16}
    text = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": rows}
    text |= {"bos_token_id": rows - 2, "eos_token_id": rows - 1}
    config = CLIPConfig(vision_config=common | vision, text_config=common | text, projection_dim=24)
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    return model


@torch.inference_mode()
def test_heads_and_epsilon_are_those_of_a_folders_config(tmp_path: Path) -> None:
    model = clip_of_heads(tmp_path, heads=4, eps=1e-2)
    start = load_start([str(tmp_path)], ModelOptions())
    pixels, (ids, mask) = pixels_of(start), tokens_of(start)
    images = model.vision_model(pixel_values=pixels).pooler_output
    texts = model.text_model(input_ids=ids, attention_mask=mask).pooler_output
    made = start.model.eval()(pixels, ids, mask)
    torch.testing.assert_close(made.images, model.visual_projection(images), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made.whole_texts, model.text_projection(texts), atol=1e-5, rtol=1e-4)


def test_open_clips_wide_towers_have_16_heads_and_odd_widths_are_refused() -> None:
    assert [heads_of_clip("vision", width, {}) for width in (768, 1024, 1280, 1408, 1664)] == [
        12, 16, 16, 16, 16,
    ]  # fmt: skip
    assert heads_of_clip("text", 1280, {}) == 20
    assert heads_of_clip("vision", 896, {"head_width": 64}) == 14
    with pytest.raises(BadUsageError, match="has heads that no file here tells"):
        heads_of_clip("vision", 1000, {})


def test_a_siglip_whose_pixels_are_no_multiple_of_its_patches_keeps_them(tmp_path: Path) -> None:
    published.siglip(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["image_size"] = 70  # 8 patches of 8, and 6 pixels more
    (tmp_path / "config.json").write_text(json.dumps(config))
    facts = load_start([str(tmp_path)], ModelOptions(geometry="own")).model.facts
    assert (facts.image_px, facts.grid) == (70, 8)
    assert facts.geometry.told() == "squashed 70 px bilinear"
    config["vision_config"]["image_size"] = 80
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadUsageError, match=r"80 px, of which 100 patches .* the weights have 64"):
        load_start([str(tmp_path)], ModelOptions())


def test_an_activation_that_nothing_tells_is_said(
    systems: dict[str, Published], tmp_path: Path
) -> None:
    laion = systems["open_clip's LAION"]
    for place in (laion.place, laion.place.parent):  # the file, or its folder without a JSON
        encoder = load_encoder(f"clip={place}")
        assert encoder.told()["system"]["activation"] == "gelu"
        assert not any("activation" in one for one in encoder.cautions)
    shutil.copytree(laion.place.parent, tmp_path / "x")
    (tmp_path / "x/open_clip_pytorch_model.bin").rename(tmp_path / "x/weights.bin")
    encoder = load_encoder(f"clip={tmp_path / 'x'}")
    assert encoder.told()["system"]["activation"] == "quick_gelu"
    assert any("no file says which activation" in one for one in encoder.cautions)
    (tmp_path / "x/open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": false}}')
    assert load_encoder(f"clip={tmp_path / 'x'}").told()["system"]["activation"] == "gelu"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("open_clip's LAION", "visual.transformer.resblocks.0.ls_1.gamma"),
        ("BiomedCLIP", "visual.trunk.blocks.0.ls1.gamma"),
        ("CXR-CLIP with a ResNet", "image_encoder.resnet.layer3.0.se.weight"),
    ],
)
def test_weights_that_a_tower_has_no_place_for_are_refused(
    systems: dict[str, Published], tmp_path: Path, name: str, key: str
) -> None:
    place = systems[name].place
    shutil.copytree(place if place.is_dir() else place.parent, tmp_path / "x")
    file = tmp_path / "x" / ("" if place.is_dir() else place.name)
    file = next((tmp_path / "x").glob("*.bin")) if file.is_dir() else file
    torch.save(systems[name].state | {key: torch.zeros(3)}, file)
    with pytest.raises(BadUsageError, match=rf"no place in the tower, such as {key}"):
        load_start([f"{systems[name].family}={file}"], ModelOptions())


def test_weights_in_pieces_are_put_together(systems: dict[str, Published], tmp_path: Path) -> None:
    shutil.copytree(systems["SigLIP"].place, tmp_path / "x")
    state = load_file(tmp_path / "x/model.safetensors")
    (tmp_path / "x/model.safetensors").unlink()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    home = {key: names[i % 2] for i, key in enumerate(state)}
    for name in names:
        save_file({k: v for k, v in state.items() if home[k] == name}, tmp_path / "x" / name)
    (tmp_path / "x/model.safetensors.index.json").write_text(json.dumps({"weight_map": home}))
    (report,) = load_start([str(tmp_path / "x")], ModelOptions()).reports
    assert report.missing == report.unexpected == []
    (tmp_path / "x" / names[0]).unlink()
    with pytest.raises(BadUsageError, match=f"names {names[0]}, which is not there"):
        load_start([str(tmp_path / "x")], ModelOptions())


def test_a_preprocessor_that_makes_other_pictures_than_the_tower_sees_is_refused(
    systems: dict[str, Published], tmp_path: Path
) -> None:
    shutil.copytree(systems["VisionTextDualEncoderModel"].place, tmp_path / "x")
    path = tmp_path / "x/preprocessor_config.json"
    told = json.loads(path.read_text())
    for change, said in (
        ({"crop_size": {"height": 256, "width": 256}}, "makes pictures of 256 px, .* sees 224"),
        ({"image_std": [0.2, 0, 0.2]}, r"image_std \[0.2, 0, 0.2\]"),
    ):
        path.write_text(json.dumps(told | change))
        with pytest.raises(BadUsageError, match=said):
            load_start([str(tmp_path / "x")], ModelOptions())


@pytest.mark.parametrize("statistic", [False, True], ids=["a weight", "a running variance"])
def test_weights_that_are_not_finite_start_no_training(
    systems: dict[str, Published], tmp_path: Path, statistic: bool
) -> None:
    system = systems["CXR-CLIP with a ResNet"]
    write_wordpiece(tmp_path)
    key = "image_encoder.resnet.bn1.running_var" if statistic else "text_projection.projection.bias"
    state = system.state | {key: torch.full_like(system.state[key], torch.inf)}
    torch.save({"model": state}, tmp_path / "x.tar")
    with pytest.raises(BadUsageError, match="has NaN or infinite weights"):
        load_start([f"cxr-clip={tmp_path / 'x.tar'}"], ModelOptions())


def test_a_file_of_no_known_system_and_an_empty_place_are_told(tmp_path: Path) -> None:
    torch.save({"backbone.a": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(BadUsageError, match=r"no system that is known here .* backbone\.a"):
        load_start([str(tmp_path / "x.pt")], ModelOptions())
    with pytest.raises(BadUsageError, match="--init clip=: no such folder"):
        load_start(["clip="], ModelOptions())


def test_a_run_goes_on_from_the_weights_that_it_began_with_alone(
    systems: dict[str, Published], shards: Path, tmp_path: Path
) -> None:
    write_siim(tmp_path / "data")
    first, other = (systems[name].place for name in ("OpenAI's archive", "open_clip's LAION"))
    call = ("continue", "--shards", shards, "--out", tmp_path / "out", "--data", tmp_path / "data")
    small = ("--set", "train.epochs=1", "--set", "train.batch_size=8")
    assert egma_eval(*call, *small, f"clip={first}").exit_code == 0
    result = egma_eval(*call, *small, f"clip={other}")
    assert result.exit_code == 2 and "began from other weights" in result.stderr
    more = ("--set", "train.epochs=2", "--set", "train.batch_size=8")
    result = egma_eval(*call, *more, f"clip={first}")
    assert result.exit_code == 2 and "was begun otherwise: train.epochs" in result.stderr
    result = egma_eval(*call, *small, "--set", "model.geometry=own", f"clip={first}")
    assert result.exit_code == 2 and "was begun otherwise: model.geometry" in result.stderr
    record = tmp_path / "out/runs/continued-clip-seed0/run.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps(told | {"status": "running"}))
    resume = ("--name", "continued-clip-seed0", "--resume", "--init")
    for init in (f"clip={other}", f"chexzero={first}", "random"):
        result = egma_train("--shards", shards, "--out", tmp_path / "out", *resume, init)
        assert result.exit_code == 2 and "began from other weights" in result.stderr


ARCHIVE = "OpenAI's archive"


def test_a_folders_json_files_are_part_of_what_a_run_began_with(tmp_path: Path) -> None:
    published.hugging_face_clip(tmp_path, "gelu")
    before = hash_of_sources([f"clip={tmp_path}"])
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"gelu"', '"quick_gelu"'))
    assert hash_of_sources([f"clip={tmp_path}"]) != before


def test_preparation_is_what_the_folders_own_files_say(
    systems: dict[str, Published], tmp_path: Path
) -> None:
    shutil.copytree(systems["SigLIP"].place, tmp_path / "siglip")
    told = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4] * 3, "resample": 3}
    size = {"size": {"height": 64, "width": 64}}
    (tmp_path / "siglip/preprocessor_config.json").write_text(json.dumps(told | size))
    own = ModelOptions(geometry="own")
    facts = load_start([str(tmp_path / "siglip")], own).model.facts
    assert facts.mean == (0.1, 0.2, 0.3) and facts.geometry.told() == "squashed 64 px bicubic"
    for name in ("open_clip's LAION", "BiomedCLIP"):
        place = systems[name].place
        folder = place if place.is_dir() else place.parent
        shutil.copytree(folder, tmp_path / name)
        config = {"model_cfg": {}, "preprocess_cfg": {"mean": [0.5] * 3, "resize_mode": "squash"}}
        (tmp_path / name / "open_clip_config.json").write_text(json.dumps(config))
        facts = load_start([f"{systems[name].family}={tmp_path / name}"], own).model.facts
        assert facts.mean == (0.5, 0.5, 0.5) and facts.geometry.fit == "squash"
    config["model_cfg"] = {"vision_cfg": {"pool_type": "avg"}}
    path = tmp_path / "open_clip's LAION" / "open_clip_config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(BadUsageError, match="pools otherwise than CLIP"):
        load_start([f"clip={path.parent}"], own)


@torch.inference_mode()
def test_each_tower_of_a_clip_has_its_own_activation_and_end_token(tmp_path: Path) -> None:
    from transformers import CLIPModel

    published.hugging_face_clip(tmp_path, "gelu")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["hidden_act"] = "quick_gelu"
    config["text_config"]["eos_token_id"] = 300
    path.write_text(json.dumps(config))
    model, start = CLIPModel.from_pretrained(tmp_path).eval(), load_start([str(tmp_path)], own())
    ids = torch.randint(5, 200, (3, 9), generator=torch.Generator().manual_seed(0))
    ids[:, 4], ids[:, 8] = 300, 400
    pixels, mask = pixels_of(start), torch.ones_like(ids)
    made = start.model.eval()
    images = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    texts = model.text_model(input_ids=ids, attention_mask=mask).pooler_output
    torch.testing.assert_close(made.images(pixels)[1], images, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        made.texts(ids, mask), model.text_projection(texts), atol=1e-5, rtol=1e-4
    )
    assert made.facts.activation == "quick_gelu and gelu"
    config["vision_config"]["image_size"] = 300
    path.write_text(json.dumps(config))
    with pytest.raises(BadUsageError, match="300 px, which 16 patches do not cover"):
        load_start([str(tmp_path)], own())


def own() -> ModelOptions:
    return ModelOptions(geometry="own")


def test_unknown_keys_and_options_without_effect_are_cautions(
    systems: dict[str, Published], tmp_path: Path
) -> None:
    system = systems["open_clip's LAION"]
    shutil.copytree(system.place.parent, tmp_path / "x")
    file = tmp_path / "x/open_clip_pytorch_model.bin"
    torch.save(system.state | {"visual.attn_pool.query": torch.zeros(3)}, file)
    encoder = load_encoder(f"clip={file}", {"model": {"patch_grid": 14}})
    told = " ".join(encoder.cautions)
    assert "1 keys are unknown, such as visual.attn_pool.query" in told
    assert "model.patch_grid mean nothing to a clip" in told


def test_reports_keep_what_became_of_every_key(
    systems: dict[str, Published], tmp_path: Path
) -> None:
    encoder = load_encoder(f"gloria={systems['GLoRIA of Lightning 1.1'].place}")
    keys = encoder.told()["keys"]
    assert re.search(
        r"\d+ loaded \(1 of one cell squeezed\), 1 missing, 0 unexpected, 3 left out", keys[0]
    )
    assert encoder.said()[0] == keys[0]
    assert any("omegaconf" in line for line in keys)
    assert any("pooler.dense.bias (the pooler is not used)" in line for line in keys)
    encoder = load_encoder(f"clip={systems[ARCHIVE].place}")
    head = encoder.told()["keys"][0]
    assert "(2 transposed, 8 split into queries, keys and values)" in head


def test_cxr_berts_own_folder_is_a_text_tower_whatever_image_tower_lies_in_it(
    systems: dict[str, Published], tmp_path: Path
) -> None:
    vision, text = published.two_folders(tmp_path, "dinov2", "bert")
    image_file = systems["BioViL"].place / "biovil_image_resnet50_proj_size_128.pt"
    shutil.copy(image_file, text / image_file.name)
    options = ModelOptions(projection=24, max_tokens=40)
    (report,) = load_start([f"vision={vision}", f"text={text}"], options).reports
    assert report.unexpected == []
