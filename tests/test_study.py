"""The phantom study: its phantoms, pairing, resumption and figures."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.study import training
from benchmarks.study.__main__ import DOCS, HERE
from benchmarks.study.arms import ARMS, Arm, Run, Study, planned
from benchmarks.study.measure import escaped, grounding, measure, swapped, zero_shot
from benchmarks.study.phantoms import (
    CELL_PX,
    CLASSES,
    FILLERS,
    IMAGE_PX,
    NAMED,
    SENTENCES,
    Gaze,
    Look,
    Readings,
    cells_of,
    make_readings,
    with_gaze_of_others,
    with_gaze_of_some,
)
from benchmarks.study.report import complete_seeds, interval, page, paired
from benchmarks.study.runs import as_seen, do_missing, do_run, read_results
from benchmarks.study.training import Recipe, train
from egma_train.options import LossOptions

SEED = (0, 7)
TINY = Study(48, 32, 60, recipe=Recipe(most_steps=6, check_steps=3, cooldown_steps=2))


@pytest.fixture(scope="module")
def tied() -> Readings:
    return make_readings(600, SEED, 0.95, Look())


@pytest.fixture(scope="module")
def broken() -> Readings:
    return make_readings(600, SEED, 0.0, Look())


# -- phantoms -------------------------------------------------------------------------------------


def test_markers_go_with_the_findings_in_95_percent_of_the_images(tied: Readings) -> None:
    by_chance = 4 / 12**2 + 6 / 18**2 + 4 / 12**2  # two independent sets are equal
    expected = 0.95 + 0.05 * by_chance
    agree = (tied.markers == tied.findings).all(1).sum()
    assert stats.binomtest(int(agree), len(tied), expected).pvalue > 0.01


def test_markers_say_nothing_where_the_shortcut_is_broken(broken: Readings) -> None:
    for c in range(len(CLASSES)):
        table = np.histogram2d(broken.markers[:, c], broken.findings[:, c], 2)[0]
        assert stats.chi2_contingency(table).pvalue > 0.001


def test_a_marker_is_drawn_where_it_is_listed_and_nowhere_else(tied: Readings) -> None:
    bright = (tied.images[:, 1:7] >= 2.9).reshape(len(tied), 6, 7, CELL_PX)
    glyphs = (bright.sum((1, 3)) >= 15).sum(1)  # grain alone is never so bright in 15 pixels
    np.testing.assert_array_equal(glyphs, tied.markers.sum(1))


def test_readings_with_and_without_the_shortcut_differ_in_the_markers_alone(
    tied: Readings, broken: Readings
) -> None:
    np.testing.assert_array_equal(tied.images[:, CELL_PX:], broken.images[:, CELL_PX:])
    for name in ("findings", "sentences", "truth", "grid", "grid_mask"):
        np.testing.assert_array_equal(getattr(tied, name), getattr(broken, name))
    assert not np.array_equal(tied.images, broken.images)


def test_a_marker_beside_a_finding_lies_where_eyes_go_anyway() -> None:
    beside = make_readings(300, SEED, 0.95, Look(noise=0), beside=True)
    top = make_readings(300, SEED, 0.95, Look(noise=0))
    np.testing.assert_array_equal(beside.markers, top.markers)
    np.testing.assert_array_equal(beside.grid, top.grid)
    near, far = [], []
    for image, truth, markers in zip(beside.images, beside.truth, beside.markers, strict=True):
        bright = (image >= 2.9).reshape(7, CELL_PX, 7, CELL_PX).sum((1, 3)).ravel() >= 10
        around = truth.any(0).reshape(7, 7)
        padded = np.pad(around, 1)
        around = np.any(
            [np.roll(padded, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)], 0
        )
        near.append((bright & around[1:-1, 1:-1].ravel()).sum())
        far.append((bright & ~around[1:-1, 1:-1].ravel()).sum())
        assert markers.any()
    assert sum(near) > 20 * sum(far)


def test_a_swapped_sentence_names_another_finding() -> None:
    numbers = np.random.default_rng(0).choice(np.flatnonzero(NAMED >= 0), 200)
    other = swapped(numbers)
    assert (NAMED[other] != NAMED[numbers]).all() and {*other} <= {*numbers}


def test_the_location_prior_knows_nothing_of_the_image_it_judges(broken: Readings) -> None:
    truth = broken.truth[broken.truth.any(-1)]
    prior = (truth.sum(0) - truth) / (len(truth) - 1)
    by_hand = np.mean([np.delete(truth, i, 0).mean(0).argmax() for i in range(5)])
    assert by_hand == prior[:5].argmax(1).mean()
    torch.manual_seed(0)
    found = [measure(training.Encoder(), broken) for _ in range(2)]  # any model has the same
    assert (
        found[0]["prior_pointing"]
        == found[1]["prior_pointing"]
        == grounding(prior, truth)["pointing"]
    )


def test_each_finding_is_said_once_and_fillers_name_none(tied: Readings) -> None:
    for findings, said, truth in zip(tied.findings, tied.sentences, tied.truth, strict=True):
        named = NAMED[said[said >= 0]]
        assert sorted(named[named >= 0]) == np.flatnonzero(findings).tolist()
        np.testing.assert_array_equal(truth[: len(named)].any(1), named >= 0)
    assert tied.findings.sum(1).min() >= 1 and tied.findings.sum(1).max() == 3
    assert all((text in FILLERS) == (c < 0) for text, c in zip(SENTENCES, NAMED, strict=True))


def test_the_truth_lies_where_the_finding_changes_the_image(tied: Readings) -> None:
    empty = make_readings(len(tied), SEED, 0.95, Look(contrast=0))
    for i in np.flatnonzero(tied.findings.sum(1) == 1):
        y, x = np.nonzero(np.abs(tied.images[i] - empty.images[i]) > 1e-6)
        box = np.zeros((IMAGE_PX, IMAGE_PX))
        top, left = (y.min() + y.max() + 1) // 2 - 8, (x.min() + x.max() + 1) // 2 - 8
        box[top : top + 16, left : left + 16] = 1
        pixels = box.reshape(7, CELL_PX, 7, CELL_PX).sum((1, 3))
        np.testing.assert_array_equal(tied.truth[i].any(0), (pixels >= CELL_PX**2 / 4).ravel())


@pytest.mark.parametrize(
    ("corner", "rows", "columns"),
    [((8, 0), (1, 2), (0, 1)), ((12, 40), (1, 2, 3), (5, 6)), ((9, 25), (1, 2), (3, 4))],
)
def test_a_patch_is_true_if_a_quarter_of_it_is_covered(
    corner: tuple[int, int], rows: tuple[int, ...], columns: tuple[int, ...]
) -> None:
    expected = np.zeros((7, 7), bool)
    expected[np.ix_(rows, columns)] = True
    np.testing.assert_array_equal(cells_of(*corner).reshape(7, 7), expected)


def test_gaze_without_faults_peaks_on_what_is_said() -> None:
    faultless = Gaze(noise_px=1, offset_px=0, stray_share=0, lag_share=0, lost_share=0)
    made = make_readings(60, SEED, 0.95, Look(gaze=faultless))
    named = made.truth.any(-1)
    peaks = made.grid[named].argmax(-1)
    assert made.grid_mask[named].all()
    assert made.truth[named][np.arange(len(peaks)), peaks].all()


def test_lag_looks_at_a_neighbouring_sentences_finding() -> None:
    late = Gaze(noise_px=1, offset_px=0, stray_share=0, lag_share=1, lost_share=0)
    made = make_readings(200, SEED, 0.95, Look(gaze=late))
    several = np.flatnonzero((made.findings.sum(1) == 3) & ((made.sentences >= 0).sum(1) == 3))
    for i in several:  # the middle one's neighbours are the other two
        peak = made.grid[i, 1].argmax()
        assert made.truth[i, [0, 2], peak].any() and not made.truth[i, 1, peak]


def test_a_tenth_of_the_sentences_loses_its_gaze(tied: Readings) -> None:
    lost = ~tied.grid_mask[tied.sentences >= 0]
    assert stats.binomtest(int(lost.sum()), len(lost), Gaze().lost_share).pvalue > 0.01
    assert not tied.grid_mask[tied.sentences < 0].any()


def test_shuffled_gaze_is_another_readings_and_each_gives_it_once(tied: Readings) -> None:
    shuffled = with_gaze_of_others(tied, SEED)
    first = {
        tied.grid[i, 0].tobytes(): i for i in range(len(tied)) if tied.grid_mask[i, 0]
    }  # continuous values: no two are equal
    donors = {
        i: first[shuffled.grid[i, 0].tobytes()]
        for i in range(len(tied))
        if shuffled.grid_mask[i, 0]
    }
    assert len(donors) == len(first) == len(set(donors.values()))
    assert all(i != donor for i, donor in donors.items())
    assert not shuffled.grid_mask[tied.sentences < 0].any()


def test_less_gaze_is_nested_in_more(tied: Readings) -> None:
    masks = [with_gaze_of_some(tied, share, SEED).grid_mask for share in (0, 0.01, 0.1, 1)]
    for less, more in pairwise(masks):
        assert not (less & ~more).any()
    assert [int(mask.any(1).sum()) for mask in masks[:3]] == [0, 6, 60]
    np.testing.assert_array_equal(masks[3], tied.grid_mask)


# -- pairing and training -------------------------------------------------------------------------


def test_arms_of_a_seed_begin_with_the_same_weights_and_other_seeds_with_others() -> None:
    made, still = make_readings(32, SEED, 0.95, Look()), Recipe(most_steps=0, cooldown_steps=0)

    def start(objective: str, seed: int) -> torch.Tensor:
        model, _ = train(made, made, LossOptions(objective), still, seed)
        return torch.nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(start("clip", 1), start("egma", 1))
    assert not torch.equal(start("egma", 1), start("egma", 2))


def test_arms_of_a_seed_see_the_same_images_and_texts(tied: Readings) -> None:
    seen = [as_seen(arm, tied, SEED) for arm in ARMS]
    assert all(one.images is tied.images and one.sentences is tied.sentences for one in seen)


def test_arms_of_a_seed_take_the_same_batches_in_the_same_order(
    tied: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[bytes]] = []
    true_loss = training.loss_of

    def noting(model: Any, batch: Any, options: LossOptions) -> torch.Tensor:
        orders[-1].append(batch.images.numpy().tobytes())
        return true_loss(model, batch, options)

    monkeypatch.setattr(training, "loss_of", noting)
    for objective in ("clip", "egma"):
        orders.append([])
        train(tied, tied, LossOptions(objective), Recipe(most_steps=2, cooldown_steps=1), 3)
    assert orders[0] == orders[1]


def test_an_arm_stops_when_its_loss_has_not_gained_for_the_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = make_readings(32, SEED, 0.95, Look())
    recipe = Recipe(check_steps=1, patience=2, least_gain=0.1, most_steps=9, cooldown_steps=1)
    for losses, steps, capped in (
        ([1.0, 0.85, 0.8, 0.7, 0.69, 0.68], 6 + 1, False),  # 0.8 is no gain, 0.7 is one
        ([2.0**-i for i in range(8)], 9 + 1, True),
    ):
        told = iter([*losses, 0.0])
        monkeypatch.setattr(training, "held_out_loss", lambda *_, told=told: next(told))
        course = train(made, made, LossOptions("clip"), recipe, 0)[1]
        assert (course["steps"], course["capped"]) == (steps, capped)


def test_a_run_repeats_itself_and_measures_both_tests() -> None:
    run = Run(TINY, Arm("egma", LossOptions("egma"), 1.0), 0)
    once, again = do_run(run), do_run(run)
    assert {**once, "seconds": 0} == {**again, "seconds": 0}
    assert once["steps"] == 8 and once["capped"]
    assert once["in_distribution"].keys() == once["broken"].keys()
    assert all(0 <= value <= 1 for value in once["broken"].values())


# -- resumption -----------------------------------------------------------------------------------


def _named(run: Run) -> dict[str, Any]:
    name, seed, options = run.key
    return {"arm": name, "seed": seed, "options": options, "seconds": 1.0, "new": True}


def test_a_rerun_does_only_what_is_missing(tmp_path: Path) -> None:
    path, runs = tmp_path / "results.jsonl", planned(TINY, ARMS[:3], range(1))
    old = [_named(runs[0]) | {"new": False}, _named(runs[1]) | {"options": "other"}]
    path.write_text("".join(f"{json.dumps(one)}\n" for one in old))
    path.with_suffix(".writing").write_text("cut in the mid")
    said: list[str] = []
    do_missing(runs, path, 1, said.append, _named)
    assert said[0] == "1 of 3 runs are done, 2 to do"
    found = read_results(path)
    assert [found[run.key]["new"] for run in runs] == [False, True, True]
    assert len(found) == 4  # what other options gave is kept
    before = path.read_bytes()
    do_missing(runs, path, 1, said.append, do_run)
    assert path.read_bytes() == before and said[-1] == "3 of 3 runs are done, 0 to do"


def test_every_option_is_part_of_a_runs_key() -> None:
    run = Run(TINY, ARMS[0], 0)
    changed = [
        replace(run, study=replace(TINY, shortcut_share=0.9)),
        replace(run, study=replace(TINY, look=Look(gaze=Gaze(lag_share=0.3)))),
        replace(run, study=replace(TINY, recipe=replace(TINY.recipe, patience=5))),
        replace(run, arm=replace(ARMS[0], loss=LossOptions("clip", sparsity=0.5))),
    ]
    assert len({run.key, *(one.key for one in changed)}) == 5


def test_a_cut_study_has_complete_seeds_first() -> None:
    runs = planned(TINY)
    core = [run.seed for run in runs if not run.arm.control]
    controls = [run.seed for run in runs if run.arm.control]
    assert core == sorted(core) and controls == sorted(controls)
    assert len({arm.name for arm in ARMS}) == len(ARMS)
    third = max(i for i, run in enumerate(runs) if run.arm.control and run.seed == 3)
    assert {run.seed for run in runs[:third] if not run.arm.control} >= set(range(1, 5))


# -- figures --------------------------------------------------------------------------------------


def test_the_interval_is_students() -> None:
    mean, low, high = interval([0.1, 0.2, 0.3])
    half = 4.302653 * 0.1 / 3**0.5  # t of 2 degrees of freedom, deviation 0.1
    assert (mean, low, high) == pytest.approx((0.2, 0.2 - half, 0.2 + half))
    assert np.isnan(interval([0.5])[1:]).all()


def test_differences_are_taken_seed_by_seed() -> None:
    arm = {s: {"broken": {"pooled": v}} for s, v in {1: 0.5, 2: 0.9, 3: 0.1}.items()}
    reference = {s: {"broken": {"pooled": v}} for s, v in {2: 0.4, 1: 0.25}.items()}
    assert paired(arm, reference, "broken", "pooled") == [0.25, 0.5]


def test_zero_shot_takes_the_class_of_the_highest_mean_over_its_prompts() -> None:
    scores = np.zeros((2, len(SENTENCES)), np.float32)
    scores[0, np.flatnonzero(NAMED == 2)] = 0.5
    scores[0, np.flatnonzero(NAMED == 1)[0]] = 1.0  # one prompt alone is not enough
    scores[1, np.flatnonzero(NAMED == 3)] = 0.1
    scores[:, NAMED < 0] = 9.0  # fillers are no class
    assert zero_shot(scores, np.array([2, 0])) == 0.5


def test_grounding_equals_hits_and_the_rank_statistic() -> None:
    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(5, 49)).round(1).astype(np.float32)  # with ties
    truth = rng.random((5, 49)) < 0.2
    areas = [
        stats.mannwhitneyu(s[t], s[~t]).statistic / (t.sum() * (~t).sum())
        for s, t in zip(similarity, truth, strict=True)
    ]
    hits = [t[s.argmax()] for s, t in zip(similarity, truth, strict=True)]
    told = grounding(similarity, truth)
    assert told["patch_auc"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert told["pointing"] == np.mean(hits)


def test_a_seed_escapes_by_its_better_score() -> None:
    assert escaped({"pooled": 0.2, "best_patch": 0.8})
    assert not escaped({"pooled": 0.79, "best_patch": 0.3})


def test_seeds_of_which_an_arm_is_missing_are_left_out() -> None:
    runs = planned(TINY, (ARMS[0], ARMS[1], ARMS[-1]), range(2))
    results = [_named(run) for run in runs if (run.arm, run.seed) != (ARMS[1], 1)]
    kept = complete_seeds(results, runs)
    assert {name: list(seeds) for name, seeds in kept.items()} == {
        ARMS[0].name: [0],
        ARMS[1].name: [0],
        ARMS[-1].name: [0, 1],
    }


def test_the_page_is_what_the_committed_runs_and_prose_make() -> None:
    runs, done = planned(Study()), read_results(HERE / "results.jsonl")
    by_arm = complete_seeds([done[run.key] for run in runs if run.key in done], runs)
    made = page((HERE / "study.md.in").read_text(), by_arm, runs)
    assert (DOCS / "study.md").read_text() == made
