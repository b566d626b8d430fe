"""The losses again, in float64 numpy, one number at a time; imports nothing of ours."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unit(vector: Array) -> Array:
    return vector / math.sqrt(sum(float(x) * float(x) for x in vector))


def cosines(patches: Array, sentences: Array) -> Array:
    """(m, n) of one sample."""
    return np.array([[float(unit(s) @ unit(p)) for p in patches] for s in sentences])


def log_sum_exp(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def mlce_row(logits: list[float], labels: list[bool]) -> float:
    negatives = [0.0] + [s for s, y in zip(logits, labels, strict=True) if not y]
    positives = [0.0] + [-s for s, y in zip(logits, labels, strict=True) if y]
    return log_sum_exp(negatives) + log_sum_exp(positives)


def labels_of(row: Array, rule: str) -> list[bool]:
    least = 0.25 * max(row) if rule == "quarter-max" else 0.0
    return [bool(value > least) for value in row]


def mlce_sides(patches, sentences, grid, has_gaze, scale, rule):  # type: ignore[no-untyped-def]
    """The sentences' and the patches' side of one sample; 0 without gaze."""
    gazed = [j for j in range(len(sentences)) if has_gaze[j]]
    if not gazed:
        return 0.0, 0.0
    logits = cosines(patches, sentences) * scale
    labels = {j: labels_of(grid[j], rule) for j in gazed}
    s2p = [mlce_row(list(logits[j]), labels[j]) for j in gazed]
    p2s = [
        mlce_row([logits[j][i] for j in gazed], [labels[j][i] for j in gazed])
        for i in range(len(patches))
    ]
    return sum(s2p) / len(s2p), sum(p2s) / len(p2s)


def cross_entropy(rows: list[list[float]]) -> float:
    return sum(log_sum_exp(row) - row[k] for k, row in enumerate(rows)) / len(rows)


def filip(samples, scale):  # type: ignore[no-untyped-def]
    i2t, t2i = [], []
    for patches, _, _, _ in samples:
        row = []
        for _, sentences, _, _ in samples:
            cos = cosines(patches, sentences)
            row.append(scale * sum(max(cos[:, i]) for i in range(len(patches))) / len(patches))
        i2t.append(row)
    for _, sentences, _, _ in samples:
        row = []
        for patches, _, _, _ in samples:
            cos = cosines(patches, sentences)
            row.append(scale * sum(max(line) for line in cos) / len(sentences))
        t2i.append(row)
    return (cross_entropy(i2t) + cross_entropy(t2i)) / 2


def weights(row: list[float], gaze: list[float], sparsity: float | None) -> list[float]:
    low, high = min(row), max(row)
    threshold = 1 / len(row) if sparsity is None else sparsity
    if high - low <= 1e-6:
        omega = [1.0] * len(row)
    else:
        omega = [1.0 if (x - low) / (high - low) >= threshold else 0.0 for x in row]
    raw = [o + g for o, g in zip(omega, gaze, strict=True)]
    return [x / sum(raw) for x in raw]


def contrast(mapped: list[Array], targets: list[Array], scale: float) -> float:
    scores = [[scale * float(unit(a) @ unit(b)) for b in targets] for a in mapped]
    turned = [list(column) for column in zip(*scores, strict=True)]
    return (cross_entropy(scores) + cross_entropy(turned)) / 2


def mapping(patches, sentences, grid, has_gaze, scale, sparsity):  # type: ignore[no-untyped-def]
    m, n = len(sentences), len(patches)
    if m == 1:
        return 0.0
    cos = cosines(patches, sentences)
    gaze = np.array([grid[j] if has_gaze[j] else np.zeros(n) for j in range(m)])
    cross_patches, cross_sentences = [], []
    for i in range(n):
        w = weights(list(cos[:, i]), list(gaze[:, i]), sparsity)
        cross_patches.append(sum(w[j] * unit(sentences[j]) for j in range(m)))
    for j in range(m):
        w = weights(list(cos[j]), list(gaze[j]), sparsity)
        cross_sentences.append(sum(w[i] * unit(patches[i]) for i in range(n)))
    image_side = contrast(cross_patches, list(patches), scale)
    text_side = contrast(cross_sentences, list(sentences), scale)
    return (image_side + text_side) / 2


def egma(samples, scale, rule="nonzero", sparsity=None, average="batch"):  # type: ignore[no-untyped-def]
    """(mlce, contrastive, mapping) of samples (patches, sentences, grid, has_gaze), no padding."""
    sides = [mlce_sides(*sample, scale, rule) for sample in samples]
    gazed = sum(any(sample[3]) for sample in samples)
    divisor = max(gazed, 1) if average == "gaze" else len(samples)
    mlce = sum((s2p + p2s) / 2 for s2p, p2s in sides) / divisor
    mapped = sum(mapping(*sample, scale, sparsity) for sample in samples) / len(samples)
    return mlce, filip(samples, scale), mapped


def published(samples, scale):  # type: ignore[no-untyped-def]
    """What the published EGMA code computes, its flaws included, for (mlce, contrastive).

    Padding enters the image-to-text maximum as zero similarities; both softmaxes run over texts;
    0.8 of Eq. 5 for text to image and 0.2 for image to text, averaged over samples with gaze.
    """
    longest = max(len(sentences) for _, sentences, _, _ in samples)
    i2t, t2i = [], []
    for patches, _, _, _ in samples:
        i2t_row, t2i_row = [], []
        for _, sentences, _, _ in samples:
            cos = cosines(patches, sentences)
            blank = [0.0] * (longest - len(sentences))
            best = [max([*cos[:, i], *blank]) for i in range(len(patches))]
            i2t_row.append(scale * sum(best) / len(best))
            t2i_row.append(scale * sum(max(line) for line in cos) / len(sentences))
        i2t.append(i2t_row)
        t2i.append(t2i_row)
    contrastive = (cross_entropy(i2t) + cross_entropy(t2i)) / 2
    sides = [mlce_sides(*sample, scale, "nonzero") for sample in samples if any(sample[3])]
    mlce = sum(0.8 * s2p + 0.2 * p2s for s2p, p2s in sides) / max(len(sides), 1)
    return mlce, contrastive
