"""What a sentence mentions: findings and anatomy, the side, denials and doubts.

Terms and cues are declared (``data_manifests/words/mentions.toml``) and found by spaCy's matchers;
what a cue reaches is decided as NegEx does (Chapman et al. 2001), by punctuation and conjunctions.
No model is needed.
"""

import threading
import warnings
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span

FINDING, ANATOMY = "finding", "anatomy"
BOTH = "both"

_ONE_THREAD = threading.Lock()
_HARD = {".", ";", ":", "?", "!", "(", ")"}
_BESIDE = {"on", "at", "the", "side"}
_REACH_WORDS = 60
"""No cue, side or state is taken from farther: a dictation without a period is one sentence."""
_SIDE_WORDS = 4  # between a side and the anatomy that it is of: "left mid and lower lung"


class Mention(NamedTuple):
    """One finding or piece of anatomy, as a sentence has it.

    Attributes
    ----------
    name : str
        As declared.
    kind : {"finding", "anatomy"}
        Anatomy is never denied or doubted.
    side : {"left", "right", "both"} or None
        None where the sentence does not say.
    negated, uncertain : bool
        Denied, doubted; "unlikely" is both.
    """

    name: str
    kind: str
    side: str | None = None
    negated: bool = False
    uncertain: bool = False


class _Found(NamedTuple):
    """A term or cue in a sentence: words `first` up to `end`."""

    name: str
    first: int
    end: int


class Vocabulary:
    """Declared terms and cues, as spaCy's matchers know them.

    Parameters
    ----------
    declared : mapping
        ``findings``, ``states``, ``other``, ``anatomy``, ``anatomy_of_both``, ``sides``, ``cues``.
    """

    def __init__(self, declared: Mapping[str, Any]) -> None:
        with _ONE_THREAD, warnings.catch_warnings():  # spaCy adds filters, which are the user's
            import spacy
            from spacy.matcher import Matcher, PhraseMatcher

            self._read = spacy.blank("en")
        self._matcher = PhraseMatcher(self._read.vocab, attr="LOWER")
        cues = declared["cues"]
        self._words = {name: {*cues[name]} for name in _WORDS}
        findings = declared["findings"]
        groups = {
            "finding": {name: one["said"] for name, one in findings.items()},
            "part": {name: one["parts"] for name, one in findings.items() if "parts" in one},
            "other": {"": declared["other"]["said"]},
            "anatomy": declared["anatomy"],
            "no anatomy": {"": declared["no_anatomy"]["said"]},
            "anatomy of both": declared["anatomy_of_both"],
            "side": declared["sides"],
            "state": declared["states"],
            "cue": {name: cues[name] for name in _CUES},
        }
        for kind, named in groups.items():
            plural = kind in ("finding", "part", "other", "anatomy")
            for name, terms in named.items():
                forms = [form for term in terms for form in (_forms(term) if plural else [term])]
                self._matcher.add(f"{kind}:{name}", [self._read.make_doc(one) for one in forms])
        self._changes = Matcher(self._read.vocab)
        between = [{"LOWER": {"IN": cues["change_between"]}, "OP": "*"}]
        first, noun, verb = (
            {"LOWER": {"IN": cues[name]}} for name in ("change_denied", "change", "changed")
        )
        not_ = {"LOWER": {"IN": ["not", "n't", "without"]}}
        self._changes.add("change", [[first, *between, noun], [not_, *between, verb]])

    def mentions(self, text: str) -> list[Mention]:
        """Tell what a sentence mentions, in its order; each once."""
        doc = self._read.make_doc(text.replace("/", " / "))
        found = self._found(doc)
        clause = _Clause([token.lower_ for token in doc], found, self._words)
        made = list(dict.fromkeys(clause.mentions()))
        sided = {one._replace(side=None) for one in made if one.side}
        return [one for one in made if one.side or one not in sided]

    def _found(self, doc: "Doc") -> dict[str, list[_Found]]:
        """Find terms and cues by kind; of those of one kind that overlap, the longest."""
        spans: dict[str, list[Span]] = {}
        for number, first, end in self._matcher(doc):
            span = doc[first:end]
            span.label = number
            kind, _, _ = span.label_.partition(":")
            spans.setdefault(_RIVALS.get(kind, kind), []).append(span)
        changes = self._changes(doc, as_spans=True)
        if changes:  # such a denial is no cue
            spans["cue"] = [*spans.get("cue", []), *changes]
        found: dict[str, list[_Found]] = {}
        for rivals in spans.values():
            for span in _longest(rivals):
                kind, _, name = span.label_.partition(":")
                found.setdefault(kind, []).append(_Found(name, span.start, span.end))
        return found


