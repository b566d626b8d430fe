"""The losses against loops over single numbers, and what must hold for any input."""

from typing import Any, NamedTuple

import loss_oracle as oracle
import numpy as np
import pytest
import torch
from torch import Tensor

from egma_train import losses
from egma_train.errors import BadUsageError
from egma_train.losses import clip_loss, egma_loss, fine_grained_scores
from egma_train.options import LossOptions

PUBLISHED = {
    "terms": ("mlce", "contrastive"),
    "mlce_average": "gaze",
    "mlce_sentence_share": 0.8,
    "padding_competes": True,
    "softmax_over_texts_only": True,
}


class Batch(NamedTuple):
    patches: Tensor
    sentences: Tensor
    sentence_mask: Tensor
    grid: Tensor
    grid_mask: Tensor

    def unpadded(self) -> list[Any]:
        return [
            (p.numpy(), s[mask].numpy(), g[mask].numpy(), has[mask].tolist())
            for p, s, mask, g, has in zip(*self, strict=True)
        ]

    def loss(self, scale: Any = 1 / 0.07, **options: Any) -> Any:
        return egma_loss(*self, scale, **options)


def make_batch(
    seed: int, lengths: tuple[int, ...], *, n: int = 9, d: int = 6, gaze: float = 0.7, pad: int = 1
) -> Batch:
    """Random samples; what no loss may read holds NaN."""
    rng = np.random.default_rng(seed)
    b, m = len(lengths), max(lengths) + pad
    mask = np.arange(m) < np.array(lengths)[:, None]
    has_gaze = mask & (rng.random((b, m)) < gaze)
    # Blobs: zeros, small and large values in each row, all zeros and all positive now and then.
    grid = np.maximum(rng.normal(0, 0.5, (b, m, n)), 0).clip(0, 1)
    grid[rng.random((b, m)) < 0.1] = 0
    grid[rng.random((b, m)) < 0.1] = 0.3
    sentences = rng.normal(size=(b, m, d))
    sentences[~mask] = np.nan
    grid[~has_gaze] = np.nan
    patches = rng.normal(size=(b, n, d)) * rng.uniform(0.1, 9, (b, n, 1))
    arrays = (patches, sentences, mask, grid, has_gaze)
    return Batch(*(torch.from_numpy(array) for array in arrays))


