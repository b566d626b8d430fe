"""Every option, its unit and reason; presets are the differences from the paper's."""

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from egma_train.errors import BadUsageError, first_line, unknown_name
from egma_train.losses import LABEL_RULES, MLCE_AVERAGES, PAPER_TERMS
from egma_train.storage.ordinary import MOST_TABLE_BYTES, read_ordinary

OBJECTIVES = {
    "clip": (),
    "mlce": ("mlce",),
    "egf": ("mlce", "contrastive"),
    "egm": ("mapping",),
    "egma": PAPER_TERMS,
}
"""Terms of the loss by objective; ``clip`` compares pooled features instead."""


_EXAMPLES = {
    "splits": "['train']", "validation_split": "'validate'", "device": "'cpu'",
    "cache": "'/scratch/cache'", "wandb": "'my-project'",
}  # fmt: skip
PRECISIONS = ("auto", "float32", "bfloat16", "float16", "cuda-float16")
COMPILE = ("auto", "on", "off")


@dataclass(frozen=True)
class DataOptions:
    """Which readings are trained on, and what is seen of them."""

    splits: tuple[str, ...] = ()
    """Such as ``["train"]``, ``unknown`` where the shards name none; none: every reading, as the
    paper, whose tests are other datasets."""
    stream: bool = False
    """Read images from the shards, in their order, in place of a memory-mapped copy: for more data
    than memory. Shuffled within windows of ``shuffle_buffer`` readings."""
    shuffle_buffer: int = 10_000
    """50 KB each, and as many again while the next ones are read."""
    validation_split: str = ""
    """Held out of the training, to look at while it goes on; it selects nothing."""
    one_reading_per_image: bool = True
    """Of an image that several radiologists read, take the first reading with gaze (paper)."""
    gaze_fraction: float = 1.0
    """Share of the readings whose gaze is used; smaller ones are nested in larger ones."""
    gaze_rounding: str = "round"
    """``round`` half to even gives the paper's counts; the published code's ``floor`` does not."""
    empty_sentence: str = "none"
    """Grid of a sentence without gaze: ``none``, or the whole ``reading``'s (published code)."""
    mentions: str = "any"
    """Use the gaze of ``any`` sentence (paper), or of those that name a finding and do not deny it:
    ``affirmed``; all sentences are read either way."""
    jitter: float = 0.2
    """Brightness and contrast are multiplied by up to 1 +- this."""
    autocontrast_share: float = 0.5
    """Share of images stretched to full contrast."""
    sharpness_share: float = 0.0
    """Share of images sharpened twofold (published code: 0.5)."""
    jitter_order: str = "brightness"
    """``brightness`` before contrast, or ``drawn``, as torchvision's ColorJitter."""
    grid: str = "area"
    """Gaze on a patch: the heatmap's mean over its ``area``, or ``antialias``, torchvision's
    resize of the published code, whose cells reach half into their neighbours."""

    def __post_init__(self) -> None:
        _check_kinds("data", self)
        if self.validation_split and self.validation_split in self.splits:
            raise BadUsageError(
                f"data.validation_split={self.validation_split} is among data.splits; what is held"
                " out is not trained on"
            )
        _choice("data.jitter_order", self.jitter_order, ("brightness", "drawn"))
        _choice("data.grid", self.grid, ("area", "antialias"))
        for name in ("gaze_fraction", "autocontrast_share", "sharpness_share", "jitter"):
            _in_range(f"data.{name}", getattr(self, name), 0, 1)
        _in_range("data.shuffle_buffer", self.shuffle_buffer, 1, 10**9)
        _choice("data.mentions", self.mentions, ("any", "affirmed"))
        if self.mentions == "affirmed" and self.empty_sentence == "reading":
            raise BadUsageError(
                "data.mentions=affirmed takes the gaze of denials away, data.empty_sentence=reading"
                " gives them the whole reading's; choose one"
            )
        _choice("data.gaze_rounding", self.gaze_rounding, ("round", "floor"))
        _choice("data.empty_sentence", self.empty_sentence, ("none", "reading"))


