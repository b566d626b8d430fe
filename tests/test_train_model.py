"""The towers: what is averaged and projected, what is saved, which weights are taken."""

import json
import math
import re
import zipfile
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from egma_train import load_model
from egma_train.data.loading import tokenized
from egma_train.errors import BadUsageError
from egma_train.evaluate.checkpoints import load_encoder, model_hash
from egma_train.evaluate.encoder import Encoder
from egma_train.model.egma import EgmaModel, new_configs
from egma_train.model.key_names import as_in_model, as_on_disk
from egma_train.model.tokenizer import make_tokenizer
from egma_train.model.weights import load_start
from egma_train.options import MEDCLIP_TEXT, ModelOptions, options_of

SMALL = replace(
    options_of("tiny").model, swin_width=12, swin_heads=(2, 4), text_width=24, text_heads=2,
    projection=16,
)  # fmt: skip
TEXTS = ["the heart is enlarged.", "no pleural effusion.", "a nodule in the right lung"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(TEXTS, 200, 77)


def make_model(options: ModelOptions = SMALL, vocabulary: int = 200, seed: int = 0) -> EgmaModel:
    torch.manual_seed(seed)
    return EgmaModel(*new_configs(options, vocabulary), options).eval()


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> EgmaModel:
    return make_model(vocabulary=len(tokenizer))


def images(n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, 112, 112, generator=torch.Generator().manual_seed(1))


def test_a_vocabulary_made_twice_is_the_same() -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice([*"abcdefgh"], size)) for size in rng.integers(2, 9, 300)]
    texts = [" ".join(rng.choice(words, 9)) for _ in range(300)]
    made = [make_tokenizer(texts, 300, 77) for _ in range(4)]
    assert all(one.get_vocab() == made[0].get_vocab() for one in made)
    assert made[0].vocab_size == 300


