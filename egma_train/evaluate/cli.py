"""The ``egma-eval`` command; everything heavy is imported inside the commands."""

import functools
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from egma_train import __version__
from egma_train.own_process import check_working_folder, own_process, tell

_DONE, _TOO_MANY_UNREADABLE, _BAD, _INTERRUPTED = 0, 1, 2, 130
_MOST_UNREADABLE = 0.2
_ZERO_SHOT_TASKS = "chexpert5x200, rsna, siim or csv"

Command = Callable[..., Any]
Changes = Mapping[str, Any]


class _OneLineErrors(click.Group):
    """Says what is wrong with a command line in one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; exit 2 on bad usage, 130 when interrupted."""
        with own_process():
            try:
                return super().main(*args, **(kwargs | {"standalone_mode": False}))
            except click.ClickException as error:
                tell(f"egma-eval: {error.format_message()}", error=True)
            except (click.Abort, KeyboardInterrupt):
                tell("egma-eval: stopped; repeat the command", error=True)
                sys.exit(_INTERRUPTED)
            sys.exit(_BAD)


@click.group(
    cls=_OneLineErrors,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="egma-eval")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Measure trained models under protocols stated exactly.

    \b
    Example:
      egma-eval zero-shot --task rsna --images RSNA --labels stage_2_train_labels.csv RUN
      egma-eval table --data data medclip=medclip-vit RUN      (MedCLIP as MedCLIP reads texts)
    """
    if ctx.invoked_subcommand is None:  # click before 8.2 calls that a success
        click.echo(ctx.get_help(), err=True)
        sys.exit(_BAD)


def _mend(error: Exception) -> str:
    """Say what to do about a full disk."""
    from egma_train.errors import CannotWriteError

    if not isinstance(error, CannotWriteError) or "then repeat" in str(error):
        return ""
    return f"; {error.mend}, then repeat the same command"


class _Place(click.Path):
    """A path; an empty one would be the working folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty, as an unset variable is; give a path", param, ctx)
        return super().convert(value, param, ctx)


_PLACE = _Place(path_type=Path)


def _path(name: str, help: str, **more: Any) -> Command:
    return click.option(name, type=_PLACE, help=help, **more)


def _options(*options: Command) -> Command:
    return lambda command: functools.reduce(lambda one, add: add(one), reversed(options), command)


_checkpoints = click.argument("checkpoints", nargs=-1, required=True, type=_PLACE)
_images = _path("--images", "Folder that the images lie in.", required=True)
_labels = _path("--labels", "The dataset's own table.", required=True)
_list = _path("--list", "Names the images to take: an id a line.")
_split = click.option(
    "--split",
    help="Of RSNA's patients: gloria (GLoRIA's test, the default), drawn (by --seed) or all.",
)
_prompts = _path("--prompts", "Other queries: TOML, JSON or ConVIRT's query.csv.")
_shards = _path("--shards", "Shards with readings to test on.  [default: OUT]")
_splits = click.option("--split", "splits", multiple=True, help="Of the readings, such as test.")
_score = click.option(
    "--score",
    default="pooled",
    show_default=True,
    help="What of an image is compared: pooled (the paper), best-patch, or local (GLoRIA's own).",
)
_model_options = _options(
    _path("--out", "Output folder.", default="out", envvar="EGMA_OUT", show_default=True),
    click.option(
        "--seed",
        default=0,
        show_default=True,
        type=click.IntRange(0, 2**31),
        help="Of everything that is drawn.",
    ),
    click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1)),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="STAGE.FIELD=VALUE",
        help="execution.device=cuda:1, or a model option of weights that are not egma-train's.",
    ),
)


def _refuse_urls(values: Iterable[Any]) -> None:
    from egma_train.errors import BadUsageError

    for value in values:
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path) and re.match(r"[a-z0-9]{2,}:/", str(path)):
                raise BadUsageError(f"{path} is no local path; egma-eval reads and writes those")