@dataclass(frozen=True)
class ModelOptions:
    """Sizes of new towers (given weights bring their own), and what is taken from them."""

    image_px: int = 224
    """Side of what the image tower sees; stored frames of 224 are averaged down to it."""
    patch_px: int = 4
    swin_width: int = 96
    swin_depths: tuple[int, ...] = (2, 2, 6, 2)
    swin_heads: tuple[int, ...] = (3, 6, 12, 24)
    swin_drop_path: float = 0.1
    text_width: int = 768
    text_layers: int = 0
    """0: as many as the weights have (12 in MedCLIP's); 6 keeps the first six (paper's text)."""
    text_heads: int = 12
    text_dropout: float = 0.1
    vocabulary_size: int = 2000
    """At most, of a vocabulary made from the shards' text."""
    projection: int = 512
    """Features of a patch or sentence."""
    max_tokens: int = 77
    text_states: tuple[int, ...] = (-4, -3, -2, -1)
    """Hidden states that are averaged; MedCLIP's own weights were trained with (1, 2, -1)."""
    average_padding: bool = False
    """Let padding tokens enter a sentence's average, as the published code does."""
    norm_patches: bool = True
    """Take patches after the final layer norm; the published code takes them before."""
    patch_grid: int = 7
    """Patches in a row: 7 are the Swin's last stage; 14 or 28 are an earlier stage's, with a
    projection of their own that starts untrained."""
    geometry: str = "frame"
    """Of foreign systems: the shards' ``frame``, as the published code feeds all of them, or each
    system's ``own`` preparation, the default where published weights are evaluated."""
    image_mean: float = 0.5862785803043838
    image_std: float = 0.27950088968644304
    """Of MedCLIP's training images, grey in [0, 1]."""

    def __post_init__(self) -> None:
        _check_kinds("model", self)
        _choice("model.geometry", self.geometry, ("frame", "own"))
        sizes = ("image_px", "patch_px", "swin_width", "text_width", "text_heads", "projection")
        for name in sizes:
            _in_range(f"model.{name}", getattr(self, name), 1, 4096)
        for name in ("swin_drop_path", "text_dropout"):
            _in_range(f"model.{name}", getattr(self, name), 0, 0.99)
        _in_range("model.text_layers", self.text_layers, 0, 96)
        _in_range("model.vocabulary_size", self.vocabulary_size, 1, 10**6)
        _in_range("model.max_tokens", self.max_tokens, 3, 512)
        _in_range("model.image_mean", self.image_mean, 0, 1)
        _in_range("model.image_std", self.image_std, 0.001, 10)
        if self.text_width % self.text_heads or not self.text_states:
            raise BadUsageError(
                "model.text_width must be a multiple of model.text_heads, and model.text_states"
                " name a state"
            )
        _check_swin(self)
        grids = [7 * 2**i for i in range(len(self.swin_depths))]
        if self.patch_grid not in grids:
            raise BadUsageError(
                f"model.patch_grid is {self.patch_grid}; a Swin of {len(grids)} stages has"
                f" {', '.join(map(str, grids))}"
            )
        reduction = self.patch_px * 2 ** (len(self.swin_depths) - 1)
        if self.image_px != 7 * reduction or 224 % self.image_px:
            raise BadUsageError(
                f"model.image_px is {self.image_px}: it must divide 224 and give 7 x 7 patches,"
                f" here {7 * reduction}"
            )


