"""Transcripts cut by hand, and what holds for every transcript."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egma_prep.gaze.sentences import is_word, join_words, sentence_spans

# Tokens are parted by spaces, sentences by bars.
DICTATED = {
    "one sentence": "heart size is normal .",
    "two sentences": "heart size is normal . | no pleural effusion .",
    "commas end nothing": "no consolidation , effusion , or pneumothorax . | lungs clear .",
    "slashes end nothing": "no congestion and / or edema . | heart normal .",
    "colons and semicolons end nothing": "impression : clear lungs ; normal heart . | stable .",
    "a missing final period": "heart size is normal . | no pleural effusion",
    "only the first sentence has a period": "clear . | heart size normal and no effusion",
    "double periods stay with the sentence they end": "lungs are clear . . | heart normal .",
    "triple periods too": "lungs are clear . . . | heart normal . .",
    "a leading period goes with the first words": ". heart size normal . | no effusion .",
    "two leading periods": ". . heart size normal . | no effusion .",
    "a question": "right effusion ? | none seen .",
    "an exclamation": "large pneumothorax ! | call the ward .",
    "question and period": "effusion ? . | none .",
    "the word none": "comparison none . | none",
    "words that tables take for blanks": "null . | nan . | na",
    "a single word": "normal",
    "a single word with its period": "normal .",
    "a single sentence of one letter": "a .",
    "a dictated decimal": "nodule of 1 . 5 cm . | clear .",
    "a decimal cut before its point": "nodule of 1 .5 cm . | clear .",
    "a whole decimal": "nodule of 1.5 cm . | clear .",
    "a decimal at the end": "it measures 1 . 5 . | clear .",
    "two decimals": "it measures 1 . 5 by 12 . 25 cm . | clear .",
    "a number at a sentence's end": "it measures 5 cm at level 4 . | heart normal .",
    "dictated enumeration": "1 . mild edema . | 2 . no effusion .",
    "enumeration after a sentence": "impression follows . | 1 . mild edema . | 2 . clear .",
    "enumeration to ten": "9 . mild edema . | 10 . no effusion .",
    "enumeration without a period at the end": "1 . mild edema . | 2 . no effusion",
    "enumeration after a colon": "impression : 1 . mild edema . | 2 . no effusion .",
    "enumeration that runs on": "1 . no pneumonia | 2 . small effusion | 3 . clear .",
    "a number that names a part": "1 . nodule in segment 2 . | heart normal .",
    "a number after the list's sentence": "1 . clear . | nodule at t 2 . | heart normal .",
    "an abbreviation": "discussed with dr . miller at noon . | stable .",
    "an abbreviation with its period": "discussed with dr. miller at noon . | stable .",
    "versus": "artifact vs. skin fold . | atelectasis vs . pneumonia .",
    "for example, as released": "devices , e .g . a port , are absent . | clear .",
    "for example, in one token": "devices , e.g. a port , are absent . | clear .",
    "that is": "enlarged , i.e. abnormal . | enlarged , i .e . abnormal .",
    "a view": "single a.p. view of the chest . | upright a .p . view .",
    "an abbreviation last": "artifact vs.",
    "unicode": "größe normal . | 心臓 正常 . | кости целы .",
    "emoji": "lungs 🫁 are clear . | heart ❤️ normal .",
    "capitals": "Heart Size Normal . | Dr . Miller Was Told .",
    "a removed name begins a sentence": "clear . | ___ was told . | seen ___ .",
    "a removed name alone ends with what was said": "told ___ . ___ .",
    "a dash stays where it was dictated": "clear . - | heart normal .",
    "three sentences": "heart normal . | lungs clear . | no effusion .",
}  # fmt: skip
GLUED = {
    "glued periods": "heart size is normal. | no pleural effusion.",
    "glued commas and slashes": "no effusion, edema and/or mass. | heart normal.",
    "glued, without the last period": "heart is normal. | no effusion",
    "glued question and exclamation": "effusion? | none! | good.",
    "glued decimals": "nodule of 1.5 cm. | it was 1.25 cm.",
    "a glued decimal at the end": "the nodule measures 1.5. | the heart is normal.",
    "glued enumeration": "1. mild edema. | 2. no effusion.",
    "glued enumeration after a colon": "impression: 1. mild edema. | 2. no effusion.",
    "glued enumeration that runs on": "1. No pneumonia | 2. Small effusion",
    "enumeration that runs on after a colon": "impression: 1. mild edema | 2. no effusion.",
    "enumeration that runs on after an abbreviation": "1. seen by dr. miller | 2. no effusion.",
    "numbers that do not follow each other": "1. nodule at t 9. | No mass",
    "glued abbreviations": "seen by dr. miller. | devices, e.g. a port. | scar vs. nodule.",
    "glued initials": "single a.p. view. | no change, i.e. stable.",
    "capital abbreviations": "Seen by Dr. Miller. | E.g. a port. | Single A.P. view.",
    "glued double periods": "heart is normal.. | no effusion.",
    "a period before a closing quote": 'she said "better." | (lungs are clear.) | heart normal.',
    "an ellipsis": "the heart is... | normal.",
}


def _cut(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Take a transcript with bars apart: its tokens, and first and last token of each sentence."""
    tokens: list[str] = []
    spans = []
    for sentence in text.split(" | "):
        first = len(tokens)
        tokens += sentence.split()
        spans.append((first, len(tokens) - 1))
    return tokens, spans


