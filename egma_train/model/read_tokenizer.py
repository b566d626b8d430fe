"""Tokenizers as they lie beside weights, checked against the text tower that reads by them."""

import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from egma_train.errors import BadUsageError, first_line

_MOST_SPARE_ROWS = 127
"""Embeddings are padded to multiples of up to 128; more rows are another vocabulary's."""
_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
_BPE = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 48_894
"""Of OpenAI's list; what follows in the file is not used."""


def read_tokenizer(text: str | None, whole: Path | None, hub_name: str) -> Any:
    """Read the tokenizer of a text tower, else of the weights' folder, else from the hub.

    Raises
    ------
    BadUsageError
        If there is none.
    """
    folder = whole.parent if whole and whole.is_file() else whole
    own = folder and any((folder / name).is_file() for name in _FILES)
    if whole and not own and whole.is_symlink():
        folder = whole.resolve().parent if whole.is_file() else folder
        own = folder and any((folder / name).is_file() for name in _FILES)
    if text is None and folder and not own and (folder / _BPE).is_file():
        return _of_openai(folder / _BPE)
    place = text or (str(folder) if own else hub_name)
    # CXR-BERT's has code of its own, and is BERT's; SigLIP's asks for another package.
    others: dict[str, Any] = {"vocab.txt": BertTokenizer}
    others |= {"tokenizer.json": PreTrainedTokenizerFast} if "siglip" in hub_name else {}
    kinds: list[Any] = [
        AutoTokenizer,
        *(kind for name, kind in others.items() if _is_in(place, name)),
    ]
    for kind in kinds:
        try:
            return kind.from_pretrained(place, trust_remote_code=False)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # each version has its own for what is absent; Rust panics
            why = first_line(error)
    raise BadUsageError(
        f"no tokenizer in {place} ({why}); put the text tower's {_beside(hub_name)} beside the"
        " weights, or add --init text=FOLDER"
    )


def _is_in(folder: str, name: str) -> bool:
    return (Path(folder) / name).is_file()


def _beside(hub_name: str) -> str:
    """Name the files of a tokenizer that a user should look for."""
    if "clip-vit" in hub_name:
        return f"tokenizer.json, or vocab.json and merges.txt, or OpenAI's {_BPE},"
    return "tokenizer.json" if "siglip" in hub_name else "vocab.txt"


def _of_openai(path: Path) -> Any:
    """Make CLIP's tokenizer of the list of merges that OpenAI's and open_clip's code ship.

    Numbers: 256 bytes as letters, the same at a word's end, the merges in order, begin and end.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : _MERGES + 1]
        merges = [tuple(line.split()) for line in lines]
        if len(merges) != _MERGES or any(len(pair) != 2 for pair in merges):
            raise ValueError(f"{len(merges)} merges")
    except (OSError, EOFError, ValueError) as error:
        raise BadUsageError(f"{path} is damaged ({first_line(error)})") from None
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    words = [*letters, *(f"{one}</w>" for one in letters), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]))
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})
        )
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def check_tokenizer(tokenizer: Any, rows: int, kind_of_tower: str = "WordPiece") -> None:
    """Refuse a tokenizer that numbers other words than the text tower of `rows` words knows.

    Parameters
    ----------
    kind_of_tower : str
        ``WordPiece`` of BERT, ``BPE`` of CLIP, blank for any.

    Raises
    ------
    BadUsageError
        If so.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    kind, place = type(getattr(backend, "model", None)).__name__, tokenizer.name_or_path
    if kind_of_tower and kind not in (kind_of_tower, "NoneType"):
        own = {"WordPiece": "BERT's is WordPiece (vocab.txt)", "BPE": "CLIP's is BPE (merges.txt)"}
        raise BadUsageError(f"the tokenizer in {place} is {kind}, {own[kind_of_tower]}")
    if not getattr(tokenizer, "pad_token", None):
        raise BadUsageError(
            f"the tokenizer in {place} names no pad_token; put the text tower's own"
            " tokenizer_config.json or vocab.txt there"
        )
    # transformers 5 makes one of five tokens, all special, where a folder has none.
    if not {*tokenizer.get_vocab()} - {*tokenizer.all_special_tokens}:
        raise BadUsageError(
            f"the tokenizer in {place} knows no word; put the text tower's own vocab.txt there, or"
            " add --init text=FOLDER"
        )
    if not 0 <= rows - len(tokenizer) <= _MOST_SPARE_ROWS:
        raise BadUsageError(
            f"the tokenizer in {place} has {len(tokenizer)} tokens, the text tower {rows}; put the"
            " tower's own vocab.txt there, or add --init text=FOLDER"
        )
    # A number beyond the tower's rows would end the first step.
    try:
        numbers = [*tokenizer.get_vocab().values(), *tokenizer(".")["input_ids"]]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Rust panics
        raise BadUsageError(f"the tokenizer in {place} is damaged ({first_line(error)})") from None
    if numbers and not 0 <= min(numbers) <= max(numbers) < rows:
        raise BadUsageError(
            f"the tokenizer in {place} numbers its tokens up to {max(numbers)}, the text tower has"
            f" {rows}; put the tower's own vocab.txt there, or add --init text=FOLDER"
        )
