"""The arms of the study, and which runs they make in which order."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.study.phantoms import Look
from benchmarks.study.training import Recipe
from egma_train.options import LossOptions

SEEDS = range(1, 9)  # the phantoms were tuned with seed 0
CONTROLS_BEHIND = 1.5  # seeds; a study that is cut has more seeds of the core than of controls


@dataclass(frozen=True)
class Study:
    """What all runs share; the markers go with the findings in `shortcut_share` of the images."""

    train_readings: int = 2000
    held_out_readings: int = 256
    test_readings: int = 900
    shortcut_share: float = 0.95
    look: Look = field(default_factory=Look)
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    name: str
    loss: LossOptions
    gaze_share: float = 0.0
    control: bool = False
    shortcut: bool = True
    beside: bool = False
    """The shortcut lies beside the finding, where eyes go anyway."""
    gaze_of_others: bool = False
    fixed_steps: int = 0
    """Train so long without looking for a plateau."""


@dataclass(frozen=True)
class Run:
    """An arm with a seed."""

    study: Study
    arm: Arm
    seed: int

    @property
    def key(self) -> tuple[str, int, str]:
        """Arm, seed and a hash of every option: the same key is the same run."""
        arm = asdict(self.arm)
        if not arm["beside"]:  # runs from before there were such keep their keys
            del arm["beside"]
        told = json.dumps([asdict(self.study), arm], sort_keys=True)
        return self.arm.name, self.seed, hashlib.sha256(told.encode()).hexdigest()[:12]


def _core() -> list[Arm]:
    shares = (
        ("clip", 0), ("egf", 0), ("egma", 0), ("mlce", 1), ("egf", 1), ("egm", 1), ("egma", 1),
        ("egf", 0.1), ("egma", 0.1), ("egf", 0.01), ("egma", 0.01),
    )  # fmt: skip
    return [
        Arm(name if name == "clip" else f"{name}, {share:.0%} gaze", LossOptions(name), share)
        for name, share in shares
    ]


def _controls() -> list[Arm]:
    egf, egma, clip = LossOptions("egf"), LossOptions("egma"), LossOptions("clip")
    by_gaze = LossOptions("egma", mlce_average="gaze")
    quarter = {name: LossOptions(name, label_rule="quarter-max") for name in ("egf", "egma")}
    half = LossOptions("egma", sparsity=0.5)
    return [
        Arm("egf, gaze of others", egf, 1, True, gaze_of_others=True),
        Arm("egma, gaze of others", egma, 1, True, gaze_of_others=True),
        Arm("egf, quarter-max", quarter["egf"], 1, True),
        Arm("egma, quarter-max", quarter["egma"], 1, True),
        Arm("egma, sparsity 0.5", half, 1, True),
        Arm("egma, 10% gaze, MLCE by gaze", by_gaze, 0.1, True),
        Arm("egma, 1% gaze, MLCE by gaze", by_gaze, 0.01, True),
        Arm("no shortcut: clip", clip, 0, True, shortcut=False),
        Arm("no shortcut: egf, 0% gaze", egf, 0, True, shortcut=False),
        Arm("no shortcut: egf, 100% gaze", egf, 1, True, shortcut=False),
        Arm("no shortcut: egma, 100% gaze", egma, 1, True, shortcut=False),
        *(
            Arm(f"beside: {name}", options, share, True, beside=True)
            for name, options, share in (
                ("clip", clip, 0),
                ("egf, 0% gaze", egf, 0),
                ("egf, 100% gaze", egf, 1),
                ("egma, 100% gaze", egma, 1),
                ("egf, quarter-max", quarter["egf"], 1),
            )
        ),
        Arm("egf, 0% gaze, 4000 steps", egf, 0, True, fixed_steps=4000),
    ]


ARMS = (*_core(), *_controls())


def planned(study: Study, arms: Sequence[Arm] = ARMS, seeds: range = SEEDS) -> list[Run]:
    """List the runs seed by seed, so that a study that is cut has complete seeds."""
    runs = [Run(study, arm, seed) for arm in arms for seed in seeds]
    return sorted(runs, key=lambda run: run.seed + CONTROLS_BEHIND * run.arm.control)