def _reports_errors(command: Command) -> Command:
    """Parse ``--set``; turn a user's mistake into one line and exit code 2, or a traceback."""

    @click.option(
        "--shared",
        is_flag=True,
        help="Let the group read what is written; else only the owner may.",
    )
    @click.option("--debug", is_flag=True, help="Show tracebacks.")
    @functools.wraps(command)
    def guarded(
        *, shared: bool, debug: bool, assignments: Sequence[str] = (), **given: Any
    ) -> None:
        from egma_train.errors import BadUsageError, broken_package
        from egma_train.storage.atomic import share

        try:
            check_working_folder()
            share(shared)
            from egma_train.options import parse_assignments

            _refuse_urls(given.values())
            if "splits" in given:  # what is named twice is one
                given["splits"] = tuple(dict.fromkeys(given["splits"]))
            code = command(changes=parse_assignments(assignments), **given)
        except Exception as error:
            known = isinstance(error, BadUsageError | OSError)
            told = broken_package(error) or (error if known else None)
            if debug or told is None:
                raise
            tell(f"egma-eval: {told}{_mend(error)}", error=True)
            sys.exit(_BAD)
        sys.exit(code or _DONE)

    return guarded


@main.command("zero-shot")
@click.option("--task", required=True, help=f"{_ZERO_SHOT_TASKS} (columns path, label).")
@_options(_images, _labels, _list, _split, _prompts, _score)
@click.option(
    "--protocol",
    default="paper",
    show_default=True,
    help="paper (all prompts, the most similar), mean (of embeddings), mean-of-cosines (CXR-CLIP,"
    " MedCLIP), gloria-z (z-scored over the test), biovil (mean before unit length), pos-neg"
    " (CheXzero) or official-code (50 drawn).",
)
@_model_options
@_checkpoints
@_reports_errors
def zero_shot(task: str, protocol: str, score: str, **given: Any) -> int:
    """Classify images by the class of the most similar prompt.

    \b
    Example:
      egma-eval zero-shot --task chexpert5x200 --images CheXpert-v1.0-small \\
          --labels chexpert_5x200.csv out/runs/paper-egma-seed0
    """
    from egma_train.evaluate.zero_shot import zero_shot as classify

    measure = functools.partial(classify, protocol=protocol, score=score)
    return _evaluate(f"zero-shot-{task}", measure, task, protocol=protocol, **given)


@main.command("retrieval")
@_options(_images, _labels, _list, _prompts, _score, _model_options)
@_checkpoints
@_reports_errors
def retrieval(score: str, **given: Any) -> int:
    """Rank texts by image and images by text on CheXpert 8x200.

    \b
    Example:
      egma-eval retrieval --images CheXpert-v1.0-small --labels candidate.csv out/runs/RUN
    """
    from egma_train.evaluate.retrieval import retrieval as rank

    return _evaluate("retrieval", functools.partial(rank, score=score), "chexpert8x200", **given)


@main.command("grounding")
@_shards
@click.option("--against", default="gaze", show_default=True, help="gaze or regions.")
@click.option(
    "--mentions",
    default="",
    metavar="affirmed|any",
    help="Sentences that name a finding and do not deny it (default of regions), or any (of gaze).",
)
@click.option(
    "--definition",
    default="own",
    show_default=True,
    help="own, or biovil: absolute CNR and mIoU as BioViL has them.",
)
@_splits
@_model_options
@_checkpoints
@_reports_errors
def grounding(
    shards: Path | None,
    against: str,
    mentions: str,
    definition: str,
    splits: tuple[str, ...],
    **given: Any,
) -> None:
    """Compare where a sentence is most similar with where its reader looked.

    \b
    Example:
      egma-eval grounding --shards out --split test out/runs/RUN
    """
    from egma_train.evaluate.grounding import grounding as ground

    shards = shards or given["out"]
    measure = functools.partial(
        ground, shards, against=against, mentions=mentions, definition=definition, splits=splits
    )
    _measure(f"grounding-{against}", measure, **given)


