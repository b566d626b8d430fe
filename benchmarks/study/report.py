"""Turn finished runs into ``docs/study.md`` and its picture; the prose is in ``study.md.in``."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.study.arms import ARMS, Run, Study
from benchmarks.study.measure import ESCAPED, SCORES, escaped
from benchmarks.study.phantoms import CLASSES, make_readings

Result = Mapping[str, Any]

MEASURES = {
    "in distribution, pooled": ("in_distribution", "pooled"),
    "in distribution, best patch": ("in_distribution", "best_patch"),
    "broken, pooled": ("broken", "pooled"),
    "broken, best patch": ("broken", "best_patch"),
    "pointing": ("broken", "pointing"),
    "pointing, sentence of another finding": ("broken", "swapped_pointing"),
    "patch AUC": ("broken", "patch_auc"),
}
NO_GAZE = "egf, 0% gaze"
COMPARED = [
    *(
        (arm.name, NO_GAZE)
        for arm in ARMS
        if arm.shortcut and not arm.beside and arm.name != NO_GAZE
    ),
    *((arm.name, "clip") for arm in ARMS if not arm.control and arm.name != "clip"),
    ("egma, 100% gaze", "egf, 100% gaze"),
    ("egf, 100% gaze", "mlce, 100% gaze"),
    ("egma, 10% gaze", "egf, 10% gaze"),
    ("egma, 100% gaze", "egma, 0% gaze"),
    ("egma, 10% gaze", "egma, 0% gaze"),
    ("egma, 1% gaze", "egma, 0% gaze"),
    ("egma, 100% gaze", "egma, 10% gaze"),
    ("egma, 10% gaze", "egma, 1% gaze"),
    ("egf, 100% gaze", "egf, 10% gaze"),
    ("egf, 10% gaze", "egf, 1% gaze"),
    ("egf, 100% gaze", "egf, gaze of others"),
    ("egma, 100% gaze", "egma, gaze of others"),
    ("egma, gaze of others", "egma, 0% gaze"),
    ("egf, quarter-max", "egf, 100% gaze"),
    ("egma, quarter-max", "egma, 100% gaze"),
    ("egma, sparsity 0.5", "egma, 100% gaze"),
    ("egma, 10% gaze, MLCE by gaze", "egma, 10% gaze"),
    ("egma, 1% gaze, MLCE by gaze", "egma, 1% gaze"),
    ("no shortcut: clip", "no shortcut: egf, 0% gaze"),
    ("no shortcut: egf, 100% gaze", "no shortcut: egf, 0% gaze"),
    ("no shortcut: egma, 100% gaze", "no shortcut: egf, 0% gaze"),
    ("beside: clip", "beside: egf, 0% gaze"),
    ("beside: egf, 0% gaze", "egf, 0% gaze"),
    ("beside: egf, 100% gaze", "beside: egf, 0% gaze"),
    ("beside: egma, 100% gaze", "beside: egf, 0% gaze"),
    ("beside: egf, quarter-max", "beside: egf, 100% gaze"),
    ("beside: egf, 100% gaze", "egf, 100% gaze"),
]
"""Arm and reference, over the seeds that both have."""


def write_report(results: Sequence[Result], runs: Sequence[Run], docs: Path) -> None:
    """Write the page and the picture from the complete seeds."""
    by_arm = complete_seeds(results, runs)
    template = Path(__file__).with_name("study.md.in").read_text()
    (docs / "study.md").write_text(page(template, by_arm, runs))
    _draw(by_arm, docs / "img" / "study.svg")
    _draw_curves(by_arm, runs[0].study, docs / "img" / "study-curves.svg")


def page(template: str, by_arm: Mapping[str, Mapping[int, Result]], runs: Sequence[Run]) -> str:
    """Put the tables into the prose."""
    spent = sum(one["seconds"] for seeds in by_arm.values() for one in seeds.values()) / 3600
    done = sum(len(seeds) for seeds in by_arm.values())
    tables = {
        "arms": _arms_table(by_arm, runs[0].study),
        "compared": _compared_table(by_arm, COMPARED),
        "setup": _setup_table(runs[0]),
        "done": f"{done} of {len(runs)} planned runs, {spent:.1f} hours of one core",
        "escaped": f"{ESCAPED:.0%}",
    }
    for name, text in tables.items():
        template = template.replace(f"@{name}@", text)
    return template


def complete_seeds(results: Sequence[Result], runs: Sequence[Run]) -> dict[str, dict[int, Result]]:
    """Keep the seeds of which every core arm, control or arm beside is done: by arm and seed."""
    found = {(one["arm"], one["seed"]): one for one in results}

    def group(run: Run) -> tuple[bool, bool, int]:
        return run.arm.control, run.arm.beside, run.seed

    missing = {group(run) for run in runs if (run.arm.name, run.seed) not in found}
    kept: dict[str, dict[int, Result]] = defaultdict(dict)
    for run in runs:
        if group(run) not in missing:
            kept[run.arm.name][run.seed] = found[run.arm.name, run.seed]
    return dict(kept)


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, and lower and upper end of Student's 95 % interval; nan for a single one."""
    values = np.asarray(differences, float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return mean, mean - float(half), mean + float(half)


def paired(
    arm: Mapping[int, Result], reference: Mapping[int, Result], test: str, measure: str
) -> list[float]:
    """Subtract the reference's measure from the arm's, seed by seed."""
    return [
        arm[seed][test][measure] - reference[seed][test][measure]
        for seed in sorted(arm.keys() & reference.keys())
    ]


def _arms_table(by_arm: Mapping[str, Mapping[int, Result]], study: Study) -> str:
    score = "escaped (pooled, best patch)"
    rows = [["arm", "seeds", "steps", "at the cap", *MEASURES, score, "held-out loss"]]
    rows += [_chance_row(study), _prior_row(by_arm)]
    fixed = {arm.name for arm in ARMS if arm.fixed_steps}
    for name, seeds in by_arm.items():
        ones = list(seeds.values())
        steps = f"{np.median([one['steps'] for one in ones]):.0f}"
        capped = "fixed" if name in fixed else str(sum(one["capped"] for one in ones))
        cells = [name, str(len(ones)), steps, capped]
        for test, measure in MEASURES.values():
            # Runs from before the controls were measured have none.
            values = [one[test][measure] for one in ones if measure in one[test]]
            told = (
                f"{np.mean(values):.2f} [{min(values):.2f}, {max(values):.2f}]" if values else "–"
            )
            cells.append(told)
        cells.append(_share_escaped(ones))
        rows.append([*cells, f"{np.mean([one['held_out_loss'] for one in ones]):.2f}"])
    return _markdown(rows)


def _chance_row(study: Study) -> list[str]:
    """Guess classes and patches; a finding covers about as much of the image in every seed."""
    truth = make_readings(study.test_readings, (0, 0), 0, study.look).truth
    covered = truth[truth.any(-1)].mean()
    accuracy = f"{1 / len(CLASSES):.2f}"
    return ["chance", "", "", "", *[accuracy] * 4, *[f"{covered:.2f}"] * 2, "0.50", "", ""]


def _prior_row(by_arm: Mapping[str, Mapping[int, Result]]) -> list[str]:
    """Point by the mean of all other sentences' truth: one map, blind to image and sentence."""
    every = [one for seeds in by_arm.values() for one in seeds.values()]
    seeds = [one for one in every if "prior_pointing" in one["broken"]]
    pointing, auc = (
        f"{np.mean([one['broken'][f'prior_{name}'] for one in seeds]):.2f}"
        for name in ("pointing", "patch_auc")
    )
    return ["location prior", "", "", "", *[""] * 4, pointing, pointing, auc, "", ""]


def _share_escaped(ones: Sequence[Result]) -> str:
    """Count the seeds that escaped, and those that each score alone would count."""
    either = sum(escaped(one["broken"]) for one in ones)
    alone = (sum(one["broken"][name] >= ESCAPED for one in ones) for name in SCORES)
    return f"{either}/{len(ones)} ({', '.join(map(str, alone))})"


def _compared_table(
    by_arm: Mapping[str, Mapping[int, Result]], pairs: Sequence[tuple[str, str]]
) -> str:
    left_out = ("patch AUC", "pointing, sentence of another finding")
    measures = {name: where for name, where in MEASURES.items() if name not in left_out}
    rows = [["arm", "minus", "pairs", *measures]]
    for arm, reference in pairs:
        if arm not in by_arm or reference not in by_arm:
            continue
        each = [paired(by_arm[arm], by_arm[reference], *where) for where in measures.values()]
        told = ("{:+.2f} [{:+.2f}, {:+.2f}]".format(*interval(one)) for one in each)
        rows.append([arm, reference, str(len(each[0])), *told])
    return _markdown(rows)


def _setup_table(run: Run) -> str:
    study = run.study
    stages = {"": study, "recipe": study.recipe, "look": study.look, "gaze": study.look.gaze}
    rows = [["option", "value"]]
    for stage, options in stages.items():
        for name, value in vars(options).items():
            if name not in ("recipe", "look", "gaze"):
                rows.append([f"`{stage}.{name}`" if stage else f"`{name}`", str(value)])
    return _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


CURVES = ("clip", "egf, 0% gaze", "egf, 100% gaze", "egma, 100% gaze", "beside: egf, 100% gaze")


def _draw_curves(by_arm: Mapping[str, Mapping[int, Result]], study: Study, path: Path) -> None:
    """Draw each seed's held-out loss on its way to the plateau."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in CURVES if name in by_arm]
    with plt.rc_context({"svg.hashsalt": "curves", "svg.fonttype": "none", "font.size": 8}):
        figure, axes = plt.subplots(
            1, len(names), figsize=(11, 2.4), layout="constrained", squeeze=False
        )
        for axis, name in zip(axes[0], names, strict=True):
            for one in (one for one in by_arm[name].values() if "curve" in one):
                steps = study.recipe.check_steps * (1 + np.arange(len(one["curve"])))
                axis.plot(steps, one["curve"], lw=0.8, alpha=0.7, color="tab:blue")
            axis.set(title=name, xlabel="steps")
        axes[0, 0].set_ylabel("held-out loss")
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _draw(by_arm: Mapping[str, Mapping[int, Result]], path: Path) -> None:
    """Draw a dot for each seed and a bar for the mean."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = ("in distribution, best patch", "broken, best patch", "broken, pooled", "pointing")
    names = list(by_arm)[::-1]
    with plt.rc_context({"svg.hashsalt": "study", "svg.fonttype": "none", "font.size": 8}):
        figure, axes = plt.subplots(
            1, len(shown), figsize=(11, 0.24 * len(names) + 1), sharey=True, layout="constrained"
        )
        for axis, measure in zip(axes, shown, strict=True):
            test, name = MEASURES[measure]
            for y, arm in enumerate(names):
                values = [one[test][name] for one in by_arm[arm].values()]
                axis.plot(values, [y] * len(values), "o", ms=4, alpha=0.5, color="tab:blue")
                axis.plot(np.mean(values), y, "|", ms=12, mew=2, color="black")
            axis.set(title=measure, xlim=(-0.03, 1.03), yticks=range(len(names)))
            axis.set_yticklabels(names)
            axis.grid(axis="x", alpha=0.3)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
