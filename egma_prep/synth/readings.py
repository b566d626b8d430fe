"""The plan: which readings a phantom data set has, with everything drawn and nothing written."""

import hashlib
from typing import NamedTuple

import numpy as np

from . import dictation, gaze
from .anatomy import Chest, draw_chest_place
from .dictation import Quirks, Sentence, Token
from .findings import Finding, draw_findings
from .gaze import Fixation

_SIZES = ((2544, 3056), (3056, 2544), (2022, 1736), (2551, 3067), (2048, 2048))
# What is odd about a reading, by its number in each run of 60 (rarer ones in longer runs).
# Numbers with remainder 1 of 4 are EYE GAZE readings, the others REFLACX.
_CYCLE = 60
_QUIRKS = {
    0: "decimal", 1: "merged_phrases", 2: "slash", 3: "none_word", 4: "zero_length",
    5: "decimal versus", 6: "two_labels", 7: "no_final_period", 8: "zoomed", 9: "edge_column",
    11: "swapped_ellipse", 12: "no_punctuation", 13: "no_final_period", 15: "lost_eyes",
    18: "chest_box_outside", 20: "zoomed",
}  # fmt: skip
_RARE_QUIRKS = {  # by the number of the first reading that has it, and the distance to the next
    (10, 120): "discarded", (21, 120): "empty_transcript", (14, 600): "off_image",
    (17, 240): "both_datasets",
}  # fmt: skip
# Phase and first reading of the images that several REFLACX readers saw, by number in a cycle.
_SHARED = {6: (1, 6), 7: (1, 6), 8: (1, 6), 10: (1, 6), 11: (1, 6), 18: (2, 18), 19: (2, 18)}


class PhantomImage(NamedTuple):
    """One X-ray: whose it is and what is in it."""

    number: int
    subject_id: str
    study_id: str
    dicom_id: str
    split: str
    view: str | None
    chest: Chest
    findings: tuple[Finding, ...]
    path: str  # of its JPEG in a MIMIC-EYE tree


class PhantomReading(NamedTuple):
    """One reading of one image; `phase` is 0 for EYE GAZE, `spoken` as its file has it."""

    number: int
    dataset: str
    reading_id: str
    phase: int
    image: PhantomImage
    quirks: Quirks
    reject: str | None  # why a pipeline cannot use it
    spoken: list[Token]
    tokens: list[Token]
    sentences: list[Sentence]
    fixations: list[Fixation]
    px_per_deg: float


def plan_readings(
    number: int, *, small: bool, seed: int, in_phrases: bool = False
) -> list[PhantomReading]:
    """Draw `number` readings; more of them leave the earlier ones as they are.

    With `in_phrases` all are spoken and looked at as EYE GAZE's are.
    """
    images: dict[int, PhantomImage] = {}
    plan: list[PhantomReading] = []
    for index in range(number):
        turn = index % _CYCLE
        phase, first = (0, turn) if index % 4 == 1 else _SHARED.get(turn, (3, turn))
        phase = 0 if in_phrases else phase
        leader = index - turn + first - ("both_datasets" in _quirks(index))
        if leader not in images:
            images[leader] = _plan_image(leader, len(images), small, seed)
        plan.append(_plan_reading(index, phase, images[leader], seed))
    return plan


def hex_id(text: str) -> str:
    """Return a DICOM id of MIMIC-CXR's form that belongs to the text."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return "-".join(digest[k : k + 8] for k in range(0, 40, 8))


def _quirks(index: int) -> Quirks:
    rare = [quirk for (first, step), quirk in _RARE_QUIRKS.items() if index % step == first]
    return frozenset([*_QUIRKS.get(index % _CYCLE, "").split(), *rare])


def _plan_image(leader: int, count: int, small: bool, seed: int) -> PhantomImage:
    rng = np.random.default_rng([seed, 1, leader])
    width, height = _SIZES[3 if "edge_column" in _quirks(leader) else count % len(_SIZES)]
    shrink = 6 if small else 1
    chest = draw_chest_place(width // shrink, height // shrink, rng)
    findings = draw_findings(chest, rng, 0 if leader % 5 == 3 else 1 + leader % 3)
    patient = count - (count % 7 == 3)  # every seventh image is of the patient before
    subject = str(90_000_000 + _scatter(patient, seed))
    study = str(95_000_000 + _scatter(count, seed + 1))
    split = {4: "validate", 7: "test"}.get(patient % 10, "train")
    view = "AP" if leader % 4 == 2 else "PA"
    dicom = hex_id(f"phantom {seed} {leader}")
    path = f"patient_{subject}/CXR-JPG/s{study}/{dicom}.jpg"
    return PhantomImage(count, subject, study, dicom, split, view, chest, findings, path)


def _plan_reading(index: int, phase: int, image: PhantomImage, seed: int) -> PhantomReading:
    rng = np.random.default_rng([seed, 2, index])
    chest, quirks = image.chest, _quirks(index)
    said = dictation.compose(chest, image.findings, phase, quirks, rng)
    if phase:
        trial = 2 + index // _CYCLE % 58 if phase < 3 else 0
        reading_id = f"P{phase}{trial:02d}R{_scatter(index, seed + 2):06d}"
        spoken = tokens = dictation.speak_word_by_word(said, quirks, rng)
        px_per_deg = 72 / gaze.reflacx_screen(chest.width, chest.height)[0]
    else:
        reading_id = image.dicom_id
        spoken = dictation.speak_in_phrases(said, quirks, rng)
        tokens = dictation.split_phrases(spoken)
        px_per_deg = 39.9 * max(chest.width, chest.height) / 1024
    sentences = dictation.cut(tokens, said)
    looks = gaze.scan_path(sentences, chest, px_per_deg, rng)
    finish = gaze.finish_reflacx if phase else gaze.finish_eye_gaze
    looks = finish(looks, sentences, chest, quirks, rng)
    dataset = "reflacx" if phase else "eye_gaze"
    reject = next((q for q in ("discarded", "empty_transcript") if q in quirks), None)
    return PhantomReading(
        index, dataset, reading_id, phase, image, quirks, reject,
        spoken, tokens, sentences, looks, px_per_deg,
    )  # fmt: skip


def _scatter(number: int, salt: int) -> int:
    """Spread small numbers over 0..999982 without repeats."""
    return (104_729 * (number + 1) + 7_907 * salt) % 999_983
