"""The EGMA loss, equation by equation: pure functions on tensors, no loop over the batch.

Equation numbers are those of the EGMA paper; what it leaves open is fixed in ``docs/training.md``.
Shapes: b samples, m sentences (padded), n patches, d features.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it
from torch import Tensor
from torch.utils.checkpoint import checkpoint

PAPER_TERMS = ("mlce", "contrastive", "mapping")
"""What Eq. 6 and 10 add up; a term that is added to `TERMS` below does not change it."""
LABEL_RULES = ("nonzero", "quarter-max")
MLCE_AVERAGES = ("batch", "gaze")

_MOST_COSINES = 2**27
"""That are held at once, half a gigabyte: batches of 100 at 19 x 19 patches are below."""
_MOST_MAPPED = 2**26
"""Numbers of mapped patches, held eight times over: 2 GB, or 2,674 readings at 7 x 7."""
_CONSTANT_ROW_SPREAD = 1e-6
_QUARTER = 0.25


class EgmaLoss(NamedTuple):
    """The terms of the loss, each a scalar.

    Attributes
    ----------
    mlce : Tensor
        First half of Eq. 6: sentences against gazed patches (Eq. 5).
    contrastive : Tensor
        Second half of Eq. 6: images against texts, by their best matches.
    mapping : Tensor
        Eq. 10: features against those mapped from the other modality.
    total : Tensor
        Sum of the terms that were asked for; the others are 0.
    """

    mlce: Tensor
    contrastive: Tensor
    mapping: Tensor
    total: Tensor


class Pairs(NamedTuple):
    """What every term of the loss compares; features of unit length.

    Attributes
    ----------
    patches, sentences : Tensor
        ``[b, n, d]`` and ``[b, m, d]``, zeros in the padding.
    own : Tensor
        ``[b, m, n]`` cosines of each sample's sentences and patches.
    sentence_mask, grid_mask : Tensor
        ``[b, m]`` bool: sentences, and those of them with gaze.
    gaze : Tensor
        ``[b, m, n]`` in [0, 1], zeros without gaze (GS).
    scale : Tensor or float
        What cosines are multiplied with.
    """

    patches: Tensor
    sentences: Tensor
    own: Tensor
    sentence_mask: Tensor
    grid_mask: Tensor
    gaze: Tensor
    scale: Tensor | float


class Rules(NamedTuple):
    """What the paper leaves open; see `egma_loss`."""

    label_rule: str = "nonzero"
    sparsity: float | None = None
    mlce_average: str = "batch"
    mlce_sentence_share: float = 0.5
    padding_competes: bool = False
    softmax_over_texts_only: bool = False


def egma_loss(
    patches: Tensor,
    sentences: Tensor,
    sentence_mask: Tensor,
    grid: Tensor,
    grid_mask: Tensor,
    scale: Tensor | float,
    *,
    terms: Collection[str] = PAPER_TERMS,
    label_rule: str = "nonzero",
    sparsity: float | None = None,
    mlce_average: str = "batch",
    mlce_sentence_share: float = 0.5,
    padding_competes: bool = False,
    softmax_over_texts_only: bool = False,
) -> EgmaLoss:
    """Compare the patches and sentences of a batch (Eq. 4-10).

    Parameters
    ----------
    patches : Tensor
        ``[b, n, d]``, of any length.
    sentences : Tensor
        ``[b, m, d]``, of any length; padding may hold anything.
    sentence_mask : Tensor
        ``[b, m]`` bool, true for sentences, false for padding.
    grid : Tensor
        ``[b, m, n]`` gaze in [0, 1] on each patch (GS); read where `grid_mask` is true.
    grid_mask : Tensor
        ``[b, m]`` bool, true for sentences with gaze.
    scale : Tensor or float
        What cosines are multiplied with: exp(logit_scale).
    terms : collection of str
        Which of `TERMS` to compute and add.
    label_rule : str
        Which patches are positive: ``nonzero`` gaze (the paper), or above a ``quarter-max`` of
        their sentence's.
    sparsity : float, optional
        Threshold of min-maxed similarities (Eq. 7-8); None: 1 / row length, as SPARC.
    mlce_average : str
        Divide Eq. 5 by the ``batch`` (the paper) or by its samples with ``gaze``.
    mlce_sentence_share : float
        Weight of the sentences' side of Eq. 5; the patches' side has the rest.
    padding_competes : bool
        Let zero vectors stand for padding when a patch seeks its best sentence, as the published
        code does.
    softmax_over_texts_only : bool
        Softmax both directions over texts, as the published code does.

    Returns
    -------
    EgmaLoss
        In float32, or float64 for float64 features.

    Raises
    ------
    ValueError
        If shapes disagree, an option is unknown, there is no term, or, on a CPU, a sample has no
        sentence; on a GPU the loss is NaN then.
    """
    _check_shapes(patches, sentences, sentence_mask, grid, grid_mask)
    rules = Rules(
        label_rule,
        sparsity,
        mlce_average,
        mlce_sentence_share,
        padding_competes,
        softmax_over_texts_only,
    )
    _check_options(terms, rules)
    every = sentence_mask.any(1).all()
    if patches.device.type == "cpu" and not torch.compiler.is_compiling() and not every:
        raise ValueError("a sample has no sentence; leave such readings out of the batch")
    with torch.autocast(patches.device.type, enabled=False):
        unit_patches = F.normalize(_precise(patches), dim=-1)
        unit_sentences = F.normalize(_zero_where(~sentence_mask, _precise(sentences)), dim=-1)
        grid_mask = grid_mask & sentence_mask
        gaze = _zero_where(~grid_mask, grid.to(unit_patches.dtype))  # GS
        own = unit_sentences @ unit_patches.mT  # (b, m, n)
        pairs = Pairs(unit_patches, unit_sentences, own, sentence_mask, grid_mask, gaze, scale)
        # No gaze, no sentence pairs: a loss that can still be derived. To raise, a card would have
        # to be waited for: there a sample without a sentence makes the loss NaN.
        zero = torch.where(every, 0 * own.sum(), torch.nan)
        by_term = {
            name: term(pairs, rules) if name in terms else zero for name, term in TERMS.items()
        }
        return EgmaLoss(**by_term, total=sum(by_term.values(), start=zero))


def clip_loss(images: Tensor, texts: Tensor, scale: Tensor | float) -> Tensor:
    """Compare pooled features of images and texts, ``[b, d]`` each (Eq. 1-3)."""
    with torch.autocast(images.device.type, enabled=False):
        unit_images = F.normalize(_precise(images), dim=-1)
        scores = unit_images @ F.normalize(_precise(texts), dim=-1).T * scale  # (image, text)
        return _halved_cross_entropies(scores, scores.T)


def gaze_labels(gaze: Tensor, rule: str) -> Tensor:
    """Binarise gaze on patches, ``[..., n]`` in [0, 1], to positives (GL, before Eq. 5)."""
    if rule == "quarter-max":
        return gaze > _QUARTER * gaze.amax(-1, keepdim=True)
    return gaze > 0


def multi_label_cross_entropy(logits: Tensor, positive: Tensor, counted: Tensor) -> Tensor:
    """Take log(1 + sum_neg e^s) + log(1 + sum_pos e^-s) over the last axis (Eq. 5).

    Parameters
    ----------
    logits : Tensor
        ``[..., k]``.
    positive : Tensor
        ``[..., k]`` bool.
    counted : Tensor
        Bool, broadcast to ``[..., k]``; what is neither positive nor negative is false.
    """
    negatives = logits.masked_fill(positive | ~counted, -torch.inf)
    positives = (-logits).masked_fill(~(positive & counted), -torch.inf)
    one = torch.zeros_like(logits[..., :1])  # e^0
    return torch.cat([one, negatives], -1).logsumexp(-1) + torch.cat(
        [one, positives], -1
    ).logsumexp(-1)


def fine_grained_scores(
    patches: Tensor, sentences: Tensor, sentence_mask: Tensor, *, padding_competes: bool = False
) -> tuple[Tensor, Tensor]:
    """Score every image against every text by their best matches (before Eq. 6).

    Parameters
    ----------
    patches, sentences : Tensor
        ``[b, n, d]`` and ``[c, m, d]`` of unit length, zeros in the padding.
    sentence_mask : Tensor
        ``[c, m]`` bool.

    Returns
    -------
    tuple of Tensor
        Image to text ``[b, c]``: each patch's best sentence, averaged over the patches; text to
        image ``[c, b]``: each sentence's best patch, averaged over the sentences.
    """
    (b, n, d), (c, m, _) = patches.shape, sentences.shape
    most = sentence_mask.sum(1).max()

    def scores(some: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        cosines = (patches.reshape(b * n, d) @ some.reshape(-1, d).T).view(b, n, len(some), m)
        best_patch = cosines.amax(1)  # (b, c, m)
        counts = mask.sum(1)
        text_to_image = best_patch.masked_fill(~mask, 0).sum(-1) / counts
        best_sentence = cosines.masked_fill(~mask, -torch.inf).amax(-1)  # (b, n, c)
        if padding_competes:  # a zero vector follows every text but the longest
            best_sentence = torch.where(counts < most, best_sentence.clamp(min=0), best_sentence)
        return best_sentence.mean(1), text_to_image

    at_once = max(1, _MOST_COSINES // (b * n * m))
    if at_once >= c:
        image_to_text, text_to_image = scores(sentences, sentence_mask)
        return image_to_text, text_to_image.T
    # A few texts at a time, whose cosines are computed again in the backward pass.
    parts = [
        checkpoint(
            scores, sentences[i : i + at_once], sentence_mask[i : i + at_once], use_reentrant=False
        )
        for i in range(0, c, at_once)
    ]
    return torch.cat([one for one, _ in parts], 1), torch.cat([two for _, two in parts], 1).T


def alignment_weights(
    cosines: Tensor, counted: Tensor, gaze: Tensor, sparsity: float | None
) -> Tensor:
    """Make the rows that map one modality to the other, each of sum 1 (Eq. 7-8).

    Parameters
    ----------
    cosines : Tensor
        ``[..., k]``; rows are min-maxed, cut at `sparsity` and binarised.
    counted : Tensor
        Bool, broadcast to ``[..., k]``; false for padding.
    gaze : Tensor
        ``[..., k]`` in [0, 1], added after that (GS); zeros where there is none.
    """
    lowest = cosines.masked_fill(~counted, torch.inf).amin(-1, keepdim=True)
    spread = cosines.masked_fill(~counted, -torch.inf).amax(-1, keepdim=True) - lowest
    constant = spread <= _CONSTANT_ROW_SPREAD
    length = counted.sum(-1, keepdim=True)
    threshold = 1 / length if sparsity is None else sparsity
    high = (cosines - lowest) / spread.masked_fill(constant, 1) >= threshold
    weights = _zero_where(~counted, (high | constant).to(gaze.dtype) + gaze)
    return weights / weights.sum(-1, keepdim=True)


def _mlce(pairs: Pairs, rules: Rules) -> Tensor:
    """Take Eq. 5 of every sample with gaze, over the batch."""
    positive = gaze_labels(pairs.gaze, rules.label_rule)
    logits, mask = pairs.own * pairs.scale, pairs.grid_mask
    each = _mlce_of_samples(logits, positive, mask, rules.mlce_sentence_share)
    with_gaze = mask.any(1).sum().clamp(min=1)
    return each.sum() / (with_gaze if rules.mlce_average == "gaze" else len(each))


def _contrastive(pairs: Pairs, rules: Rules) -> Tensor:
    image_to_text, text_to_image = fine_grained_scores(
        pairs.patches,
        pairs.sentences,
        pairs.sentence_mask,
        padding_competes=rules.padding_competes,
    )
    if rules.softmax_over_texts_only:
        text_to_image = text_to_image.T
    return _halved_cross_entropies(image_to_text * pairs.scale, text_to_image * pairs.scale)


def _mapping(pairs: Pairs, rules: Rules) -> Tensor:
    b, n, d = pairs.patches.shape
    at_once = max(1, _MOST_MAPPED // (n * d))
    if at_once >= b:
        return _mapping_of_samples(pairs, rules.sparsity).mean()
    # A few samples at a time, computed again in the backward pass.
    *tensors, scale = pairs
    parts = zip(*(one.split(at_once) for one in tensors), strict=True)
    each = [
        checkpoint(
            _mapping_of_samples, Pairs._make((*part, scale)), rules.sparsity, use_reentrant=False
        )
        for part in parts
    ]
    return torch.cat(each).mean()


Term = Callable[[Pairs, Rules], Tensor]
TERMS: dict[str, Term] = {"mlce": _mlce, "contrastive": _contrastive, "mapping": _mapping}
"""Every term by its name: a further one is a function above, a line here, a field of `EgmaLoss`."""


def _mlce_of_samples(
    logits: Tensor, positive: Tensor, grid_mask: Tensor, sentence_share: float
) -> Tensor:
    """Weigh both sides of Eq. 5: ``[b]``, 0 without gaze."""
    counted = grid_mask[..., None].expand_as(logits)
    rows = multi_label_cross_entropy(logits, positive, counted)  # (b, m)
    columns = multi_label_cross_entropy(logits.mT, positive.mT, counted.mT)  # (b, n)
    gazed = grid_mask.sum(1)
    sentence_side = _zero_where(~grid_mask, rows).sum(1) / gazed.clamp(min=1)
    patch_side = _zero_where(gazed == 0, columns.mean(1))
    return sentence_share * sentence_side + (1 - sentence_share) * patch_side


def _mapping_of_samples(pairs: Pairs, sparsity: float | None) -> Tensor:
    """Compare mapped and target features inside each sample (Eq. 9-10): ``[b]``."""
    patches, sentences, own, sentence_mask, _, gaze, scale = pairs
    with torch.no_grad():
        counted = sentence_mask[..., None].expand_as(own)
        to_patches = alignment_weights(own.mT, counted.mT, gaze.mT, sparsity)  # (b, n, m), Eq. 7
        every_patch = torch.ones_like(counted)
        to_sentences = alignment_weights(own, every_patch, gaze, sparsity)  # (b, m, n), Eq. 8
    mapped_patches = F.normalize(to_patches @ sentences, dim=-1)
    mapped_sentences = F.normalize(to_sentences @ patches, dim=-1)
    all_patches = sentence_mask.new_ones(patches.shape[:2])
    image_side = _contrast_inside(mapped_patches, patches, all_patches, scale)
    text_side = _contrast_inside(mapped_sentences, sentences, sentence_mask, scale)
    return _zero_where(sentence_mask.sum(1) < 2, (image_side + text_side) / 2)


def _contrast_inside(
    mapped: Tensor, targets: Tensor, mask: Tensor, scale: Tensor | float
) -> Tensor:
    """Take Eq. 2 between the k mapped and k target features of each sample: ``[b]``."""
    scores = mapped @ targets.mT * scale  # (b, k, k)
    forth, back = _log_share_of_own(scores, mask), _log_share_of_own(scores.mT, mask)
    return -_zero_where(~mask, forth + back).sum(1) / (2 * mask.sum(1))


def _log_share_of_own(scores: Tensor, mask: Tensor) -> Tensor:
    """Take each row's log softmax at its own column, padding's columns left out: ``[b, k]``."""
    scores = scores.masked_fill(~mask[:, None, :], torch.finfo(scores.dtype).min)
    return scores.diagonal(dim1=1, dim2=2) - scores.logsumexp(-1)


def _halved_cross_entropies(image_to_text: Tensor, text_to_image: Tensor) -> Tensor:
    """Average over the samples, both directions: rows of each find their own column (Eq. 2-3)."""
    own = torch.arange(len(image_to_text), device=image_to_text.device)
    return (F.cross_entropy(image_to_text, own) + F.cross_entropy(text_to_image, own)) / 2


def _precise(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()


def _zero_where(mask: Tensor, values: Tensor) -> Tensor:
    """Put zeros, without gradient, where ``mask`` (of leading axes) is true, NaN or not."""
    mask = mask.reshape(mask.shape + (1,) * (values.dim() - mask.dim()))
    return values.masked_fill(mask, 0)


def _check_shapes(
    patches: Tensor, sentences: Tensor, sentence_mask: Tensor, grid: Tensor, grid_mask: Tensor
) -> None:
    b, n, d = patches.shape
    m = sentences.shape[1]
    expected = {
        "sentences": (sentences, (b, m, d)),
        "sentence_mask": (sentence_mask, (b, m)),
        "grid": (grid, (b, m, n)),
        "grid_mask": (grid_mask, (b, m)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, patches ask for {shape}")


def _check_options(terms: Collection[str], rules: Rules) -> None:
    choices = [
        ("label_rule", rules.label_rule, LABEL_RULES),
        ("mlce_average", rules.mlce_average, MLCE_AVERAGES),
    ]
    for name, value, known in [*choices, *(("term", term, tuple(TERMS)) for term in terms)]:
        if value not in known:
            raise ValueError(f"no {name} {value!r}; there are: {', '.join(known)}")
    if not terms:
        raise ValueError(f"no term to compute; give some of: {', '.join(TERMS)}")
