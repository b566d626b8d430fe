"""Published choices by name, against the published formulas; what must not move a map."""

import re
import sys
import textwrap
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from conftest import IN_THREADS, egma_prep
from hypothesis import given, settings
from hypothesis import strategies as st
from published_recipes import (
    Look,
    egma_map,
    eye_gaze_map,
    look_back_windows,
    overlaps,
    reduced,
    reflacx_map,
)

from egma_prep import open_shards
from egma_prep.errors import BadInputError, BadUsageError
from egma_prep.gaze import kernels
from egma_prep.gaze.frame import frame_of
from egma_prep.options import RECIPES, Options, RenderOptions, with_changes
from egma_prep.shards.assemble import FramedImage, reading_columns
from egma_prep.sources.reading import Fixations, RawReading, Words

WIDTH, HEIGHT = 536, 672  # blocks of 3 x 3 pixels are averaged
SENTENCES = [(1.0, 2.4), (3.0, 4.1), (4.2, 6.5), (9.8, 11.0)]  # s
NOTHING_SEEN = 3


def _looks(seed: int) -> list[Look]:
    """Look around, then zoom in to a third of the image, at all that is off it too."""
    rng = np.random.default_rng(seed)
    looks, clock = [], 0.1
    while clock < 7.5:
        end = clock + rng.uniform(0.08, 0.6)
        zoomed = 2.0 < clock < 5.0
        shown = (180, 211, 371, 450) if zoomed else (0, 0, WIDTH, HEIGHT)
        degree = 10.0 if zoomed else 27.0
        x, y = (
            int(rng.uniform(low - 8, high + 8))
            for low, high in zip(shown[:2], shown[2:], strict=True)
        )
        looks.append(Look(clock, end, x, y, (degree, degree * 1.04), shown))
        clock = end + rng.uniform(0.02, 0.1)
    return looks


def _raw(
    looks: list[Look], sentences: list[tuple[float, float]] = SENTENCES, scale: float = 1.0
) -> RawReading:
    """Say one word and its period in each sentence."""
    words = [("heart", begin, end - 0.1) for begin, end in sentences]
    said = [one for word in words for one in (word, (".", word[2], word[2] + 0.1))]
    text, begin_s, end_s = zip(*said, strict=True)
    return RawReading(
        dataset="reflacx",
        reading_id="P300R900001",
        subject_id="90000001",
        study_id="99000001",
        dicom_id="-".join(["0badf00d"] * 5),
        split=None,
        view=None,
        image_path="PHANTOM",
        width=round(WIDTH * scale),
        height=round(HEIGHT * scale),
        fixations=Fixations(
            *np.array([[one.begin, one.end] for one in looks]).T,
            *((np.array([[one.x, one.y] for one in looks]).T + 0.5) * scale - 0.5),
            *(np.array([one.px_per_deg for one in looks]).T * scale),
            np.array([one.shown for one in looks]) * scale,
        ),
        words=Words([*text], np.array(begin_s), np.array(end_s)),
        labels={},
        regions=[],
    )


def _rendered(raw: RawReading, render: dict[str, Any]) -> dict[str, Any]:
    frame = frame_of(raw.width, raw.height)
    image = FramedImage(frame, np.zeros((224, 224), np.uint8))
    options = with_changes(Options(), {"render": render})
    return {name: value[0] for name, value in reading_columns(raw, image, options)["shard"].items()}


def _map(stored: bytes) -> Any:
    return np.frombuffer(stored, np.uint8).reshape(224, 224).astype(np.float64)


def _theirs(recipe: str, looks: list[Look], seconds: list[float]) -> Any:
    there = [
        (look, weight)
        for look, weight in zip(looks, seconds, strict=True)
        if 0 <= look.x < WIDTH and 0 <= look.y < HEIGHT and weight > 0
    ]
    looks, seconds = [look for look, _ in there], [weight for _, weight in there]
    if recipe == "egma":
        full = egma_map(looks, seconds, WIDTH, HEIGHT, 16 * HEIGHT / 224)
    elif recipe == "eye-gaze":
        full = eye_gaze_map(looks, [1.0] * len(looks), WIDTH, HEIGHT)
    else:
        full = reflacx_map(looks, seconds, WIDTH, HEIGHT)
    return reduced(full, WIDTH, HEIGHT)


