"""MIMIC-CXR reports: FINDINGS and IMPRESSION alone, sentence by sentence."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egma_prep.errors import BadInputError
from egma_prep.gaze.sentences import join_words, sentence_spans
from egma_prep.sources.report_sections import report_words

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
    words, paragraphs, _ = report_words(report.encode(), "s1.txt")
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
        ("IMPRESSION: No change\r\rSigned by: x\r", ["No change", "Signed by: x"]),
        ("FINDINGS: Clear.\nRECOMMENDATION: Repeat.", ["Clear."]),
        ("Findings: Clear.\nImpression: Normal.", ["Clear.", "Normal."]),
        (" FINDINGS\n Clear.\n IMPRESSION\n Normal.", ["Clear.", "Normal."]),
        ("FINDINGS : Clear.\n IMPRESSION:Normal.", ["Clear.", "Normal."]),
        ("FINDINGS: Clear.\nCONCLUSION: Large effusion.", ["Clear.", "Large effusion."]),
        ("FINIDNGS: Clear.\nIMOPRESSION: Normal.", ["Clear.", "Normal."]),
        ("EXAM: x\n CHEST, TWO VIEWS:  The heart is large.", ["The heart is large."]),
        ("INDICATION: x\n AP CHEST 3 VIEWS:\n Edema.\n COMPARISON: y", ["Edema."]),
        ("CHEST, PA LATERAL:\n\n INDICATION: x\n\n FINDINGS: Clear.", ["Clear."]),
        (
            "FINDINGS:\n\n LUNGS: Nodule.\n SUPPORT: None.\n\n IMPRESSION: Nodule.",
            ["LUNGS: Nodule.", "SUPPORT: None.", "Nodule."],
        ),
        (
            "COMPARISON: None.\n LUNGS: Nodule.\n HEART SIZE: Large.\n IMPRESSION: Ill.",
            ["LUNGS: Nodule.", "HEART SIZE: Large.", "Ill."],
        ),
        (
            "IMPRESSION:\n\n AP CHEST, 5:32 A.M., ___:\n\n Edema.\n\n AT 3:45 PM told.",
            ["AP CHEST, 5:32 A.M., ___:", "Edema.", "AT 3:45 PM told."],
        ),
        (
            "FINAL REPORT INDICATION: Cough. FINDINGS: Clear. IMPRESSION: Normal.",
            ["Clear.", "Normal."],
        ),
        ("FINDINGS: Nodule at the apex.There is none.", ["Nodule at the apex.", "There is none."]),
    ],
    ids=[
        "in reading order", "one heading for both", "CRLF", "CR alone", "no other section",
        "not in capitals", "without a colon", "a blank before the colon and none after",
        "another word for the impression", "misspelt", "the view as heading",
        "the number of views as heading", "a title that looks like a heading",
        "headings below the findings", "parts of the body instead of findings",
        "times are no headings", "all in one line", "glued sentences",
    ],
)  # fmt: skip
def test_headings_are_found(report: str, expected: list[str]) -> None:
    assert sentences(report) == expected


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("FINAL REPORT\n\n Clear lungs.\n\n Normal heart.", ["Clear lungs.", "Normal heart."]),
        ("Clear lungs.", ["Clear lungs."]),
        ("INDICATION: Cough.\n \n Clear lungs.\n \n Normal.", ["Clear lungs.", "Normal."]),
        ("HISTORY: Cough.\n \n Clear.\n \n NOTIFICATION: Told Dr. ___.", ["Clear."]),
        ("FINDINGS:\n\n HISTORY: Cough.\n\n Clear lungs.", ["Clear lungs."]),
        ("HISTORY: Cough.\n\n Two views.\n\n Lungs: Clear.", ["Two views.", "Lungs: Clear."]),
    ],
    ids=[
        "a title alone", "nothing else", "below another section", "before a note",
        "empty findings", "with a part of the body amid it",
    ],
)  # fmt: skip
def test_without_findings_and_impression_the_last_paragraphs_are_taken_and_noted(
    report: str, expected: list[str]
) -> None:
    assert sentences(report) == expected
    assert report_words(report.encode(), "s1.txt").notes["reports_without_sections"] == 1


def test_an_unknown_heading_that_hides_text_is_noted() -> None:
    report = b"TECHNIQUE: Upright.\n LEVOSCOLIOSIS: Mild.\n FINDINGS: Clear.\n OTHER: Old."
    found = report_words(report, "s1.txt")
    assert found.words.text == ["Clear.", "OTHER:", "Old."]
    assert found.notes == {"report_headings_unknown": 1, "report_paragraphs_left_out": 0}


def test_paragraphs_below_another_section_are_noted() -> None:
    report = b"FINAL REPORT\n\n COMPARISON: ___.\n\n Large effusion.\n\n IMPRESSION: No change."
    found = report_words(report, "s1.txt")
    assert found.words.text == ["No", "change."]
    assert found.notes["report_paragraphs_left_out"] == 1


PURPOSES = {
    "views in it": "INDICATION FOR CHEST X-RAY: Suspected pneumothorax.",
    "its reason": "REASON FOR CHEST RADIOGRAPH: Rule out pneumothorax.",
    "not in capitals": "Reason for chest x-ray: Rule out pneumothorax.",
    "a symptom below it": "INDICATION: Cough.\n CHEST PAIN: rule out pneumothorax.",
    "a disease of an organ": "EXAMINATION: AP.\n HEART FAILURE: evaluate pneumothorax.",
    "a procedure at an organ": "TECHNIQUE: AP.\n LUNG TRANSPLANT: exclude pneumothorax.",
    "its history": "HISTORY OF HEART DISEASE: pneumothorax before.",
}


@pytest.mark.parametrize("name", PURPOSES)
def test_what_an_examination_is_for_is_no_finding(name: str) -> None:
    """Whoever asks names organs and views."""
    found = sentences(f"{PURPOSES[name]}\n FINDINGS: Clear.\n IMPRESSION: Normal.")
    assert found == ["Clear.", "Normal."]


@pytest.mark.parametrize("name", list(PURPOSES)[:3])
def test_what_an_examination_is_for_is_no_finding_where_it_stands_below_them(name: str) -> None:
    found = sentences(f"FINDINGS: Clear.\n {PURPOSES[name]}\n IMPRESSION: Normal.")
    assert found == ["Clear.", "Normal."]


@pytest.mark.parametrize(
    "taken",
    ["5:32 A.M.", "5:32 a.m.", "05:32", "___, 5:32 PM", "at 5:32 hours", "3/12/2130",
     "3/12/2130 at 5:32 AM"],
)  # fmt: skip
def test_when_views_were_taken_is_no_finding(taken: str) -> None:
    for rest in ("", " Edema.", "\n Edema."):
        found = sentences(f"EXAM: x\n PORTABLE AP CHEST: {taken}{rest}\n\n IMPRESSION: Ill.")
        assert found == (["Edema.", "Ill."] if rest else ["Ill."])


@pytest.mark.parametrize(
    "heading",
    ["CHEST, TWO VIEWS", "PA AND LATERAL CHEST RADIOGRAPHS", "SINGLE SEMI-UPRIGHT PORTABLE CHEST",
     "CHEST X-RAY, AP", "LINES AND TUBES", "HEART AND MEDIASTINUM", "BONES/SOFT TISSUES",
     "CARDIOMEDIASTINAL SILHOUETTE", "UPPER ABDOMEN", "OSSEOUS STRUCTURES"],
)  # fmt: skip
def test_headings_of_views_and_organs_begin_findings(heading: str) -> None:
    assert sentences(f"COMPARISON: None.\n {heading}: Edema.")[-1].endswith("Edema.")


@pytest.mark.parametrize(
    "heading",
    ["CHEST, ___", "PA AND LATERAL CHEST, ___", "PA AND LATERAL CHEST OF ___",
     "AP CHEST, 5:32 A.M., ___", "AP CHEST, 5:32 A.M. ON ___", "CHEST TWO VIEWS ON ___ AND ___",
     "PORTABLE AP CHEST FILM, ___ AT 05:20", "CHEST RADIOGRAPH PERFORMED ON ___",
     "AP CHEST COMPARED TO ___", "AP chest at 5:32 p.m. compared to ___ through ___",
     "Portable AP chest radiograph", "PA and lateral views of the chest", "Chest, two views, ___"],
)  # fmt: skip
def test_findings_below_views_with_a_date_or_not_in_capitals_are_kept(heading: str) -> None:
    body = f" {heading}:  Large effusion.\n\n IMPRESSION: Unchanged.\n"
    for before in ("FINAL REPORT\n", "INDICATION: Cough.\n\n"):
        assert sentences(before + body) == ["Large effusion.", "Unchanged."]


@pytest.mark.parametrize("line", ["Chest CT of ___", "Left", "Discussed findings with Dr. ___"])
def test_other_words_before_a_colon_begin_no_findings(line: str) -> None:
    report = f"COMPARISON: Radiograph of ___.\n {line}: effusion.\n\n IMPRESSION: Unchanged."
    assert sentences(report) == ["Unchanged."]


RULE = "_" * 78


@pytest.mark.parametrize(
    "name",
    ["PROVISIONAL FINDINGS IMPRESSION (PFI)", "Provisional findings impression", "PFI",
     "PFI (PROVISIONAL FINDINGS IMPRESSION)", "WET READ"],
)  # fmt: skip
def test_what_was_said_before_the_final_report_is_no_impression(name: str) -> None:
    provisional = f" {name}: ___ ___ 3:20 PM\n  No acute process.\n"
    title = "                                 FINAL REPORT\n"
    final = " INDICATION: Pain.\n\n FINDINGS: Clear.\n\n IMPRESSION: Stable effusion.\n"
    expected = ["Clear.", "Stable effusion."]
    assert sentences(f"{provisional} {RULE}\n{title}{final}") == expected
    assert sentences(f"{title}{final}\n{provisional}") == expected


def test_rules_and_titles_between_sections_are_no_text() -> None:
    for title in ("FINAL REPORT", "FINAL ADDENDUM", "Final Report"):
        report = f"IMPRESSION: Clear\n {RULE}\n    {title}\n FINDINGS: Old\n {RULE}\n scar."
        assert sentences(report) == ["Old", "scar.", "Clear"]


def test_a_report_without_capitals_is_read_as_one_with_them() -> None:
    body = (
        " CHEST, TWO VIEWS, ___:  The heart is large, with the\n following findings: wires.\n\n"
        " LUNGS: Clear.\n\n IMPRESSION:  No change.\n"
    )
    assert sentences(REPORT.lower()) == [one.lower() for one in sentences(REPORT)]
    assert sentences(f"FINAL REPORT\n INDICATION: cough.\n\n{body}".lower()) == [
        "the heart is large, with the following findings: wires.",
        "lungs: clear.",
        "no change.",
    ]
    assert sentences("clear lungs.\n\n normal heart.") == ["clear lungs.", "normal heart."]


@pytest.mark.parametrize(
    "form",
    ["{}:", "{}.", "{} -", "{} \u2013", "{} --", "{}\uff1a", "{}\u00a0:", "\u00a0{}:", "**{}:**",
     "**{}**:", "__{}:__", "## {}\n", "## {}:",
     "**{}**\n"],
)  # fmt: skip
@pytest.mark.parametrize("spelt", [str.upper, str.capitalize])
def test_headings_end_in_other_marks_than_a_colon(form: str, spelt: Callable[[str], str]) -> None:
    found, impression = (form.format(spelt(name)) for name in ("findings", "impression"))
    report = f"INDICATION: Cough.\n\n {found} Lungs clear.\n\n {impression} Normal."
    assert sentences(report) == ["Lungs clear.", "Normal."]
    assert sentences(report.lower()) == ["lungs clear.", "normal."]
    assert sentences(report.lower().replace("cough", "Cough")) == ["lungs clear.", "normal."]


@pytest.mark.parametrize("line", ["impression: on it.", "findings - old.", "FINDINGS.", "findings"])
def test_words_of_a_broken_sentence_are_no_headings(line: str) -> None:
    assert sentences(f"FINDINGS: There are large\n {line}\n") == [f"There are large {line}"]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (
            " FINDINGS:\n \n Examination - limited by body habitus.  No effusion.\n",
            ["Examination - limited by body habitus.", "No effusion."],
        ),
        (
            " FINDINGS:  Clear.\n \n IMPRESSION:\n \n Comparison - unchanged.  No effusion.\n",
            ["Clear.", "Comparison - unchanged.", "No effusion."],
        ),
        (
            " FINDINGS:  Clear.\n \n IMPRESSION:\n \n History.  Status post CABG.\n",
            ["Clear.", "History.", "Status post CABG."],
        ),
    ],
)
def test_a_word_and_a_dash_do_not_end_a_section_that_has_just_begun(
    report: str, expected: list[str]
) -> None:
    assert sentences(report) == expected


@pytest.mark.parametrize(
    "sentence",
    [
        "At 10:30 a.m. the tube was advanced.",
        "On ___ at 14:30 the left lung collapsed.",
        "At 10:30 a.m. ___ was placed.",
    ],
)
def test_a_sentence_that_begins_with_a_time_is_whole(sentence: str) -> None:
    assert sentences(f" PORTABLE CHEST:  {sentence}\n") == [sentence]
    assert sentences(f" PORTABLE CHEST:  5:32 A.M., ___.  {sentence}\n") == [sentence]


def test_an_addendum_alone_in_its_line_is_a_section_of_its_own() -> None:
    report = " IMPRESSION:  No pneumonia.\n \n ADDENDUM\n \n There is a fracture.\n"
    assert sentences(report) == ["No pneumonia."]
    report = " IMPRESSION:  No pneumonia.\n \n ADDENDUM\n \n Addendum:  A fracture.\n"
    assert sentences(report) == ["No pneumonia."]


def test_a_report_of_one_line_is_cut_at_its_headings() -> None:
    report = (
        "EXAMINATION: Chest Indication: cough. Comparison: None. Findings: Clear, unchanged from"
        " comparison: nodule. Impression: Normal. Technique: ok."
    )
    assert sentences(report) == [
        "Clear, unchanged from comparison: nodule.",
        "Normal.",
        "Technique: ok.",
    ]
    assert sentences("Old wires. Conclusion: stable.") == ["Old wires.", "Conclusion: stable."]
    assert sentences("FINDINGS: Clear. History: CABG.\n IMPRESSION: Ill.") == [
        "Clear.",
        "History: CABG.",
        "Ill.",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Clear. ___ line ends low.", ["Clear.", "___ line ends low."]),
        ("Clear.___ line. As on ___.Next one.", ["Clear.", "___ line.", "As on ___.", "Next one."]),
        ("As on ___. ___, the line, is low.", ["As on ___.", "___, the line, is low."]),
        ("Clear. Told ___. ___.", ["Clear.", "Told ___. ___."]),
        ("1. Clear\n 2. ___ line\n 3. Ill", ["1. Clear", "2. ___ line", "3. Ill"]),
    ],
)
def test_a_removed_name_or_date_begins_a_sentence(text: str, expected: list[str]) -> None:
    assert sentences(f" FINDINGS: {text}\n") == expected


@pytest.mark.parametrize("mark", ["-", "\u2013", "*", "\u2022", "--", "1)", "(2)"])
@pytest.mark.parametrize("end", [".", ""])
def test_items_of_a_list_are_sentences(mark: str, end: str) -> None:
    lines = [f"{mark} No edema{end}", f"{mark} Small\n   effusion{end}", f"{mark} ___ line{end}"]
    expected = [" ".join(line.split()) for line in lines]
    assert sentences("IMPRESSION:\n " + "\n ".join(lines)) == expected
    assert sentences("IMPRESSION: Clear.\n " + "\n ".join(lines)) == ["Clear.", *expected]


def test_items_of_a_list_amid_a_line_are_sentences() -> None:
    found = sentences("FINDINGS: Seen at 5 p.m. - Clear. - Heart large. - 2 cm nodule.")
    assert found[:2] == ["Seen at 5 p.m. - Clear.", "- Heart large. -"]


def test_a_range_that_a_lines_end_broke_is_no_item() -> None:
    assert sentences("FINDINGS: The tube ends 3\n - 4 cm above.") == [
        "The tube ends 3 - 4 cm above."
    ]


INTERRUPTIONS = {
    "an examination amid a sentence": (
        "FINDINGS: Heart is large. No prior\n EXAM: none available. A left effusion is present."
    ),
    "an examination amid a line": "FINDINGS: Heart is large, on this EXAM: ok. Large effusion.",
    "a history": "FINDINGS: Clear.\n History: of CABG, with wires intact.\n Effusion is large.",
    "a date": "FINDINGS: Unchanged since\n Date: ___\n the effusion is larger",
    "a date after a sentence": "FINDINGS: Clear.\n Date: ___\n the effusion is larger",
    "a history after a blank line": "FINDINGS: Clear.\n\n HISTORY: CABG. Effusion is large.",
    "no heading yet": "Effusion is large.\n FINDINGS: Clear.",
}


@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_findings_that_another_heading_interrupts_are_kept_or_counted(name: str) -> None:
    report = f" {INTERRUPTIONS[name]}\n \n IMPRESSION: Ill."
    found = report_words(report.encode(), "s1.txt")
    kept = "effusion" in " ".join(found.words.text).lower()
    assert kept != bool(found.notes["report_paragraphs_left_out"])
    if name.startswith("an examination"):
        assert kept


def test_an_organ_after_another_section_in_its_line_begins_findings() -> None:
    assert sentences("COMPARISON: older. HEART: big.  LUNGS: clear.\n IMPRESSION: Ill.") == [
        "HEART: big.",
        "LUNGS: clear.",
        "Ill.",
    ]


def test_an_ordinary_report_leaves_nothing_out_unsaid_or_said() -> None:
    more = "\n RECOMMENDATION(S): Repeat.\n\n NOTIFICATION: Dr. ___ was told.\n"
    assert not any(report_words((REPORT + more).encode(), "s1.txt").notes.values())


@pytest.mark.parametrize(
    "heading",
    ["SINCE PRIOR EXAM", "UNCHANGED FROM COMPARISON", "IN COMPARISON", "SURGICAL HISTORY", "DATED",
     "AS SEEN IN COMPARISON", "CHEST", "HEART", "LUNG FINDINGS"],
)  # fmt: skip
def test_what_only_looks_like_another_section_does_not_end_findings(heading: str) -> None:
    report = f"FINDINGS: Clear.\n {heading}: larger nodule.\n IMPRESSION: Nodule."
    assert sentences(report)[1].endswith("larger nodule.")


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ("FINAL REPORT\n INDICATION: cough.\n Clear lungs.", "no_report_section"),
        ("FINDINGS:\n\n .\nIMPRESSION:", "no_report_section"),
        ("", "empty_file"),
    ],
    ids=["other sections", "no words", "nothing"],
)
def test_a_report_without_words_of_ours_is_a_named_reject(report: str, reason: str) -> None:
    with pytest.raises(BadInputError) as caught:
        report_words(report.encode(), "s1.txt")
    assert caught.value.reason == reason
    assert "dictated" not in str(caught.value)


PHRASES = st.sampled_from(
    [
        "clear",
        "no effusion",
        "- small",
        "Chest, ___: large",
        "___ line",
        "LUNGS: clear",
        "AT 3:45 PM",
        "apex.There",
        "x/y",
    ]
)
HEADINGS = st.sampled_from(["FINDINGS:", "IMPRESSION:", "Impression:", "CONCLUSION:", "\n\n"])


@given(st.lists(st.tuples(HEADINGS, PHRASES), min_size=1))
def test_no_word_of_findings_and_impression_is_lost(parts: list[tuple[str, str]]) -> None:
    report = "FINDINGS: seen\n" + "\n".join(f"{heading} {text}" for heading, text in parts)
    expected = re.findall(r"\w+", "seen " + " ".join(text for _, text in parts))
    found = re.findall(r"\w+", " ".join(report_words(report.encode(), "s1.txt").words.text))
    assert sorted(found) == sorted(expected)
