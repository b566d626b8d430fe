"""From a command line to a run: which preset, which weights, a new run or an old one."""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from egma_train import __version__
from egma_train.data.cache import ReadingCache, open_cache
from egma_train.data.loading import tokenized
from egma_train.data.sampling import (
    batches_of,
    chosen_readings,
    gaze_count,
    held_readings,
    readings_with_used_gaze,
)
from egma_train.data.shards import declared_beside
from egma_train.errors import BadUsageError, CannotWriteError, first_line, unknown_name
from egma_train.model.backbones.backbone import Backbone
from egma_train.model.egma import EgmaModel, new_configs
from egma_train.model.tokenizer import make_tokenizer
from egma_train.model.weights import (
    RANDOM,
    Start,
    cached_hub_weights,
    hash_of_sources,
    load_model,
    load_start,
)
from egma_train.options import PRESETS, Options, differences, options_of, with_changes
from egma_train.processes import (
    ALONE,
    Processes,
    in_first,
    joined,
    this_process,
    wait_for_all,
)
from egma_train.run_folder import RunFolder, check_name, wandb_module
from egma_train.train.loop import own_grid, own_random_numbers, train
from egma_train.train.schedule import short_run

_SOFTWARE = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow")

T = TypeVar("T")
Say = Callable[[str], Any]
Changes = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Request:
    """What the user typed.

    Attributes
    ----------
    preset, name : str or None
        Chosen if None.
    init : tuple of str
        Weights to start from.
    changes : sequence of mapping
        Options by stage, later ones win.
    """

    shards: Path | str
    out: Path
    preset: str | None
    name: str | None
    init: tuple[str, ...]
    changes: Changes
    resume: bool


@own_random_numbers()
def run_training(request: Request, say: Say) -> RunFolder | None:
    """Train as asked.

    Returns
    -------
    RunFolder or None
        The finished run; None if it was stopped and can be resumed.

    Raises
    ------
    BadUsageError
        If something the user can mend is in the way.
    """
    preset, init, why = _preset(request)
    options = options_of(preset, *request.changes)
    name = request.name
    if name is None:
        name = f"{preset}-{options.loss.objective}-seed{options.train.seed}"
    check_name(name)
    run = RunFolder(request.out / "runs" / name)
    if request.resume:
        options = _resumed_options(run, request)
    if options.execution.wandb:
        wandb_module()
    device = usable_device(options.execution.device, this_process())
    again = f"the same command and --resume (--name {name})"
    try:
        with ExitStack() as stack:
            processes = stack.enter_context(joined(device.type))
            speak: Say = say if processes.first else lambda _: None
            cache = _cache(request.shards, request.out, options, processes, speak)
            in_first(processes, lambda: _check_batches(cache, options, processes.world))
            if in_first(processes, lambda: stack.enter_context(run.alone())) is False:
                speak("this file system knows no locks: start no second process of this run")
            if request.resume:
                in_first(processes, lambda: _check_resumable(run, request, cache))
            else:
                own_terms = declared_beside(Path(request.shards))
                _begin(run, preset, why, init, options, cache, processes, speak, own_terms)
            own = (request.shards, request.out, cache, options, processes, device, speak)
            finished = _trained(run, *own)
    except CannotWriteError as error:
        repeat = again if run.record_file.exists() else "the same command"
        raise CannotWriteError(f"{error}; {error.mend}, then repeat {repeat}") from error
    except KeyboardInterrupt:
        say(f"stopped; repeat {again if run.record_file.exists() else 'the same command'}")
        return None
    if not finished:
        speak(f"stopped; continue with {again}")
        return None
    return run


def _trained(
    run: RunFolder,
    shards: Path | str,
    out: Path,
    cache: ReadingCache,
    options: Options,
    processes: Processes,
    device: torch.device,
    speak: Say,
) -> bool:
    """Train and write what comes of it; False if it was stopped."""
    model, tokenizer = load_model(run.start)
    # Only now is the grid known; the stored one of 7 x 7 cannot be refined.
    if own_grid(model, options) is not None:
        cache = _cache(shards, out, options, processes, speak, maps=True)
    model.to(device)
    record = run.record()
    speak(f"run {run.root}: {_told(record['counts'], options)}, on {device}")
    for note in _notes(cache, options):
        speak(note)
    if not train(model, tokenizer, cache, options, run, processes, device, speak):
        return False
    done = record | {"status": "complete", "epochs_done": options.train.epochs}
    in_first(processes, lambda: run.finish(model, tokenizer, done))
    wait_for_all(processes)
    return True