@dataclass(frozen=True)
class LossOptions:
    """What `egma_train.losses` computes."""

    objective: str = "egma"
    label_rule: str = "nonzero"
    """Positives of Eq. 5: any gaze (the paper's words), or above a quarter-max of the row's."""
    sparsity: float | str = "1/length"
    """Threshold of min-maxed similarities (Eq. 7-8): a number, or 1/length of the row, as SPARC."""
    mlce_average: str = "batch"
    """Divide Eq. 5 by the batch (paper) or by its samples with gaze (published code)."""
    mlce_sentence_share: float = 0.5
    """Weight of Eq. 5's sentences; the patches have the rest (published code: 0.8)."""
    padding_competes: bool = False
    """Zero vectors for padding among a patch's sentences, as in the published code."""
    softmax_over_texts_only: bool = False
    """Both directions over texts, as in the published code."""
    mapping: bool = True
    """Eq. 7-10; switched off in the published code's configuration."""

    def __post_init__(self) -> None:
        _check_kinds("loss", self)
        _choice("loss.objective", self.objective, OBJECTIVES)
        _choice("loss.label_rule", self.label_rule, LABEL_RULES)
        _choice("loss.mlce_average", self.mlce_average, MLCE_AVERAGES)
        _in_range("loss.mlce_sentence_share", self.mlce_sentence_share, 0, 1)
        if self.sparsity != "1/length":
            _in_range("loss.sparsity", self.sparsity, 0, 1)
        if not self.terms and OBJECTIVES[self.objective]:
            raise BadUsageError(
                f"loss.objective={self.objective} has no term but the mapping, and"
                " loss.mapping=false takes it away; nothing would be learnt"
            )

    @property
    def terms(self) -> tuple[str, ...]:
        """Terms of `egma_train.losses.egma_loss` to compute."""
        wanted = OBJECTIVES[self.objective]
        return tuple(term for term in wanted if self.mapping or term != "mapping")

    def keywords(self) -> dict[str, Any]:
        """Return these as arguments of `egma_train.losses.egma_loss`."""
        given = asdict(self) | {"terms": self.terms}
        given["sparsity"] = None if self.sparsity == "1/length" else self.sparsity
        del given["objective"], given["mapping"]
        return given


@dataclass(frozen=True)
class TrainOptions:
    """The optimiser and its schedule."""

    batch_size: int = 100
    """Over all processes together."""
    epochs: int = 50
    learning_rate: float = 1e-6
    weight_decay: float = 1e-4
    decay_scale: bool = False
    """Weight decay on the logit scale too, as in the published code."""
    warmup_epochs: float = 10.0
    """Of linear warm-up; a cosine to 0 follows."""
    warmup_share: float = 0.0
    """Share of all steps that warms up, instead of `warmup_epochs` (published code: 0.1)."""
    first_rate_zero: bool = False
    """Warm up from 0, so that the first step moves nothing, as in the published code."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0: not clipped."""
    seed: int = 0

    def __post_init__(self) -> None:
        _check_kinds("train", self)
        _in_range("train.warmup_share", self.warmup_share, 0, 1)
        _in_range("train.batch_size", self.batch_size, 1, 10**6)
        _in_range("train.epochs", self.epochs, 1, 10**6)
        _in_range("train.seed", self.seed, 0, 2**31)
        for name in ("warmup_epochs", "clip_norm"):
            _in_range(f"train.{name}", getattr(self, name), 0, 1e300)
        # Their product is a float32 in torch; a rate that diverges is told of by its loss.
        _in_range("train.learning_rate", self.learning_rate, 0, 1e30)
        _in_range("train.weight_decay", self.weight_decay, 0, 1e6)


