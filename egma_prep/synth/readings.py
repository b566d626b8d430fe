"""The plan: which readings a phantom data set has, with everything drawn and nothing written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from . import dictation, gaze
from .anatomy import Chest, draw_chest_place
from .dictation import Token
from .findings import Finding, draw_findings
from .gaze import Fixation

SIZES = ((2544, 3056), (3056, 2544), (2022, 1736), (2545, 3057), (2048, 2048))
SMALL_SIZES = ((424, 509), (509, 424), (337, 289), (425, 511), (341, 341))

# What is odd about a reading, by its number in each run of 60 (rarer ones in longer runs).
# Numbers with remainder 1 of 4 are EYE GAZE readings, the others REFLACX.
_CYCLE = 60
_QUIRKS: dict[int, tuple[str, ...]] = {
    0: ("decimal",),
    1: ("merged_phrases",),
    2: ("slash",),
    3: ("none_word",),
    4: ("zero_length",),
    5: ("decimal", "versus"),
    6: ("two_labels",),
    7: ("no_final_period",),
    8: ("zoomed",),
    9: ("edge_column",),
    11: ("swapped_ellipse",),
    12: ("no_punctuation",),
    13: ("no_final_period",),
    15: ("lost_eyes",),
    18: ("chest_box_outside",),
    20: ("zoomed",),
}
_RARE_QUIRKS = (  # quirk, number of the first reading that has it, distance to the next
    ("discarded", 10, 120),
    ("empty_transcript", 21, 120),
    ("off_image", 14, 600),
    ("both_datasets", 17, 240),
)
# Phase and first reading of the images that several REFLACX readers saw, by number in a cycle.
_SHARED = {6: (1, 6), 7: (1, 6), 8: (1, 6), 10: (1, 6), 11: (1, 6), 18: (2, 18), 19: (2, 18)}


@dataclass(frozen=True)
class PhantomImage:
    """One X-ray: whose it is and what is in it."""

    number: int
    subject_id: str
    study_id: str
    dicom_id: str
    split: str
    view: str
    chest: Chest
    findings: tuple[Finding, ...]

    @property
    def path(self) -> str:
        """Where its JPEG lies in a MIMIC-EYE tree."""
        study = f"patient_{self.subject_id}/CXR-JPG/s{self.study_id}"
        return f"{study}/{self.dicom_id}.jpg"

    @property
    def width(self) -> int:
        """Columns, px."""
        return self.chest.width

    @property
    def height(self) -> int:
        """Rows, px."""
        return self.chest.height


@dataclass(frozen=True)
class Sentence:
    """One spoken sentence: its tokens are `first_token` to `last_token`, both included."""

    text: str
    begin: float
    end: float
    first_token: int
    last_token: int
    target: str | None
    target_box: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class PhantomReading:
    """One reading of one image; `phase` is 0 for EYE GAZE, `spoken` as its file has it."""

    number: int
    dataset: str
    reading_id: str
    phase: int
    image: PhantomImage
    quirks: frozenset[str]
    spoken: tuple[Token, ...]
    tokens: tuple[Token, ...]
    sentences: tuple[Sentence, ...]
    fixations: tuple[Fixation, ...]
    px_per_deg: float

    @property
    def reject(self) -> str | None:
        """Why a pipeline cannot use the reading, None for a usable one."""
        return next((q for q in ("discarded", "empty_transcript") if q in self.quirks), None)


def plan_readings(number: int, *, small: bool, seed: int) -> list[PhantomReading]:
    """Draw `number` readings; more of them leave the earlier ones as they are."""
    images: dict[int, PhantomImage] = {}
    plan: list[PhantomReading] = []
    for index in range(number):
        quirks = _quirks(index)
        phase, leader = _phase_and_leader(index, quirks)
        if leader not in images:
            images[leader] = _plan_image(leader, len(images), small, seed)
        plan.append(_plan_reading(index, phase, images[leader], quirks, seed))
    return plan


def is_eye_gaze(index: int) -> bool:
    """Tell whether the reading of that number is an EYE GAZE one: every fourth is."""
    return index % 4 == 1


def _quirks(index: int) -> frozenset[str]:
    rare = [q for q, first, step in _RARE_QUIRKS if index % step == first]
    return frozenset([*_QUIRKS.get(index % _CYCLE, ()), *rare])


def _phase_and_leader(index: int, quirks: frozenset[str]) -> tuple[int, int]:
    """Return the REFLACX phase (0: EYE GAZE) and the first reading of the same image."""
    if is_eye_gaze(index):
        return 0, index - 1 if "both_datasets" in quirks else index
    phase, first = _SHARED.get(index % _CYCLE, (3, index % _CYCLE))
    return phase, index - index % _CYCLE + first


def _plan_image(leader: int, count: int, small: bool, seed: int) -> PhantomImage:
    rng = np.random.default_rng([seed, 1, leader])
    quirks = _quirks(leader)
    size = 3 if "edge_column" in quirks else count % len(SIZES)
    chest = draw_chest_place(*(SMALL_SIZES if small else SIZES)[size], rng)
    normal = leader % 5 == 3
    findings = () if normal else draw_findings(chest, rng, int(rng.choice([1, 1, 2, 2, 3])))
    patient = count - (count % 7 == 3)  # every seventh image is of the patient before
    digest = hashlib.sha256(f"phantom {seed} {leader}".encode()).hexdigest()
    split = {4: "validate", 7: "test"}.get(patient % 10, "train")
    return PhantomImage(
        number=count,
        subject_id=str(90_000_000 + _scatter(patient, seed)),
        study_id=str(95_000_000 + _scatter(count, seed + 1)),
        dicom_id="-".join(digest[k : k + 8] for k in range(0, 40, 8)),
        split=split,
        view="PA" if is_eye_gaze(leader) or leader % 240 == 16 else str(rng.choice(["AP", "PA"])),
        chest=chest,
        findings=findings,
    )


def _plan_reading(
    index: int, phase: int, image: PhantomImage, quirks: frozenset[str], seed: int
) -> PhantomReading:
    rng = np.random.default_rng([seed, 2, index])
    utterances = dictation.compose(image.chest, image.findings, phase, quirks, rng)
    if phase:
        spoken = tokens = dictation.speak_word_by_word(utterances, quirks, rng)
        px_per_deg = rng.uniform(70, 75) / gaze.reflacx_screen(image.width, image.height)[0]
    else:
        spoken = dictation.speak_in_phrases(utterances, quirks, rng)
        tokens = dictation.split_phrases(spoken)
        px_per_deg = 39.9 * max(image.width, image.height) / 1024
    sentences = _sentences(tokens, utterances)
    dwells = [(s.begin, s.end, s.target_box) for s in sentences]
    end = tokens[-1].end + rng.uniform(1.0, 2.5)
    fixations = gaze.scan_path(dwells, end, image.chest, px_per_deg, rng)
    if "lost_eyes" in quirks:
        lost = sentences[len(sentences) // 2]
        fixations = gaze.lose_eyes(fixations, lost.begin, lost.end)
    if "off_image" in quirks:
        fixations = gaze.move_off_image(fixations, image.chest)
    finish = gaze.finish_reflacx if phase else gaze.finish_eye_gaze
    reading_id = _reading_id(index, phase, seed) if phase else image.dicom_id
    return PhantomReading(
        number=index,
        dataset="reflacx" if phase else "eye_gaze",
        reading_id=reading_id,
        phase=phase,
        image=image,
        quirks=quirks,
        spoken=tuple(spoken),
        tokens=tuple(tokens),
        sentences=tuple(sentences),
        fixations=tuple(finish(fixations, image.chest, quirks, rng)),
        px_per_deg=float(px_per_deg),
    )


def _sentences(tokens: list[Token], utterances: list[dictation.Utterance]) -> list[Sentence]:
    sentences = []
    for number, utterance in enumerate(utterances):
        members = [k for k, token in enumerate(tokens) if token.sentence == number]
        first, last = members[0], members[-1]
        text = dictation.join_words([t.text for t in tokens[first : last + 1]])
        sentences.append(
            Sentence(text, tokens[first].begin, tokens[last].end, first, last,
                     utterance.target, utterance.box)
        )  # fmt: skip
    return sentences


def _reading_id(index: int, phase: int, seed: int) -> str:
    trial = 2 + index // _CYCLE % 58 if phase < 3 else 0
    return f"P{phase}{trial:02d}R{_scatter(index, seed + 2):06d}"


def _scatter(number: int, salt: int) -> int:
    """Spread small numbers over 0..999982 without repeats."""
    return (104_729 * (number + 1) + 7_907 * salt) % 999_983
