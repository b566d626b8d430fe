"""What the invented radiologists say: sentences about findings and regions, words with times."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .anatomy import Box, Chest
from .findings import KINDS, Finding

# Sentence, region looked at, kinds of findings that would make it untrue.
NORMAL_SENTENCES: tuple[tuple[str, str, str], ...] = (
    ("heart size is normal", "cardiac silhouette", "cardiomegaly"),
    ("the cardiac silhouette is within normal limits", "cardiac silhouette", "cardiomegaly"),
    ("no pleural effusion or pneumothorax", "lungs", "effusion pneumothorax"),
    ("no focal consolidation , effusion , or pneumothorax", "lungs",
     "consolidation effusion pneumothorax"),
    ("both costophrenic angles are sharp", "costophrenic angles", "effusion"),
    ("the right costophrenic angle is clear", "right costophrenic angle", "effusion"),
    ("the left costophrenic angle is clear", "left costophrenic angle", "effusion"),
    ("mediastinal contours are unremarkable", "upper mediastinum", ""),
    ("the trachea is midline", "trachea", ""),
    ("the right hilum is normal", "right hilar structures", ""),
    ("left hilar contour is unremarkable", "left hilar structures", ""),
    ("the thoracic spine is intact", "spine", ""),
    ("no clavicle fracture on the right", "right clavicle", ""),
    ("the lungs are otherwise clear", "lungs", ""),
    ("the right upper lung is well aerated", "right upper lung zone",
     "pneumothorax consolidation nodule"),
    ("the left upper lung is well aerated", "left upper lung zone",
     "pneumothorax consolidation nodule"),
    ("left lower lobe is clear", "left lower lung zone",
     "consolidation nodule fibrosis atelectasis effusion"),
)  # fmt: skip
PLACELESS_SENTENCES = (
    "portable chest radiograph",
    "frontal view of the chest",
    "no prior study is available for comparison",
    "clinical correlation is recommended",
)
_QUIRK_SENTENCES = {  # said when the reading has the quirk: sentence, region
    "none_word": ("comparison none", None),
    "slash": ("no congestion and / or edema", "lungs"),
    "decimal": ("it measures about 1 .5 cm", "finding"),
    "versus": ("artifact vs. skin fold at the right base", "right lower lung zone"),
}


@dataclass(frozen=True)
class Utterance:
    """One sentence before it is spoken: words, and what it is about (`box` in image px)."""

    words: tuple[str, ...]
    target: str | None
    box: Box | None


@dataclass(frozen=True)
class Token:
    """One spoken word or dictated sign; times in s from the start of the recording."""

    text: str
    begin: float
    end: float
    sentence: int


def compose(
    chest: Chest,
    findings: tuple[Finding, ...],
    phase: int,
    quirks: frozenset[str],
    rng: np.random.Generator,
) -> list[Utterance]:
    """Draw the sentences of one reading, 3 to 9 of them and 15 to 80 words, in spoken order."""
    said = [_about(f, phase, rng) for f in findings]
    for quirk in sorted(quirks & _QUIRK_SENTENCES.keys()):
        said.insert(1, _quirk(quirk, chest, said))
    kinds = {f.kind for f in findings}
    normal = [s for s in NORMAL_SENTENCES if not kinds & set(s[2].split(" "))]
    if kinds:
        normal = [s for s in normal if "no focal" not in s[0]]
    wanted = max(3, len(said) + 1, int(rng.integers(3, 10)))
    placeless = [str(rng.choice(PLACELESS_SENTENCES))] if rng.random() < 0.45 else []
    for number in rng.permutation(len(normal)):
        if len(said) + len(placeless) >= wanted and sum(len(u.words) for u in said) >= 15:
            break
        text, region, _ = normal[number]
        said.append(Utterance(tuple(text.split()), region, chest.box(region)))
    # "it measures" has to follow the finding it is about.
    order = np.arange(len(said)) if "decimal" in quirks else rng.permutation(len(said))
    return [Utterance(tuple(t.split()), None, None) for t in placeless] + [said[k] for k in order]


def speak_word_by_word(
    utterances: list[Utterance], quirks: frozenset[str], rng: np.random.Generator
) -> list[Token]:
    """Give every word and dictated sign its time, REFLACX's way: tokens, 10 ms steps."""
    last = len(utterances) - 1
    sentences = []
    for number, utterance in enumerate(utterances):
        words = [*utterance.words, "."]
        if "no_punctuation" in quirks:
            words = [w for w in utterance.words if w not in (".", ",", "/")]
        elif number == last and "no_final_period" in quirks:
            words.pop()
        sentences.append(words)
    timed = _times(sentences, "no_punctuation" in quirks, 100, rng)
    if "zero_length" in quirks:
        timed = _squeeze(timed)
    return timed


