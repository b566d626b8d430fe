"""One self-contained page about what a run wrote; nothing in it is loaded from elsewhere."""

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from egma_prep.errors import BadUsageError
from egma_prep.etl.card import REPORTS, fingerprint, terms_of
from egma_prep.etl.out_folder import OutFolder
from egma_prep.etl.small_cells import LEAST
from egma_prep.look.report.choices import by_choice, lag_of, named_regions
from egma_prep.look.report.gallery import card_of
from egma_prep.look.report.leads import by_lead, sampled
from egma_prep.look.report.means import SAID, Means
from egma_prep.look.report.numbers import Told, counts, distributions, facts, gaze_of_words
from egma_prep.look.report.plots import histogram, lead_curves, mean_maps
from egma_prep.options import Options, with_changes
from egma_prep.shards.reader import Shards
from egma_prep.shards.schema import REJECTS, Key, part_tables
from egma_prep.shards.tables import read_table
from egma_prep.storage.atomic import appearing_whole, refuse_foreign
from egma_prep.storage.progress import Progress

_CARD_TABLES = ("words", "fixations")
_TITLE = b"<title>Readings with sentence heatmaps</title>"  # of every page that we ever wrote


def write_report(out_root: Path, to_share: bool = False) -> Path:
    """Write ``report.html`` into a complete run's folder.

    Parameters
    ----------
    to_share : bool
        Without images, transcripts, ids and small cells, as ``report-shareable.html``.

    Raises
    ------
    BadUsageError
        If there is no complete run, it has no readings, a shard is missing, the readings are of
        too few patients to share anything about, or another file lies in the page's place.
    """
    out = OutFolder(out_root)
    run = out.finished_run()
    target = out.root / REPORTS[" --shareable" if to_share else ""]
    refuse_foreign(target, _TITLE)
    options = with_changes(Options(), run["options"])
    told = Told(LEAST if to_share else 1)
    means = Means()
    paths = out.shards_of(run)
    tables = {name: out.read(name).to_pandas() for name in ("readings", "words")}
    patients = tables["readings"][["dataset", "reading_id", "subject_id"]]
    if to_share and patients.subject_id.nunique() < told.least:
        raise BadUsageError(
            f"{out.root} has readings of fewer than {told.least} patients; nothing about so few may"
            " be shared: leave out --shareable"
        )
    tables["words"] = tables["words"].merge(patients)
    named: dict[Key, list[Any]] = {}
    index, parts = _gather(out, paths, options, means, named, with_cards=not to_share)
    passages = means.passages()
    rejects = read_table(out.rejects, REJECTS)
    sample = [] if options.output.privacy else sampled(out)
    leads = by_lead(sample, options)
    leads = [one for one in leads if told.may(one.gaze_s[one.gaze_s > 0])]
    context = {
        "terms": terms_of(run),
        "to_share": to_share,
        "facts": [("run", fingerprint(run)), *facts(run, told)],
        "options": [
            (f"{stage}.{name}", value)
            for stage, values in run["options"].items()
            for name, value in values.items()
        ],
        "counts": counts(run, tables["readings"], rejects.to_pandas(), told),
        "words": gaze_of_words(tables["words"], passages, options, told),
        "distributions": [
            (one, histogram(one, told))
            for one in distributions(**tables, passages=passages, level=options.render.level)
        ],
        "told": told,
        "leads": leads,
        "choices": [
            one for one in by_choice(sample, named, options) if told.may(one.has_map[one.has_map])
        ],
        "lag": lag_of(sample) if leads else None,
        "lead_curves": lead_curves(leads, told) if leads else "",
        "maps": mean_maps(means.shown(told.least), means.datasets, told, options.render.level),
        "said": [
            (name, *(_counted(how[one], told) for one in SAID))
            for name, how in means.said().items()
        ],
        "index": index,
        "parts": parts,
        "privacy": options.output.privacy,
    }
    with appearing_whole(target) as temporary:
        _template().stream(context).dump(str(temporary), encoding="utf-8")
    return target


def _counted(by_patient: "Counter[str]", told: Told) -> str:
    """Write a count, or one mark for all that must not be told: which of them is told by none."""
    if told.least > 1 and len(by_patient) < told.least:
        return "–"
    return told.count(by_patient.total(), len(by_patient))


def _gather(
    out: OutFolder,
    paths: list[Path],
    options: Options,
    means: Means,
    named: dict[Key, list[Any]],
    with_cards: bool,
) -> tuple[str, list[tuple[str, int]]]:
    """Read all shards once; fill `means` and `named`, return the gallery's index and parts."""
    index: list[Any] = []
    parts: list[tuple[str, int]] = []
    with Progress("readings", sum(len(Shards([path])) for path in paths)) as progress:
        for path in paths:
            part = int(path.stem.rpartition("-")[2])
            tables = part_tables(options.output.privacy).keys() & set(_CARD_TABLES)
            rows = out.part_rows(part, tables) if with_cards else {}
            cards = []
            for reading in Shards([path]):
                means.add(reading)
                if reading.heatmap is not None and reading.regions:
                    named[reading.dataset, reading.reading_id] = named_regions(reading)
                progress.advance(1)
                if with_cards:
                    key = reading.dataset, reading.reading_id
                    texts = [one.text for one in reading.sentences]
                    index.append([reading.reading_id, reading.dataset, reading.split, texts])
                    own = {name: rows[name][key].to_pylist() for name in tables}
                    cards.append(card_of(reading, own))
            if with_cards:
                parts.append((_json(cards), len(cards)))
    return _json(index), parts


def _json(content: object) -> str:
    """Write JSON that may stand in a script element: nothing in it can close one."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _template() -> jinja2.Template:
    folder = files(__name__) / "templates"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html")
