"""How well mentions are found in 300 invented sentences that were labelled by hand.

``PHANTOM-dictated-sentences.tsv`` was written and labelled without sight of the rules; those of odd
lines were looked at while the rules were made, those of even lines only counted.
``python tests/labelled_sentences.py [--wrong]`` prints the figures, and what odd lines got wrong.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

SENTENCES = Path(__file__).parent / "words" / "PHANTOM-dictated-sentences.tsv"
_SIGNS = {"+": (False, False), "-": (True, False), "?": (False, True), "-?": (True, True)}
ASKED = ("finding", "finding, denial, doubt", "side of a finding", "anatomy and its side")


class Labelled(NamedTuple):
    """A sentence, what it mentions, and whether its line's number is odd."""

    text: str
    findings: set[tuple[str, str | None, bool, bool]]
    anatomy: set[tuple[str, str | None]]
    looked_at: bool


class Share(NamedTuple):
    """Of what was found, how much is right; of what is there, how much was found."""

    precision: float
    recall: float
    there: int


def labelled() -> list[Labelled]:
    """Read all sentences."""
    found = []
    for number, line in enumerate(SENTENCES.read_text(encoding="utf-8").splitlines(), 1):
        text, _, labels = line.partition("\t")
        findings, anatomy = set(), set()
        for label in filter(None, map(str.strip, labels.split(";"))):
            name, _, side = label.lstrip("+-?@").partition("/")
            sign = label[: len(label) - len(label.lstrip("+-?@"))]
            if sign == "@":
                anatomy.add((name, side or None))
            else:
                findings.add((name, side or None, *_SIGNS[sign]))
        found.append(Labelled(text, findings, anatomy, number % 2 == 1))
    return found


def told(mentions: Any) -> tuple[set[Any], set[Any]]:
    """Take findings and anatomy of what ours mentions."""
    findings = {one[:1] + one[2:] for one in mentions if one.kind == "finding"}
    return findings, {(one.name, one.side) for one in mentions if one.kind == "anatomy"}


def shares(mentions_of: Any, sentences: list[Labelled]) -> dict[str, Share]:
    """Compare what is found with what was labelled, one question after the other."""
    right, made, there = Counter(), Counter(), Counter()
    for one in sentences:
        findings, anatomy = told(mentions_of(one.text))
        pairs = {
            ASKED[0]: ({f[0] for f in findings}, {f[0] for f in one.findings}),
            ASKED[1]: ({(f[0], *f[2:]) for f in findings}, {(f[0], *f[2:]) for f in one.findings}),
            ASKED[2]: ({f[:2] for f in findings if f[1]}, {f[:2] for f in one.findings if f[1]}),
            ASKED[3]: (anatomy, one.anatomy),
        }
        for asked, (ours, theirs) in pairs.items():
            right[asked] += len(ours & theirs)
            made[asked] += len(ours)
            there[asked] += len(theirs)
    return {
        asked: Share(right[asked] / made[asked], right[asked] / there[asked], there[asked])
        for asked in ASKED
    }


if __name__ == "__main__":
    from egma_prep.sources.manifests import vocabulary

    find, every = vocabulary().mentions, labelled()
    halves = {
        "looked at (odd lines)": [one for one in every if one.looked_at],
        "only counted (even lines)": [one for one in every if not one.looked_at],
        "all 300": every,
    }
    for title, some in halves.items():
        print(title)
        for asked, share in shares(find, some).items():
            figures = f"precision {share.precision:.3f}  recall {share.recall:.3f}"
            print(f"  {asked:24} {figures}  of {share.there}")
    if "--wrong" in sys.argv:
        for one in every:
            findings, anatomy = told(find(one.text))
            if one.looked_at and (findings, anatomy) != (one.findings, one.anatomy):
                print(one.text)
                for what, ours, theirs in (
                    ("", findings, one.findings),
                    ("@", anatomy, one.anatomy),
                ):
                    if ours != theirs:
                        print("   too much", what, ours - theirs, " missing", theirs - ours)