@main.command("phrase-grounding")
@_path("--images", "Folder that the images lie in, such as MIMIC-CXR-JPG.", required=True)
@_path("--labels", "MS-CXR's table, a box a row.", required=True)
@click.option(
    "--definition",
    default="biovil",
    show_default=True,
    help="biovil: absolute CNR and mIoU, as published on MS-CXR; own: as grounding.",
)
@click.option("--split", "splits", multiple=True, help="Where the table has the column.")
@_model_options
@_checkpoints
@_reports_errors
def phrase_grounding(
    images: Path, labels: Path, definition: str, splits: tuple[str, ...], **given: Any
) -> None:
    """Compare where a phrase is most similar with the boxes drawn for it (MS-CXR).

    \b
    Example:
      egma-eval phrase-grounding --images mimic-cxr-jpg \\
          --labels MS_CXR_Local_Alignment_v1.0.0.csv out/runs/RUN
    """
    from egma_train.evaluate.phrase_grounding import phrase_grounding as ground

    measure = functools.partial(ground, labels, images, definition=definition, splits=splits)
    _measure("phrase-grounding", measure, **given)


@main.command("multi-label")
@_path("--images", "Folder that the images lie in.")
@_path("--labels", "Table with a column for each finding.")
@_path("--shards", "In place of both: readings whose own labels to test on.")
@click.option(
    "--labels-of",
    "dataset",
    default="chexpert",
    show_default=True,
    help="Which of the shards' labels: chexpert or reflacx.",
)
@_splits
@_path("--prompts", "Other queries: TOML with a list for each finding and for 'no FINDING'.")
@_model_options
@_checkpoints
@_reports_errors
def multi_label(
    images: Path | None,
    labels: Path | None,
    shards: Path | None,
    dataset: str,
    splits: tuple[str, ...],
    prompts: Path | None,
    **given: Any,
) -> int:
    """Tell findings that an image may have several of, each against its denial.

    \b
    Example:
      egma-eval multi-label --images CheXpert-v1.0-small --labels valid.csv out/runs/RUN
      egma-eval multi-label --shards out --split test out/runs/RUN
    """
    from egma_train.errors import BadUsageError
    from egma_train.evaluate.datasets.image_files import locate, told_absent
    from egma_train.evaluate.datasets.label_tables import read_label_table
    from egma_train.evaluate.datasets.prompts import read_prompts
    from egma_train.evaluate.multi_label import multi_label as tell_apart
    from egma_train.evaluate.multi_label import multi_label_of_shards, prompts_of

    asked = read_prompts(prompts) if prompts else None
    if shards is not None and images is None and labels is None:
        measure = functools.partial(
            multi_label_of_shards, shards, asked, dataset=dataset, splits=splits
        )
        return _code(_measure(f"multi-label-{dataset}", measure, **given))
    if images is None or labels is None or shards is not None:
        raise BadUsageError("give --images and --labels, or --shards")
    table = read_label_table(labels)
    queries = prompts_of(table.findings, asked)
    paths = locate(images, table.ids)
    if not any(paths):
        raise BadUsageError(told_absent(images, table.ids))
    measure = functools.partial(tell_apart, table, paths, queries)
    return _code(_measure("multi-label", measure, **given))


