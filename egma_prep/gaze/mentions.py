"""What a sentence mentions: findings and anatomy, the side, denials and doubts.

Terms and cues are declared (``data_manifests/words/mentions.toml``) and found by spaCy's matchers;
what a cue reaches is decided as NegEx does (Chapman et al. 2001), by punctuation and conjunctions.
No model is needed.
"""

import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span

FINDING, ANATOMY = "finding", "anatomy"
BOTH = "both"

_ONE_THREAD = threading.Lock()
_HARD = {".", ";", ":", "?", "!", "(", ")"}
_BESIDE = {"on", "at", "the", "side"}
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
        first, last = ({"LOWER": {"IN": cues[name]}} for name in ("change_denied", "change"))
        self._changes.add("change", [[first, *between, last]])

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
_CUES = ("denied_before", "denied_after", "doubted_before", "doubted_after", "unlikely", "ends")
# Kinds of which the longest term wins over another kind's: a "pericardial effusion" is none.
_RIVALS = {"other": "finding", "anatomy of both": "anatomy", "no anatomy": "anatomy"}


def _forms(term: str) -> list[str]:
    return [term, f"{term}s", f"{term}es"]


def _longest(spans: Iterable["Span"]) -> list["Span"]:
    """Keep the longest of overlapping spans, and all that are equally long and alike.

    One term may stand for two findings ("hydropneumothorax"), one cue before and after.
    """
    kept: list[Span] = []
    for span in sorted(spans, key=lambda one: (one.start - one.end, one.start)):
        others = (one for one in kept if one.start < span.end and span.start < one.end)
        if all((one.start, one.end) == (span.start, span.end) for one in others):
            kept.append(span)
    return sorted(kept, key=lambda one: (one.start, one.end))