def _preset(request: Request) -> tuple[str, tuple[str, ...], str]:
    """Choose a preset and weights, and say why in plain words."""
    preset, init = request.preset, request.init
    if preset not in (None, *PRESETS):
        raise unknown_name("preset", preset, PRESETS)
    if init and preset != "tiny":
        return preset or "paper", init, f"weights from {', '.join(init)}"
    if preset == "tiny":
        if set(init) - {RANDOM}:
            raise BadUsageError("preset tiny starts from random weights; leave out --init")
        return preset, (RANDOM,), "small towers with random weights, as asked for"
    cached = cached_hub_weights()
    if cached:
        return preset or "paper", tuple(cached), "weights found in the local hub cache"
    if preset:
        raise BadUsageError(
            f"preset {preset} starts from pretrained weights; give --init DIR (docs/training.md"
            " says which), or --init random, or --preset tiny"
        )
    why = "no pretrained weights given or found: small towers with random weights, for trying out"
    return "tiny", (RANDOM,), why


def _resumed_options(run: RunFolder, request: Request) -> Options:
    """Take the options the run began with; those that shape its result may not change."""
    record = run.record()
    began = with_changes(Options(), record["options"])
    if record["status"] == "complete":
        raise BadUsageError(f"the run in {run.root} is complete; --name NAME starts another")
    wanted = with_changes(began, *request.changes)
    changed = differences(began, wanted)
    if changed or (request.preset or record["preset"]) != record["preset"]:
        what = changed or f"preset {record['preset']} -> {request.preset}"
        raise BadUsageError(f"the run in {run.root} began otherwise: {what}; --name starts another")
    return wanted