@main.command("probe")
@click.option("--task", required=True, help=f"{_ZERO_SHOT_TASKS} (columns path, label).")
@_options(_images, _labels, _list)
@_path("--train-labels", "Table of the images to learn from.  [default: --labels]")
@_path("--train-list", "Names the images to learn from: an id a line.")
@click.option(
    "--fraction",
    "fractions",
    multiple=True,
    default=(0.01, 0.1, 1.0),
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of each class's images to learn from.",
)
@_model_options
@_checkpoints
@_reports_errors
def probe(
    task: str,
    images: Path,
    labels: Path,
    list: Path | None,
    train_labels: Path | None,
    train_list: Path | None,
    fractions: tuple[float, ...],
    **given: Any,
) -> int:
    """Learn a linear classifier on pooled features, and test it on other images.

    \b
    Example:
      egma-eval probe --task csv --images chests --labels test.csv --train-labels train.csv RUN
    """
    from egma_train.errors import BadUsageError
    from egma_train.evaluate.datasets.tasks import read_test
    from egma_train.evaluate.probe import Labelled, check_apart, encoded_both
    from egma_train.evaluate.probe import probe as learn

    if not all(0 < one <= 1 for one in fractions):  # NaN is neither
        raise BadUsageError("--fraction is above 0 and at most 1")
    if not (train_labels or train_list):
        raise BadUsageError("give --train-labels or --train-list: what to learn from")
    seed, batch_size = given["seed"], given.pop("batch_size")
    sides = ((train_labels or labels, train_list), (labels, list))
    train, test = (Labelled(*read_test(task, images, *side, seed=seed)[:2]) for side in sides)
    known = check_apart(train, test)
    both: dict[str, Any] = {}  # encoded once, whatever share is learnt from
    reports = []
    for fraction in fractions:

        def measure(encoder: Any, seed: int, fraction: float = fraction) -> dict[str, Any]:
            if encoder.sha256 not in both:
                both[encoder.sha256] = encoded_both(train, test, encoder, batch_size)
            return learn(*both[encoder.sha256], fraction=fraction, seed=seed, known=known)

        reports += _measure(f"probe-{task}", measure, **given)
    return _code(reports)


@main.command("report-retrieval")
@_shards
@_splits
@click.option(
    "--score",
    default="pooled",
    show_default=True,
    help="pooled (CLIP), or matches: best matches of patches and sentences (EGMA's Eq. 6).",
)
@_model_options
@_checkpoints
@_reports_errors
def report_retrieval(
    shards: Path | None, splits: tuple[str, ...], score: str, **given: Any
) -> None:
    """Find each image's own report among all held-out ones, and the other way round.

    \b
    Example:
      egma-eval report-retrieval --shards out --split test out/runs/RUN
    """
    from egma_train.evaluate.report_retrieval import report_retrieval as rank

    shards = shards or given["out"]
    measure = functools.partial(rank, shards, splits=splits, score=score)
    _measure("report-retrieval", measure, **given)