class _Clause:
    """A sentence's words and what was found in them; decides what belongs to what."""

    def __init__(
        self,
        words: Sequence[str],
        found: Mapping[str, list[_Found]],
        sets: Mapping[str, set[str]],
    ) -> None:
        self._at = words
        self._sets = sets
        self._kinds = found
        self._findings = found.get("finding", [])
        self._cues = {
            name: [one for one in found.get("cue", []) if one.name == name] for name in _CUES
        }
        self._hard = {at for at, word in enumerate(words) if word in _HARD and at < len(words) - 1}
        self._hard |= {at for one in self._cues["ends"] for at in range(one.first, one.end)}

    def mentions(self) -> list[Mention]:
        """Tell all mentions in the order of words."""
        made = [(one.first, self._finding(one)) for one in self._findings]
        said = {(one.first, one.name) for one in self._findings}
        for part in self._kinds.get("part", []):
            if (state := self._state(part)) and (part.first, part.name) not in said:
                made.append((part.first, state))
        for one in self._kinds.get("anatomy", []):
            made.append((one.first, Mention(one.name, ANATOMY, self._side_of_anatomy(one))))
        for one in self._kinds.get("anatomy of both", []):
            made.append((one.first, Mention(one.name, ANATOMY, BOTH)))
        return [mention for _, mention in sorted(made, key=lambda one: one[0])]

    # -- denial and doubt -------------------------------------------------------------------------

    def _finding(self, one: _Found) -> Mention:
        negated, uncertain = self._judged(one)
        return Mention(one.name, FINDING, self._side_of_finding(one), negated, uncertain)

    def _judged(self, one: _Found) -> tuple[bool, bool]:
        denials = [cue for cue in self._cues["denied_before"] if self._reaches(cue, one)]
        doubts = [
            cue
            for cue in self._cues["doubted_before"]
            if self._reaches(cue, one) and not any(self._governs(no, cue) for no in denials)
        ]
        unlikely = [
            cue
            for cue in self._cues["unlikely"]
            if self._reaches(cue, one) or self._reaches_back(cue, one)
        ]
        negated = bool(denials or unlikely)
        negated |= any(self._reaches_back(cue, one) for cue in self._cues["denied_after"])
        uncertain = bool(doubts or unlikely)
        uncertain |= any(self._reaches_back(cue, one) for cue in self._cues["doubted_after"])
        return negated, uncertain or (not negated and self._is_alternative(one))

    def _governs(self, denial: _Found, doubt: _Found) -> bool:
        """Tell "no opacity to suggest ..." from "probably no ..."."""
        return denial.end <= doubt.first and not self._stops(denial.end, doubt.first)

    def _reaches(self, cue: _Found, one: _Found) -> bool:
        if cue.end > one.first:
            # "heart is not enlarged": within the term
            return one.first < cue.first and cue.end < one.end
        if self._stops(cue.end, one.first):
            return False
        if cue.name == "doubted_before":
            # A denial begins anew, unless it stands beside the doubt: "probably no effusion".
            between = [no for no in self._cues["denied_before"] if cue.end <= no.first < one.first]
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
        own_denial = self._cues["denied_before"]
        if others and any(one.end <= no.first and no.end <= cue.first for no in own_denial):
            return False
        joined = [word for word in between if word in self._sets["joins"]]
        return not others or bool(joined)

    def _stops(self, first: int, end: int) -> bool:
        """Tell whether what is said before ends between two words."""
        if self._hard & {*range(first, end)}:
            return True
        had_verb = False
        for at in range(first, end):
            word = self._at[at]
            had_verb = had_verb or word in self._sets["verbs"]
            if word == "and" and (had_verb or self._begins(at + 1)):
                return True
            if word == "," and not self._list_goes_on(at, had_verb):
                return True
        return False

    def _begins(self, at: int) -> bool:
        """Tell whether something of its own begins at a word: an article, a size, a doubt."""
        doubts = (cue.first for cue in self._cues["doubted_before"])
        return at < len(self._at) and (self._at[at] in self._sets["begins"] or at in doubts)

    def _list_goes_on(self, comma: int, had_verb: bool) -> bool:
        """Tell "no effusion, consolidation or edema" from "no effusion, small nodule"."""
        after = self._at[comma + 1 :]
        if after and after[0] in ("or", "nor"):
            return True
        if after and after[0] == "and":
            return not had_verb and not self._begins(comma + 2)
        if had_verb:
            return False
        until = next((at for at in range(comma + 1, len(self._at)) if at in self._hard), None)
        rest = self._at[comma + 1 : until]
        for word in rest:
            if word in ("or", "nor"):
                return True
            if word in self._sets["verbs"]:
                break
        is_side = any(side.first == comma + 1 for side in self._kinds.get("side", []))
        return not (is_side or self._begins(comma + 1))

    def _is_alternative(self, one: _Found) -> bool:
        """Tell "atelectasis or pneumonia": either, so neither for sure."""
        if any(change.end <= one.first for change in self._kinds.get("change", [])):
            return False  # "no change in the effusion or edema"
        for other in self._findings:
            first, second = sorted((one, other), key=lambda mention: mention.first)
            between = {*self._at[first.end : second.first]}
            joined = "or" in between and not between & {"and", *self._sets["verbs"]}
            if joined and not self._stops(first.end, second.first):
                return True
        return False

    def _findings_in(self, first: int, end: int) -> list[_Found]:
        return [one for one in self._findings if first <= one.first and one.end <= end]

    # -- states -----------------------------------------------------------------------------------

    def _state(self, part: _Found) -> Mention | None:
        """Make a finding of a part and its state: "heart is normal", "prominent left hilum"."""
        before = [
            state
            for state in self._kinds.get("state", [])
            if state.end <= part.first
            and part.first - state.end <= _SIDE_WORDS
            and not self._stops(state.end, part.first)
            and not {*self._at[state.end : part.first]} & self._sets["verbs"]
            and not self._findings_in(state.end, part.first)
        ]
        after = [
            state
            for state in self._kinds.get("state", [])
            if part.end <= state.first and self._says_of(part, state)
        ]
        if not before and not after:
            return None
        state = before[-1] if before and (not after or before[-1].end == part.first) else after[0]
        first, end = min(part.first, state.first), max(part.end, state.end)
        negated, uncertain = self._judged(_Found(part.name, first, end))
        inside = [cue for cue in self._cues["denied_before"] if first <= cue.first < state.first]
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
            for side in self._kinds.get("side", [])
            if side.end <= one.first
            and one.first - side.end <= _SIDE_WORDS
            and not self._stops(side.end, one.first)
            and not {*self._at[side.end : one.first]}
            & {",", *self._sets["verbs"], *self._sets["places"]}
        ]
        for side in self._kinds.get("side", []):
            own = one.first <= side.first and side.end <= one.end  # "lingula"
            after = self._at[one.end : side.first] if one.end <= side.first else ["?"]
            if own or (not near and {*after} <= _BESIDE and "?" not in after):
                return side.name
        return near[-1].name if near else None

    def _side_of_finding(self, one: _Found) -> str | None:
        before = [side for side in self._kinds.get("side", []) if side.end <= one.first]
        for side in reversed(before):
            between = {*self._at[side.end : one.first]}
            if self._hard & {*range(side.end, one.first)} or self._findings_in(side.end, one.first):
                break
            is_lungs = any(where.first == side.end for where in self._kinds.get("anatomy", []))
            if not between & ({",", "and"} if is_lungs else {",", "and", *self._sets["verbs"]}):
                return side.name
            break
        return self._said_after(one) or self._inherited(one)

    def _inherited(self, one: _Found) -> str | None:
        """Take the side of the finding before that may be this one, or has it beside it."""
        before = [other for other in self._findings if other.end <= one.first]
        doubts = [cue for cue in self._cues["doubted_before"] if self._reaches(cue, one)]
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
        for side in self._kinds.get("side", []):
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
