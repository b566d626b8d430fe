"""MIMIC-CXR reports: FINDINGS and IMPRESSION alone, sentence by sentence."""

import pytest

from egma_prep.errors import BadInputError
from egma_prep.parse import mimic_cxr
from egma_prep.sentences import join_words, sentence_spans

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old with cough.

 COMPARISON:  None.

 FINDINGS:

 PA and lateral views.  The heart measures
 1.5 cm more than on ___.  No effusion

 1. Dr. ___ was told

 IMPRESSION:

 No acute process
"""


def sentences(report: str) -> list[str]:
    words, paragraphs = mimic_cxr.words(report.encode(), "s1.txt")
    spans = sentence_spans(
        words.text, words.begin_s.tolist(), words.end_s.tolist(), 0.7, paragraphs
    )
    assert [at for first, last in spans for at in range(first, last + 1)] == [
        *range(len(words.text))
    ]
    return [join_words(words.text[first : last + 1]) for first, last in spans]


def test_findings_and_impression_are_cut_into_sentences() -> None:
    assert sentences(REPORT) == [
        "PA and lateral views.",
        "The heart measures 1.5 cm more than on ___.",
        "No effusion",
        "1. Dr. ___ was told",
        "No acute process",
    ]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("IMPRESSION: Clear.\nFINDINGS: Normal heart.", ["Normal heart.", "Clear."]),
        ("FINDINGS AND IMPRESSION:\n Clear.", ["Clear."]),
        ("IMPRESSION: No change\r\n\r\nSigned by: x", ["No change", "Signed by: x"]),
        ("FINDINGS: Clear.\nRECOMMENDATION: Repeat.", ["Clear."]),
    ],
    ids=["in reading order", "one heading for both", "CRLF", "no other section"],
)
def test_headings_are_found(report: str, expected: list[str]) -> None:
    assert sentences(report) == expected


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ("FINAL REPORT\n INDICATION: cough.\n Clear lungs.", "no_report_section"),
        ("Clear lungs.", "no_report_section"),
        ("FINDINGS:\n\n .\nIMPRESSION:", "empty_transcript"),
        ("", "empty_file"),
    ],
    ids=["other sections", "no sections", "no words", "nothing"],
)
def test_a_report_without_words_of_ours_is_a_named_reject(report: str, reason: str) -> None:
    with pytest.raises(BadInputError) as caught:
        mimic_cxr.words(report.encode(), "s1.txt")
    assert caught.value.reason == reason