def speak_in_phrases(
    utterances: list[Utterance], quirks: frozenset[str], rng: np.random.Generator
) -> list[Token]:
    """Give phrases their times, EYE GAZE's way: periods glued, 0.1 s steps, words merged.

    A phrase that reaches into the next sentence counts as part of the first one here.
    """
    sentences = []
    for number, utterance in enumerate(utterances):
        text = " ".join(utterance.words).replace(" ,", ",").replace(" / ", "/").replace(" .", ".")
        final = number == len(utterances) - 1 and "no_final_period" in quirks
        sentences.append((text if final else text + ".").split())
    timed = _times(sentences, False, 10, rng)
    phrases = [timed[0]]
    for before, token in pairwise(timed):
        crosses = token.sentence != before.sentence
        merge = rng.random() < 0.06 and not crosses
        if "merged_phrases" in quirks and crosses and token.sentence == 1:
            merge = True
        if merge or (token.text.startswith("cm") and "decimal" in quirks):
            head = phrases.pop()
            text = f"{head.text} {token.text}"
            token = Token(text, head.begin, token.end, head.sentence)
        phrases.append(token)
    return phrases


def split_phrases(phrases: list[Token]) -> list[Token]:
    """Share each phrase's interval among its words by their characters, spaces not counted."""
    tokens: list[Token] = []
    sentence = 0
    for phrase in phrases:
        words = phrase.text.split()
        characters = sum(map(len, words))
        step = (phrase.end - phrase.begin) / characters
        done = 0
        for word in words:
            begin, done = phrase.begin + step * done, done + len(word)
            end = phrase.end if done == characters else phrase.begin + step * done
            tokens.append(Token(word, begin, end, sentence))
            sentence += word.endswith(".") and word != "vs."
    return tokens


def join_words(texts: list[str]) -> str:
    """Join tokens as they would be written: `.` and `,` close up, `/` on both sides."""
    text = ""
    for token in texts:
        closed = not text or token[0] in ".,/" or text.endswith("/")
        text += token if closed else " " + token
    return text


def _about(finding: Finding, phase: int, rng: np.random.Generator) -> Utterance:
    side, _, rest = finding.place.partition(" ")
    lung = rng.choice(["lung", "lung zone", "lobe"]) if "mid" not in rest else "lung"
    place = f"{side} {rest.split()[0]} {lung}" if rest.endswith("zone") else finding.place
    phrase = str(rng.choice(KINDS[finding.kind].phrases))
    words = tuple(phrase.format(side=side, place=place).split())
    return Utterance(words, finding.label(phase), finding.ellipse)


def _quirk(quirk: str, chest: Chest, said: list[Utterance]) -> Utterance:
    text, region = _QUIRK_SENTENCES[quirk]
    if region == "finding":
        return Utterance(tuple(text.split()), said[0].target, said[0].box)
    return Utterance(tuple(text.split()), region, chest.box(region) if region else None)


def _times(
    sentences: list[list[str]], clear_pauses: bool, ticks: int, rng: np.random.Generator
) -> list[Token]:
    """Place words on a clock of `ticks` per second; speech fills 40 to 70 % of the time."""
    lengths = [[_word_ticks(w, ticks, rng) for w in words] for words in sentences]
    speech = sum(map(sum, lengths)) / ticks
    tail = rng.uniform(1.0, 2.5)  # gaze goes on for as long after the last word
    least = 0.85 if clear_pauses else 0.2
    rest = max(2.0, speech * rng.uniform(0.55, 1.25) - tail)
    weights = rng.uniform(0.3, 1.0, len(sentences))
    weights[0] += 0.6
    pauses = rest * weights / weights.sum()
    pauses[0] = np.clip(pauses[0], 1.0, 4.0)
    pauses[1:] = np.clip(pauses[1:], least, 3.0)
    tokens, clock = [], 0
    for number, words in enumerate(sentences):
        clock += int(np.ceil(pauses[number] * ticks))
        for word, length in zip(words, lengths[number], strict=True):
            begin, clock = clock, clock + length
            tokens.append(Token(word, _seconds(begin, ticks), _seconds(clock, ticks), number))
            if rng.random() < 0.3:
                clock += int(rng.integers(0, ticks // 10 + 1))
    return tokens


def _seconds(tick: int, ticks: int) -> float:
    # Tenths come with the binary noise that EYE GAZE's JSON shows, hundredths as CSV text does.
    return tick * 0.1 if ticks == 10 else tick / ticks


def _word_ticks(word: str, ticks: int, rng: np.random.Generator) -> int:
    seconds = 0.13 + 0.042 * len(word) * rng.uniform(0.8, 1.3)
    if word in (".", ",", "/"):
        seconds = rng.uniform(0.22, 0.58)
    return max(1, round(seconds * ticks))


def _squeeze(tokens: list[Token]) -> list[Token]:
    """Give three words in a row no length: inserted by correction, no sound matched them."""
    first = next(
        k for k in range(2, len(tokens)) if len({t.sentence for t in tokens[k - 1 : k + 4]}) == 1
    )
    at = tokens[first - 1].end
    inserted = [Token(t.text, at, at, t.sentence) for t in tokens[first : first + 3]]
    return tokens[:first] + inserted + tokens[first + 3 :]
