"""The ``egma-prep`` command; everything heavy is imported inside the commands."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from egma_prep import __version__

if TYPE_CHECKING:
    from egma_prep.etl.run import Summary

    _PathType = click.ParamType[Path]
else:  # generic since click 8.4 only
    _PathType = click.ParamType

_DONE, _TOO_MANY_REJECTS, _FOUND, _BAD, _INTERRUPTED, _TERMINATED = 0, 1, 1, 2, 130, 143
_REJECTS_SHOWN = 10

Command = Callable[..., Any]


def _tell(line: str, err: bool = False) -> None:
    """Print a line; the one way in which anything reaches the terminal, progress apart."""
    from egma_prep.storage.progress import one_line

    click.echo(one_line(line), err=err)


class _Place(_PathType):
    """A local path, or the URL of a place in an object store."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from egma_prep.errors import BadUsageError
        from egma_prep.storage.paths import place_of

        if not str(value):  # it would be the working folder
            self.fail("it is empty, as an unset variable is; give a path", param, ctx)
        try:
            return place_of(value)
        except BadUsageError as error:
            raise click.ClickException(str(error)) from None


class _LocalPlace(_Place):
    """A folder that is written file by file, which only a file system can rename at the end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if "://" in str(value):
            raise click.ClickException(f"{value} is no local folder; give one and upload it")
        return super().convert(value, param, ctx)


_PLACE, _LOCAL = _Place(), _LocalPlace()


class _OneLineErrors(click.Group):
    """Says what is wrong with a command line in one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; exit 2 on bad usage, 130 when interrupted."""
        from egma_prep.etl.own_process import own_process

        before = signal.signal(signal.SIGTERM, _interrupt)
        with own_process():
            try:
                return super().main(*args, **(kwargs | {"standalone_mode": False}))
            except click.ClickException as error:
                _tell(f"egma-prep: {error.format_message()}", err=True)
            except click.Abort as error:
                _tell("egma-prep: stopped; the same command goes on from here", err=True)
                interrupt = error.__context__  # click before 8.2 hides it as the cause
                terminated = interrupt is not None and interrupt.args == (_TERMINATED,)
                sys.exit(_TERMINATED if terminated else _INTERRUPTED)
            finally:
                signal.signal(signal.SIGTERM, before)
            sys.exit(_BAD)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(_TERMINATED)


@click.group(
    cls=_OneLineErrors,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="egma-prep")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Turn radiologists' gaze and dictation into sentence-heatmap shards.

    \b
    Example:
      egma-prep run /physionet/mimic-eye
      egma-prep render-heatmaps --sigma 8
    """
    if ctx.invoked_subcommand is None:  # click before 8.2 calls that a success
        click.echo(ctx.get_help(), err=True)
        sys.exit(_BAD)


def _reports_errors(command: Command) -> Command:
    """Turn a user's mistake into one line and exit code 2; ``--debug`` shows where."""

    @click.option("--debug", is_flag=True, help="Show tracebacks.")
    @functools.wraps(command)
    def guarded(*args: Any, debug: bool, **kwargs: Any) -> None:
        from egma_prep.errors import BadUsageError
        from egma_prep.storage.paths import resolved

        try:
            resolved(Path())  # all paths hang on the working folder
            sys.exit(command(*args, **kwargs) or _DONE)
        except Exception as error:
            from egma_prep.storage.paths import is_of_a_store, unreachable

            # Python has no class of its own for threads that a limit refuses.
            starved = isinstance(error, MemoryError) or str(error) == "can't start new thread"
            known = isinstance(error, BadUsageError | OSError) or is_of_a_store(error)
            if debug or not (known or starved):
                raise
            told = str(error) or type(error).__name__
            if is_of_a_store(error):
                told = str(unreachable("the object store", error))
            elif starved:
                told = f"a limit is too low here ({told}); see which of `ulimit -a`"
            _tell(f"egma-prep: {told}", err=True)
            sys.exit(_BAD)

    return guarded


