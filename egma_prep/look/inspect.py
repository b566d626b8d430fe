"""One reading of ``out/`` as a figure's file."""

import warnings
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from egma_prep.errors import BadUsageError
from egma_prep.etl.out_folder import OutFolder
from egma_prep.etl.render_again import RENDERED_FROM, render_reading
from egma_prep.options import Options, with_changes
from egma_prep.shards.reader import Reading, Sentence, Shards, sentence_of
from egma_prep.shards.schema import key_of
from egma_prep.storage.atomic import appearing_whole, refuse_foreign
from egma_prep.storage.paths import is_remote
from egma_prep.storage.permissions import is_shared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SOFTWARE = "egma-prep inspect"
SOFTWARE_MARK = f"Software\0{_SOFTWARE}".encode()
"""Tells a figure of ours, which may be replaced, from a picture of somebody else."""


def draw_reading(
    out_root: Path,
    reading_id: str | None = None,
    png: Path | None = None,
    level: str = "sentence",
) -> Path:
    """Draw a reading's shard row as a PNG, or its words beside its sentences.

    Parameters
    ----------
    out_root : Path
        Holds a complete run.
    reading_id : str, optional
        By default the first reading whose sentences all have gaze.
    png : Path, optional
        By default ``<reading_id>.png`` in the output folder.
    level : str
        ``sentence``: what the shard holds. ``word``: a map for each word beside its sentence's,
        rendered from the tables (the paper's Fig. 3).

    Returns
    -------
    Path
        The figure's file.

    Raises
    ------
    BadUsageError
        If there is no complete run, no such reading, no gaze of words in it, or `png` is no PNG or
        not ours to replace.
    """
    if png and png.suffix.lower() != ".png":
        raise BadUsageError(f"--png {png} does not end in .png, and the figure is a PNG; rename it")
    out = OutFolder(out_root)
    run = out.finished_run()
    options = with_changes(Options(), run["options"])
    if level == "word" and options.output.privacy:
        raise BadUsageError(
            f"{out.root} was made with --privacy: maps of single words are raw gaze, which it does"
            " not hold; leave out --level word"
        )
    reading = _find(Shards(out.shards_of(run)), reading_id, out.root)
    figure = _words_beside_sentences(out, reading, options) if level == "word" else reading.plot()
    target = png or out.root / f"{reading.reading_id}.png"
    # In OUT may lie a figure of an earlier version, whose mark is matplotlib's.
    refuse_foreign(target, SOFTWARE_MARK if png else b"Software\0")
    shared = png is None and not is_remote(out.root) and is_shared(out.root)
    save_figure(figure, target, shared)
    return target


def save_figure(figure: "Figure", target: Path, shared: bool = False) -> None:
    """Write a figure as a PNG that says whose it is."""
    with appearing_whole(target, shared=shared) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands in its place
        figure.savefig(temporary, dpi=110, format="png", metadata={"Software": _SOFTWARE})


def _words_beside_sentences(out: OutFolder, reading: Reading, options: Options) -> "Figure":
    from egma_prep.shards.figure import Passage, figure_of_words

    key = reading.dataset, reading.reading_id
    (facts,) = (row for row in out.read("readings").to_pylist() if key_of(row) == key)
    tables = {
        name: found[key] for name, found in out.part_rows(facts["part"], RENDERED_FROM).items()
    }

    def rendered(level: str) -> list[Sentence]:
        wanted = with_changes(options, {"render": {"level": level, "empty_sentence": "null"}})
        made = render_reading(facts, tables, wanted)["sentences"]
        return [sentence_of(row | {"mentions": None}) for row in made]

    def passage(one: Sentence) -> Passage:
        return Passage(one.text, one.gaze_seconds, one.heatmap)

    words = map(passage, rendered("word"))
    blocks = [(passage(one), list(islice(words, one.words))) for one in rendered("sentence")]
    return figure_of_words(f"{reading.dataset}  {reading.reading_id}", reading.image, blocks)


def _find(shards: Shards, reading_id: str | None, root: Path) -> Reading:
    if reading_id is None:
        complete = (
            reading
            for reading in shards
            if all(sentence.heatmap is not None for sentence in reading.sentences)
        )
        return next(complete, shards[0])
    try:
        return shards.find(reading_id)
    except KeyError:
        raise BadUsageError(
            f"{root} has no reading {reading_id}; see tables/readings.parquet"
        ) from None
