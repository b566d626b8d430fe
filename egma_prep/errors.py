"""The two ways to fail: a user's mistake stops the command, bad data is a listed result."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

REASONS = {
    "discarded": "the authors discarded this reading's eye tracking; nothing to mend",
    "missing_file": "put it there, or download it again",
    "not_as_published": "download the file again; if it was changed on purpose, add --set"
    " source.as_published=false",
    "unreadable_file": "check the file's permissions and the disk",
    "empty_file": "download or export the file again",
    "oversized": "not a file of this dataset; download it again",
    "nul_bytes": "the file is damaged; download or export it again",
    "not_utf8": "the file is damaged or was re-saved in another encoding; download it again",
    "bad_csv": "the file is damaged; download or export it again",
    "short_header": "give the cell without a name one, or take it out of each row",
    "missing_column": "download or export it again, or name its columns in dataset.toml",
    "repeated_column": "keep one column of that name, or download the table again",
    "repeated_words": "delete one copy of its words, or download the file again",
    "bad_xml": "the file is damaged; download or export it again",
    "bad_json": "the file is damaged; download or export it again",
    "bad_words_file": "export the words again, or give their format in [words] of dataset.toml",
    "no_word_times": "have the recogniser tell words' times, and export again",
    "no_tier": 'give tier = "..." in [words] of dataset.toml',
    "bad_number": "correct the value, or download or export the file again",
    "bad_flag": "expected True or False; correct it, or download the file again",
    "reversed_time": "times must run forward, row by row; download or export it again",
    "bad_id": "ids are letters, digits, '.', '_', '-', at most 128, no leading dot",
    "bad_dicom_id": "DICOM ids have 44 characters; calibration slides and cut ids are not images",
    "bad_path": "give the path below DATA, without ..",
    "no_clock": "give audio_offset_s in readings.csv, or mend time_unit in dataset.toml",
    "wrong_format": "see format, from and columns in dataset.toml, or export it again",
    "no_screen": "give width_px and height_px in [screen] of dataset.toml",
    "no_angle": "give width_px, width_mm and distance_mm in [screen]: detectors count in degrees",
    "no_degrees": "give sigma in pixels, or the screen's width_mm and distance_mm",
    "no_shown": "give another border, or run again what an earlier version made",
    "other_subject": "a row lies in another patient's folder; move it to its own",
    "duplicate_id": "the same key with different content; keep the right row",
    "no_metadata_row": "give it a row there, or download the table again",
    "several_sessions": "one image was read in several sessions; keep the rows of one",
    "empty_transcript": "no words were dictated; nothing to mend",
    "no_report_section": "no words of the report may be findings or impression; nothing to mend",
    "no_fixations": "no fixation was recorded; nothing to mend",
    "no_gaze_rows": "see how the table writes its id, or download the table again",
    "git_lfs_pointer": "fetch the file that it stands for: git lfs pull",
    "not_an_image": "another file lies in the image's place; put the image there",
    "unsupported_image": "such files are not read; convert it as said, or leave it out",
    "not_a_grey_image": "chest X-rays are single grey images; for photographs, image.colour=luma",
    "truncated_image": "the image ends too early; download it again",
    "undecodable_image": "the image is damaged; download it again",
    "oversized_image": "raise image.max_megapixels if the image is genuine",
    "implausible_time": "times are seconds from the reading's start: see the unit and the clock, or"
    " download it again",
    "overlapping_fixations": "the eye rests at one place at a time: one row a fixation, in seconds",
    "gaze_in_a_corner": "positions are pixels of the original image, not shares or another size's",
    "other_aspect": "gaze would lie elsewhere on it; take the image as released, or only resized",
    "out_of_memory": "with fewer --workers each has more; the next run tries it again",
    "killed_worker": "its worker died each time; the next run tries it again",
    "wrong_type": "a fault of the source in egma_prep/sources, not of the data; mend it there",
    "unexpected": "a fault of this program, or of a source of yours; mend it, or report it",
}
"""Reason codes of ``rejects.parquet`` and how to mend each."""

OF_THE_MACHINE = {"out_of_memory", "killed_worker"}
"""Reasons that may not be there on another day: the next run tries such readings again."""

NOTES = {
    "clock_taken_as_the_audios": "readings without audio_offset_s: their tracker's clock is taken"
    " as the audio's; give it, 0 if it is",
    "image_drawn_stretched": "readings whose image was drawn on the screen in another shape than"
    " its own: see image_x0_px to image_y1_px",
    "image_place_guessed": "readings whose image's place on the screen no table tells, taken as"
    " fitted to its middle",
    "gaze_of_the_scene": "readings whose gaze is of a scene camera, not of a surface: taken as of"
    " the whole screen; give frame in [gaze] of dataset.toml",
    "fixations_of_the_other_eye": "fixations of the other eye, left out",
    "several_trials": "trials or stimuli after a recording's first, whose gaze counts as of the one"
    " image",
    "samples_outside_fixations": "samples of gaze that are in no fixation (saccades, blinks)",
    "rows_that_are_no_fixations": "gaze rows that are no fixations (blinks, lost eyes), left out",
    "rounded_to_edge": "fixations rounded to just beyond the image, pulled in by a pixel",
    "time_is_not_fixation_end": "fixations whose row was not written at their end",
    "fixations_off_image": "fixations off the image, without weight",
    "image_size_differs": "readings whose image has another size than the metadata say, rescaled",
    "reports_without_sections": "reports without findings or impression: last paragraphs taken",
    "report_paragraphs_left_out": "paragraphs outside findings and impression, left out",
    "report_headings_unknown": "unknown headings in other sections of reports, left out",
    "without_split": "readings without a split: no table tells one train, validate or test",
    "without_view": "readings without a view: no table of their images tells one",
    "without_chexpert": "readings without CheXpert labels: no table has a row of their study",
    "contradicted_rows": "rows of MIMIC-CXR-JPG's tables left out: another of the same id says"
    " otherwise",
    "without_labels": "readings whose own table has no column of labels",
    "labels_left_out": "labels left out: no column, a column twice, or a damaged value",
    "regions_left_out": "boxes and ellipses left out: a damaged value, no column of a label, or of"
    " less than a pixel (shares?)",
    "regions_in_a_corner": "boxes and ellipses that all lie in an eighth of their image at its"
    " origin: shares, or another size's pixels?",
    "regions_twice": "boxes and ellipses that stood twice, left out",
    "region_tables_left_out": "tables of boxes or ellipses left out: missing, empty or damaged",
    "size_by_image": "readings whose size no table tells, taken from the image itself",
    "size_by_shown": "readings whose size no table tells, taken from what the reader was shown",
    "size_told_contradicted": "readings whose tables tell another size than the reader was shown,"
    " passed over",
    "size_doubted": "readings whose gaze on the screen fits neither their tables' size nor"
    " a single other",
    "tables_perhaps_cut": "tables of gaze, words, boxes or ellipses whose last line does not end,"
    " read as they are: see whether they are whole",
    "fixation_rows_twice": "rows of fixations that stood twice, left out",
    "rows_of_growing_fixations": "rows of fixations that went on in the next row, left out",
    "fixations_cut": "fixations cut where the next one begins, by less than 20 ms",
    "words_twice": "words that stood twice at the same time, left out",
    "words_moved_forward": "words that began before the one said before, moved by up to 0.1 s",
    "words_without_times": "words without times, put between their neighbours",
    "fillers_left_out": "fillers (uh, %HESITATION, [noise]) among the words, left out",
    "words_overlapping": "words that outlast the next one's begin by more than 0.1 s",
    "gaze_mostly_off_image": "readings with most of their gaze off the image",
    "gaze_in_a_small_part": "readings with all gaze in a small part of the image",
    "gaze_before_the_recording": "readings whose gaze begins over 1 s before time 0",
    "words_and_gaze_apart": "readings whose words and gaze share no time",
    "words_and_gaze_lengths": "readings whose words or gaze last five times as long as the other",
    "tiny_grey_range": "images of hardly any grey levels: under 16, or nearly all within 32 of 256",
    "png_16_bit_declared_maximum": "16-bit PNG images, shown from 0 to what it declares",
    "png_16_bit_own_maximum": "16-bit PNG images, shown from 0 to its largest value",
    "transparency_ignored": "PNG images with transparent pixels, taken as if opaque",
    "tinted_image": "images tinted by one hue, taken by their luma",
    "readings_without_gaze": "readings without gaze on the image, written without heatmaps",
    "dicom_window_passed_over": "images with a DICOM window that cannot be used, shown without it",
    "dicom_table_passed_over": "images with a DICOM lookup table that cannot be used, left out",
    "dicom_rescale_passed_over": "images with a DICOM rescale that cannot be used, left out",
    "dicom_header_completed": "DICOM images whose header lacks what it must say, taken as usual",
    "dicom_unused_bits": "DICOM images with bits set that their header calls unused, cleared",
    "dicom_stream_contradicts": "DICOM images whose compressed values have more bits, or a sign,"
    " than their header says, taken as compressed",
    "not_as_published": "files that are not as published, refused; egma-prep scan --checksums names"
    " all of them",
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
        if reason not in REASONS:  # of a source of one's own
            raise ValueError(f"{reason!r} is no reason; errors.REASONS has those that there are")
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


def unreadable(path: object, error: OSError) -> BadUsageError:
    """Say that a file of ours may not be read: nothing is known of damage."""
    return BadUsageError(
        f"{path} cannot be read ({error.strerror or error}); check its permissions, its owner and"
        " the disk"
    )


def unknown_name(kind: str, name: object, known: object) -> BadUsageError:
    """Refuse a name and list the known ones."""
    listed = ", ".join(sorted(str(item) for item in known))  # type: ignore[attr-defined]
    return BadUsageError(f"no {kind} {name!r}; there are: {listed}")