CASES = {
    "several samples of several sentences": make_batch(0, (3, 1, 5, 2)),
    "no padding at all": make_batch(1, (3, 3, 3), pad=0),
    "a single sample": make_batch(2, (4,)),
    "a single sentence each": make_batch(3, (1, 1, 1)),
    "a single sample of a single sentence": make_batch(4, (1,), gaze=1),
    "no gaze at all": make_batch(5, (2, 3), gaze=0),
    "gaze for every sentence": make_batch(6, (2, 3, 4), gaze=1),
    "hardly any gaze": make_batch(7, (5, 4, 3, 6, 2), gaze=0.1),
    "more patches than features": make_batch(8, (6, 2), n=20, d=4),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rule", ["nonzero", "quarter-max"])
@pytest.mark.parametrize("sparsity", [None, 2 / 7, 0.5])
@pytest.mark.parametrize("average", ["batch", "gaze"])
def test_each_term_equals_the_plain_loops(
    case: str, rule: str, sparsity: float | None, average: str
) -> None:
    batch = CASES[case]
    found = batch.loss(12.5, label_rule=rule, sparsity=sparsity, mlce_average=average)
    expected = oracle.egma(batch.unpadded(), 12.5, rule, sparsity, average)
    assert [float(term) for term in found[:3]] == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert float(found.total) == pytest.approx(sum(expected), rel=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_random_batches_equal_the_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = tuple(int(one) for one in rng.integers(1, 7, rng.integers(1, 6)))
    batch = make_batch(seed, lengths, gaze=rng.random(), n=int(rng.integers(1, 12)))
    found = batch.loss(float(rng.uniform(1, 100)))
    assert all(torch.isfinite(term) for term in found)
    rng = np.random.default_rng(seed + 1000)
    scale = float(rng.uniform(1, 100))
    expected = oracle.egma(batch.unpadded(), scale)
    assert [float(term) for term in batch.loss(scale)[:3]] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_published_loss_is_reproduced_with_its_flaws(case: str) -> None:
    batch = CASES[case]
    found = batch.loss(14.0, **PUBLISHED)
    assert (float(found.mlce), float(found.contrastive)) == pytest.approx(
        oracle.published(batch.unpadded(), 14.0), rel=1e-6, abs=1e-12
    )
    assert float(found.total) == pytest.approx(float(found.mlce + found.contrastive))


def test_the_published_flaws_change_the_loss() -> None:
    batch = make_batch(0, (3, 1, 5, 2), gaze=0.3)
    paper = batch.loss(terms=("mlce", "contrastive"))
    for flaw in list(PUBLISHED)[1:]:
        one = batch.loss(terms=("mlce", "contrastive"), **{flaw: PUBLISHED[flaw]})
        assert float(one.total) != pytest.approx(float(paper.total), rel=1e-9), flaw


def test_one_patch_and_one_sentence_that_agree_cost_what_can_be_told_by_head() -> None:
    same = torch.ones(1, 1, 2)
    yes = torch.ones(1, 1, dtype=torch.bool)
    loss = egma_loss(same, same, yes, torch.ones(1, 1, 1), yes, 2.0)
    assert float(loss.mlce) == pytest.approx(np.log(1 + np.exp(-2)))  # one positive of logit 2
    assert float(loss.contrastive) == float(loss.mapping) == 0


def test_orthogonal_images_and_texts_that_match_cost_what_can_be_told_by_head() -> None:
    same = torch.eye(4)
    assert float(clip_loss(same, 3 * same, 5.0)) == pytest.approx(np.log(1 + 3 * np.exp(-5)))


@pytest.mark.parametrize("case", CASES)
def test_features_need_no_normalisation(case: str) -> None:
    batch = CASES[case]
    longer = batch._replace(patches=7 * batch.patches, sentences=0.01 * batch.sentences)
    assert float(longer.loss().total) == pytest.approx(float(batch.loss().total), rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_the_order_of_samples_does_not_matter(case: str) -> None:
    batch = CASES[case]
    order = torch.randperm(len(batch.patches), generator=torch.Generator().manual_seed(0))
    turned = Batch(*(tensor[order] for tensor in batch))
    torch.testing.assert_close(turned.loss(), batch.loss(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_the_order_of_sentences_and_where_padding_lies_do_not_matter(case: str) -> None:
    batch = CASES[case]
    order = torch.randperm(batch.grid.shape[1], generator=torch.Generator().manual_seed(1))
    patches, *by_sentence = batch
    turned = Batch(patches, *(tensor[:, order] for tensor in by_sentence))
    torch.testing.assert_close(turned.loss(), batch.loss(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_differences(case: str) -> None:
    batch = CASES[case]
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    features = [batch.patches.clone().requires_grad_(), batch.sentences.nan_to_num(0.0)]
    features[1].requires_grad_()

    def total(patches: Tensor, sentences: Tensor, scale: Tensor) -> Tensor:
        # Weights carry no gradient by design: their steps are not what differences see.
        return egma_loss(patches, sentences, *batch[2:], scale, terms=("mlce", "contrastive")).total

    assert torch.autograd.gradcheck(total, (*features, scale))


def test_gradients_of_the_mapping_are_those_of_differences_where_its_weights_are_fixed() -> None:
    batch = CASES["several samples of several sentences"]
    features = [batch.patches.clone(), batch.sentences.nan_to_num(0.0)]
    for one in features:
        one.requires_grad_()

    def mapped(patches: Tensor, sentences: Tensor) -> Tensor:
        # Sparsity 0 makes omega all ones, whatever the similarities.
        return egma_loss(
            patches, sentences, *batch[2:], 5.0, terms=("mapping",), sparsity=0.0
        ).total

    assert torch.autograd.gradcheck(mapped, tuple(features))


@pytest.mark.parametrize("case", CASES)
def test_padding_gets_no_gradient_and_the_rest_a_finite_one(case: str) -> None:
    batch = CASES[case]
    tensors = [one.clone().requires_grad_() for one in (batch.patches, batch.sentences, batch.grid)]
    scale = torch.tensor(14.0, dtype=torch.float64, requires_grad=True)
    loss = egma_loss(*tensors[:2], batch.sentence_mask, tensors[2], batch.grid_mask, scale)
    loss.total.backward()
    patches, sentences = tensors[0].grad, tensors[1].grad
    assert patches is not None and sentences is not None and scale.grad is not None
    assert patches.isfinite().all() and sentences.isfinite().all() and scale.grad.isfinite()
    assert (sentences[~batch.sentence_mask] == 0).all()


@pytest.mark.parametrize("terms", [("mlce",), ("contrastive",), ("mapping",), ("mlce", "mapping")])
def test_only_the_terms_asked_for_are_added(terms: tuple[str, ...]) -> None:
    batch = CASES["several samples of several sentences"]
    every, some = batch.loss(), batch.loss(terms=terms)
    for name in ("mlce", "contrastive", "mapping"):
        wanted = float(getattr(every, name)) if name in terms else 0
        assert float(getattr(some, name)) == pytest.approx(wanted)


@pytest.mark.parametrize("value", [0.0, 0.4])
def test_similarities_that_are_all_alike_stay_finite(value: float) -> None:
    patches = torch.full((3, 9, 4), 1.0, requires_grad=True)
    sentences = torch.full((3, 2, 4), value, requires_grad=True)
    yes = torch.ones(3, 2, dtype=torch.bool)
    loss = egma_loss(patches, sentences, yes, torch.ones(3, 2, 9), yes, 100.0)
    loss.total.backward()
    assert all(term.isfinite() for term in loss)
    for features in (patches, sentences):
        assert features.grad is not None and features.grad.isfinite().all()


@pytest.mark.parametrize("gaze", [0.0, 1.0])
def test_rows_all_negative_or_all_positive_are_finite_at_the_largest_scale(gaze: float) -> None:
    batch = CASES["gaze for every sentence"]
    same = batch._replace(grid=torch.full_like(batch.grid, gaze))
    assert all(term.isfinite() for term in same.loss(100.0))
    assert float(same.loss(100.0).mlce) == pytest.approx(oracle.egma(same.unpadded(), 100.0)[0])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_features_give_a_float32_loss_near_the_exact_one(kind: torch.dtype) -> None:
    batch = make_batch(11, (3, 4, 2), d=64)
    small = batch._replace(patches=batch.patches.to(kind), sentences=batch.sentences.to(kind))
    found = small.loss()
    assert found.total.dtype == torch.float32
    tolerance = {torch.bfloat16: 2e-2, torch.float16: 3e-3, torch.float32: 1e-5}[kind]
    assert float(found.total) == pytest.approx(float(batch.loss().total), rel=tolerance)


def test_autocast_does_not_reach_into_the_loss() -> None:
    batch = make_batch(12, (3, 4, 2), d=64)
    features = batch._replace(patches=batch.patches.float(), sentences=batch.sentences.float())
    plain = features.loss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(features.loss(), plain, rtol=0, atol=0)


def test_a_sample_without_sentences_is_refused() -> None:
    batch = CASES["several samples of several sentences"]
    empty = batch._replace(sentence_mask=torch.zeros_like(batch.sentence_mask))
    with pytest.raises(ValueError, match="no sentence"):
        empty.loss()


def test_a_shape_that_does_not_fit_is_named() -> None:
    batch = CASES["several samples of several sentences"]
    with pytest.raises(
        ValueError, match=r"grid has shape \(4, 6, 8\), patches ask for \(4, 6, 9\)"
    ):
        batch._replace(grid=batch.grid[..., 1:]).loss()


@pytest.mark.parametrize(
    ("option", "value"), [("label_rule", "half"), ("mlce_average", "sum"), ("terms", ("clip",))]
)
def test_unknown_options_list_the_known_ones(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match="there are: "):
        CASES["a single sample"].loss(**{option: value})


def test_weights_of_the_mapping_follow_the_gaze() -> None:
    """Sentence 0 looks at patch 0; with all else alike, the gaze term must pull them together."""
    rng = np.random.default_rng(3)
    patches = torch.tensor(rng.normal(size=(1, 4, 8)))
    sentences = torch.tensor(rng.normal(size=(1, 2, 8)), requires_grad=True)
    yes = torch.ones(1, 2, dtype=torch.bool)
    grid = torch.zeros(1, 2, 4)
    grid[0, 0, 0] = 1
    loss = egma_loss(patches, sentences, yes, grid, yes, 1.0, terms=("mlce",))
    loss.mlce.backward()
    step = sentences.detach() - 0.1 * sentences.grad  # type: ignore[operator]
    cosine = torch.nn.functional.cosine_similarity
    before = cosine(sentences[0, 0], patches[0, 0], dim=0)
    assert cosine(step[0, 0], patches[0, 0], dim=0) > before


def test_a_loss_without_a_term_is_refused() -> None:
    with pytest.raises(ValueError, match="no term to compute; give some of: mlce, contrastive"):
        make_batch(0, (2, 3)).loss(terms=())
    with pytest.raises(BadUsageError, match=r"loss\.mapping=false takes it away"):
        LossOptions(objective="egm", mapping=False)


def test_a_term_that_is_added_changes_nothing_that_was(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(0, (3, 1, 5, 2))
    before = batch.loss()

    class WithOneMore(NamedTuple):
        mlce: Tensor
        contrastive: Tensor
        mapping: Tensor
        total: Tensor
        spread: Tensor

    monkeypatch.setitem(losses.TERMS, "spread", lambda pairs, rules: pairs.own.std())
    monkeypatch.setattr(losses, "EgmaLoss", WithOneMore)
    assert batch.loss()[:4] == before and batch.loss().spread == 0
    more = batch.loss(terms=("mlce", "spread"))
    assert float(more.total) == pytest.approx(float(before.mlce + more.spread))


@pytest.mark.parametrize("padding_competes", [False, True])
@pytest.mark.parametrize("held", [1, 1000, 2000])
def test_scores_of_a_few_texts_at_a_time_are_the_same_with_the_same_gradient(
    monkeypatch: pytest.MonkeyPatch, held: int, padding_competes: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    patches, sentences = (
        torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)
        for shape in ((5, 9, 6), (5, 4, 6))
    )
    mask = torch.arange(4) < torch.tensor([4, 1, 3, 2, 4])[:, None]
    sentences = sentences * mask[..., None]
    found = []
    for most in (2**27, held):
        monkeypatch.setattr(losses, "_MOST_COSINES", most)
        given = (patches.clone().requires_grad_(), sentences.clone().requires_grad_())
        made = fine_grained_scores(*given, mask, padding_competes=padding_competes)
        weights = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(1))
        (torch.stack(made) * weights).sum().backward()
        found.append([*made, *(one.grad for one in given)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("held", [1, 5 * 9 * 6 // 2])
def test_a_few_samples_at_a_time_are_mapped_the_same_with_the_same_gradient(
    monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    patches, sentences = (torch.randn(5, k, 6, generator=generator) for k in (9, 4))
    mask = torch.arange(4) < torch.tensor([4, 1, 3, 2, 4])[:, None]
    gaze = torch.rand(5, 4, 9, generator=generator)
    found = []
    for most in (2**26, held):
        monkeypatch.setattr(losses, "_MOST_MAPPED", most)
        given = (patches.clone().requires_grad_(), sentences.clone().requires_grad_())
        total = egma_loss(*given, mask, gaze, mask, 14.0, terms=("mapping",)).total
        total.backward()
        found.append([total, *(one.grad for one in given)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