def _out_option(command: Command) -> Command:
    return click.option(
        "--out",
        type=_PLACE,
        default="out",
        envvar="EGMA_OUT",
        show_default=True,
        show_envvar=True,
        help="Output folder, or its URL in an object store.",
    )(command)


def _shared_option(command: Command) -> Command:
    told = "Let your group read what is written; else only you can."
    return click.option("--shared", is_flag=True, help=told)(command)


def _open_to_group(shared: bool | None) -> None:
    """Let the group read what libraries write, too, from here to the end of the command."""
    if shared:
        os.umask(0o027)


def _source_options(command: Command) -> Command:
    images = click.option(
        "--images",
        type=_PLACE,
        help="Folder of the images where DATA has none: MIMIC-CXR-JPG, COCO's pictures.",
    )
    source = click.option("--source", help="Layout of DATA; detected by default.")
    return source(images(command))


def _from_option(command: Command) -> Command:
    told = "Gaze as fixations (default), or as samples in which they are found: needs egma[gaze]."
    return click.option("--from", "gaze_from", metavar="KIND", help=told)(command)


def _render_options(command: Command) -> Command:
    for option in (
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="STAGE.FIELD=VALUE",
            help="Any other option, such as render.truncate=4.",
        ),
        click.option(
            "--config",
            metavar="TOML",
            help="File of options, or a shipped one: mimic-eye, phantom.",
        ),
        click.option("--tls-key", metavar="FILE", help="Its key, unless in the same file."),
        click.option("--tls-cert", metavar="FILE", help="Your certificate for that scheduler."),
        click.option("--tls-ca", metavar="FILE", help="The authority of that scheduler's one."),
        click.option("--scheduler", metavar="ADDRESS", help="Existing Dask: tls://host:8786."),
        click.option(
            "--workers",
            type=int,
            help="Processes of the embedded cluster; by default one a core, if memory allows.",
        ),
        click.option("--format", help="Shards as parquet (default) or npz."),
        click.option("--level", help="A map for each sentence (default) or word."),
        click.option("--lead", type=float, metavar="SECONDS", help="Start windows earlier."),
        click.option("--window", help="spoken (default), or pause: with the silence before."),
        click.option("--normalise", help="Grids of maps with peak 1 (default), or sum 1."),
        click.option("--weights", help="Fixations weigh their seconds (default), or count as one."),
        click.option(
            "--sigma",
            help="Kernel width: frame pixels (default 16), degrees (1deg), or pixels of the"
            " original image (150imagepx).",
        ),
        click.option(
            "--recipe",
            metavar="NAME",
            help="How others make heatmaps: egma (default), reflacx, eye-gaze, look-back-1.5s;"
            " other options win over it.",
        ),
    ):
        command = option(command)
    return command


@main.command()
@click.argument("data", type=_PLACE)
@_out_option
@_source_options
@_from_option
@_render_options
@click.option(
    "--privacy/--no-privacy", default=None, help="Write no raw gaze: heatmaps, but no fixations."
)
@click.option(
    "--shared/--no-shared",
    default=None,
    help="Let OUT's group read it, now and later; else only you can.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Go on though readings that OUT holds are lost: other data, a part of them.",
)
@click.option(
    "--max-reject-share",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Exit 1 above this share of rejected readings.",
)
@_reports_errors
def run(
    data: Path,
    out: Path,
    source: str | None,
    images: Path | None,
    shared: bool | None,
    replace: bool,
    max_reject_share: float,
    **flags: Any,
) -> int:
    """Run the whole ETL: DATA in, tables, images and shards out.

    \b
    Example:
      egma-prep run /physionet/mimic-eye --out out --workers 2
      egma-prep run s3://bucket/mimic-eye --out s3://bucket/out
    """
    from egma_prep.errors import BadUsageError
    from egma_prep.etl.run import run_etl

    _open_to_group(shared)
    changes = _changes(**flags)
    summary = run_etl(
        data, out, changes, source=source, images=images, say=_tell, shared=shared, replace=replace
    )
    _show(summary)
    _show_outdated(out)
    if not summary.counts["written"]:
        raise BadUsageError(f"no usable reading in {data}; see {out / 'rejects.parquet'}")
    if summary.reject_share > max_reject_share:
        _tell(f"rejected {summary.reject_share:.0%}, above --max-reject-share", err=True)
        return _TOO_MANY_REJECTS
    return _DONE


