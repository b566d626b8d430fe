"""Options of training: what has another type, shape or size is refused in one line."""

import itertools
import math
from dataclasses import asdict, fields
from typing import Any

import pytest
from evaluation import egma_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from egma_train.errors import BadUsageError
from egma_train.options import (
    PRESETS,
    DataOptions,
    ExecutionOptions,
    LossOptions,
    ModelOptions,
    Options,
    TrainOptions,
    options_of,
    parse_assignments,
    read_config,
    with_changes,
)

STAGES = {
    "data": DataOptions, "model": ModelOptions, "loss": LossOptions, "train": TrainOptions,
    "execution": ExecutionOptions,
}  # fmt: skip
FIELDS = [f"{stage}.{one.name}" for stage, kind in STAGES.items() for one in fields(kind)]

# What TOML and JSON can hold, sane or not; endless numbers, empty and deep things among them.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats() | st.text(max_size=5)
    | st.sampled_from([10**400, -1, "\0", "x\ny", "1/length", "float16", math.nan]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)  # fmt: skip


def refused(stage: str, name: str, value: Any) -> str:
    with pytest.raises(BadUsageError) as caught:
        with_changes(Options(), {stage: {name: value}})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


@settings(max_examples=400, deadline=None)
@given(field=st.sampled_from(FIELDS), value=ANYTHING)
def test_any_value_is_taken_as_its_type_or_refused_in_one_line(field: str, value: Any) -> None:
    stage, _, name = field.partition(".")
    try:
        taken = getattr(getattr(with_changes(Options(), {stage: {name: value}}), stage), name)
    except BadUsageError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        return
    default = getattr(STAGES[stage](), name)
    wanted = (str, float) if name == "sparsity" else type(default)
    assert isinstance(taken, wanted) and isinstance(taken, bool) == isinstance(default, bool)
    if isinstance(default, tuple):
        item = str if name == "splits" else int
        assert all(isinstance(one, item) and not isinstance(one, bool) for one in taken)
    assert taken == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("field", FIELDS)
def test_a_value_of_each_other_type_is_refused_by_name(field: str) -> None:
    stage, _, name = field.partition(".")
    default = getattr(STAGES[stage](), name)
    of_type: dict[type, Any] = {
        bool: True, int: 3, float: 0.5, str: "some words", tuple: [{}], dict: {"a": 1},
        type(None): None,
    }  # fmt: skip
    fits = {type(default)} | ({int} if isinstance(default, float) else set())
    fits |= {int, float} if name == "sparsity" else set()
    for kind, value in of_type.items():
        if kind not in fits:
            assert f"{field} is " in refused(stage, name, value) or name == "sparsity"
    if isinstance(default, tuple):
        wrong = [2, "x"] if default == () or isinstance(default[0], int) else []
        for items in (wrong, [True], [None], [[1]], "words", [1.5]):
            assert f"{field} is " in refused(stage, name, items)


@pytest.mark.parametrize(
    ("stage", "name", "value", "said"),
    [
        ("model", "swin_depths", [2, "x"], "is [2, 'x']; give a value like [2, 2, 6, 2]"),
        ("model", "text_states", ["a"], "is ['a']; give a value like [-4, -3, -2, -1]"),
        ("model", "swin_depths", [2, 2, 6, 0], "model.swin_depths is 0; give a number from 1"),
        ("model", "swin_depths", [], "one number for each"),
        ("model", "swin_heads", [3, 6, 12, 0], "each must divide the width of its stage"),
        ("model", "swin_heads", [5, 6, 12, 24], "96 in stage 1"),
        ("model", "text_dropout", 1.0, "give a number from 0 to 0.99"),
        ("model", "vocabulary_size", -3, "give a number from 1"),
        ("data", "splits", [3], "data.splits is [3]; give a value like ['train']"),
        ("train", "seed", 10**400, "train.seed is 100000"),
        ("train", "learning_rate", 10**400, "train.learning_rate is 100000"),
        ("train", "learning_rate", 1e300, "give a number from 0 to 1e+30"),
        ("train", "weight_decay", 1e39, "give a number from 0 to 1e+06"),
        ("execution", "device", 3, "execution.device is 3; give a value like 'cpu'"),
    ],
)
def test_what_is_wrong_is_told_by_field_value_and_example(
    stage: str, name: str, value: Any, said: str
) -> None:
    assert said in refused(stage, name, value)


def test_a_number_too_long_to_be_written_is_refused() -> None:
    assert "a number of thousands of digits" in refused("train", "batch_size", 16**5000)


def test_a_stage_that_is_no_table_is_refused() -> None:
    with pytest.raises(BadUsageError, match=r"train is 3; write its options as train\.NAME"):
        with_changes(Options(), {"train": 3})


@pytest.mark.parametrize("value", ["[" * 3000, "9" * 5000, "0x" + "f" * 5000, "1979-05-27", "{}"])
def test_a_config_and_an_assignment_of_odd_toml_end_in_one_line(value: str, tmp_path: Any) -> None:
    with pytest.raises(BadUsageError) as caught:
        with_changes(Options(), parse_assignments([f"train.epochs={value}"]))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    (tmp_path / "own.toml").write_text(f"[train]\nepochs = {value}\n")
    with pytest.raises(BadUsageError) as caught:
        with_changes(Options(), read_config(tmp_path / "own.toml"))
    assert "\n" not in str(caught.value)


def test_options_built_in_python_are_checked_like_parsed_ones() -> None:
    with pytest.raises(BadUsageError, match=r"model\.swin_depths is \[2, 2, 6, 2\]"):
        ModelOptions(swin_depths=[2, 2, 6, 2])  # type: ignore[arg-type]
    with pytest.raises(BadUsageError, match=r"data\.one_reading_per_image is 1"):
        DataOptions(one_reading_per_image=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_stands_and_survives_a_round_through_its_record(preset: str) -> None:
    made = options_of(preset)
    assert with_changes(Options(), asdict(made)) == made
    changed = list(itertools.chain.from_iterable(PRESETS[preset].values()))
    assert len(changed) == len(set(changed))


@pytest.mark.parametrize("command", ["zero-shot", "retrieval", "grounding", "embed", "table"])
@pytest.mark.parametrize("seed", ["-1", "1e3", str(2**40)])
def test_a_seed_that_nothing_can_be_drawn_from_is_refused_in_one_line(
    command: str, seed: str
) -> None:
    result = egma_eval(command, "--seed", seed, "PHANTOM")
    assert result.exit_code == 2 and "--seed" in result.output
    assert result.output.startswith("egma-eval: ") and result.output.count("\n") == 1
