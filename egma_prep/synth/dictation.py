"""What the invented radiologists say: sentences about findings and regions, words with times."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .anatomy import Box, Chest, Rng
from .findings import Finding

# Sentence; region looked at; kinds of findings that would make it untrue.
_NORMAL = """
heart size is normal; cardiac silhouette; cardiomegaly
no pleural effusion or pneumothorax; lungs; effusion pneumothorax
no focal consolidation , effusion , or pneumothorax; lungs; consolidation effusion pneumothorax
both costophrenic angles are sharp; costophrenic angles; effusion
mediastinal contours are unremarkable; upper mediastinum;
the trachea is midline; trachea;
the right hilum is normal; right hilar structures;
the thoracic spine is intact; spine;
no clavicle fracture on the right; right clavicle;
the right upper lung is well aerated; right upper lung zone; pneumothorax consolidation nodule
left lower lobe is clear; left lower lung zone; consolidation nodule atelectasis effusion
"""
_QUIRK_SENTENCES = {  # said when the reading has the quirk: sentence, region
    "none_word": ("comparison none", None), "slash": ("no congestion and / or edema", "lungs"),
    "decimal": ("it measures about 1 .5 cm", "finding"),
    "versus": ("artifact vs. skin fold at the right base", "right lower lung zone"),
}  # fmt: skip
Quirks = frozenset[str]


class Token(NamedTuple):
    """One spoken word or dictated sign; times in s from the start of the recording."""

    text: str
    begin: float
    end: float
    sentence: int


class Sentence(NamedTuple):
    """One sentence, what it is about (a px box), and its first and last token once spoken."""

    text: str
    target: str | None = None
    target_box: Box | None = None
    begin: float = 0.0
    end: float = 0.0
    first_token: int = 0
    last_token: int = 0


def compose(
    chest: Chest, findings: tuple[Finding, ...], phase: int, quirks: Quirks, rng: Rng
) -> list[Sentence]:
    """Draw the sentences of one reading, 3 to 9 of them and 15 to 80 words, in spoken order."""
    said = []
    for finding in findings:
        side, place = finding.place.split()[0], finding.place.removesuffix(" zone")
        phrase = str(rng.choice(finding.kind.phrases)).format(side=side, place=place)
        said.append(Sentence(phrase, finding.label(phase), finding.ellipse))
    for quirk in sorted(quirks & _QUIRK_SENTENCES.keys()):
        text, region = _QUIRK_SENTENCES[quirk]
        box = chest.box(region) if region not in (None, "finding") else None
        about = said[0]._replace(text=text) if region == "finding" else Sentence(text, region, box)
        said.insert(1, about)
    kinds = {finding.kind.name for finding in findings}
    normal = [line.split(";") for line in _NORMAL.strip().split("\n")]
    wanted = max(3, len(said) + 1, int(rng.integers(3, 9)))
    for number in rng.permutation(len(normal)):
        text, region, untrue = normal[number]
        enough = len(said) >= wanted and sum(len(u.text.split()) for u in said) >= 15
        if not enough and not kinds & set(untrue.split()):
            said.append(Sentence(text, region.strip(), chest.box(region.strip())))
    if "decimal" not in quirks:  # "it measures" has to follow the finding it is about
        said = [said[k] for k in rng.permutation(len(said))]
    return [Sentence("frontal view of the chest"), *said] if rng.random() < 0.45 else said


def speak_word_by_word(said: list[Sentence], quirks: Quirks, rng: Rng) -> list[Token]:
    """Give every word and dictated sign its time, REFLACX's way: tokens, 10 ms steps."""
    sentences = [[*u.text.split(), "."] for u in said]
    if "no_final_period" in quirks:
        sentences[-1].pop()
    if "no_punctuation" in quirks:
        sentences = [[word for word in words if word not in ".,/"] for words in sentences]
    tokens = _times(sentences, 0.85 if "no_punctuation" in quirks else 0.2, 100, rng)
    if "zero_length" in quirks:  # inserted by correction: no sound matched these
        at = tokens[0].end
        tokens[1:4] = [token._replace(begin=at, end=at) for token in tokens[1:4]]
    return tokens