_WORDS = ("begins", "joins", "verbs", "places", "inherits")
_CUES = (
    "lingering",
    "denied_before",
    "denied_after",
    "doubted_before",
    "doubted_after",
    "unlikely",
    "ends",
)
# Kinds of which the longest term wins over another kind's: a "pericardial effusion" is none.
_RIVALS = {"other": "finding", "anatomy of both": "anatomy", "no anatomy": "anatomy"}


def _forms(term: str) -> list[str]:
    return [term, f"{term}s", f"{term}es"]


def _longest(spans: Iterable["Span"]) -> list["Span"]:
    """Keep the longest of overlapping spans, and all that are equally long and alike.

    One term may stand for two findings ("hydropneumothorax"), one cue before and after.
    """
    kept: list[Span] = []
    taken: dict[int, tuple[int, int]] = {}
    for span in sorted(spans, key=lambda one: (one.start - one.end, one.start)):
        place = span.start, span.end
        if all(taken.get(at, place) == place for at in range(*place)):
            kept.append(span)
            taken |= dict.fromkeys(range(*place), place)
    return sorted(kept, key=lambda one: (one.start, one.end))


class _InOrder:
    """What was found of one kind, to ask for what begins within some words."""

    def __init__(self, found: list[_Found]) -> None:
        self.found = found
        self._firsts = [one.first for one in found]

    def between(self, first: int, end: int) -> list[_Found]:
        """Return what begins at `first` or later and before `end`."""
        return self.found[bisect_left(self._firsts, first) : bisect_left(self._firsts, end)]


