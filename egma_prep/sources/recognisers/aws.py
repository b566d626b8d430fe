"""AWS Transcribe: ``results.items[]`` with times in s as text; signs are items without times."""

from collections.abc import Iterator

from egma_prep.sources.json_part import JsonPart, has_shape, json_part
from egma_prep.sources.recognisers import TimedWord, WordsFile

FORMATS = ("aws",)
EXPECTED = "results.items[] with type, start_time, end_time and alternatives[].content"


def looks_like(content: object) -> bool:
    """Tell a job's results."""
    return has_shape(content, "results.items[].alternatives[].content")


def words(data: bytes, path: str, _: WordsFile) -> Iterator[TimedWord]:
    """Read the best alternative of each item."""
    document = json_part(data, path)
    results = JsonPart(document.get("results"), path)
    for item in results.each("items"):
        begin_s, end_s = item.time("start_time"), item.time("end_time")
        text = item.first("alternatives").text("content")
        yield TimedWord(text, begin_s, end_s, item.where)
