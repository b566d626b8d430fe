"""The learning rate of each step."""

import math

from egma_train.options import Options


def learning_rate(step: int, steps_per_epoch: int, options: Options) -> float:
    """Warm up linearly, then follow a cosine to 0 at the end of the last epoch."""
    warm, rate = warmup_steps(steps_per_epoch, options), options.train.learning_rate
    if step < warm:
        return rate * (step / warm if options.train.first_rate_zero else (step + 1) / (warm + 1))
    done = (step - warm) / max(options.train.epochs * steps_per_epoch - warm, 1)
    return rate * 0.5 * (1 + math.cos(math.pi * min(done, 1)))


def warmup_steps(steps_per_epoch: int, options: Options) -> float:
    """Count the steps of the warm-up: of its epochs, or a share of all, rounded up."""
    if not options.train.warmup_share:
        return options.train.warmup_epochs * steps_per_epoch
    return math.ceil(options.train.epochs * steps_per_epoch * options.train.warmup_share)


def short_run(steps_per_epoch: int, options: Options) -> str | None:
    """Say if a run ends before its warm-up does: it never reaches its learning rate."""
    steps, warm = options.train.epochs * steps_per_epoch, warmup_steps(steps_per_epoch, options)
    if steps > warm or not options.train.learning_rate:
        return None
    highest = learning_rate(steps - 1, steps_per_epoch, options) / options.train.learning_rate
    name = "warmup_share" if options.train.warmup_share else "warmup_epochs"
    return (
        f"{steps} steps end inside the warm-up of {warm:g}: the learning rate reaches"
        f" {highest:.0%} of train.learning_rate; lower train.{name} or train longer"
    )