class _Clause:
    """A sentence's words and what was found in them; decides what belongs to what."""

    def __init__(
        self,
        words: Sequence[str],
        found: dict[str, list[_Found]],
        sets: Mapping[str, set[str]],
    ) -> None:
        self._at = words
        self._sets = sets
        cues: dict[str, list[_Found]] = {name: [] for name in _CUES}
        for one in found.get("cue", []):
            cues[one.name].append(one)
        kinds = {kind: _InOrder(some) for kind, some in (found | cues).items()}
        self._kinds = defaultdict(lambda: _InOrder([]), kinds)
        self._hard = {at for at, word in enumerate(words) if word in _HARD and at < len(words) - 1}
        self._hard |= {at for one in cues["ends"] for at in range(one.first, one.end)}
        # Something of its own begins at an article, a size, a doubt.
        self._begins = {at for at, word in enumerate(words) if word in sets["begins"]}
        self._begins |= {cue.first for cue in cues["doubted_before"]}
        self._going_on: dict[tuple[int, bool], bool] = {}

    def mentions(self) -> list[Mention]:
        """Tell all mentions in the order of words."""
        findings = self._kinds["finding"].found
        made = [(one.first, self._finding(one)) for one in findings]
        said = {(one.first, one.name) for one in findings}
        for part in self._kinds["part"].found:
            if (state := self._state(part)) and (part.first, part.name) not in said:
                made.append((part.first, state))
        for one in self._kinds["anatomy"].found:
            made.append((one.first, Mention(one.name, ANATOMY, self._side_of_anatomy(one))))
        for one in self._kinds["anatomy of both"].found:
            made.append((one.first, Mention(one.name, ANATOMY, BOTH)))
        return [mention for _, mention in sorted(made, key=lambda one: one[0])]

    def _near(self, kind: str, one: _Found) -> list[_Found]:
        """Return what was found within reach of a mention."""
        return self._kinds[kind].between(one.first - _REACH_WORDS, one.end + _REACH_WORDS)

    # -- denial and doubt -------------------------------------------------------------------------

    def _finding(self, one: _Found) -> Mention:
        negated, uncertain = self._judged(one)
        return Mention(one.name, FINDING, self._side_of_finding(one), negated, uncertain)

    def _judged(self, one: _Found) -> tuple[bool, bool]:
        denials = self._reaching("denied_before", one)
        doubts = [
            cue
            for cue in self._reaching("doubted_before", one)
            if not any(self._governs(no, cue) for no in denials)
        ]
        unlikely = [
            cue
            for cue in self._near("unlikely", one)
            if self._reaches(cue, one) or self._reaches_back(cue, one)
        ]
        asked, answer = self._question(one)
        negated = bool(denials or unlikely or answer)
        negated |= any(self._reaches_back(cue, one) for cue in self._near("denied_after", one))
        uncertain = bool(doubts or unlikely or (asked and not answer))
        uncertain |= any(self._reaches_back(cue, one) for cue in self._near("doubted_after", one))
        return negated, uncertain or (not negated and self._is_alternative(one))

    def _question(self, one: _Found) -> tuple[bool, bool]:
        """Tell whether a mention is asked for, and whether the answer is no: "effusion? none"."""
        for at in range(one.end, min(one.end + _REACH_WORDS, len(self._at))):
            if self._at[at] == "?":
                return True, self._at[at + 1 : at + 2] in (["no"], ["none"], ["negative"])
            if at in self._hard:
                break
        return False, False

    def _governs(self, denial: _Found, doubt: _Found) -> bool:
        """Tell "no opacity to suggest ..." from "probably no ..."."""
        return denial.end <= doubt.first and not self._stops(denial.end, doubt.first)

    def _reaching(self, kind: str, one: _Found) -> list[_Found]:
        """Return the cues of a kind that reach forward to a mention."""
        found = []
        for cue in reversed(self._near(kind, one)):
            if cue.end <= one.first and self._stops(cue.end, one.first):
                break  # what stops here stops all that was said before
            if self._reaches(cue, one):
                found.append(cue)
        return found[::-1]

    def _reaches(self, cue: _Found, one: _Found) -> bool:
        if cue.end > one.first:
            # "heart is not enlarged": within the term
            return one.first < cue.first and cue.end < one.end
        if self._stops(cue.end, one.first):
            return False
        if cue.name == "doubted_before":
            # A denial begins anew, unless it stands beside the doubt: "probably no effusion".
            denials = self._near("denied_before", one)
            between = [no for no in denials if cue.end <= no.first < one.first]
            return all(not self._findings_in(cue.end, no.first) for no in between)
        return True

    def _reaches_back(self, cue: _Found, one: _Found) -> bool:
        if cue.first < one.end or self._hard & {*range(one.end, cue.first)}:
            return False
        between = self._at[one.end : cue.first]
        others = self._findings_in(one.end, cue.first)
        if (
            cue.name == "doubted_after"
            and self._at[cue.first] in ("versus", "vs", "vs.")
            and others
        ):
            return False
        if "," in between and not {*between} & self._sets["joins"]:
            return False
        verbs = [at for at, word in enumerate(between, one.end) if word in self._sets["verbs"]]
        if others and any(at < others[-1].first for at in verbs):
            return False  # what is between has said its own
        denials = self._near("denied_before", one)
        if others and any(one.end <= no.first and no.end <= cue.first for no in denials):
            return False
        # "Opacities concerning for pneumonia are not seen": both.
        doubts = self._near("doubted_before", one)
        joined = any(word in self._sets["joins"] for word in between)
        joined |= any(one.end <= doubt.first < cue.first for doubt in doubts)
        return not others or joined

    def _stops(self, first: int, end: int) -> bool:
        """Tell whether what is said before ends between two words."""
        if self._hard & {*range(first, end)}:
            return True
        sides = {side.first for side in self._near("side", _Found("", first, first))}
        if any(one.end in sides for one in self._findings_in(first, end)):
            return True  # "no pneumothorax left effusion", from a recogniser without punctuation
        had_verb = False
        for at in range(first, end):
            word = self._at[at]
            had_verb = had_verb or word in self._sets["verbs"]
            if word == "and" and (had_verb or at + 1 in self._begins):
                return True
            if word == ",":
                if (at, had_verb) not in self._going_on:  # asked for each cue before it
                    self._going_on[at, had_verb] = self._list_goes_on(at, had_verb)
                if not self._going_on[at, had_verb]:
                    return True
        return False

    def _list_goes_on(self, comma: int, had_verb: bool) -> bool:
        """Tell "no effusion, consolidation or edema" from "no effusion, small nodule"."""
        after = self._at[comma + 1 : comma + 2]
        if after in (["or"], ["nor"]):
            return True
        if after == ["and"]:
            return not had_verb and comma + 2 not in self._begins
        if had_verb:
            return False
        for at in range(comma + 1, min(comma + _REACH_WORDS, len(self._at))):
            if self._at[at] in ("or", "nor"):
                return True
            if at in self._hard or self._at[at] in self._sets["verbs"]:
                break
            if self._at[at] == "only":
                return False
        sides = self._near("side", _Found("", comma, comma))
        is_side = any(side.first == comma + 1 for side in sides)
        return not is_side and comma + 1 not in self._begins

    def _is_alternative(self, one: _Found) -> bool:
        """Tell "atelectasis or pneumonia": either, so neither for sure."""
        if any(change.end <= one.first for change in self._near("change", one)):
            return False  # "no change in the effusion or edema"
        for other in self._near("finding", one):
            first, second = sorted((one, other), key=lambda mention: mention.first)
            between = {*self._at[first.end : second.first]}
            joined = "or" in between and not between & {"and", *self._sets["verbs"]}
            # "An opacity may be atelectasis or pneumonia": the opacity is there.
            doubts = self._near("doubted_before", first)
            joined = joined and not any(first.end <= cue.first < second.first for cue in doubts)
            if joined and not self._stops(first.end, second.first):
                return True
        return False

    def _findings_in(self, first: int, end: int) -> list[_Found]:
        return [one for one in self._kinds["finding"].between(first, end) if one.end <= end]

    # -- states -----------------------------------------------------------------------------------

    def _state(self, part: _Found) -> Mention | None:
        """Make a finding of a part and its state: "heart is normal", "prominent left hilum"."""
        before = [
            state
            for state in self._near("state", part)
            if state.end <= part.first
            and part.first - state.end <= _SIDE_WORDS
            and not self._stops(state.end, part.first)
            and not {*self._at[state.end : part.first]} & self._sets["verbs"]
            and not self._findings_in(state.end, part.first)
        ]
        after = [
            state
            for state in self._near("state", part)
            if part.end <= state.first and self._says_of(part, state)
        ]
        if not before and not after:
            return None
        state = before[-1] if before and (not after or before[-1].end == part.first) else after[0]
        first, end = min(part.first, state.first), max(part.end, state.end)
        negated, uncertain = self._judged(_Found(part.name, first, end))
        denials = self._near("denied_before", part)
        inside = [cue for cue in denials if first <= cue.first < state.first]
        side = self._side_of_anatomy(part)
        if state.name == "denied":
            return Mention(part.name, FINDING, side, not inside, uncertain)
        doubted = uncertain or state.name == "doubted"
        return Mention(part.name, FINDING, side, negated or bool(inside), doubted)

    def _says_of(self, part: _Found, state: _Found) -> bool:
        """Tell whether a state after a part is the part's: one verb, and no end between."""
        between = range(part.end, state.first)
        if self._at[part.end : state.first] == [":"]:  # a heading
            return True
        if self._hard & {*between} or self._findings_in(part.end, state.first):
            return False
        verbs = [at for at in between if self._at[at] in self._sets["verbs"]]
        if not verbs:
            return not between
        commas = [at for at in between if self._at[at] == "," and at > verbs[0]]
        joined = [at for at in between if self._at[at] == "and" and at > verbs[0]]
        return not commas and not joined

    # -- sides ------------------------------------------------------------------------------------

    def _side_of_anatomy(self, one: _Found) -> str | None:
        near = [
            side
            for side in self._near("side", one)
            if side.end <= one.first
            and one.first - side.end <= _SIDE_WORDS
            and not self._stops(side.end, one.first)
            and not {*self._at[side.end : one.first]}
            & {",", *self._sets["verbs"], *self._sets["places"]}
        ]
        for side in self._near("side", one):
            own = one.first <= side.first and side.end <= one.end  # "lingula"
            after = self._at[one.end : side.first] if one.end <= side.first else ["?"]
            if own or (not near and {*after} <= _BESIDE and "?" not in after):
                return side.name
        return near[-1].name if near else None

    def _side_of_finding(self, one: _Found) -> str | None:
        before = [side for side in self._near("side", one) if side.end <= one.first]
        if before:
            side = before[-1]
            between = {*self._at[side.end : one.first]}
            is_lungs = any(where.first == side.end for where in self._near("anatomy", one))
            ends = {",", "and"} if is_lungs else {",", "and", *self._sets["verbs"]}
            apart = self._hard & {*range(side.end, one.first)} or between & ends
            if not apart and not self._findings_in(side.end, one.first):
                return BOTH if self._is_second_side(side, before) else side.name
        return self._said_after(one) or self._inherited(one)

    def _is_second_side(self, side: _Found, before: list[_Found]) -> bool:
        """Tell "moderate left and small right effusions": of the finding after them are both."""
        others = [one for one in before if one.end <= side.first and one.name != side.name]
        if not others or side.first - others[-1].end > 2 * _SIDE_WORDS:
            return False
        between = {*self._at[others[-1].end : side.first]}
        apart = between & {",", *self._sets["verbs"]} or self._findings_in(
            others[-1].end, side.first
        )
        return "and" in between and not apart

    def _inherited(self, one: _Found) -> str | None:
        """Take the side of the finding before that may be this one, or has it beside it."""
        before = [other for other in self._near("finding", one) if other.end <= one.first]
        doubts = self._reaching("doubted_before", one)
        beside = one.first > 0 and self._at[one.first - 1] in self._sets["inherits"]
        if not before or not (doubts or beside):
            return None
        first = (
            before[-1]
            if beside
            else next((other for other in reversed(before) if other.end <= doubts[0].first), None)
        )
        return self._side_of_finding(first) if first else None

    def _said_after(self, one: _Found) -> str | None:
        """Take the first side after a mention: "... at the left base", "... on the right"."""
        for side in self._near("side", one):
            if side.first < one.end:
                continue
            if self._hard & {*range(one.end, side.first)}:
                return None
            between = self._at[one.end : side.first]
            if between == [","] and side.name == BOTH:  # "effusions, left greater than right"
                return BOTH
            if {",", "and", "or"} & {*between}:
                has_place = bool({*between[-2:]} & self._sets["places"])
                if not has_place or {*between} & self._sets["verbs"]:
                    return None
            return (
                side.name
                if not between or {*between} & self._sets["places"] or side.name == BOTH
                else None
            )
        return None