@main.command("show")
@_path("--shards", "Shards with the readings.  [default: OUT]")
@click.option("--reading", metavar="ID", help="One reading's sentences, as a PNG.")
@_path("--image", "An image file, with --text, as a PNG.")
@click.option("--text", "texts", multiple=True, help="A sentence about --image; may be repeated.")
@click.option("--split", "splits", multiple=True, help="Of the readings on the page, such as test.")
@click.option(
    "--most",
    default=400,
    show_default=True,
    type=click.IntRange(2, 5000),
    help="Sentences on the page: half the best, half the worst.",
)
@_model_options
@click.argument("checkpoint", type=_PLACE)
@_reports_errors
def show(
    shards: Path | None,
    reading: str | None,
    image: Path | None,
    texts: tuple[str, ...],
    splits: tuple[str, ...],
    most: int,
    out: Path,
    batch_size: int,
    checkpoint: Path,
    changes: Changes,
    **_: Any,
) -> None:
    """Draw where each sentence is similar to its image, beside where its reader looked.

    \b
    Example:
      egma-eval show --split test out/runs/RUN                  (a page of the best and the worst)
      egma-eval show --reading P300R000001 out/runs/RUN
      egma-eval show --image chest.png --text "right pleural effusion" out/runs/RUN
    """
    from egma_train.data.shards import find_shards, fingerprint
    from egma_train.errors import BadUsageError
    from egma_train.evaluate import sight
    from egma_train.evaluate.checkpoints import load_encoder
    from egma_train.evaluate.grounding import trained_on
    from egma_train.evaluate.overview import write_overview
    from egma_train.evaluate.reports import own_turn, short_hash
    from egma_train.evaluate.sight_page import write_sight_page

    if bool(image) != bool(texts) or (reading is not None and (image or splits or not reading)):
        raise BadUsageError("give --image with --text, or --reading ID, or neither for a page")
    if unreadable := [one for one in texts if not one.isprintable()]:
        raise BadUsageError(f"--text {unreadable[0]!r:.60} is no line of UTF-8 text")
    encoder = load_encoder(checkpoint, changes)
    for line in encoder.said():
        tell(f"{encoder.name}: {line}")
    folder, shards = out / "evaluation" / "show", shards or out
    what = reading or (image.name if image else "-".join(splits) or "all")
    place = image.resolve() if image else shards.resolve()
    stem = f"{encoder.name}-{short_hash(encoder.sha256, what, texts, str(place), most)}"
    target = folder / f"{stem}.{'png' if reading or image else 'html'}"
    if image or reading:
        views = (
            sight.views_of_file(image, texts, encoder)
            if image
            else sight.views_of_reading(shards, encoder, str(reading))
        )
        with own_turn(folder):
            sight.draw_views(views, f"{what}, as {encoder.name} sees it", target)
    else:
        every = sight.views_of_split(shards, encoder, splits, batch_size)
        views, seen = sight.best_and_worst(every, most)
        if not views:
            raise BadUsageError(f"no sentence in {shards} has gaze to compare with")
        facts = [("model", encoder.name), ("its SHA-256", encoder.sha256)]
        facts += [("shards", str(shards)), ("splits", ", ".join(splits) or "all")]
        if trained_on(encoder, fingerprint(find_shards(shards)), splits):
            facts.append(("caution", "the model was trained on these readings"))
        with own_turn(folder):
            write_sight_page(target, views, seen, facts)
        tell(
            f"{encoder.name}: points right for {seen['pointing']:.1%} of {seen['sentences']}"
            f" sentences, AUROC {100 * seen['auroc']:.1f}"
        )
    tell(f"also on {write_overview(out / 'evaluation')}")
    tell(target)


@main.command("embed")
@click.option("--task", required=True, help="As zero-shot takes, or chexpert8x200.")
@_options(_images, _labels, _list, _split, _model_options)
@_checkpoints
@_reports_errors
def embed(
    task: str,
    out: Path,
    seed: int,
    batch_size: int,
    changes: Changes,
    checkpoints: Sequence[Path],
    **given: Any,
) -> None:
    """Write images' features to Parquet, and draw their t-SNE; of several models side by side.

    \b
    Example:
      egma-eval embed --task chexpert5x200 --images CheXpert-v1.0-small \\
          --labels chexpert_5x200.csv out/runs/RUN
    """
    from egma_train.evaluate.checkpoints import load_encoder
    from egma_train.evaluate.compare import of_each
    from egma_train.evaluate.datasets.tasks import read_test
    from egma_train.evaluate.embeddings import draw_panels, write_embeddings
    from egma_train.evaluate.reports import short_hash

    listed, paths, _ = read_test(task, seed=seed, **given)
    panels = []
    for checkpoint in checkpoints:
        encoder = load_encoder(checkpoint, changes)
        for line in encoder.said():
            tell(f"{encoder.name}: {line}")
        seen = of_each(listed, paths, encoder, batch_size, lambda one: one.pooled)
        stem = f"{encoder.name}-{short_hash(encoder.sha256, seen.report['evaluated'])}"
        folder = out / "evaluation" / f"embed-{task}"
        files, points = write_embeddings(seen, folder / stem, seed)
        panels += [points] if points else []
        tell(f"{encoder.name}: {len(seen.images)} of {len(listed)} images")
        for lost in seen.report["unreadable"]:
            tell(f"  without {lost['id']}: {lost['reason']}")
        for caution in seen.report["cautions"]:
            tell(f"  {caution}")
        tell(f"  {', '.join(map(str, files))}")
    if len(panels) > 1:
        side_by_side = folder / f"{short_hash([one.name for one in panels])}-side-by-side.png"
        draw_panels(side_by_side, panels)
        tell(f"all side by side: {side_by_side}")