# Of the peak. Bytes round by 0.2 %; egma's Gaussians end at three sigma, where they are 1.1 %; a
# frame pixel through which the edge of what was shown goes gets its share of its whole mean.
ERROR = {"egma": 0.01, "reflacx": 0.015, "eye-gaze": 0.005, "look-back-1.5s": 0.015}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("seed", range(2), ids="path {}".format)
def test_a_recipe_is_the_published_formula_at_full_resolution(recipe: str, seed: int) -> None:
    looks = _looks(seed)
    row = _rendered(_raw(looks), RECIPES[recipe])
    windows = look_back_windows(SENTENCES) if recipe == "look-back-1.5s" else SENTENCES
    wanted = [(row, [look.end - look.begin for look in looks])]
    wanted += [
        (sentence, overlaps(looks, *window))
        for sentence, window in zip(row["sentences"], windows, strict=True)
    ]
    worst = 0.0
    for made, seconds in wanted:
        theirs = _theirs(recipe, looks, seconds)
        if not theirs.any():
            assert made["heatmap"] is None
            continue
        worst = max(worst, np.abs(_map(made["heatmap"]) / 255 - theirs / theirs.max()).max())
    assert row["sentences"][NOTHING_SEEN]["heatmap"] is None
    print(f"{recipe}: at most {worst:.4f} of the peak away")
    assert worst <= ERROR[recipe]


@pytest.mark.parametrize("recipe", ["reflacx", "look-back-1.5s", "eye-gaze"])
def test_what_255_stands_for_is_the_formulas_value_a_frame_pixel(recipe: str) -> None:
    looks = _looks(1)
    (first, *_) = _rendered(_raw(looks), RECIPES[recipe])["sentences"]
    window = SENTENCES[0] if recipe != "look-back-1.5s" else look_back_windows(SENTENCES)[0]
    full = _theirs(recipe, looks, overlaps(looks, *window))
    a_frame_pixel = (HEIGHT / 224) ** 2
    assert first["peak_seconds"] == pytest.approx(full.max() * a_frame_pixel, rel=0.02)


def test_a_grid_of_sum_one_is_what_each_cell_has_of_the_map() -> None:
    looks = _looks(2)
    row = _rendered(_raw(looks), RECIPES["reflacx"])
    for made, window in zip(row["sentences"][:NOTHING_SEEN], SENTENCES, strict=False):
        theirs = _theirs("reflacx", looks, overlaps(looks, *window))
        cells = (theirs / theirs.sum()).reshape(7, 32, 7, 32).sum(axis=(1, 3))
        np.testing.assert_allclose(np.reshape(made["grid"], (7, 7)), cells, atol=0.005)
        assert made["grid"].sum() == pytest.approx(1)


def test_gaze_beside_what_was_on_the_screen_leaves_no_map_where_it_is_cut() -> None:
    shown = (0, 0, 180, 180)
    beside = Look(1.2, 1.6, 500, 600, (12.0, 12.0), shown)
    row = _rendered(_raw([beside]), RECIPES["reflacx"])
    assert row["heatmap"] is None and row["sentences"][0]["heatmap"] is None
    assert row["sentences"][0]["gaze_seconds"] == pytest.approx(0.4)


@pytest.mark.parametrize("border", ["shown", "open"])
def test_an_untold_screen_rejects_a_reading_only_where_maps_need_it(border: str) -> None:
    raw = _raw(_looks(0))
    unknown = np.full((len(raw.fixations.x_px), 4), np.nan)
    raw = replace(raw, fixations=raw.fixations._replace(shown_px=unknown))
    if border == "open":
        assert _rendered(raw, {"border": border})["heatmap"]
        return
    with pytest.raises(BadInputError, match="not known of all its gaze") as caught:
        _rendered(raw, {"border": border})
    assert caught.value.reason == "no_shown"


def test_without_zooming_all_of_the_image_is_shown() -> None:
    looks = [one._replace(shown=(0, 0, WIDTH, HEIGHT)) for one in _looks(0)]
    told = _raw(looks)
    untold = replace(told, fixations=told.fixations._replace(shown_px=None))
    assert (
        _rendered(told, RECIPES["reflacx"])["heatmap"]
        == _rendered(untold, RECIPES["reflacx"])["heatmap"]
    )


# -- what must not move a map ---------------------------------------------------------------------

ALL = pytest.mark.parametrize("recipe", RECIPES)


def _maps(row: dict[str, Any]) -> list[Any]:
    return [None if one["heatmap"] is None else _map(one["heatmap"]) for one in row["sentences"]]


