"""A linear classifier on a model's pooled features: what they hold, not what prompts find of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from egma_train.errors import BadUsageError
from egma_train.evaluate.compare import Measured, of_each
from egma_train.evaluate.datasets.image_lists import ImageList, patients
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.zero_shot import classification_figures

_PENALTY, _STEPS = 1.0, 2000


class Labelled(NamedTuple):
    """A list's images and where their files are."""

    images: ImageList
    paths: Sequence[Path | None]


def check_apart(train: Labelled, test: Labelled) -> list[str]:
    """Refuse images that are in both lists; return what is to be known of patients that are.

    Raises
    ------
    BadUsageError
        If a file is in both, however it is spelled, or a class of the test has none to be learnt
        from.
    """
    files = [{one.resolve() for one in side.paths if one} for side in (train, test)]
    if both := sorted(files[0] & files[1]):
        raise BadUsageError(
            f"{len(both)} images are to be learnt from and tested on, such as {both[0]}; name"
            " others by --list or --train-list"
        )
    _check_classes(train.images, test.images)
    of = patients([*train.images.ids, *test.images.ids])
    both_of = {*of[: len(train.images)].tolist()} & {*of[len(train.images) :].tolist()}
    return [f"{len(both_of)} patients have images in both lists"] if both_of else []


def _check_classes(train: ImageList, test: ImageList) -> None:
    there = {train.classes[label] for label in np.unique(train.labels)}
    if lacking := [name for name in test.classes if name not in there]:
        raise BadUsageError(
            f"no image of {lacking[0]} to learn from can be read in {train.name}; give some by"
            " --train-labels"
        )


def encoded_both(
    train: Labelled, test: Labelled, encoder: Encoder, batch_size: int
) -> tuple[Measured, Measured]:
    """Take the pooled features of both lists."""
    seen = [of_each(*one, encoder, batch_size, lambda own: own.pooled) for one in (train, test)]
    return seen[0], seen[1]


def probe(
    train: Measured,
    test: Measured,
    *,
    fraction: float = 1.0,
    seed: int = 0,
    known: Sequence[str] = (),
) -> dict[str, Any]:
    """Learn from a share of each class's images, and measure on the test's.

    Features are standardised, then a logistic regression with an L2 penalty (C = 1) is fitted by
    scikit-learn.

    Parameters
    ----------
    train, test : Measured
        Pooled features, as `encoded_both` has them.
    fraction : float
        Of each class's images, at least one.
    seed : int
        Of which are drawn.
    known : sequence of str
        What `check_apart` said.

    Returns
    -------
    dict
        The report, as `zero_shot` makes it.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _check_classes(train.images, test.images)
    lost, given = train.report["unreadable"], len(train.images) + len(train.report["unreadable"])
    cautions = [f"{len(lost)} of {given} images to learn from cannot be read"] if lost else []
    drawn = share_of_each_class(train.images.labels, fraction, seed)
    names = np.array(train.images.classes)
    learnt = make_pipeline(StandardScaler(), LogisticRegression(C=_PENALTY, max_iter=_STEPS))
    learnt.fit(train.values[drawn], names[train.images.labels[drawn]])
    order = [learnt.classes_.tolist().index(name) for name in test.images.classes]
    scores = learnt.predict_log_proba(test.values)[:, order]
    figures = classification_figures(test.images, scores, 1.0)
    digest = train.report["evaluated"]["sha256"]
    own = {"name": "linear probe", "fraction": fraction, "images": len(drawn), "seed": seed}
    return {
        "task": "probe",
        "protocol": own | {"learnt_from": f"{len(train.images)} images, sha256 {digest[:16]}..."},
        **test.report,
        **figures,
        "unreadable": [*test.report["unreadable"], *lost],
        "cautions": [
            *test.report["cautions"],
            *train.report["cautions"],
            *figures["cautions"],
            *cautions,
            *known,
        ],
    }


def share_of_each_class(labels: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.int64]:
    """Draw a share of each class, rounded, at least one; smaller shares are in larger ones."""
    rng = np.random.default_rng(seed)
    drawn = []
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        drawn.append(own[: max(1, round(fraction * len(own)))])
    return np.sort(np.concatenate(drawn))