def speak_in_phrases(said: list[Sentence], quirks: Quirks, rng: Rng) -> list[Token]:
    """Give phrases their times, EYE GAZE's way: periods glued, 0.1 s steps, words merged."""
    sentences = [join_words([*u.text.split(), "."]).split() for u in said]
    if "no_final_period" in quirks:
        sentences[-1][-1] = sentences[-1][-1].removesuffix(".")
    timed = _times(sentences, 0.2, 10, rng)
    phrases = timed[:1]
    for before, token in pairwise(timed):
        crosses = token.sentence != before.sentence
        merges = rng.random() < 0.06 and not crosses
        merges |= crosses and token.sentence == 1 and "merged_phrases" in quirks
        if merges or (token.text.startswith("cm") and "decimal" in quirks):
            head = phrases.pop()
            token = head._replace(text=f"{head.text} {token.text}", end=token.end)
        phrases.append(token)
    return phrases


def split_phrases(phrases: list[Token]) -> list[Token]:
    """Share each phrase's interval among its words by their characters, spaces not counted."""
    tokens: list[Token] = []
    sentence = 0
    for phrase in phrases:
        words = phrase.text.split()
        ends = np.cumsum([len(word) for word in words]).tolist()
        step = (phrase.end - phrase.begin) / ends[-1]
        times = [phrase.begin, *(phrase.begin + step * done for done in ends[:-1]), phrase.end]
        for word, (begin, end) in zip(words, pairwise(times), strict=True):
            tokens.append(Token(word, begin, end, sentence))
            sentence += word.endswith(".") and word != "vs."
    return tokens


def join_words(texts: list[str]) -> str:
    """Join tokens as they would be written: `.` and `,` close up, `/` on both sides."""
    return " ".join(texts).replace(" ,", ",").replace(" / ", "/").replace(" .", ".")


def cut(tokens: list[Token], said: list[Sentence]) -> list[Sentence]:
    """Return the sentences as they were spoken."""
    spoken = []
    for number, sentence in enumerate(said):
        members = [k for k, token in enumerate(tokens) if token.sentence == number]
        first, last = members[0], members[-1]
        text = join_words([token.text for token in tokens[first : last + 1]])
        times = (tokens[first].begin, tokens[last].end)
        spoken.append(Sentence(text, *sentence[1:3], *times, first, last))
    return spoken


def _times(sentences: list[list[str]], least_pause_s: float, hz: int, rng: Rng) -> list[Token]:
    """Place words on a clock of `hz` ticks a second; speech fills 40 to 70 % of the time."""
    lengths_s = [[_length_s(word, rng) for word in words] for words in sentences]
    pause_s = sum(map(sum, lengths_s)) * rng.uniform(0.45, 0.95) / len(sentences)
    tokens, clock = [], 1.0
    for number, words in enumerate(sentences):
        clock += float(np.clip(pause_s * rng.uniform(0.5, 1.5), least_pause_s, 3.0))
        for word, length_s in zip(words, lengths_s[number], strict=True):
            begin, clock = clock, clock + max(length_s, 1.5 / hz)
            ticks = round(begin * hz), round(clock * hz)
            # Tenths with the binary noise that EYE GAZE's JSON shows, hundredths as CSV text does.
            start, stop = (tick * 0.1 if hz == 10 else tick / hz for tick in ticks)
            tokens.append(Token(word, start, stop, number))
    return tokens


def _length_s(word: str, rng: Rng) -> float:
    if word in (".", ",", "/"):
        return rng.uniform(0.22, 0.58)
    return 0.13 + 0.042 * len(word) * rng.uniform(0.8, 1.3)