@dataclass(frozen=True)
class ExecutionOptions:
    """What changes how the work is done; two values may differ in the last bits."""

    device: str = ""
    """Such as ``cpu`` or ``cuda:1``; by default a GPU if there is one."""
    precision: str = "auto"
    """``float32``, ``bfloat16`` or ``float16``; auto: bfloat16 on GPUs that have it;
    ``cuda-float16``: float16 on a GPU, float32 on a CPU, as the published code."""
    tf32: bool = True
    """On a GPU float32 is multiplied by TF32 in the towers, never in the loss; false forbids it."""
    compile: str = "auto"
    """``on`` or ``off``: torch.compile of towers and loss; auto: on a GPU, for runs of 1,000 steps
    and more."""
    deterministic: bool = False
    """The same bits each time on a GPU, for more time; a CPU's are the same anyway."""
    readings_at_once: int = 0
    """Readings of a batch that the towers see at once, each twice: large batches in the memory of
    small ones, with the same gradients; 0: all, once."""
    gradient_checkpointing: bool = False
    """Less memory for about a third more time."""
    loader_workers: int = 1
    """Threads that load batches ahead; 0 loads each when it is needed."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints; the end of a run is one as well."""
    checkpoint_steps: int = 0
    """One after each so many steps too; 0: by time alone."""
    validation_epochs: int = 1
    """Epochs between looks at ``data.validation_split``."""
    wandb: str = ""
    """A project of Weights & Biases that is told the metrics too, where wandb is installed."""
    cache: str = ""
    """Folder of the memory-mapped copy of the shards; by default beside them."""

    def __post_init__(self) -> None:
        _check_kinds("execution", self)
        _choice("execution.precision", self.precision, PRECISIONS)
        _in_range("execution.loader_workers", self.loader_workers, 0, 256)
        _choice("execution.compile", self.compile, COMPILE)
        _in_range("execution.readings_at_once", self.readings_at_once, 0, 10**6)
        _in_range("execution.checkpoint_minutes", self.checkpoint_minutes, 0, 10**6)
        _in_range("execution.validation_epochs", self.validation_epochs, 1, 10**6)
        _in_range("execution.checkpoint_steps", self.checkpoint_steps, 0, 10**9)


@dataclass(frozen=True)
class Options:
    """All options of a run; all but `execution` shape its result."""

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)


PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {},
    # Difference by difference in docs/training.md.
    "official-code": {
        "data": {
            "gaze_rounding": "floor",
            "empty_sentence": "reading",
            "sharpness_share": 0.5,
            "jitter_order": "drawn",
            "grid": "antialias",
        },
        "model": {"average_padding": True, "norm_patches": False},
        "loss": {
            "mlce_average": "gaze",
            "mlce_sentence_share": 0.8,
            "padding_competes": True,
            "softmax_over_texts_only": True,
            "mapping": False,
        },
        "train": {
            "batch_size": 40,
            "epochs": 10,
            "learning_rate": 1e-5,
            "decay_scale": True,
            "warmup_share": 0.1,
            "first_rate_zero": True,
        },
        "execution": {"precision": "cuda-float16"},
    },
    # The same shapes, 7 x 7 patches of 512 features, small enough for two cores.
    "tiny": {
        "data": {"one_reading_per_image": False},
        "model": {
            "image_px": 112,
            "patch_px": 8,
            "swin_width": 48,
            "swin_depths": (2, 2),
            "swin_heads": (2, 4),
            "swin_drop_path": 0.0,
            "text_width": 128,
            "text_layers": 4,
            "text_heads": 4,
            "text_dropout": 0.0,
        },
        "train": {
            "batch_size": 32,
            "epochs": 30,
            "learning_rate": 1e-3,
            "warmup_epochs": 2.0,
        },
    },
}
"""What each preset changes."""


MEDCLIP_TEXT: dict[str, Any] = {"text_states": (1, 2, -1), "average_padding": True}
"""Model options by which MedCLIP itself makes a text's feature of its weights: the mean of hidden
states 1, 2 and last over all tokens, padding too. The published EGMA takes the last four."""