@main.command()
@click.argument("data", type=_PLACE)
@_source_options
@_from_option
@click.option(
    "--checksums",
    is_flag=True,
    help="First compare every file with the release's SHA256SUMS.txt; names files.",
)
@click.option(
    "--figures",
    metavar="DIR",
    type=_LOCAL,
    help="Draw the two readings there whose gaze, image and words fit least.",
)
@_reports_errors
def scan(
    data: Path,
    source: str | None,
    images: Path | None,
    checksums: bool,
    figures: Path | None,
    gaze_from: str | None,
) -> int:
    """Look at DATA before a long run: counts, rejects, time and space needed.

    Prints no rows and no ids, so that it may be shown to others. With --checksums it also names the
    files that are not as published, or that readings lack: those names hold ids. Exit 1 if any
    is not as published. A comparison that was stopped goes on. --figures shows at a glance times in
    ms taken for s, swapped axes, an unmapped screen or a clock that is off; its figures hold gaze,
    and readings that would be rejected are named.

    \b
    Example:
      egma-prep scan /physionet/mimic-eye
      egma-prep scan /physionet/mimic-eye --checksums
      egma-prep scan LAB --figures figures
    """
    from egma_prep.look.scan import scan_tree
    from egma_prep.options import Options, with_changes

    told = {"source": {"gaze_from": gaze_from}} if gaze_from is not None else {}
    options = with_changes(Options(), told)
    compared = None
    if checksums:
        from egma_prep.etl.run import open_tree
        from egma_prep.look.checksums import compare

        compared = compare(open_tree(data, images), _tell)
    for line in scan_tree(data, images, source, compared, figures, options):
        _tell(line)
    return _FOUND if compared and compared.different else _DONE


@main.command()
@click.argument("lab", metavar="LAB", type=_LOCAL)
@_reports_errors
def init(lab: Path) -> int:
    """Begin a dataset.toml and a readings.csv for recordings of your own in LAB.

    LAB holds a folder for each reading, with what your eye tracker and your speech recogniser
    export; formats, units and columns are recognised, and each guess is said.

    \b
    Example:
      egma-prep init LAB
    """
    from egma_prep.look.init import begin_dataset

    for line in begin_dataset(lab):
        _tell(line)
    return _DONE


@main.command()
@_out_option
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Readings to render, and to derive, again.",
)
@click.option(
    "--against",
    metavar="DATA",
    type=_PLACE,
    help="Raw tree to derive readings from again.",
)
@click.option("--images", type=_PLACE, help="As for run.")
@click.option("--repair", is_flag=True, help="Make again what is broken, from the raw tree.")
@_reports_errors
def verify(out: Path, sample: int, against: Path | None, images: Path | None, repair: bool) -> int:
    """Check every file and reading of OUT; exit 1 and name what is not as it should be.

    \b
    Example:
      egma-prep verify --out out
      egma-prep verify --against /physionet/mimic-eye --sample 100
    """
    from egma_prep.etl import verify as checks

    if repair:
        checks.finish(out, against, images, _tell)
    verdict = checks.verify(out, sample, against, images)
    for finding in verdict.findings:
        _tell(f"{finding.path}: {finding.problem}")
    if repair:
        checks.repair(out, verdict, against, images, _tell)
        verdict = checks.verify(out, sample, against, images)
    derived = f", {verdict.derived} derived again from {against}" if against else ""
    _tell(
        f"{verdict.files} files and {verdict.readings} readings checked, {verdict.rendered}"
        f" rendered again{derived}: {len(verdict.findings) or 'no'} findings"
    )
    if verdict.findings:
        source = f" --against {against}" if against else ""
        mend = f"mend: egma-prep verify --out {out}{source} --repair"
        again = "they are still there" if repair else mend
        _tell(again, err=True)
        return _FOUND
    _show_outdated(out)
    return _DONE