@main.command("prompts")
@click.option("--task", required=True, help="As zero-shot takes, or chexpert8x200.")
@_prompts
@_reports_errors
def prompts(task: str, prompts: Path | None, changes: Changes) -> None:
    """Print a task's prompts, a line each: what texts.parquet of vectors=FOLDER needs.

    \b
    Example:
      egma-eval prompts --task chexpert5x200
    """
    from egma_train.evaluate.datasets.prompts import read_prompts, shipped_prompts
    from egma_train.evaluate.datasets.tasks import shipped_name

    queries = read_prompts(prompts) if prompts else shipped_prompts(shipped_name(task))
    for text in dict.fromkeys(one for own in queries.queries.values() for one in own):
        tell(text)


_data = _path("--data", "Folder that holds the test datasets.", default="data", show_default=True)
_plan = _path("--config", "Arms, options and tests.  [default: the shipped ablation.toml]")


@main.command("table")
@_options(_data, _plan, _model_options)
@_checkpoints
@_reports_errors
def table(config: Path | None, checkpoints: tuple[Path, ...], **given: Any) -> int:
    """Measure models and write Tables I-IV with the paper's figures beside ours.

    \b
    Example:
      egma-eval table --data /data out/runs/RUN/start out/runs/RUN
      egma-eval table --data /data gloria=chexpert_resnet50.ckpt clip=ViT-B-32.pt out/runs/RUN
    """
    from egma_train.evaluate.ablation import read_plan

    return _tabulate(checkpoints, read_plan(config)["tests"], **given)


@main.command("ablation")
@_path("--shards", "Shards to train on.  [default: OUT]")
@_options(_data, _plan, _model_options)
@_reports_errors
def ablation(shards: Path | None, config: Path | None, **given: Any) -> int:
    """Train every objective and gaze fraction, measure them, write the tables.

    Repeat the command to go on after Ctrl-C, a crash or a kill.

    \b
    Example:
      egma-eval ablation --shards out --data /data
    """
    from egma_train.evaluate.ablation import read_plan, train_arms
    from egma_train.evaluate.table import prepared, present

    plan, out = read_plan(config), given["out"]
    tests = present(plan["tests"], given["data"], tell)
    for test in tests:  # what is wrong is told before a week of training
        prepared(test, given["data"], given["seed"])
    checkpoints = train_arms(plan, shards or out, out, tell)
    if checkpoints is None:
        return _INTERRUPTED
    return _tabulate(checkpoints, tests, **given)


@main.command("continue")
@_path("--shards", "Shards to train on.  [default: OUT]")
@_options(_data, _plan, _model_options)
@_checkpoints
@_reports_errors
def continue_(
    shards: Path | None,
    config: Path | None,
    checkpoints: tuple[Path, ...],
    changes: Changes,
    **given: Any,
) -> int:
    """Train other systems further by EGMA, measure before and after: the paper's Table IV.

    --set takes options of training too. Repeat the command to go on after Ctrl-C or a kill.

    \b
    Example:
      egma-eval continue --shards out --data /data gloria=chexpert_resnet50.ckpt \\
          mgca=vit_base.ckpt clip=ViT-B-32.pt
    """
    from egma_train.evaluate.ablation import read_plan
    from egma_train.evaluate.continued import continue_systems
    from egma_train.evaluate.table import prepared, present

    tests = present(read_plan(config)["tests"], given["data"], tell)
    for test in tests:  # what is wrong is told before a week of training
        prepared(test, given["data"], given["seed"])
    own = (shards or given["out"], given["out"], changes, given["seed"], tell)
    made = continue_systems(checkpoints, *own)
    if made is None:
        return _INTERRUPTED
    execution = {"execution": changes["execution"]} if "execution" in changes else {}
    return _tabulate(made, tests, changes=execution, **given)