def _assert_same(found: list[Any], wanted: list[Any]) -> None:
    """A weight's last bit may round one byte the other way."""
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        assert one is None or np.abs(one - other).max() <= 1


@ALL
@settings(max_examples=4, deadline=None)
@given(shift=st.floats(0.0, 500.0), seed=st.integers(0, 50))
def test_a_later_start_of_the_recording_moves_no_map(recipe: str, shift: float, seed: int) -> None:
    # From 2 s on, so that no window of the first sentence is cut at the recording's start.
    looks = [one._replace(begin=one.begin + 2, end=one.end + 2) for one in _looks(seed)]
    sentences = [(begin + 2, end + 2) for begin, end in SENTENCES]
    later = [one._replace(begin=one.begin + shift, end=one.end + shift) for one in looks]
    moved = [(begin + shift, end + shift) for begin, end in sentences]
    render = RECIPES[recipe]
    _assert_same(
        _maps(_rendered(_raw(later, moved), render)),
        _maps(_rendered(_raw(looks, sentences), render)),
    )


@ALL
@settings(max_examples=4, deadline=None)
@given(scale=st.sampled_from([0.25, 0.5, 1.5, 2.0, 3.0]), seed=st.integers(0, 50))
def test_an_image_of_another_scale_has_the_same_maps(recipe: str, scale: float, seed: int) -> None:
    # A pixel at the edge of one image lies half off a smaller one.
    looks = [one for one in _looks(seed) if 4 < one.x < WIDTH - 4 and 4 < one.y < HEIGHT - 4]
    render = dict(RECIPES[recipe])
    larger = render | ({"sigma": f"{150 * scale}imagepx"} if recipe == "eye-gaze" else {})
    _assert_same(
        _maps(_rendered(_raw(looks, scale=scale), larger)), _maps(_rendered(_raw(looks), render))
    )


@pytest.mark.parametrize("recipe", [name for name in RECIPES if not RECIPES[name]["lead"]])
@settings(max_examples=4, deadline=None)
@given(order=st.permutations(range(len(SENTENCES))), seed=st.integers(0, 50))
def test_the_order_of_sentences_moves_no_map(recipe: str, order: list[int], seed: int) -> None:
    from egma_prep.gaze.sentences import SentenceSpan
    from egma_prep.shards.assemble import Gaze, rendered

    raw = _raw(_looks(seed))
    render = RenderOptions(**RECIPES[recipe])
    spans = [SentenceSpan(2 * at, 2 * at + 1) for at in range(len(SENTENCES))]
    f = raw.fixations
    frame = frame_of(WIDTH, HEIGHT)
    on_image = (f.x_px >= 0) & (f.x_px < WIDTH) & (f.y_px >= 0) & (f.y_px < HEIGHT)
    assert f.shown_px is not None
    gaze = Gaze(*f[:4], frame.x(f.x_px), frame.y(f.y_px), on_image, *f[4:6], *f.shown_px.T)
    straight = rendered(gaze, raw.words, spans, frame, render)
    turned = rendered(gaze, raw.words, [spans[at] for at in order], frame, render)
    assert turned["heatmap"] == straight["heatmap"]
    wanted = [straight["sentences"][at]["heatmap"] for at in order]
    assert [one["heatmap"] for one in turned["sentences"]] == wanted


# -- by name --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run once as the paper does, over a tree with zoomed readings."""
    folder = tmp_path_factory.mktemp("recipes")
    for command in (
        ("synth", folder / "data", "--readings", 24, "--small"),
        ("run", folder / "data", "--out", folder / "out", *IN_THREADS),
    ):
        result: Result = egma_prep(*command)
        assert result.exit_code == 0, result.output
    return folder / "out"


@pytest.mark.parametrize("recipe", [*RECIPES][::-1])
def test_a_recipe_is_rendered_by_name_and_verified(recipe: str, out: Any) -> None:
    result = egma_prep("render-heatmaps", "--out", out, "--recipe", recipe, *IN_THREADS)
    assert result.exit_code == 0, result.output
    told = open_shards(out).metadata
    wanted = RECIPES[recipe]
    assert [told["kernel"], told["border"], told["weights"]] == [
        wanted["kernel"],
        wanted["border"],
        wanted["weights"],
    ]
    assert told["normalisation"] == wanted["normalise"] and told["sigma"] == str(wanted["sigma"])
    checked = egma_prep("verify", "--out", out)
    assert checked.exit_code == 0, checked.output