def options_of(preset: str, *changes: Mapping[str, Any]) -> Options:
    """Take a preset and replace fields, stage by stage; later changes win.

    Raises
    ------
    BadUsageError
        For unknown presets, stages, fields and values.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    return with_changes(Options(), PRESETS[preset], *changes)


def with_changes(options: Options, *changes: Mapping[str, Any]) -> Options:
    """Replace fields named stage by stage, as parsed from TOML or JSON."""
    stages = {stage.name: getattr(options, stage.name) for stage in fields(options)}
    for stage, values in (item for change in changes for item in change.items()):
        if stage not in stages:
            raise unknown_name("option stage", stage, stages)
        if not isinstance(values, Mapping):
            raise BadUsageError(f"{stage} is {_shown(values)}; write its options as {stage}.NAME")
        known = {one.name: one.default for one in fields(stages[stage])}
        for name in values:
            if name not in known:
                raise unknown_name(f"option in {stage}", name, known)
        typed = {name: _as(f"{stage}.{name}", v, known[name]) for name, v in values.items()}
        stages[stage] = replace(stages[stage], **typed)
    return Options(**stages)


def differences(old: Options, new: Options) -> str:
    """Describe how options that shape the result differ."""
    before, after = asdict(old), asdict(new)
    return ", ".join(
        f"{stage}.{name} {value} -> {after[stage][name]}"
        for stage in before
        if stage != "execution"
        for name, value in before[stage].items()
        if value != after[stage][name]
    )


def read_config(path: Path) -> dict[str, Any]:
    """Parse a TOML file of options by stage."""
    try:
        return tomllib.loads(read_ordinary(path, MOST_TABLE_BYTES).decode())
    except OSError as error:
        raise BadUsageError(f"cannot read config {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of endless numbers
        raise BadUsageError(f"config {path} is not TOML: {first_line(error)}") from None


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse ``stage.field=value`` texts; values are TOML, bare words are strings."""
    changes: dict[str, dict[str, Any]] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        stage, dot, option = name.strip().partition(".")
        if not equals or not dot:
            raise BadUsageError(f"--set {text!r}: write stage.field=value, such as train.epochs=5")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):
            parsed = value.strip()
        changes.setdefault(stage, {})[option] = parsed
    return changes


def _as(name: str, value: Any, default: Any) -> Any:
    """Bring a parsed value towards its field's type: 16 and 16.0 are one option."""
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    wants_float = type(default) is float or name == "loss.sparsity"
    if wants_float and type(value) is int and abs(value) < 2**53:
        return float(value)
    return value


def _check_kinds(stage: str, options: Any) -> None:
    """Refuse values of another type than their field's, elements of tuples too."""
    hints = get_type_hints(type(options))
    for one in fields(options):
        value, hint, many = getattr(options, one.name), hints[one.name], type(one.default) is tuple
        kinds = {kind for kind in get_args(hint) or (hint,) if kind is not ...}
        items = value if many and isinstance(value, tuple) else (value,)
        if isinstance(value, tuple) != many or not all(_is_of(item, kinds) for item in items):
            shown, like = (_shown(list(x) if type(x) is tuple else x) for x in (value, one.default))
            if one.default in ((), "") or isinstance(one.default, bool):  # which tell nothing
                like = _EXAMPLES.get(one.name, "true")
            raise BadUsageError(f"{stage}.{one.name} is {shown}; give a value like {like}")


def _is_of(value: Any, kinds: Collection[type]) -> bool:
    """Tell whether a value is of a type; true is no number, 1 is a float too."""
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, str) and "\0" in value:  # no name of a file, split or device
        return False
    return isinstance(value, (*kinds, int) if float in kinds else tuple(kinds))


def _check_swin(model: ModelOptions) -> None:
    """Refuse a Swin that cannot be built."""
    depths, heads = model.swin_depths, model.swin_heads
    if len(heads) != len(depths) or not 1 <= len(depths) <= 6:
        raise BadUsageError(
            "model.swin_heads needs one number for each of model.swin_depths, of one to six stages"
        )
    for stage, (depth, number) in enumerate(zip(depths, heads, strict=True)):
        _in_range("model.swin_depths", depth, 1, 96)
        width = model.swin_width * 2**stage
        if number < 1 or width % number:
            raise BadUsageError(
                f"model.swin_heads is {_shown(list(heads))}: each must divide the width of its"
                f" stage, {width} in stage {stage + 1}"
            )


def _choice(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise unknown_name(name, value, choices)


def _in_range(name: str, value: Any, least: float, most: float) -> None:
    if not isinstance(value, int | float) or not least <= value <= most:  # NaN fails too
        raise BadUsageError(f"{name} is {_shown(value)}; give a number from {least:g} to {most:g}")


def _shown(value: Any) -> str:
    """Show a value in a line, however long it is."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."
