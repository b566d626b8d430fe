"""The towers: what is averaged and projected, what is saved, which weights are taken."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from egma_train.errors import BadUsageError
from egma_train.key_names import as_in_model, as_on_disk
from egma_train.model import EgmaModel, new_configs
from egma_train.options import ModelOptions, options_of
from egma_train.vocabulary import make_tokenizer
from egma_train.weights import load_start

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
    assert (
        tokenizer.decode(numbers, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        == "the heart , enlarged ?"
    )
    assert tokenizer.unk_token_id not in tokenizer("zygoma & vomer ##x")["input_ids"]


@torch.no_grad()
def test_features_have_the_shapes_of_the_paper(model: EgmaModel, tokenizer: Any) -> None:
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    seen = model(images(), tokens["input_ids"], tokens["attention_mask"])
    assert seen.patches.shape == (2, 49, 16) and seen.images.shape == (2, 16)
    assert seen.sentences.shape == (3, 16)
    assert float(seen.scale) == pytest.approx(1 / 0.07)


@torch.no_grad()
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


def test_a_tower_that_does_not_make_7_by_7_patches_is_refused() -> None:
    swin, bert = new_configs(SMALL, 50)
    swin.patch_size = 4
    with pytest.raises(BadUsageError, match="14 x 14 patches"):
        EgmaModel(swin, bert, SMALL)


def test_states_that_the_text_tower_lacks_are_refused() -> None:
    with pytest.raises(BadUsageError, match="text_states"):
        make_model(replace(SMALL, text_layers=2))


# -- pretrained weights ----------------------------------------------------------------------------


@pytest.fixture
def medclip(model: EgmaModel, tokenizer: Any, tmp_path: Path) -> Path:
    """A checkpoint as MedCLIP's and the published EGMA's, needless keys included."""
    state = {as_on_disk(name): value.clone() for name, value in model.state_dict().items()}
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
    # transformers 4 keeps relative_position_index in its state: there it is no odd key.
    own = any(name.endswith("relative_position_index") for name in start.model.state_dict())
    odd = 3 if own else 4
    assert len(report.left_out) == odd
    assert f"checkpoint: 0 missing, 0 unexpected, {odd} left out" in report.lines()
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


def test_a_pickle_that_holds_code_is_refused(medclip: Path) -> None:
    torch.save({"weights": Path("/")}, medclip / "pytorch_model.bin")
    with pytest.raises(BadUsageError, match="holds no plain weights"):
        load_start([str(medclip)], SMALL)


def test_a_model_of_our_own_can_start_another(
    model: EgmaModel, tokenizer: Any, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (report,) = load_start([str(tmp_path)], SMALL).reports
    assert report.missing == report.unexpected == report.left_out == []


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


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["nowhere"], "--init nowhere: no such folder"),
        (["."], "holds neither model.safetensors nor pytorch_model.bin"),
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