def test_a_sentence_is_read_back_from_its_pieces(tokenizer: Any) -> None:
    numbers = tokenizer("The HEART, enlarged?")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(numbers)[:: len(numbers) - 1] == ["[CLS]", "[SEP]"]
    told = tokenizer.decode(numbers, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert told == "the heart , enlarged ?"
    assert tokenizer.unk_token_id not in tokenizer("zygoma & vomer ##x")["input_ids"]


@torch.no_grad()
def test_features_have_the_shapes_of_the_paper(model: EgmaModel, tokenizer: Any) -> None:
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    seen = model(images(), tokens["input_ids"], tokens["attention_mask"])
    assert seen.patches.shape == (2, 49, 16) and seen.images.shape == (2, 16)
    assert seen.sentences.shape == (3, 16)
    assert float(seen.scale) == pytest.approx(1 / 0.07)


@torch.no_grad()
def test_patches_of_an_earlier_stage_are_its_last_blocks_by_a_projection_of_their_own() -> None:
    options = replace(SMALL, patch_grid=14)
    model = make_model(options)
    seen: list[Any] = []
    tower = model.vision_model.model
    tower.encoder.layers[0].register_forward_hook(lambda _, given, __: seen.append(given[0]))
    blocks = tower.encoder.layers[0].blocks
    with torch.inference_mode():
        patches, pooled = model.images(images(2))
        state = seen[0]
        for block in blocks:
            made = block(state, (14, 14))
            state = made[0] if isinstance(made, tuple) else made
        torch.testing.assert_close(patches, model.vision_model.earlier_head(state))
        same = make_model()
        same.load_state_dict(model.state_dict(), strict=False)
        torch.testing.assert_close(pooled, same.images(images(2))[1])
    assert patches.shape[1] == 14**2 and model.facts.grid == 14
    with pytest.raises(BadUsageError, match="a Swin of 2 stages has 7, 14"):
        replace(SMALL, patch_grid=28)


def test_padding_tokens_do_not_change_a_sentence(model: EgmaModel, tokenizer: Any) -> None:
    alone = tokenizer([TEXTS[1]], return_tensors="pt")
    padded = tokenizer(TEXTS, padding="max_length", max_length=40, return_tensors="pt")
    a = model.text_model(alone["input_ids"], alone["attention_mask"])[0]
    b = model.text_model(padded["input_ids"], padded["attention_mask"])[1]
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_sentence_is_the_mean_over_tokens_and_the_last_four_states(
    model: EgmaModel, tokenizer: Any
) -> None:
    tokens = tokenizer([TEXTS[0]], return_tensors="pt")
    states = model.text_model.model(**tokens, output_hidden_states=True).hidden_states[-4:]
    mean = sum(state[0].mean(0) for state in states) / 4
    expected = model.text_model.projection_head.weight @ mean
    found = model.text_model(tokens["input_ids"], tokens["attention_mask"])[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_published_average_counts_padding(tokenizer: Any) -> None:
    model = make_model(replace(SMALL, average_padding=True), len(tokenizer))
    short = tokenizer([TEXTS[1]], return_tensors="pt")
    padded = tokenizer([TEXTS[1]], padding="max_length", max_length=40, return_tensors="pt")
    a = model.text_model(short["input_ids"], short["attention_mask"])
    b = model.text_model(padded["input_ids"], padded["attention_mask"])
    assert not torch.allclose(a, b, rtol=1e-2)


@torch.no_grad()
def test_patches_come_after_the_last_norm_or_before_it_as_published() -> None:
    after, before = make_model(), make_model(replace(SMALL, norm_patches=False))
    before.load_state_dict(after.state_dict())
    tower = after.vision_model.model
    seen = tower(images(), output_hidden_states=True)
    head = after.vision_model.projection_head
    torch.testing.assert_close(after.vision_model(images())[0], head(seen.last_hidden_state))
    torch.testing.assert_close(before.vision_model(images())[0], head(seen.hidden_states[-1]))
    pooled = head(seen.last_hidden_state.mean(1))
    torch.testing.assert_close(after.vision_model(images())[1], pooled)
    torch.testing.assert_close(before.vision_model(images())[1], pooled)


@torch.no_grad()
def test_patches_are_in_the_order_of_the_grids_rows() -> None:
    """A change in one 32 px cell of the frame changes that row-major patch most."""
    model = make_model()
    plain = images(1)
    for row, column in ((0, 6), (5, 1)):
        touched = plain.clone()
        touched[..., 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 3
        change = (model.vision_model(touched)[0] - model.vision_model(plain)[0]).norm(dim=-1)
        assert int(change.argmax()) == 7 * row + column


def test_the_scale_is_kept_between_1_and_100(model: EgmaModel) -> None:
    other = make_model()
    for value, kept in ((9.0, 100.0), (-3.0, 1.0), (2.0, 2.718281828**2)):
        with torch.no_grad():
            other.logit_scale.fill_(value)
        other.clamp_scale()
        assert float(other.logit_scale.exp().detach()) == pytest.approx(kept, rel=1e-5)


@torch.no_grad()
def test_a_saved_model_is_the_same_model(model: EgmaModel, tokenizer: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = EgmaModel.from_pretrained(tmp_path).eval()
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    inputs = (images(), tokens["input_ids"], tokens["attention_mask"])
    for one, other in zip(model(*inputs), again(*inputs), strict=True):
        assert torch.equal(one, other)
    assert again.options == model.options


def test_a_model_that_another_transformers_saved_with_its_buffers_is_read(
    model: EgmaModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert not [name for name in stored if name.endswith("relative_position_index")]
    block = "vision_model.model.encoder.layers.0.blocks.0.attention.self"
    stored[f"{block}.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    stored["text_model.model.embeddings.position_ids"] = torch.arange(512)[None]
    save_file(stored, tmp_path / "model.safetensors")
    again = EgmaModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again.vision_model(images()), model.vision_model(images()))


def test_files_keep_the_names_of_medclip(model: EgmaModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    block = "vision_model.model.encoder.layers.1.blocks.0"
    assert names >= {
        "logit_scale",
        "vision_model.projection_head.weight",
        "text_model.projection_head.weight",
        "text_model.model.encoder.layer.0.attention.self.query.weight",
        f"{block}.attention.self.query.weight",
        f"{block}.attention.self.relative_position_bias_table",
        f"{block}.attention.output.dense.bias",
        f"{block}.intermediate.dense.weight",
        f"{block}.output.dense.weight",
    }


def test_names_go_to_disk_and_back_one_to_one(model: EgmaModel) -> None:
    own = set(model.state_dict())
    disk = {as_on_disk(name) for name in own}
    assert len(disk) == len(own)
    assert {as_in_model(name, own) for name in disk} == own
    assert {as_in_model(name, own) for name in own} == own
    old_names = disk  # a model of transformers 4 would have these
    assert {as_in_model(name, old_names) for name in own} == old_names


def test_what_is_no_model_is_said(tmp_path: Path, model: EgmaModel) -> None:
    with pytest.raises(BadUsageError, match="is no EGMA model"):
        EgmaModel.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:5000])
    with pytest.raises(BadUsageError, match="is damaged"):
        EgmaModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.pop("swin"),
        lambda told: told["bert"].update(hidden_size="wide"),
        lambda told: told["bert"].update(hidden_size=48),
        lambda told: told.update(options=None),
        lambda told: told["options"].update(text_states=["a"]),
    ],
)
def test_a_description_that_is_damaged_is_said_in_one_line(
    change: Any, model: EgmaModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "egma.json").read_text())
    change(told)
    (tmp_path / "egma.json").write_text(json.dumps(told))
    with pytest.raises(BadUsageError) as caught:
        EgmaModel.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_model_without_its_tokenizer_or_with_another_is_refused(
    model: EgmaModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(BadUsageError, match="no tokenizer in"):
        load_model(tmp_path)
    words = " ".join(f"word{i}{'abcdefgh'[i % 8]}" for i in range(400))
    make_tokenizer([words] * 3, 900, 77).save_pretrained(tmp_path)
    with pytest.raises(BadUsageError, match="tokens, the text tower"):
        load_model(tmp_path)


def test_a_tower_that_does_not_make_7_by_7_patches_is_refused() -> None:
    swin, bert = new_configs(SMALL, 50)
    swin.patch_size = 4
    with pytest.raises(BadUsageError, match="14 x 14 patches"):
        EgmaModel(swin, bert, SMALL)


def test_states_that_the_text_tower_lacks_are_refused() -> None:
    with pytest.raises(BadUsageError, match="text_states"):
        make_model(replace(SMALL, text_layers=2))


@torch.no_grad()
def test_medclips_recipe_is_medclips_formula(tokenizer: Any) -> None:
    """Its published text tower, restated: BERT's states 1, 2 and last; mean over every token of
    the padded batch and over the three; a projection without bias; length 1."""
    model = make_model(replace(SMALL, **MEDCLIP_TEXT), len(tokenizer))
    encoder = Encoder("PHANTOM", "0" * 64, model, tokenizer, torch.device("cpu"))
    prompts = [TEXTS[0], "effusion", "a small nodule in the right upper lung, no effusion ."]
    ids = [tokenizer(text)["input_ids"] for text in prompts]
    longest = max(map(len, ids))
    assert len({len(own) for own in ids}) == 3
    expected = []
    for own in ids:  # one at a time; padded by hand, as a tokenizer told padding=True does
        lacking = longest - len(own)
        padded = torch.tensor([own + [tokenizer.pad_token_id] * lacking])
        mask = torch.tensor([[1] * len(own) + [0] * lacking])
        states = model.text_model.model(padded, mask, output_hidden_states=True).hidden_states
        three = [states[1][0], states[2][0], states[len(states) - 1][0]]
        mean = sum(sum(state[i] for state in three) / 3 for i in range(longest)) / longest
        projected = model.text_model.projection_head.weight @ mean
        expected.append(projected / projected.norm())
    found = encoder.texts(prompts)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)
    cosine = (encoder.texts([prompts[1]])[0] * found[1]).sum()
    assert cosine < 0.9999  # alone it has no padding


@torch.no_grad()
def test_more_texts_than_are_encoded_at_once_are_padded_alike(tokenizer: Any) -> None:
    model = make_model(replace(SMALL, **MEDCLIP_TEXT), len(tokenizer))
    encoder = Encoder("PHANTOM", "0" * 64, model, tokenizer, torch.device("cpu"))
    many = ["effusion"] * 70 + [" ".join(TEXTS)]
    found = encoder.texts(many)
    torch.testing.assert_close(found[0], found[69], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found[0], encoder.texts([many[0], many[-1]])[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("own", [True, False], ids=["a model of ours", "medclip's own weights"])
def test_a_checkpoint_named_medclip_is_read_by_the_recipe(
    own: bool, medclip: Path, model: EgmaModel, tokenizer: Any, tmp_path: Path
) -> None:
    if own:
        model.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
    place = tmp_path / "model" if own else medclip
    changes = {} if own else {"model": asdict(SMALL)}
    plain, named = load_encoder(place, changes), load_encoder(Path(f"medclip={place}"), changes)
    assert named.name == f"{place.name}-as-medclip" and plain.name == place.name
    assert named.sha256 != plain.sha256 == model_hash(place, changes)
    told = named.model.options
    assert (told.text_states, told.average_padding) == ((1, 2, -1), True)
    assert replace(told, text_states=SMALL.text_states, average_padding=False) == SMALL
    reference = make_model(replace(SMALL, **MEDCLIP_TEXT), len(tokenizer))
    reference.load_state_dict(model.state_dict())
    expected = Encoder("", "", reference, tokenizer, torch.device("cpu")).texts(TEXTS)
    torch.testing.assert_close(named.texts(TEXTS), expected)
    assert not torch.allclose(plain.texts(TEXTS), expected, atol=1e-3)


# -- pretrained weights ----------------------------------------------------------------------------


@pytest.fixture
def medclip(model: EgmaModel, tokenizer: Any, tmp_path: Path) -> Path:
    """A checkpoint as MedCLIP's and the published EGMA's, needless keys included."""
    state = {
        as_on_disk(name): value.clone()
        for name, value in model.state_dict().items()
        if not name.endswith("relative_position_index")  # there in transformers 4
    }
    state["text_model.model.embeddings.position_ids"] = torch.arange(77)[None]
    block = "vision_model.model.encoder.layers.0.blocks.0.attention.self"
    state[f"{block}.relative_position_index"] = torch.zeros(49, 49)
    state["word_local_atten_layer.in_proj_weight"] = torch.zeros(48, 16)
    state["vision_model.projection_head1.weight"] = torch.zeros(16, 12)
    folder = tmp_path / "medclip"
    tokenizer.save_pretrained(folder)
    torch.save(state, folder / "pytorch_model.bin")
    return folder


@torch.no_grad()
def test_a_medclip_checkpoint_fills_the_model_and_every_odd_key_is_reported(
    medclip: Path, model: EgmaModel, tokenizer: Any
) -> None:
    start = load_start([str(medclip)], SMALL)
    (report,) = start.reports
    assert report.missing == report.unexpected == []
    assert len(report.left_out) == 4
    assert f"{medclip}: 0 missing, 0 unexpected, 4 left out" in report.lines()
    assert "  left out: word_local_atten_layer.in_proj_weight" in report.lines()
    torch.testing.assert_close(
        start.model.eval().vision_model(images()), model.vision_model(images())
    )
    assert start.tokenizer(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]


def changed(folder: Path, change: Any) -> None:
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save(change(state), folder / "pytorch_model.bin")


def test_an_unknown_key_is_reported(medclip: Path) -> None:
    changed(medclip, lambda state: state | {"something.else": torch.zeros(1)})
    (report,) = load_start([str(medclip)], SMALL).reports
    assert report.unexpected == ["something.else"]


def test_a_missing_projection_is_reported_and_starts_at_random(medclip: Path) -> None:
    name = "vision_model.projection_head.weight"
    changed(medclip, lambda state: {k: v for k, v in state.items() if k != name})
    (report,) = load_start([str(medclip)], SMALL).reports
    assert report.missing == [name]


TINY = {"model": asdict(SMALL)}


@pytest.mark.parametrize("tower", ["vision_model", "text_model"])
@pytest.mark.parametrize("renamed", [False, True], ids=["missing", "under another name"])
def test_a_projection_that_training_would_start_anew_is_refused_where_figures_are_made(
    medclip: Path, tower: str, renamed: bool
) -> None:
    name, other = f"{tower}.projection_head.weight", f"{tower}.proj.weight"

    def change(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights = state.pop(name)
        rest = {"something.else": torch.zeros(1)} | state
        return rest | {other: weights} if renamed else state

    changed(medclip, change)
    with pytest.raises(BadUsageError, match=rf"{medclip}: {name} is missing") as caught:
        load_encoder(medclip, TINY)
    assert (f"({other} is unknown)" in str(caught.value)) == renamed
    (report,) = load_start([str(medclip)], SMALL).reports
    assert f"  missing: {name} (starts untrained)" in report.lines()


def test_a_norm_that_is_missing_is_no_matter_to_training_and_refused_for_figures(
    medclip: Path,
) -> None:
    name = "vision_model.model.layernorm.weight"
    changed(medclip, lambda state: {k: v for k, v in state.items() if k != name})
    load_start([str(medclip)], SMALL)
    with pytest.raises(BadUsageError, match=f"{name} is missing"):
        load_encoder(medclip, TINY)


def test_a_missing_scale_is_said_and_kept_in_the_report(medclip: Path) -> None:
    assert load_encoder(medclip, TINY).cautions == ()
    changed(medclip, lambda state: {k: v for k, v in state.items() if k != "logit_scale"})
    encoder = load_encoder(medclip, TINY)
    (said,) = encoder.told()["cautions"]
    assert said == "logit_scale is missing; 1/0.07 is taken"
    assert encoder.scale == pytest.approx(1 / 0.07)


def test_a_scale_of_shape_1_is_a_scale(medclip: Path) -> None:
    changed(medclip, lambda state: state | {"logit_scale": torch.tensor([2.0])})
    assert load_encoder(medclip, TINY).scale == pytest.approx(2.718281828**2)


BIAS = "vision_model.model.encoder.layers.1.blocks.0.intermediate.dense.bias"


@pytest.mark.parametrize(
    ("name", "value"),
    [("logit_scale", math.nan), (BIAS, math.nan), (BIAS, math.inf), (BIAS, -math.inf)],
)
def test_weights_that_are_not_finite_give_no_figure(medclip: Path, name: str, value: float) -> None:
    changed(medclip, lambda state: state | {name: torch.full_like(state[name], value)})
    with pytest.raises(BadUsageError, match=f"{name} has NaN or infinite weights"):
        load_encoder(medclip, TINY)


@pytest.mark.parametrize("factor", [0.0, 1e38], ids=["zero", "too large for a length"])
def test_features_without_a_length_are_refused(tokenizer: Any, factor: float) -> None:
    model = make_model(vocabulary=len(tokenizer))
    encoder = Encoder("PHANTOM", "0" * 64, model, tokenizer, torch.device("cpu"))
    frames = np.random.default_rng(0).integers(0, 255, (2, 224, 224), dtype=np.uint8)
    assert encoder.texts(TEXTS).norm(dim=-1).allclose(torch.ones(3))
    with torch.no_grad():
        model.text_model.projection_head.weight *= factor
        model.vision_model.projection_head.weight *= factor
    for encode in (lambda: encoder.texts(TEXTS), lambda: encoder.images(frames)):
        with pytest.raises(BadUsageError, match="features are zero or not finite"):
            encode()


def deeper(state: dict[str, torch.Tensor], old: str, new: str) -> dict[str, torch.Tensor]:
    return state | {k.replace(old, new): v for k, v in state.items() if old in k}


def test_a_deeper_image_tower_is_not_read_as_a_shallower_one(medclip: Path) -> None:
    changed(medclip, lambda state: deeper(state, ".layers.1.blocks.1.", ".layers.1.blocks.2."))
    with pytest.raises(BadUsageError, match=r"no place in the tower, such as .*1\.blocks\.2\."):
        load_start([str(medclip)], SMALL)


def test_fewer_text_layers_than_berts_are_said_and_fewer_than_asked_for_refused(
    medclip: Path,
) -> None:
    changed(medclip, lambda s: {k: v for k, v in s.items() if "encoder.layer.3." not in k})
    states = replace(SMALL, text_layers=0, text_states=(-1,))
    (report,) = load_start([str(medclip)], states).reports
    said = "the text tower has 3 layers, BERT 12; was it cut?"
    assert f"  {said}" in report.lines()
    assert load_encoder(medclip, {"model": asdict(states)}).cautions == (said,)
    asked = replace(states, text_layers=3)
    assert load_encoder(medclip, {"model": asdict(asked)}).cautions == ()
    with pytest.raises(BadUsageError, match=r"text_layers is 4, but .* has 3 layers"):
        load_start([str(medclip)], SMALL)


def test_a_tower_that_is_missing_is_an_error(medclip: Path) -> None:
    changed(medclip, lambda s: {k: v for k, v in s.items() if not k.startswith("vision_model.m")})
    with pytest.raises(BadUsageError, match=r"100% of the tower is missing, such as vision_model"):
        load_start([str(medclip)], SMALL)


def test_three_percent_of_a_tower_missing_is_an_error(medclip: Path) -> None:
    def cut(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        swin = [name for name in state if name.startswith("vision_model.model.")]
        lost = set(swin[: round(0.03 * len(swin))])
        assert lost
        return {name: value for name, value in state.items() if name not in lost}

    changed(medclip, cut)
    with pytest.raises(BadUsageError, match="of the tower is missing"):
        load_start([str(medclip)], SMALL)


def test_a_shape_that_does_not_fit_is_named(medclip: Path) -> None:
    name = "text_model.projection_head.weight"
    changed(medclip, lambda state: state | {name: torch.zeros(16, 99)})
    with pytest.raises(BadUsageError, match=rf"{name} has shape \(16, 99\), the model \(16, 24\)"):
        load_start([str(medclip)], SMALL)


def test_the_number_of_text_layers_is_the_weights_unless_asked(medclip: Path) -> None:
    as_stored = replace(SMALL, text_layers=0)
    whole = load_start([str(medclip)], as_stored).model
    assert whole.text_model.model.config.num_hidden_layers == 4
    (report,) = load_start([str(medclip)], replace(SMALL, text_layers=3)).reports
    assert any("encoder.layer.3." in key for key in report.left_out)


def test_a_pickle_that_holds_objects_alone_is_refused(medclip: Path) -> None:
    torch.save({"weights": Path("/")}, medclip / "pytorch_model.bin")
    with pytest.raises(BadUsageError, match="holds no weights"):
        load_start([str(medclip)], SMALL)


def test_a_model_of_our_own_can_start_another(
    model: EgmaModel, tokenizer: Any, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (report,) = load_start([str(tmp_path)], SMALL).reports
    assert report.missing == report.unexpected == report.left_out == []


def below(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


LIGHTNING = {"epoch": 3, "global_step": 9, "hyper_parameters": {"lr": 1e-5}, "callbacks": {}}


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("last.ckpt", lambda s: LIGHTNING | {"state_dict": below("model.", s)}),
        ("weights.pt", lambda s: s),
        ("best.pth", lambda s: {"model": below("module.", s), "epoch": 1}),
        ("mp_rank_00_model_states.pt", lambda s: {"module": s, "dp_world_size": 2}),
    ],
)  # fmt: skip
@torch.no_grad()
def test_a_file_of_weights_is_read_as_its_folder_is(
    medclip: Path, model: EgmaModel, name: str, wrap: Any
) -> None:
    state = torch.load(medclip / "pytorch_model.bin", weights_only=True)
    (medclip / "pytorch_model.bin").unlink()
    torch.save(wrap(state), medclip / name)
    start = load_start([str(medclip / name)], SMALL)
    assert start.reports[0].missing == start.reports[0].unexpected == []
    torch.testing.assert_close(
        start.model.eval().vision_model(images()), model.vision_model(images())
    )
    encoder = load_encoder(medclip / name, {"model": asdict(SMALL)})
    assert encoder.name == name and len(encoder.sha256) == 64


def test_a_safetensors_file_of_a_model_of_ours_is_that_model(
    model: EgmaModel, tokenizer: Any, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    whole = load_start([str(tmp_path / "model.safetensors")], ModelOptions()).model
    assert whole.options == SMALL
    assert load_encoder(tmp_path / "model.safetensors", {}).model.options == SMALL


def test_objects_beside_weights_are_no_hindrance_and_named(medclip: Path) -> None:
    state = torch.load(medclip / "pytorch_model.bin", weights_only=True)
    torch.save({"state_dict": state, "args": SimpleNamespace(lr=1)}, medclip / "own.ckpt")
    (report,) = load_start([str(medclip / "own.ckpt")], SMALL).reports
    assert report.missing == [] and "types.SimpleNamespace" in report.unread


@pytest.mark.parametrize("numpy_of", ["numpy._core", "numpy.core"], ids=["numpy 2", "numpy 1"])
def test_options_and_numbers_that_lightning_keeps_beside_weights_are_no_hindrance(
    medclip: Path, numpy_of: str
) -> None:
    state = torch.load(medclip / "pytorch_model.bin", weights_only=True)
    beside = {"hyper_parameters": Namespace(lr=1e-5), "best": np.float64(0.5), "at": np.int64(3)}
    torch.save({"state_dict": state} | beside, medclip / "new.ckpt")
    with (
        zipfile.ZipFile(medclip / "new.ckpt") as new,
        zipfile.ZipFile(medclip / "own.ckpt", "w") as own,
    ):
        for name in new.namelist():  # a pickle names a module in a line of its own
            stored = new.read(name)
            if name.endswith("/data.pkl"):
                stored = re.sub(rb"numpy\._?core", numpy_of.encode(), stored)
            own.writestr(name, stored)
    assert load_start([str(medclip / "own.ckpt")], SMALL).reports[0].missing == []


@pytest.mark.parametrize("kind", ["zip", "lfs", "torchscript", "empty", "html"])
def test_a_file_that_holds_no_weights_is_named_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "medclip-vit-pretrained.zip"
    said = {"zip": "an archive; unpack it", "lfs": "git lfs pull", "torchscript": ""}
    inside = {"zip": ["pytorch_model.bin"], "torchscript": ["m/data.pkl", "m/constants.pkl"]}
    if kind in inside:
        with zipfile.ZipFile(path, "w") as archive:
            for name in inside[kind]:
                archive.writestr(name, b"PHANTOM")
    else:
        texts = {"lfs": "version https://git-lfs.github.com/spec/v1\n", "html": "<html>"}
        path.write_text(texts.get(kind, ""))
    with pytest.raises(BadUsageError) as caught:
        load_start([str(path)], SMALL)
    assert "holds no weights" in str(caught.value) and "\n" not in str(caught.value)
    assert said.get(kind, "") in str(caught.value)


def test_a_file_of_two_models_is_refused(medclip: Path) -> None:
    changed(
        medclip, lambda state: {f"{of}.{k}": v for of in ("ema", "net") for k, v in state.items()}
    )
    with pytest.raises(BadUsageError, match=r"holds several models \(ema\., net\.\)"):
        load_start([str(medclip)], SMALL)


def test_a_missing_tower_is_told_by_a_key_of_it_and_by_what_is_there_instead(medclip: Path) -> None:
    def other(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        text = {k: v for k, v in state.items() if k.startswith("text_model.")}
        return text | {"gloria.img_encoder.model.conv1.weight": torch.zeros(3)}

    changed(medclip, other)
    with pytest.raises(BadUsageError) as caught:
        load_start([str(medclip)], SMALL)
    assert "such as vision_model.model.embeddings.patch_embeddings." in str(caught.value)
    assert "gloria.img_encoder.model.conv1.weight is unknown" in str(caught.value)


def save_towers(folder: Path, model: EgmaModel, tokenizer: Any) -> tuple[Path, Path]:
    swin, bert = folder / "swin", folder / "bert"
    model.vision_model.model.save_pretrained(swin)
    model.text_model.model.save_pretrained(bert)
    tokenizer.save_pretrained(bert)
    return swin, bert


@torch.no_grad()
def test_towers_come_from_hugging_face_folders(
    model: EgmaModel, tokenizer: Any, tmp_path: Path
) -> None:
    swin, bert = save_towers(tmp_path, model, tokenizer)
    start = load_start([f"vision={swin}", f"text={bert}"], SMALL)
    assert [report.missing for report in start.reports] == [[], []]
    seen = start.model.eval().vision_model.model(images()).last_hidden_state
    torch.testing.assert_close(seen, model.vision_model.model(images()).last_hidden_state)


@pytest.mark.parametrize("asked", [0, 3])
def test_a_text_folder_is_cut_by_the_option_and_refused_where_its_config_cuts_it(
    model: EgmaModel, tokenizer: Any, tmp_path: Path, asked: int
) -> None:
    swin, bert = save_towers(tmp_path, model, tokenizer)
    options = replace(SMALL, text_layers=asked, text_states=(-1,))
    report = load_start([f"vision={swin}", f"text={bert}"], options).reports[1]
    assert report.unexpected == [] and bool(report.left_out) == bool(asked)
    with_config(bert, num_hidden_layers=3)
    with pytest.raises(BadUsageError, match=r"no place in the tower, such as .*layer\.3\."):
        load_start([f"vision={swin}", f"text={bert}"], options)


def test_a_deeper_swin_folder_than_its_config_is_refused_and_a_mask_token_is_not(
    model: EgmaModel, tokenizer: Any, tmp_path: Path
) -> None:
    swin, bert = save_towers(tmp_path, model, tokenizer)
    stored = load_file(swin / "model.safetensors")
    masked = stored | {"embeddings.mask_token": torch.zeros(1, 1, 12)}
    save_file(masked, swin / "model.safetensors", metadata={"format": "pt"})
    load_start([f"vision={swin}", f"text={bert}"], SMALL)
    more = deeper({k: v.clone() for k, v in stored.items()}, ".1.blocks.1.", ".1.blocks.2.")
    more = {name: value.clone() for name, value in more.items()}
    save_file(more, swin / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadUsageError, match=r"no place in the tower"):
        load_start([f"vision={swin}", f"text={bert}"], SMALL)


def test_towers_saved_under_the_old_names_or_with_heads_are_read(
    model: EgmaModel, tokenizer: Any, tmp_path: Path
) -> None:
    swin, bert = save_towers(tmp_path, model, tokenizer)
    stored = load_file(swin / "model.safetensors")
    named = {f"swin.{name}": value for name, value in stored.items()}
    named |= {"classifier.weight": torch.zeros(2, 24), "classifier.bias": torch.zeros(2)}
    save_file(named, swin / "model.safetensors", metadata={"format": "pt"})
    start = load_start([f"vision={swin}", f"text={bert}"], SMALL)
    assert start.reports[0].missing == []
    for name, value in model.vision_model.model.state_dict().items():
        assert torch.equal(start.model.vision_model.model.state_dict()[name], value), name


def test_a_tower_folder_with_half_its_weights_is_an_error(
    model: EgmaModel, tokenizer: Any, tmp_path: Path
) -> None:
    swin, bert = save_towers(tmp_path, model, tokenizer)
    stored = load_file(bert / "model.safetensors")
    half = dict(list(stored.items())[: len(stored) // 2])
    save_file(half, bert / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadUsageError, match="of the tower is missing"):
        load_start([f"vision={swin}", f"text={bert}"], SMALL)


def with_config(folder: Path, **changes: Any) -> None:
    """Change a folder's config.json; None takes an entry out."""
    config = json.loads((folder / "config.json").read_text()) | changes
    config = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("tower", "config", "said"),
    [
        ("bert", {"model_type": "electra"}, "a electra by its config.json; this tower is a Bert"),
        ("bert", {"model_type": None, "architectures": ["RobertaForMaskedLM"]}, "is a roberta by"),
        ("bert", {"model_type": "distilbert"}, "is a distilbert by its config.json"),
        ("bert", {"position_embedding_type": "relative_key"}, "or has relative positions"),
        ("bert", {"is_decoder": True}, "is a decoder"),
        ("swin", {"model_type": "swinv2"}, "is a swinv2 by its config.json; this tower is a Swin"),
        ("swin", {"model_type": "beit"}, "is a beit by its config.json; this tower is a Swin"),
        ("swin", {"model_type": "bert"}, "is a bert by its config.json; this tower is a Swin"),
    ],
)  # fmt: skip
def test_a_tower_of_another_kind_is_refused_by_name(
    model: EgmaModel, tokenizer: Any, tmp_path: Path, tower: str, config: Any, said: str
) -> None:
    swin, bert = save_towers(tmp_path, model, tokenizer)
    with_config(tmp_path / tower, **config)
    with pytest.raises(BadUsageError) as caught:
        load_start([f"vision={swin}", f"text={bert}"], SMALL)
    assert said in str(caught.value) and str(tmp_path / tower) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tower", "config", "said"),
    [
        ("swin", {"image_size": 256}, "16 x 16 patches of 256 px"),
        ("swin", {"patch_size": 15}, r"makes 3.733 x 3.733 patches of 112 px"),
        ("swin", {"num_channels": 1}, "num_channels=1, and a frame has 3"),
        ("swin", {"num_heads": [5, 6]}, "no tower that can be built|other sizes than"),
        ("swin", {"hidden_act": "phantom"}, "no tower that can be built"),
        ("swin", {"embed_dim": 24}, "its weights have other sizes than its config.json"),
        ("bert", {"max_position_embeddings": 32}, r"reads 32 tokens .*set model\.max_tokens=32"),
        ("bert", {"max_position_embeddings": 256}, "its weights have other sizes than its"),
        ("bert", {"type_vocab_size": 1}, "its weights have other sizes than its config.json"),
        ("bert", {"num_attention_heads": 5}, "no tower that can be built"),
        ("bert", {"pad_token_id": 9999}, "no tower that can be built"),
    ],
)  # fmt: skip
def test_a_tower_whose_sizes_do_not_serve_is_refused_by_the_name_of_its_folder(
    model: EgmaModel, tokenizer: Any, tmp_path: Path, tower: str, config: Any, said: str
) -> None:
    swin, bert = save_towers(tmp_path, model, tokenizer)
    with_config(tmp_path / tower, **config)
    with pytest.raises(BadUsageError, match=said) as caught:
        load_start([f"vision={swin}", f"text={bert}"], SMALL)
    other = {"swin": bert, "bert": swin}[tower]
    assert str(tmp_path / tower) in str(caught.value) and str(other) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_tower_of_few_positions_is_read_where_sentences_are_cut_to_them(
    tokenizer: Any, tmp_path: Path
) -> None:
    short = new_configs(SMALL, len(tokenizer))
    short[1].max_position_embeddings = 32
    options = replace(SMALL, max_tokens=32)
    swin, bert = save_towers(tmp_path, EgmaModel(*short, options), tokenizer)
    start = load_start([f"vision={swin}", f"text={bert}"], options)
    tokens = tokenized(start.tokenizer, ["the left lung " * 30], start.model.options.max_tokens)
    assert tokens["input_ids"].shape == (1, 32)
    assert (
        start.model(images(1), tokens["input_ids"], tokens["attention_mask"])
        .sentences.isfinite()
        .all()
    )


def test_a_tokenizer_that_cannot_pad_is_refused(
    model: EgmaModel, tokenizer: Any, tmp_path: Path
) -> None:
    swin, bert = save_towers(tmp_path, model, tokenizer)
    path = bert / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": None}))
    with pytest.raises(BadUsageError, match=r"names no pad_token; put") as caught:
        load_start([f"vision={swin}", f"text={bert}"], SMALL)
    assert str(bert) in str(caught.value)


@pytest.mark.parametrize("tower", ["swin", "bert"])
@pytest.mark.parametrize("content", [None, "[]", "{", '{"model_type": 3}'])
def test_a_tower_whose_config_is_missing_or_damaged_is_refused(
    model: EgmaModel, tokenizer: Any, tmp_path: Path, tower: str, content: str | None
) -> None:
    swin, bert = save_towers(tmp_path, model, tokenizer)
    path = tmp_path / tower / "config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(BadUsageError, match="config") as caught:
        load_start([f"vision={swin}", f"text={bert}"], SMALL)
    assert "\n" not in str(caught.value) and str(tmp_path / tower) in str(caught.value)


def test_an_old_config_without_its_kind_is_read(
    model: EgmaModel, tokenizer: Any, tmp_path: Path
) -> None:
    swin, bert = save_towers(tmp_path, model, tokenizer)
    with_config(bert, model_type=None, architectures=None)
    assert load_start([f"vision={swin}", f"text={bert}"], SMALL).reports[1].missing == []


def test_cxr_bert_is_a_bert_whose_code_is_not_run(
    model: EgmaModel, tokenizer: Any, tmp_path: Path
) -> None:
    """As published: keys below ``bert.``, a head of its own, classes in code beside them."""
    swin, bert = save_towers(tmp_path, model, tokenizer)
    stored = {f"bert.{k}": v for k, v in load_file(bert / "model.safetensors").items()}
    stored["cls_projection_head.dense_to_hidden.weight"] = torch.zeros(2, 24)
    (bert / "model.safetensors").unlink()
    torch.save(stored, bert / "pytorch_model.bin")
    code = "configuration_cxrbert.CXRBert"
    with_config(
        bert, model_type="cxr-bert", architectures=["CXRBertModel"],
        auto_map={"AutoConfig": f"{code}Config"},
    )  # fmt: skip
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    for path in bert.glob("tokenizer*"):
        path.unlink()
    (bert / "vocab.txt").write_text("\n".join(words))
    named = {"AutoTokenizer": [f"{code}Tokenizer", None]}
    described = {"tokenizer_class": "CXRBertTokenizer", "auto_map": named}
    (bert / "tokenizer_config.json").write_text(json.dumps(described))
    (bert / "configuration_cxrbert.py").write_text("raise SystemExit('this code ran')")
    start = load_start([f"vision={swin}", f"text={bert}"], SMALL)
    assert start.reports[1].missing == []
    assert start.reports[1].unexpected == ["cls_projection_head.dense_to_hidden.weight"]
    assert start.tokenizer(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]


def test_a_tokenizer_of_another_kind_or_size_is_refused(
    model: EgmaModel, tokenizer: Any, tmp_path: Path
) -> None:
    swin, bert = save_towers(tmp_path, model, tokenizer)
    sources = [f"vision={swin}", f"text={bert}"]
    for path in bert.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(
        BadUsageError, match=r"knows no word|tokens, the text tower|no tokenizer in"
    ):
        load_start(sources, SMALL)  # transformers 5 makes one of five tokens
    vocabulary = {f"t{i}": i for i in range(len(tokenizer) - 4)}
    pairs = tokenizers.models.BPE(vocab=vocabulary, merges=[])
    as_roberta = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(pairs), **as_roberta
    ).save_pretrained(bert)
    with pytest.raises(BadUsageError, match=r"is BPE, BERT's is WordPiece"):
        load_start(sources, SMALL)


def test_a_vocabulary_that_is_not_the_checkpoints_is_refused(medclip: Path) -> None:
    name = "text_model.model.embeddings.word_embeddings.weight"
    changed(medclip, lambda s: s | {name: torch.zeros(len(s[name]) + 128, 24)})
    with pytest.raises(BadUsageError, match=r"has \d+ tokens, the text tower \d+"):
        load_start([str(medclip)], SMALL)


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["nowhere"], "--init nowhere: no such folder or file"),
        (["."], "should hold one file of weights; there is: none"),
        (["vision=nowhere"], "no tokenizer in"),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(
    sources: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadUsageError, match=said) as caught:
        load_start(sources, SMALL)
    assert "\n" not in str(caught.value)
