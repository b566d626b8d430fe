"""Open-i: Indiana University's chest X-rays and reports, without gaze (FORMATS, section 13)."""

import re
from collections.abc import Iterable, Iterator, Mapping

from egma_prep.errors import BadInputError, Reject
from egma_prep.images import image_size
from egma_prep.options import SourceOptions
from egma_prep.sources import extras
from egma_prep.sources.csv_table import Table
from egma_prep.sources.files import MAY_BE_CUT, InputFiles
from egma_prep.sources.manifests import columns_of, manifest, required_columns
from egma_prep.sources.pictures import image_path, remark_archives
from egma_prep.sources.planning import by_subject
from egma_prep.sources.reading import Fixations, PlannedReading, RawReading
from egma_prep.sources.registry import SubjectPlan
from egma_prep.sources.report_sections import section_words
from egma_prep.sources.values import id_key, optional_text, safe_id, xml_document

NAME = "open_i"
_DECLARED = manifest("open-i")
_LAYOUT, _TABLES = _DECLARED["layout"], _DECLARED["tables"]
_SECTIONS = _DECLARED["report"]["sections"]
_REMOVED = re.compile(_DECLARED["report"]["removed"])
_NO_LABELS = ("", _DECLARED["not_indexed"])
_PICTURE = re.compile(r"(\.dcm)?\.(png|jpe?g)$", re.IGNORECASE)


class OpenI:
    """Reports as Open-i ships them or as Kaggle's tables; one reading an image."""

    name = NAME
    looks_like = f"{_LAYOUT['reports']}, or {_TABLES['reports']['file']}"

    def recognises(self, files: InputFiles) -> bool:
        """Look for reports of either form."""
        return bool(_documents(files) or files.tables_matching("", _TABLES["reports"]["file"]))

    def plan(self, files: InputFiles) -> Iterable[SubjectPlan]:
        """Read all reports; a report's images stay together, as nobody tells the patients."""
        remark_archives(files)
        documents = _documents(files)
        return by_subject(_of_documents(files, documents) if documents else _of_tables(files))

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Take an image's report; it has no gaze, and its words no times."""
        row = planned.row
        texts = [_REMOVED.sub("___", row[name]) for name in _SECTIONS]
        words, paragraphs = section_words(texts, planned.metadata_path)
        path = image_path(files, row, _LAYOUT)
        width, height = image_size(files.read(path), path)
        mesh = [" ".join(one.split()) for one in row["mesh"].split(";")]
        view = _DECLARED["views"].get(row["view"].strip().capitalize())
        return RawReading(
            *planned.key,
            subject_id=planned.subject_id,
            study_id=planned.study_id,
            dicom_id=planned.dicom_id,
            split=None,
            view=view,
            image_path=path,
            width=width,
            height=height,
            fixations=Fixations.none(),
            words=words,
            # What was indexed is there; of what was not, nobody says that it is absent.
            labels={f"{NAME}:{one}": 1.0 for one in mesh if one not in _NO_LABELS},
            regions=[],
            notes=+extras.absent(None, view),
            paragraphs=paragraphs,
        )


SOURCE = OpenI()


def _planned(uid: str, image: str, path: str, row: Mapping[str, str]) -> PlannedReading | Reject:
    try:
        study = safe_id(uid, path, "the report's uid")
        picture = safe_id(_PICTURE.sub("", image.strip()), path, "the image")
        return PlannedReading(NAME, picture, study, study, picture, path, {**row, "image": picture})
    except BadInputError as error:
        return Reject.of(error, NAME, image, "plan")


# -- as Open-i ships them -------------------------------------------------------------------------


def _documents(files: InputFiles) -> list[str]:
    return files.matching("", _LAYOUT["reports"])


def _of_documents(files: InputFiles, paths: list[str]) -> Iterator[PlannedReading | Reject]:
    for path in files.ahead(paths, InputFiles.read):
        uid = path.rpartition("/")[2].rpartition(".")[0]
        try:
            root = xml_document(files.read(path), path)
        except BadInputError as error:
            yield Reject.of(error, NAME, uid, "plan")
            continue
        said = {name: "" for name in _SECTIONS}
        for one in root.iter("AbstractText"):
            if (name := one.get("Label", "").lower()) in said:
                said[name] = f"{said[name]}\n\n{''.join(one.itertext())}".strip()
        mesh = ";".join(one.text or "" for one in root.iter("major"))
        images = [one.get("id", "") for one in root.iter("parentImage")]
        if not images:
            files.remark(path, "names no image, so that nothing is read of it")
        for image in images:
            yield _planned(uid, image, path, {**said, "mesh": mesh, "view": ""})


# -- Kaggle's tables ------------------------------------------------------------------------------


def _table(files: InputFiles, kind: str) -> Table:
    table = files.table(_TABLES[kind]["file"], required_columns("open-i", kind))
    if table.is_cut:
        files.remark(table.path, MAY_BE_CUT)
    return table


def _of_tables(files: InputFiles) -> Iterator[PlannedReading | Reject]:
    reports, images = _table(files, "reports"), _table(files, "projections")
    names, shown = columns_of("open-i", "reports"), columns_of("open-i", "projections")
    rows: dict[str, list[dict[str, str]]] = {}
    for at in range(len(reports)):
        cells = reports.row(at)
        told = {name: cells.get(names[name], "") for name in (*_SECTIONS, "mesh")}
        said = {name: optional_text(cell) or "" for name, cell in told.items()}
        same = rows.setdefault(id_key(cells[names["study_id"]]), [])
        same += [said] if said not in same else []
    for cells in map(images.row, range(len(images))):
        uid, image = cells[shown["study_id"]], cells[shown["image"]]
        same = rows.get(id_key(uid), [])
        if len(same) == 1:
            row = same[0] | {"view": cells.get(shown["view"], "")}
            yield _planned(uid, image, reports.path, row)
            continue
        what = f"{reports.path} has {len(same) or 'no'} different reports of uid {uid!r}"
        reason = BadInputError("no_metadata_row", reports.path, what)
        if same:
            reason = BadInputError("duplicate_id", reports.path, what)
        yield Reject.of(reason, NAME, _PICTURE.sub("", image), "plan")