def usable_device(name: str, own: Processes = ALONE) -> torch.device:
    """Take a device by name, else a GPU if there is one; of several processes each its own.

    Raises
    ------
    BadUsageError
        If it cannot be used.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", own.local_rank)
        elif device.type == "cuda" and own.world > 1:
            raise BadUsageError(
                f"execution.device={name} is one GPU for {own.world} processes;"
                " each takes its own of execution.device=cuda"
            )
        if device.type == "meta":  # torch computes shapes there
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadUsageError(
            f"execution.device={name or device} cannot be used ({first_line(error)})"
        ) from None
    return device


def _cache(
    shards: Path | str,
    out: Path,
    options: Options,
    processes: Processes,
    say: Say,
    *,
    maps: bool = False,
) -> ReadingCache:
    """Let the first process build the cache, the others wait for it."""
    remote = out / "cache" if "://" in str(shards) else None
    folder = Path(options.execution.cache) if options.execution.cache else remote
    antialias = options.data.grid == "antialias"

    def opened() -> ReadingCache:
        kind = {"maps": maps, "antialias": antialias, "images": not options.data.stream}
        cache = open_cache(shards, folder, **kind, say=say)
        return cache.of_affirmed() if options.data.mentions == "affirmed" else cache

    made = in_first(processes, opened)
    return opened() if made is None else made


def _check_batches(cache: ReadingCache, options: Options, world: int) -> None:
    """Refuse batches in which a process would have no reading."""
    readings, most = chosen_readings(cache, options.data), options.train.batch_size
    smallest = min(map(len, batches_of(cache, readings, options).of(0)))
    if smallest < world:
        raise BadUsageError(
            f"{world} processes share batches of which the smallest has {smallest}"
            f" reading{'s' * (smallest > 1)} ({len(readings)} in all, train.batch_size {most});"
            " use fewer processes or larger batches"
        )


def _notes(cache: ReadingCache, options: Options) -> Iterator[str]:
    """Say before the first step what a run will not reach, and whose counts it does not have."""
    readings, data = chosen_readings(cache, options.data), options.data
    if note := short_run(len(batches_of(cache, readings, options)), options):
        yield note
    every = chosen_readings(cache, replace(data, one_reading_per_image=False))
    gazed = cache.readings_with_gaze()
    own, whole = (gaze_count(int(gazed[those].sum()), data) for those in (readings, every))
    if own != whole and data.gaze_fraction < 1:
        yield (
            f"gaze_fraction {data.gaze_fraction:g} is {own} of the {len(readings)} readings that"
            f" one_reading_per_image leaves; of all {len(every)}, as the paper counts, {whole}"
        )


def _begin(
    run: RunFolder,
    preset: str,
    why: str,
    init: tuple[str, ...],
    options: Options,
    cache: ReadingCache,
    processes: Processes,
    say: Say,
    own_terms: dict[str, dict[str, str]],
) -> None:
    """Write the record and the weights a run starts from, in the first process."""
    say(f"preset {preset}: {why}")
    readings = chosen_readings(cache, options.data)
    used = readings_with_used_gaze(cache, readings, options.data, options.train.seed)
    record = {
        "status": "running",
        "preset": preset,
        "started_from": why,
        "init": hash_of_sources(one for one in init if one != RANDOM),
        "options": asdict(options),
        "shards_fingerprint": cache.fingerprint,
        "processes": processes.world,
        "counts": {
            "readings": len(readings),
            "images": len(set(cache.image_number[readings].tolist())),
            "readings_with_used_gaze": int(used.sum()),
            "held_out": len(held_readings(cache, options.data)),
            "datasets": sorted(set(cache.dataset[readings].tolist())),
        },
        "declared": own_terms,
        "versions": {"egma": __version__, "python": platform.python_version()}
        | {name: version(name) for name in _SOFTWARE},
    }

    def begin() -> None:
        run.check_free()
        start = _start(init, options, cache)
        _check_start(start.model, options)
        keys = [line for report in start.reports for line in report.lines()]
        for line in keys:
            say(line)
        shape = getattr(start.model, "options", options.model)  # an own model brings its own
        own = asdict(options) | {"model": asdict(shape)}
        run.begin(start.model, start.tokenizer, record | {"keys": keys, "options": own})

    in_first(processes, begin)


def _check_start(model: Backbone, options: Options) -> None:
    """Refuse what the shards, or what is streamed of them, do not hold for a system."""
    if own_grid(model, options) is None:
        return
    asked = {
        "data.empty_sentence=reading": options.data.empty_sentence == "reading",
        "data.stream=true": options.data.stream,
    }
    for option in (name for name, is_so in asked.items() if is_so):
        cells = model.facts.grid
        raise BadUsageError(
            f"{option} is for 7 x 7 patches on the frame, {model.family} has"
            f" {cells} x {cells} on {model.facts.geometry.told()}; leave it out"
        )


def _start(init: tuple[str, ...], options: Options, cache: ReadingCache) -> Start:
    torch.manual_seed(options.train.seed)
    if set(init) != {RANDOM}:
        start = load_start(init, options.model)
    else:
        texts = cache.texts(range(len(cache.has_grid)))
        size, longest = options.model.vocabulary_size, options.model.max_tokens
        tokenizer = make_tokenizer(texts, size, longest)
        model = EgmaModel(*new_configs(options.model, len(tokenizer)), options.model)
        start = Start(model, tokenizer, [])
    # A tokenizer keeps the padding of its first call; saved before it, it would be another file.
    tokenized(start.tokenizer, ["."], start.model.facts.max_tokens)
    return start


def _check_resumable(run: RunFolder, request: Request, cache: ReadingCache) -> None:
    """Look again now that the run is ours: another process may have finished it meanwhile."""
    _resumed_options(run, request)
    check_start(run.record(), request.init, run.root)
    if run.record()["shards_fingerprint"] != cache.fingerprint:
        raise BadUsageError(
            f"the shards are not those that the run in {run.root} began with; --name starts another"
        )


def check_start(record: Mapping[str, Any], init: Sequence[str], run: Path) -> None:
    """Refuse to go on with a run from other weights than it began with.

    Raises
    ------
    BadUsageError
        If `init` names others; earlier versions did not note them.
    """
    began = record.get("init")
    if not init or began is None:
        return
    now = hash_of_sources(one for one in init if one != RANDOM)
    kinds = [
        sorted(
            (name.partition("=")[0] if "=" in name else "", value) for name, value in own.items()
        )
        for own in (now, began)
    ]
    if kinds[0] != kinds[1]:
        raise BadUsageError(
            f"the run in {run} began from other weights ({', '.join(began)}); --name starts another"
        )


def _told(counts: Mapping[str, Any], options: Options) -> str:
    held = counts.get("held_out") or ""
    return (
        f"{counts['readings']} readings of {counts['images']} images,"
        f" {counts['readings_with_used_gaze']} with gaze"
        f"{held and f', {held} held out'}; objective {options.loss.objective},"
        f" {options.train.epochs} epochs, batches of {options.train.batch_size}"
    )