def test_other_options_win_over_a_recipe(out: Any) -> None:
    flags = ("--lead", "0.5", "--weights", "seconds")
    result = egma_prep("render-heatmaps", "--out", out, "--recipe", "eye-gaze", *flags, *IN_THREADS)
    assert result.exit_code == 0, result.output
    told = open_shards(out).metadata
    assert (told["lead"], told["weights"], told["border"]) == ("0.5", "seconds", "mirror")


def _disc() -> str:
    page = (Path(__file__).parent.parent / "docs" / "architecture.md").read_text()
    (module,) = re.findall(r"  ```python\n(.*?)  ```", page, re.DOTALL)
    return textwrap.dedent(module)


def test_the_pages_disc_dropped_into_its_folder_is_a_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disc.py").write_text(_disc())
    monkeypatch.setattr(kernels, "__path__", [*kernels.__path__, str(tmp_path)])
    looks = _looks(3)
    row = _rendered(_raw(looks), {"kernel": "disc", "sigma": "1deg", "weights": "seconds"})
    total = np.zeros((224, 224))
    u, v = np.meshgrid(np.arange(224), np.arange(224))
    scale, left = 224 / HEIGHT, (HEIGHT - WIDTH) // 2
    for look in looks:
        if 0 <= look.x < WIDTH and 0 <= look.y < HEIGHT:
            x, y = (look.x + left + 0.5) * scale - 0.5, (look.y + 0.5) * scale - 0.5
            sx, sy = (degree * scale for degree in look.px_per_deg)
            inside = ((u - x) / sx) ** 2 + ((v - y) / sy) ** 2 <= 1
            total += inside * (look.end - look.begin)
    assert np.abs(_map(row["heatmap"]) - 255 * total / total.max()).max() <= 0.5 + 1e-6
    sys.modules.pop("egma_prep.gaze.kernels.disc", None)


def test_a_file_of_options_wins_over_a_recipe(out: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[render]\nsigma = "2 deg"\nwindow = "pause"\n')
    flags = ("--recipe", "reflacx", "--config", file, *IN_THREADS)
    result = egma_prep("render-heatmaps", "--out", out, *flags)
    assert result.exit_code == 0, result.output
    told = open_shards(out).metadata
    assert (told["sigma"], told["window"], told["border"]) == ("2deg", "pause", "shown")


def test_a_rendering_keeps_what_the_shard_says_of_its_sentences(out: Any) -> None:
    before = [one.mentions for reading in open_shards(out) for one in reading.sentences]
    for level in ("word", "sentence"):  # words tell nothing, so that it is asked anew
        flags = ("--recipe", "egma", "--level", level, *IN_THREADS)
        result = egma_prep("render-heatmaps", "--out", out, *flags)
        assert result.exit_code == 0, result.output
        told = [one.mentions for reading in open_shards(out) for one in reading.sentences]
        assert told == before if level == "sentence" else {*map(type, told)} == {type(None)}


@pytest.mark.parametrize(
    ("sigma", "more"),
    [("0.01", {}), ("0.1deg", {}), ("5imagepx", {}), ("16", {"truncate": 0.01})],
    ids=str,
)
def test_maps_so_narrow_that_they_are_raw_gaze_are_refused_with_privacy(
    sigma: str, more: dict[str, float]
) -> None:
    render = {"sigma": sigma, **more}
    assert with_changes(Options(), {"render": render})
    with pytest.raises(BadUsageError, match="narrow maps"):
        with_changes(Options(), {"render": render, "output": {"privacy": True}})


@pytest.mark.parametrize("sigma", ["1000", "90deg", "1e5imagepx"])
def test_a_sigma_wider_than_the_frame_is_refused(sigma: str) -> None:
    with pytest.raises(BadUsageError, match="or less"):
        RenderOptions(sigma=sigma)


def test_an_unknown_recipe_names_those_there_are() -> None:
    result = egma_prep("render-heatmaps", "--out", "nowhere", "--recipe", "eyegaze")
    assert result.exit_code == 2
    assert "eye-gaze" in result.output and "Traceback" not in result.output


def test_the_first_recipe_is_what_happens_by_default() -> None:
    usual = asdict(RenderOptions())
    assert RECIPES["egma"].items() <= usual.items()
    assert all(one.keys() == RECIPES["egma"].keys() for one in RECIPES.values())