@main.command("export")
@click.option("--to", "kind", required=True, help="onnx, or hugging-face where it has the class.")
@click.argument("checkpoint", type=_PLACE)
@click.argument("dest", type=_PLACE)
@_model_options
@_reports_errors
def export(kind: str, checkpoint: Path, dest: Path, changes: Changes, **_: Any) -> None:
    """Write a model for other programs to a new folder, with an example of its use.

    \b
    Example:
      egma-eval export --to onnx out/runs/RUN exported
    """
    from egma_train.evaluate.checkpoints import load_encoder
    from egma_train.evaluate.export import export_model

    # Of a run, of its folder's `model` or `start`, or of what was exported before.
    cards = (home / "README.md" for home in (checkpoint, checkpoint.parent))
    card = next((one for one in cards if one.is_file()), None)
    place = export_model(load_encoder(checkpoint, changes), kind, dest, card)
    tell(f"{', '.join(sorted(one.name for one in place.iterdir()))} in {place}")


def _tabulate(
    checkpoints: Sequence[Path], tests: Sequence[Mapping[str, str]], out: Path, **given: Any
) -> int:
    from egma_train.evaluate.overview import write_overview
    from egma_train.evaluate.table import run_tests, write_tables

    reports = run_tests(checkpoints, tests, out=out, say=tell, **given)
    markdown, *others = write_tables(out / "evaluation", reports)
    tell(markdown.read_text())
    tell(
        f"also in {', '.join(map(str, others))}; all reports: {write_overview(out / 'evaluation')}"
    )
    return _code(reports)


def _evaluate(
    name: str,
    measure: Command,
    task: str,
    images: Path,
    labels: Path,
    list: Path | None,
    prompts: Path | None,
    split: str | None = None,
    protocol: str | None = None,
    **given: Any,
) -> int:
    """Measure checkpoints on a task's images."""
    from egma_train.evaluate.datasets.tasks import read_test

    how = {"seed": given["seed"], "split": split, "protocol": protocol}
    test = read_test(task, images, labels, list, prompts, **how)
    return _code(_measure(name, functools.partial(measure, *test), **given))


def _code(reports: Sequence[Mapping[str, Any]]) -> int:
    """Say by the exit code if too few images could be read."""
    lost = max(len(report["unreadable"]) / report["list"]["given"]["images"] for report in reports)
    return _TOO_MANY_UNREADABLE if lost > _MOST_UNREADABLE else _DONE


def _measure(
    name: str,
    measure: Command,
    out: Path,
    changes: Changes,
    checkpoints: Sequence[Path],
    **given: Any,
) -> list[dict[str, Any]]:
    """Measure each checkpoint; write and say what was found, and the difference to the first."""
    from egma_train.evaluate.checkpoints import load_encoder
    from egma_train.evaluate.curves import draw_beside
    from egma_train.evaluate.differences import difference
    from egma_train.evaluate.overview import write_overview
    from egma_train.evaluate.reports import told, write_report

    reports: list[dict[str, Any]] = []
    for checkpoint in checkpoints:
        encoder = load_encoder(checkpoint, changes)
        for line in encoder.said():
            tell(f"{encoder.name}: {line}")
        report = measure(encoder=encoder, **given) | {"checkpoint": encoder.told()}
        if reports and (to_first := difference(reports[0], report)):
            report["difference"] = to_first
        place = write_report(out / "evaluation" / name, report)
        draw_beside(report, place)
        tell("\n".join([*told(report), f"  report {place}"]))
        reports.append(report)
    tell(f"all reports: {write_overview(out / 'evaluation')}")
    return reports