@pytest.mark.parametrize("text", [pytest.param(t, id=name) for name, t in DICTATED.items()])
def test_dictated_transcripts_are_cut_by_their_punctuation(text: str) -> None:
    tokens, spans = _cut(text)
    # Long silences everywhere: they decide nothing where there is punctuation.
    begin = [2.0 * k for k in range(len(tokens))]
    found = sentence_spans(tokens, begin, [b + 0.5 for b in begin], pause_s=100)
    assert [tuple(span) for span in found] == spans


@pytest.mark.parametrize("text", [pytest.param(t, id=name) for name, t in GLUED.items()])
def test_transcripts_with_glued_periods_are_cut_by_their_punctuation(text: str) -> None:
    tokens, spans = _cut(text)
    begin = [0.3 * k for k in range(len(tokens))]
    found = sentence_spans(tokens, begin, [b + 0.3 for b in begin])
    assert [tuple(span) for span in found] == spans


def test_silences_decide_nothing_where_punctuation_was_dictated() -> None:
    tokens, spans = _cut("heart size is normal . | no effusion , no mass . | clear")
    begin = [2.0 * k for k in range(len(tokens))]
    found = sentence_spans(tokens, begin, [b + 0.5 for b in begin])
    assert [tuple(span) for span in found] == spans


@pytest.mark.parametrize(
    ("end_s", "begin_s", "cut"),
    [
        pytest.param(0.5, 1.2, True, id="0.7"),
        pytest.param(0.6, 1.3, True, id="0.7 as 1.3 - 0.6"),
        pytest.param(7.5, 8.2, True, id="0.7 as 8.2 - 7.5, which floats make less"),
        pytest.param(16.4, 17.1, True, id="0.7 as 17.1 - 16.4"),
        pytest.param(0.5, 5.0, True, id="long"),
        pytest.param(0.5, 1.19, False, id="0.69"),
        pytest.param(0.5, 1.199, False, id="0.699"),
        pytest.param(0.5, 0.5, False, id="none"),
        pytest.param(0.5, 0.4, False, id="overlapping words"),
    ],
)
def test_without_punctuation_pauses_of_seven_tenths_cut(
    end_s: float, begin_s: float, cut: bool
) -> None:
    found = sentence_spans(["clear", "normal"], [0.0, begin_s], [end_s, begin_s + 0.4])
    assert [tuple(span) for span in found] == ([(0, 0), (1, 1)] if cut else [(0, 1)])


def test_the_pause_is_an_option() -> None:
    words = ["clear", "normal"], [0.0, 1.5], [0.5, 2.0]
    assert len(sentence_spans(*words, pause_s=1.0)) == 2
    assert len(sentence_spans(*words, pause_s=1.25)) == 1


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("heart normal | no effusion | clear", id="words alone"),
        pytest.param("heart normal , no mass | no effusion / edema | clear", id="commas, slashes"),
        pytest.param("nodule 1 . 5 cm | 1.5 cm | 1 .5 cm", id="decimal points"),
        pytest.param("artifact vs. skin fold | seen by dr . miller", id="abbreviations"),
        pytest.param("1 . mild edema | no effusion", id="enumeration"),
    ],
)
def test_points_that_end_no_sentence_leave_a_transcript_to_its_pauses(text: str) -> None:
    tokens, spans = _cut(text)
    firsts = {first for first, _ in spans}
    clock, begin = 0.0, []
    for index in range(len(tokens)):
        clock += 1.0 if index in firsts else 0.1
        begin.append(clock)
        clock += 0.3
    found = sentence_spans(tokens, begin, [b + 0.3 for b in begin])
    assert [tuple(span) for span in found] == spans