@main.command()
@_out_option
@_render_options
@_reports_errors
def render_heatmaps(out: Path, **flags: Any) -> int:
    """Render again with other options from what OUT holds; DATA is not read.

    \b
    Example:
      egma-prep render-heatmaps --sigma 1deg
    """
    from egma_prep.etl.render_again import render_heatmaps as render

    done = render(out, _changes(**flags), say=_tell)
    _tell(f"{done} readings rendered in {out / 'shards'}")
    _show_outdated(out)
    return _DONE


@main.command()
@click.argument("folder", metavar="DIR", type=_LOCAL)
@click.option("--readings", type=click.IntRange(min=1), required=True, help="How many.")
@click.option("--small", is_flag=True, help="Images of a sixth of the usual size.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Another seed, other readings.",
)
@click.option(
    "--layout",
    default="mimic_eye",
    show_default=True,
    help="Or reflacx, eye_gaze, recordings, localized_narratives, open_i.",
)
@click.option("--dicom", is_flag=True, help="DICOM images: reflacx, eye_gaze, recordings.")
@click.option("--checksums", is_flag=True, help="SHA256SUMS.txt of all files, as PhysioNet's.")
@_shared_option
@_reports_errors
def synth(folder: Path, readings: int, small: bool, layout: str, shared: bool, **more: Any) -> int:
    """Write an invented tree and its truth into DIR.

    A native layout holds those of the readings that are its dataset's.

    \b
    Example:
      egma-prep synth phantom --readings 24 --small
      egma-prep synth native --readings 24 --small --layout reflacx --dicom
    """
    from egma_prep.errors import BadUsageError, unknown_name
    from egma_prep.storage.permissions import ALONE, SHARED, complaints
    from egma_prep.storage.progress import Progress
    from egma_prep.synth import LAYOUTS, UNFINISHED, WITH_DICOM, write_tree

    _open_to_group(shared)
    if (folder / UNFINISHED).exists():
        raise BadUsageError(
            f"{folder} is a phantom tree that is being written or was cut; if nobody writes it,"
            " delete it and repeat the same command"
        )
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise BadUsageError(f"{folder} exists and is not an empty folder; choose another DIR")
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if more["dicom"] and layout not in WITH_DICOM:
        raise BadUsageError(
            f"the layout {layout} has no DICOM images; add --layout {' or '.join(WITH_DICOM)}"
        )
    try:
        with Progress("readings", readings) as progress:
            truth = write_tree(
                folder,
                readings,
                small=small,
                layout=layout,
                progress=progress.advance,
                **more,
            )
    except ValueError as error:
        raise BadUsageError(str(error)) from None
    except OSError as error:
        why = error.strerror or error
        raise BadUsageError(
            f"cannot write {folder} ({why}); mend that, delete it and repeat the same command"
        ) from None
    _tell(f"{progress.done} phantom readings in {folder}, their truth in {truth}")
    for line in complaints(folder, SHARED if shared else ALONE):
        _tell(line)
    return _DONE


@main.command()
@click.argument("target", metavar="DEST", type=_LOCAL)
@click.option(
    "--to",
    "kind",
    required=True,
    help="official-egma, webdataset, hf-dataset, png, npz or parquet.",
)
@_out_option
@_shared_option
@_reports_errors
def export(target: Path, kind: str, out: Path, shared: bool) -> int:
    """Write the readings into DEST for other programs; a cut export goes on.

    official-egma is what the published EGMA dataset class reads, hf-dataset what Hugging Face
    datasets.load_from_disk does.

    \b
    Example:
      egma-prep export egma-data --to official-egma
    """
    from egma_prep.exports.export import export as write_export

    _open_to_group(shared)
    done = write_export(out, target, kind, shared)
    if done is None:
        _tell(f"up to date: {target} is this export of this run, nothing to do")
        return _DONE
    left_out = f", {done.left_out} left out (no sentence that {kind} keeps)" * bool(done.left_out)
    _tell(f"{done.written} readings in {target}{left_out}")
    return _DONE


