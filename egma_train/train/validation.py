"""How a model does on readings that are held out: it is looked at, and selects nothing."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it
from torch import Tensor

from egma_train.data.loading import Batch, BatchLoader, Numbers, iterate
from egma_train.data.sampling import batches_of, held_readings
from egma_train.losses import TERMS, egma_loss, gaze_labels
from egma_train.options import Options
from egma_train.processes import ALONE
from egma_train.train.step import Encoded, Towers, Trainer, batch_loss

_READINGS_AT_ONCE = 256


@dataclass(frozen=True)
class Validation:
    """The held-out readings, and where readers look in those that are trained on.

    Attributes
    ----------
    loader : BatchLoader
        Without augmentation and for a process alone.
    held, trained_on : ndarray
        Numbers of readings.
    """

    loader: BatchLoader
    held: Numbers
    trained_on: Numbers

    @classmethod
    def of_split(
        cls, loader: BatchLoader, trained_on: Numbers, options: Options
    ) -> "Validation | None":
        """Take the split that is held out, of all its gaze, for the first process alone."""
        if not options.data.validation_split:
            return None
        everyone = np.ones(len(loader.cache), dtype=np.bool_)
        alone = replace(loader, used_gaze=everyone, rank=0, world=1)
        return cls(alone, held_readings(loader.cache, options.data), trained_on)

    @cached_property
    def prior(self) -> Tensor:
        """Average the gaze of the sentences that are trained on ``[n]``; NaN if there is none."""
        parts = np.array_split(self.trained_on, -(-len(self.trained_on) // _READINGS_AT_ONCE))
        sums = [(grid[gazed].sum(0), gazed.sum()) for grid, gazed in map(self.loader.gaze, parts)]
        return sum(own for own, _ in sums) / torch.stack([count for _, count in sums]).sum()

    @torch.no_grad()
    def of(self, trainer: Trainer) -> dict[str, float]:
        """Measure on all held-out readings.

        Returns
        -------
        dict
            ``loss`` and its terms, averaged over the readings; ``pointing``, the share of the
            sentences whose most similar patch has more than a quarter of the most gaze of any;
            ``prior_pointing``, the same of the patch that is gazed at most in training, whatever
            the image and the sentence; ``sentences``, whose gaze is on some patches and not on
            others. NaN where there are none.
        """
        batches = batches_of(self.loader.cache, self.held, trainer.options).of(0)
        # As they are: compiled once more, for a few batches, they would be slower.
        alone = replace(trainer, parallel=Towers(trainer.model), processes=ALONE, compare=egma_loss)
        sums = dict.fromkeys(("loss", *TERMS), 0.0)
        hits = np.zeros(3)
        trainer.model.eval()
        try:
            for batch in (one.to(trainer.device) for one in iterate(self.loader, batches)):
                parts = [alone.encoded(i, batch, 0) for i in range(len(batch.parts))]
                *columns, scales = zip(*parts, strict=True)
                encoded = Encoded._make([*map(torch.cat, columns), scales[0]])
                loss = batch_loss(encoded, batch, trainer.options)
                for name in sums:
                    value = loss.total if name == "loss" else getattr(loss, name)
                    sums[name] += float(value) * len(batch.readings)
                hits += pointed(encoded, batch, self.prior.to(trainer.device))
        finally:
            trainer.parallel.train()
        found: dict[str, float] = {name: one / len(self.held) for name, one in sums.items()}
        *right, sentences = hits
        own, prior = (one / sentences if sentences else math.nan for one in right)
        if self.prior.isnan().any():
            prior = math.nan
        return found | {"pointing": own, "prior_pointing": prior, "sentences": int(sentences)}


def pointed(encoded: Encoded, batch: Batch, prior: Tensor) -> list[int]:
    """Count sentences that the model points right for, that the prior does, and all."""
    patches, sentences = (
        F.normalize(one.float(), dim=-1) for one in (encoded.patches, encoded.sentences)
    )
    right = gaze_labels(batch.grid, "quarter-max")
    asked = batch.grid_mask & right.any(-1) & ~right.all(-1)
    best = (sentences @ patches.mT).argmax(-1, keepdim=True)
    always = prior.argmax().expand_as(best)
    hits = (asked & right.gather(-1, one)[..., 0] for one in (best, always))
    return [int(one.sum()) for one in (*hits, asked)]
