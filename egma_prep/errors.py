"""The two ways to fail: a user's mistake stops the command, bad data is a listed result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

REASONS = {
    "discarded": "the authors discarded this reading's eye tracking; nothing to mend",
    "missing_file": "download the file again",
    "unreadable_file": "check the file's permissions and the disk",
    "empty_file": "download the file again",
    "oversized": "not a file of this dataset; download it again",
    "nul_bytes": "the file is damaged; download it again",
    "not_utf8": "the file is damaged or was re-saved in another encoding; download it again",
    "bad_csv": "the file is damaged; download it again",
    "missing_column": "the table is not the released one; download it again",
    "bad_json": "the file is damaged; download it again",
    "bad_number": "the value is damaged; download the file again",
    "bad_flag": "expected True or False; download the file again",
    "reversed_time": "an interval ends before it begins; download the file again",
    "bad_id": "ids are letters, digits, '.', '_', '-', at most 128, no leading dot",
    "bad_dicom_id": "DICOM ids have 44 characters; calibration slides and cut ids are not images",
    "other_subject": "a row lies in another patient's folder; move it to its own",
    "duplicate_id": "the same key with different content; keep the right row",
    "no_metadata_row": "the metadata table has no row for it; download the table again",
    "several_sessions": "one image was read in several sessions; keep the rows of one",
    "empty_transcript": "no words were dictated; nothing to mend",
    "no_report_section": "the report has neither FINDINGS nor IMPRESSION; nothing to mend",
    "no_fixations": "no fixation was recorded; nothing to mend",
    "not_an_image": "the file is no image; download it again",
    "not_a_grey_image": "chest X-rays are single grey images; nothing to mend",
    "truncated_image": "the image ends too early; download it again",
    "undecodable_image": "the image is damaged; download it again",
    "oversized_image": "raise image.max_megapixels if the image is genuine",
    "implausible_time": "times are seconds from the reading's start; download the file again",
    "out_of_memory": "with fewer --workers each has more; then egma-prep verify --repair",
    "killed_worker": "its worker died each time; with more memory try egma-prep verify --repair",
    "wrong_type": "a fault of the source in egma_prep/sources, not of the data; mend it there",
    "unexpected": "a fault of this program; please report it with the message",
}
"""Reason codes of ``rejects.parquet`` and how to mend each."""

NOTES = {
    "rows_that_are_no_fixations": "gaze rows that are no fixations (blinks, lost eyes), left out",
    "rounded_to_edge": "fixations rounded to just beyond the image, pulled in by a pixel",
    "time_is_not_fixation_end": "fixations whose row was not written at their end",
    "fixations_off_image": "fixations off the image, without weight",
    "image_size_differs": "readings whose image has another size than the metadata say, rescaled",
    "readings_without_gaze": "readings without gaze on the image, written without heatmaps",
    "extras_of_wrong_type": "labels, boxes, splits or views that their source gives in another type"
    " than promised, left out",
}
"""Names of the counts that ``run.json`` keeps of what was mended, left out or odd, in words."""


def noted(counts: Mapping[str, int]) -> list[str]:
    """Say in a line each what was counted, the most frequent first."""
    found = sorted(counts.items(), key=lambda note: (-note[1], note[0]))
    return [f"noted: {number:,} {NOTES.get(name, name)}" for name, number in found if number]


class BadUsageError(Exception):
    """A command cannot start or finish: one line for the user, exit code 2."""


class BadInputError(Exception):
    """A reading or file cannot be used: one row of ``rejects.parquet``.

    Parameters
    ----------
    reason : str
        A key of `REASONS`.
    path : str
        The file, relative to DATA.
    what : str
        What was found there, in words; the file is named before it unless it is in them.
    """

    def __init__(self, reason: str, path: str, what: str) -> None:
        where = "" if path in what else f"{path}: "
        super().__init__(f"{where}{what}; {REASONS[reason]}")
        self.reason = reason
        self.path = path


@dataclass(frozen=True, order=True)
class Reject:
    """One row of ``rejects.parquet``."""

    dataset: str
    reading_id: str
    path: str
    stage: str
    reason: str
    message: str

    @classmethod
    def of(cls, error: BadInputError, dataset: str, reading_id: str, stage: str) -> "Reject":
        """Name the reading (empty if unknown) and the stage that an error stopped."""
        texts = (dataset, reading_id, error.path, stage, error.reason, str(error))
        return cls(*(text.encode(errors="backslashreplace").decode() for text in texts))

    def without_values(self) -> "Reject":
        """Leave out of the message what was found in the file: it may be gaze."""
        return replace(self, message=f"{self.path or self.reading_id}; {REASONS[self.reason]}")


Value = TypeVar("Value")


def remembered(
    known: "dict[str, Value | BadInputError]", path: str, make: Callable[[], Value]
) -> Value:
    """Make a file's value once; who asks again gets the same value, or the same error."""
    if path not in known:
        try:
            known[path] = make()
        except BadInputError as error:
            known[path] = error
    found = known[path]
    if isinstance(found, BadInputError):
        raise found
    return found


def unknown_name(kind: str, name: object, known: object) -> BadUsageError:
    """Refuse a name and list the known ones."""
    listed = ", ".join(sorted(str(item) for item in known))  # type: ignore[attr-defined]
    return BadUsageError(f"no {kind} {name!r}; there are: {listed}")