@main.command()
@click.argument("reading_id", required=False)
@_out_option
@click.option("--png", type=_PLACE, help="Figure file [OUT/READING_ID.png].")
@click.option(
    "--level",
    type=click.Choice(["sentence", "word"]),
    default="sentence",
    show_default=True,
    help="word: a map for each word too, missing ones crossed out.",
)
@_reports_errors
def inspect(reading_id: str | None, out: Path, png: Path | None, level: str) -> int:
    """Draw one reading: its image, its gaze, a heatmap for each sentence.

    Without READING_ID: the first one that has a map for every sentence.

    \b
    Example:
      egma-prep inspect P300R000001 --png reading.png
      egma-prep inspect P300R000001 --level word
    """
    from egma_prep.look.inspect import draw_reading

    _tell(f"drew {draw_reading(out, reading_id, png, level)}")
    return _DONE


@main.command()
@_out_option
@click.option(
    "--shareable",
    is_flag=True,
    help="Without images, transcripts, ids or small cells: report-shareable.html.",
)
@_reports_errors
def report(out: Path, shareable: bool) -> int:
    """Write OUT/report.html, one page that opens from disk: counts, distributions, gallery.

    \b
    Example:
      egma-prep report
      egma-prep report --shareable
    """
    from egma_prep.look.report import write_report

    page = write_report(out, shareable)
    _tell(f"{page}, {page.stat().st_size / 1e6:.1f} MB: open it in a browser")
    return _DONE


def _changes(
    config: str | None, assignments: tuple[str, ...], recipe: str | None, **flags: Any
) -> list[dict[str, Any]]:
    """Order what the user asked for: recipe, file, then ``--set``, then flags."""
    from egma_prep.options import parse_assignments, read_config
    from egma_prep.options import recipe as options_of

    given = {name: value for name, value in flags.items() if value is not None}
    if "sigma" in given:
        given |= parse_assignments([f"render.sigma={given['sigma']}"])["render"]
    stages: dict[str, dict[str, Any]] = {name: {} for name in ("source", "render", "execution")}
    stages["output"] = {}
    execution = ("workers", "scheduler", "tls_ca", "tls_cert", "tls_key")
    stage_of = dict.fromkeys(execution, "execution") | {"privacy": "output"}
    stage_of["gaze_from"] = "source"
    for name, value in given.items():
        stages[stage_of.get(name, "render")][name] = value
    named = [options_of(recipe)] if recipe else []
    named += [read_config(config)] if config else []
    return [*named, parse_assignments(assignments), stages]


def _show(summary: "Summary") -> None:
    from egma_prep.errors import noted

    counts = summary.counts
    if not summary.did_work:
        _tell("up to date: same inputs, same options, nothing to do")
    faults = summary.faults
    for reject in faults[:_REJECTS_SHOWN]:
        name = reject["reading_id"] or reject["path"]
        _tell(f"rejected {name} ({reject['reason']}): {reject['message']}")
    if len(faults) > _REJECTS_SHOWN:
        _tell(f"... {len(faults) - _REJECTS_SHOWN} more in {summary.out / 'rejects.parquet'}")
    by_dataset = ", ".join(
        f"{name} {n}" for name, n in sorted(counts["written_by_dataset"].items())
    )
    _tell(
        f"planned {counts['planned']} = written {counts['written']} ({by_dataset or 'none'})"
        f" + rejected {counts['rejected']} ({len(summary.rejects) - len(faults)} discarded by the"
        " authors)"
    )
    _tell(f"{counts['images']} images, {counts['sentences']} sentences in {summary.out}")
    for line in noted(counts["notes"]):
        _tell(line)


def _show_outdated(out: Path) -> None:
    from egma_prep.etl.card import REPORTS, outdated_reports
    from egma_prep.etl.out_folder import OutFolder

    if not any((out / name).exists() for name in REPORTS.values()):
        return  # run.json may be large
    for name, problem in outdated_reports(out, OutFolder(out).finished_run()):
        _tell(f"{name} is {problem}")