TOKENS = st.lists(
    st.one_of(
        st.sampled_from(
            ["heart", "no", "none", "1", "2.", "12", ".5", "1.5", "dr.", "dr", "vs.", "e.g.", "e",
             ".g", "normal.", "mass?", "clear!", ".", ".", ",", "/", "?", "!", ":", "..", "(", ").",
             '"', "größe", "🫁", "a.p."]
        ),
        st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=25,
)  # fmt: skip


@settings(deadline=None)
@given(tokens=TOKENS, gaps=st.lists(st.floats(-0.2, 2.0), min_size=25, max_size=25))
def test_every_token_belongs_to_exactly_one_sentence(tokens: list[str], gaps: list[float]) -> None:
    begin = [0.3 * k + sum(gaps[:k]) for k in range(len(tokens))]
    spans = sentence_spans(tokens, begin, [b + 0.3 for b in begin])
    covered = [index for first, last in spans for index in range(first, last + 1)]
    assert covered == list(range(len(tokens)))
    assert all(first <= last for first, last in spans)


@settings(deadline=None)
@given(tokens=TOKENS)
def test_every_sentence_has_a_word_where_the_transcript_has_one(tokens: list[str]) -> None:
    begin = [0.3 * k for k in range(len(tokens))]
    spans = sentence_spans(tokens, begin, [b + 0.3 for b in begin])
    if any(character.isalnum() for token in tokens for character in token):
        for first, last in spans:
            text = "".join(tokens[first : last + 1])
            assert any(character.isalnum() for character in text)


@settings(deadline=None)
@given(
    sentences=st.lists(
        st.lists(st.sampled_from(["heart", "lungs", "normal", "no"]), min_size=2),
        min_size=1,
        max_size=8,
    ),
    glued=st.booleans(),
)
def test_plain_sentences_come_back_as_they_were_said(
    sentences: list[list[str]], glued: bool
) -> None:
    said = [[*one[:-1], one[-1] + "."] if glued else [*one, "."] for one in sentences]
    tokens = [token for one in said for token in one]
    begin = [float(k) for k in range(len(tokens))]
    spans = sentence_spans(tokens, begin, [b + 0.3 for b in begin])
    assert [tokens[first : last + 1] for first, last in spans] == said


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("heart size normal .", "heart size normal."),
        ("no mass , no effusion .", "no mass, no effusion."),
        ("and / or edema", "and/or edema"),
        ("1 . 5 cm", "1. 5 cm"),
        ("1 .5 cm", "1.5 cm"),
        ("normal . .", "normal.."),
        (". normal", ". normal"),
        ("effusion ?", "effusion ?"),
        ("normal.", "normal."),
        ("normal", "normal"),
    ],
)
def test_words_are_joined_as_they_would_be_written(tokens: str, text: str) -> None:
    assert join_words(tokens.split()) == text


@given(
    tokens=st.lists(
        st.sampled_from(["heart", "no", "1", ".5", "größe", "normal.", ".", ",", "/"]), min_size=1
    )
)
def test_points_and_commas_close_up_before_and_slashes_on_both_sides(tokens: list[str]) -> None:
    # Joined by spaces, then the spaces taken out again: the relation of the released transcripts.
    spaced = " ".join(tokens)
    written = re.sub(r" ?/ ?", "/", re.sub(r" (?=[.,])", "", spaced))
    assert join_words(tokens) == written


@pytest.mark.parametrize("token", ["heart", "none", "1", "1.5", ".5", "normal.", "größe", "心臓"])
def test_letters_and_digits_make_a_word(token: str) -> None:
    assert is_word(token)


@pytest.mark.parametrize("token", [".", ",", "/", "?", "!", ":", "..", "🫁", "-"])
def test_marks_alone_are_no_word(token: str) -> None:
    assert not is_word(token)


@pytest.mark.parametrize(
    ("text", "in_ascii"),
    [
        ("impression \u201cnormal.\u201d no effusion.", 'impression "normal." no effusion.'),
        ("impression \u201enormal.\u201c no effusion.", 'impression "normal." no effusion.'),
        ("impression \u2018normal.\u2019 no effusion.", "impression 'normal.' no effusion."),
        ("impression \u00abnormal.\u00bb no effusion.", 'impression "normal." no effusion.'),
        ("impression \u2039normal.\u203a no effusion.", 'impression "normal." no effusion.'),
        ("lungs clear\u2026 no effusion.", "lungs clear... no effusion."),
        ("lungs clear \u2026 no effusion.", "lungs clear ... no effusion."),
        ("lungs clear\uff0e no effusion\uff0e", "lungs clear. no effusion."),
        ("lungs clear\u3002 no effusion\u3002", "lungs clear. no effusion."),
        ("clear\uff1f no effusion\uff01", "clear? no effusion!"),
        ("clear\u061f no effusion.", "clear? no effusion."),
        ("1\u2024 clear", "1. clear"),
    ],
)
def test_sentences_end_beyond_ascii_where_they_end_in_ascii(text: str, in_ascii: str) -> None:
    def cut(text: str) -> list[tuple[int, int]]:
        tokens = text.split(" ")
        begin_s = [float(at) for at in range(len(tokens))]
        return [*sentence_spans(tokens, begin_s, [one + 0.9 for one in begin_s])]

    assert cut(text) == cut(in_ascii)
    assert join_words(text.split(" ")).count(" ") == join_words(in_ascii.split(" ")).count(" ")
