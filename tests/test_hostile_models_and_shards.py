"""Shards, models and tables of people one does not know: nothing runs, one line or text."""

import ast
import io
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from evaluation import SMALL, egma_eval, picture, save_tiny_model, write_picture, written
from safetensors.torch import save_file
from test_structure import TRAIN, TREES

import egma_prep
from egma_train import load_model
from egma_train.data import shards
from egma_train.data.cache import open_cache
from egma_train.data.parquet_pages import pages_of
from egma_train.data.shards import read_shard
from egma_train.errors import BadUsageError
from egma_train.evaluate.checkpoints import load_encoder
from egma_train.model.weights import load_start
from egma_train.options import options_of
from egma_train.run_folder import model_card
from egma_train.storage.safe_text import csv_rows, csv_text, for_terminal, markdown

GOLDEN = Path(__file__).parent / "golden"


def refused(work: Callable[[], Any]) -> str:
    with pytest.raises(BadUsageError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- shards ---------------------------------------------------------------------------------------

Rows = list[dict[str, Any]]


def grid_of(rows: Rows) -> list[float]:
    return next(one["grid"] for one in rows[0]["sentences"] if one["grid"])


def give_a_pixel_to_the_next(rows: Rows) -> None:
    rows[0]["image"], rows[1]["image"] = rows[0]["image"][:-1], rows[1]["image"] + b"\0"


def set_grid(value: float) -> Callable[[Rows], None]:
    return lambda rows: grid_of(rows).__setitem__(3, value)


CRAFTED: dict[str, tuple[Callable[[Rows], Any], str]] = {
    "images of other lengths, the same in all": (give_a_pixel_to_the_next, "not 224 x 224"),
    "no image": (lambda rows: rows[0].update(image=None), "not 224 x 224"),
    "a heatmap cut off": (lambda rows: rows[0].update(heatmap=b"\1" * 9), "not 224 x 224"),
    "a grid of NaN": (set_grid(float("nan")), "49 numbers from 0 to 1"),
    "a grid of 1e30": (set_grid(1e30), "49 numbers from 0 to 1"),
    "a grid of -5": (set_grid(-5.0), "49 numbers from 0 to 1"),
    "a grid of 50 numbers": (lambda rows: grid_of(rows).append(0.0), "49 numbers from 0 to 1"),
    "an id that is a path": (lambda rows: rows[0].update(reading_id="../../x"), "no plain name"),
    "a dataset of Markdown": (lambda rows: rows[0].update(dataset="[x](y)"), "no plain name"),
    "a split that types": (lambda rows: rows[0].update(split="\x1b[2J"), "no plain name"),
    "a sentence without text": (
        lambda rows: rows[0]["sentences"][0].update(text=None), "without text",
    ),
    "sentences in another order": (
        lambda rows: rows[0]["sentences"].reverse(), "another order than spoken",
    ),
}  # fmt: skip


@pytest.mark.fault(
    "a crafted Parquet shard",
    "image lengths moved from one reading to the next; grids of NaN, 1e30, -5 or 50 numbers; ids"
    " that are paths; another order",
    "refused by name before anything of it is used",
)
@pytest.mark.parametrize("kind", CRAFTED)
def test_a_crafted_shard_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    table = pq.read_table(GOLDEN / "shard-v1.parquet")
    rows = [*table.to_pylist(), *table.to_pylist()]
    change, what = CRAFTED[kind]
    change(rows)
    path = tmp_path / "part-00000.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path, use_dictionary=False)
    line = refused(lambda: list(read_shard(path)))
    assert line.startswith(f"{path} is damaged (") and what in line
    change_back = pa.Table.from_pylist([*table.to_pylist()] * 2, schema=table.schema)
    pq.write_table(change_back, path)  # a dictionary, as other programs write, is no harm
    assert len(list(read_shard(path, maps=True))) == 2


def npz_with(path: Path, **changes: np.ndarray) -> Path:
    with np.load(GOLDEN / "shard-v1.npz") as stored:
        arrays = {name: stored[name] for name in stored.files} | changes
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def golden_array(name: str) -> np.ndarray:
    with np.load(GOLDEN / "shard-v1.npz") as stored:
        return stored[name]


CRAFTED_NPZ: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "swapped offsets": ("sentence_offsets", lambda a: a[::-1].copy(), "do not share out"),
    "offsets that leave some out": ("sentence_offsets", lambda a: a // 2, "do not share out"),
    "negative offsets": ("sentence_offsets", lambda a: a - 1, "do not share out"),
    "more readings than images": ("dataset", lambda a: np.repeat(a, 2), "of shape"),
    "larger images": ("image", lambda a: np.tile(a, (1, 2, 1)), "image is uint8 of shape"),
    "images of floats": ("image", lambda a: a.astype(float), "image is float64"),
    "a grid of 8 by 8": (
        "sentence_grid", lambda a: np.zeros((len(a), 8, 8), np.float32), "sentence_grid is",
    ),
    "a grid of NaN": ("sentence_grid", lambda a: np.full_like(a, np.nan), "from 0 to 1"),
    "a region at infinity": ("region_x0", lambda a: np.full_like(a, np.inf), "without a place"),
}  # fmt: skip


@pytest.mark.fault(
    "a crafted NPZ shard",
    "swapped offsets, other shapes and types, grids of NaN",
    "refused by name before anything of it is used",
)
@pytest.mark.parametrize("kind", CRAFTED_NPZ)
def test_a_crafted_npz_shard_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    name, change, what = CRAFTED_NPZ[kind]
    path = npz_with(tmp_path / "part-00000.npz", **{name: change(golden_array(name))})
    line = refused(lambda: list(read_shard(path, maps=True)))
    assert line.startswith(f"{path} is damaged (") and what in line
    assert len(list(read_shard(npz_with(path), maps=True))) == 1


def bomb_of_text(rows: Rows) -> dict[str, Any]:
    rows[0]["sentences"] = [dict(rows[0]["sentences"][0], text="a" * 2**23)] * 2
    return {"use_dictionary": False}


def bomb_of_a_dictionary(rows: Rows) -> dict[str, Any]:
    rows[0]["sentences"] = [dict(rows[0]["sentences"][0], text="a" * 2**20)] * 80
    return {"use_dictionary": True, "dictionary_pagesize_limit": 2**24}


def bomb_of_sentences(rows: Rows) -> dict[str, Any]:
    rows[0]["sentences"] = [dict(rows[0]["sentences"][0], text="", grid=None, heatmap=None)] * 9_999
    return {"use_dictionary": False}


def bomb_of_an_image(rows: Rows) -> dict[str, Any]:
    rows[0]["image"] = b"\0" * 2**24
    return {"use_dictionary": False}


@pytest.mark.fault(
    "a Parquet shard that unpacks to far more than its readings",
    "text of 16 MiB, 80 copies of one text by a dictionary, 9,999 sentences, an image of 16 MiB;"
    " each file below 1 MB",
    "refused by name before it is unpacked",
)
@pytest.mark.parametrize(
    "craft", [bomb_of_text, bomb_of_a_dictionary, bomb_of_sentences, bomb_of_an_image]
)
def test_a_parquet_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, craft: Callable[[Rows], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pq.read_table(GOLDEN / "shard-v1.parquet").drop_columns(["labels", "regions"])
    rows = table.to_pylist()
    how = craft(rows)
    path = tmp_path / "part-00000.parquet"
    made = pa.Table.from_pylist(rows, schema=table.schema)
    pq.write_table(made, path, compression="zstd", **how)
    assert path.stat().st_size < 2**20
    monkeypatch.setattr(shards, "_MOST_OF_A_COLUMN", 2**26)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("unpacked"))
    assert "unpacks to" in refused(lambda: list(read_shard(path)))


def test_pages_unpack_to_what_an_honest_footer_says() -> None:
    path = GOLDEN / "shard-v1.parquet"
    metadata = pq.read_metadata(path)
    for i in range(metadata.num_columns):
        chunk = metadata.row_group(0).column(i)
        begin = chunk.data_page_offset
        found = pages_of(path.read_bytes(), begin, begin + chunk.total_compressed_size)
        assert found == (chunk.num_values, chunk.total_uncompressed_size)


def zigzag(value: int) -> bytes:
    """An integer as a Parquet footer has it."""
    value, made = 2 * value, b""
    while value > 127:
        made, value = made + bytes([value & 127 | 128]), value >> 7
    return made + bytes([value])


@pytest.mark.fault(
    "a Parquet shard whose footer lies",
    "16 MiB of text that the footer calls 2 MB",
    "refused by name, by the headers of its pages",
)
def test_a_footer_that_says_less_than_its_pages_is_no_cover(tmp_path: Path) -> None:
    table = pq.read_table(GOLDEN / "shard-v1.parquet").drop_columns(["labels", "regions"])
    rows = table.to_pylist()
    how = bomb_of_text(rows)
    path = tmp_path / "part-00000.parquet"
    made = pa.Table.from_pylist(rows, schema=table.schema)
    pq.write_table(made, path, compression="zstd", **how)
    group = pq.read_metadata(path).row_group(0)
    chunks = [group.column(i) for i in range(group.num_columns)]
    (size,) = (one.total_uncompressed_size for one in chunks if one.path_in_schema[-5:] == ".text")
    forged = path.read_bytes().replace(zigzag(size), zigzag(2_000_000))
    path.write_bytes(forged)
    group = pq.read_metadata(path).row_group(0)
    assert 2_000_000 in [group.column(i).total_uncompressed_size for i in range(len(chunks))]
    assert "text of 1 readings unpacks to" in refused(lambda: list(read_shard(path)))


@pytest.mark.fault(
    "an NPZ shard that unpacks to many GiB, read for training",
    "an array whose header asks for 4 TiB; one whose entry does for 4 GiB",
    "refused by name before it is unpacked",
)
@pytest.mark.parametrize("where", ["header", "entry"])
def test_an_npz_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, where: str) -> None:
    path = npz_with(tmp_path / "part-00000.npz")
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "sentence_text.npy" and where == "header":
                data = data.replace(b"(2,)", b"(9999999999,)").replace(b" " * 11, b" " * 2, 1)
            new.writestr(name, data)
    data = bytearray(packed.getvalue())
    if where == "entry":
        entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"sentence_text.npy"))
        data[entry + 24 : entry + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(data)
    assert "unpacks to" in refused(lambda: list(read_shard(path)))


# -- models ---------------------------------------------------------------------------------------

VOCABULARY = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A copy of a model that a test may hurt."""
    return shutil.copytree(tiny, tmp_path / "hurt")


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Plant code in a model's folder that leaves a trace, and a user who says yes to anything."""

    def plant(folder: Path) -> Path:
        trace = tmp_path / "it-ran"
        (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w')\nclass C: pass\n")
        code = {"AutoConfig": "evil.C", "AutoModel": "evil.C", "AutoTokenizer": ["evil.C"] * 2}
        config = {"model_type": "evil", "auto_map": code}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "Evil", "auto_map": code})
        )
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
        return trace

    return plant


@pytest.mark.fault(
    "a model's folder that brings code",
    "auto_map, an unknown model_type and a planted module beside towers, weights and a model of"
    " ours; a user who would answer yes",
    "one line or no matter; nothing is asked and nothing runs",
)
@pytest.mark.parametrize("kind", ["towers", "weights", "ours"])
def test_no_code_of_a_models_folder_runs(
    tmp_path: Path, model: Path, planted: Callable[[Path], Path],
    capfd: pytest.CaptureFixture[str], kind: str,
) -> None:  # fmt: skip
    folder = model
    if kind != "ours":
        folder = tmp_path / "theirs"
        folder.mkdir()
        name = "text_model.model.embeddings.word_embeddings.weight"
        torch.save({name: torch.zeros(6, 32)}, folder / "pytorch_model.bin")
        (folder / "vocab.txt").write_bytes(VOCABULARY)
    trace = planted(folder)
    sources = [f"text={folder}", f"vision={folder}"] if kind == "towers" else [str(folder)]
    line = refused(lambda: load_start(sources, options_of("paper", SMALL).model))
    assert str(folder) in line
    assert not trace.exists() and sys.stdin.readline() == "y\n"
    assert "[y/N]" not in capfd.readouterr().out


def test_no_kernel_is_fetched_by_a_name_in_a_configuration(model: Path) -> None:
    """transformers 5 would get ``someone/kernel`` from the hub and run it."""
    told = json.loads((model / "egma.json").read_text())
    for tower in ("bert", "swin"):
        told[tower] |= {"attn_implementation": "a/b", "_attn_implementation": "a/b"}
        told[tower] |= {"quantization_config": {"load_in_8bit": True}, "auto_map": {}}
    (model / "egma.json").write_text(json.dumps(told))
    loaded, _ = load_model(model)
    assert "a/b" not in loaded.text_model.model.config.to_json_string()


SIZES = {
    "bert": {
        "vocab_size": [10**9, 900_000, -1, "many"], "hidden_size": [10**6],
        "num_hidden_layers": [10**9], "max_position_embeddings": [10**9],
        "num_attention_heads": [0], "intermediate_size": [10**9], "hidden_act": ["x"],
    },
    "swin": {
        "embed_dim": [10**6, 4096], "window_size": [1000], "depths": [[10**9, 1], [], None],
        "num_heads": [[0, 0], [1]], "mlp_ratio": [1e9], "num_channels": [10**9], "patch_size": [0],
        "image_size": [10**9],
    },
}  # fmt: skip


@pytest.mark.fault(
    "a model that describes itself as larger than it is",
    "vocab_size of 1e9 and every other size, layers of 1e9, heads of 0, `[]` as egma.json",
    "one line before anything of that size is built",
)
def test_sizes_are_bounded_before_anything_is_built(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = json.loads((model / "egma.json").read_text())
    built: list[int] = []
    monkeypatch.setattr(torch.nn.Embedding, "__init__", lambda *a, **k: built.append(1))
    monkeypatch.setattr(torch.nn.Conv2d, "__init__", lambda *a, **k: built.append(1))
    for tower, sizes in SIZES.items():
        for name, values in sizes.items():
            for value in values:
                own = told | {tower: told[tower] | {name: value}}
                (model / "egma.json").write_text(json.dumps(own))
                assert str(model) in refused(lambda: load_model(model))
                assert not built or name == "hidden_act", (name, value)
                built.clear()
    for text in ("[]", "{}", "3", '{"swin": [], "bert": [], "options": []}', '{"swin"'):
        (model / "egma.json").write_text(text)
        assert "is damaged" in refused(lambda: load_model(model))


@pytest.mark.fault(
    "a damaged or crafted tokenizer.json",
    "cut, empty, a list, no UTF-8, tokens numbered by 1e9, a token that is not there",
    "one line, whatever the library does",
)
def test_a_damaged_tokenizer_is_one_line(model: Path) -> None:
    told = json.loads((model / "tokenizer.json").read_text())
    words = told["model"]["vocab"]
    far = told | {"model": told["model"] | {"vocab": words | {[*words][-1]: 10**9}}}
    lost = told | {"post_processor": {"type": "TemplateProcessing", "pair": [], "single": [
        {"SpecialToken": {"id": "[NO]", "type_id": 0}}], "special_tokens": {}}}  # fmt: skip
    crafted = [b"", b"{", b"{}", b"[]", b"null", b"\xff\0", json.dumps(far), json.dumps(lost)]
    for data in crafted:
        data = data.encode() if isinstance(data, str) else data
        (model / "tokenizer.json").write_bytes(data)
        assert f"tokenizer in {model}" in refused(lambda: load_model(model))


def header(text: bytes, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text


SAFETENSORS = {
    "nothing": b"",
    "a length of 2**60": header(b"{}", 2**60),
    "a length of 100 MB": header(b"{}", 10**8),
    "no JSON": header(b"{nonsense"),
    "offsets out of the file": header(
        b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
    ),
    "offsets backwards": header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}')
    + bytes(4),
    "a shape that overflows": header(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}}'
    ),
}


@pytest.mark.fault(
    "crafted safetensors headers",
    "huge lengths, offsets out of the file, shapes that overflow; as a model, a tower, weights",
    "one line",
)
def test_crafted_safetensors_are_one_line(model: Path, tmp_path: Path) -> None:
    from transformers import BertConfig

    tower = tmp_path / "tower"
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    BertConfig(vocab_size=6, intermediate_size=64, **sizes).save_pretrained(tower)
    (tower / "vocab.txt").write_bytes(VOCABULARY)
    options, both = options_of("tiny", SMALL).model, [f"text={tower}", f"vision={tower}"]
    for data in SAFETENSORS.values():
        for place in (model, tower):
            (place / "model.safetensors").write_bytes(data)
        refused(lambda: load_model(model))
        refused(lambda: load_start([str(tower)], options))
        refused(lambda: load_start(both, options))


@pytest.mark.fault(
    "a named pipe in the place of weights or of a shard",
    "mkfifo as model.safetensors and as a shard of either format",
    "one line; nothing waits for a writer",
)
def test_a_named_pipe_is_waited_for_by_nobody(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    os.mkfifo(model / "model.safetensors")
    assert "model.safetensors is no ordinary file" in refused(lambda: load_model(model))
    for suffix in ("parquet", "npz"):
        (tmp_path / suffix).mkdir()
        os.mkfifo(tmp_path / suffix / f"part-00000.{suffix}")
        told = refused(lambda suffix=suffix: open_cache(tmp_path / suffix))
        assert f"part-00000.{suffix} is no ordinary file" in told
        with pytest.raises(egma_prep.BadUsageError, match="is no ordinary file"):
            egma_prep.open_shards(tmp_path / suffix)


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (open, (str(self.trace), "w"))


@pytest.mark.fault(
    "weights that are a program, or a bomb",
    "a pickle that opens a file as .ckpt, .pt and .bin; tensors packed a thousandfold; one number"
    " that calls itself a billion",
    "one line; nothing runs and nothing is unpacked",
)
def test_pickles_run_nothing_and_bombs_are_not_unpacked(tmp_path: Path) -> None:
    options = options_of("tiny", SMALL).model
    (tmp_path / "vocab.txt").write_bytes(VOCABULARY)
    trace = tmp_path / "it-ran"
    name = "text_model.model.embeddings.word_embeddings.weight"
    for suffix in ("ckpt", "pt", "bin"):
        torch.save({name: Evil(trace)}, path := tmp_path / f"w.{suffix}")
        assert str(path) in refused(lambda path=path: load_start([str(path)], options))  # type: ignore[misc]
    assert not trace.exists()
    torch.save({name: torch.zeros(10**6)}, path)
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for one in old.namelist():
            new.writestr(one, old.read(one))
    path.write_bytes(packed.getvalue())
    assert "unpacks to" in refused(lambda: load_start([str(path)], options))
    torch.save({name: torch.zeros(1).expand(10**9, 32)}, path)
    refused(lambda: load_start([str(path)], options))
    torch.save({"text_model.model.encoder.layer.99999999.x": torch.zeros(1)}, path)
    assert "none of number 0" in refused(lambda: load_start([str(path)], options))


def test_a_checkpoint_that_lacks_a_tower_is_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(VOCABULARY)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    line = refused(lambda: load_start([str(tmp_path)], options_of("tiny", SMALL).model))
    assert line.startswith(f"{tmp_path}: ")
    assert refused(lambda: load_encoder(tmp_path, {})).startswith(f"{tmp_path}: ")


# -- texts ----------------------------------------------------------------------------------------

TITLE = "\x1b]0;owned\x07\x9b2J\u202egnp"


@pytest.mark.fault(
    "control sequences and formulas in a label table",
    "classes and paths that set a terminal's title and begin a spreadsheet's formula",
    "nothing of them reaches the terminal; cells of CSVs are text; Markdown and t-SNE show them",
)
def test_a_label_table_reaches_the_terminal_and_spreadsheets_as_text(
    tiny: Path, tmp_path: Path
) -> None:
    for i in range(4):
        write_picture(tmp_path / "images" / f"=cmd|{i}.png", picture(i))
    classes = [f"a{TITLE}", "$\\frac{"]
    lines = [f'=cmd|{i}.png,"{classes[i % 2]}"' for i in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines, "=gone,a"]))
    queries = {f"a{TITLE}": ["the lungs are clear"], "$\\frac{": ["pneumonia"], "a": ["a"]}
    (tmp_path / "prompts.json").write_text(json.dumps(queries))
    words = ("--images", tmp_path / "images", "--labels", tmp_path / "labels.csv", "--out",
             tmp_path / "out", "--task", "csv")  # fmt: skip
    for command in (("zero-shot", "--prompts", tmp_path / "prompts.json"), ("embed",)):
        result = egma_eval(*command, *words, tiny)
        assert result.exit_code in (0, 1), result.output
        assert ("owned" in result.output) == (command[0] == "zero-shot")
        assert not set(result.output) & {*TITLE} - {*"]0;owned2Jgnp"}
    told = written(tmp_path / "out", "zero-shot-csv", ".csv", tiny.name).read_text()
    cells = [cell for line in told.splitlines() for cell in line.split(",")]
    assert any(cell.startswith("'=cmd|") for cell in cells)
    assert not any(cell.strip('"').startswith(("=", "@", "+")) for cell in cells)


def test_cells_come_back_letter_by_letter_and_numbers_stay_numbers() -> None:
    rows = [["=1", "'=1", "''=1", "+a", "-a", "@a", "\t=1", " =1", "'a", "", "-", "a,b\n"]]
    text = csv_text(rows)
    assert csv_rows(text) == rows
    assert text.startswith("'=1,''=1,'''=1,'+a,'-a,'@a,")
    assert csv_text([[-0.5, "+1.20 [-0.10, 2.00]", 3]]) == '-0.5,"+1.20 [-0.10, 2.00]",3\r\n'
    assert csv_text([["-1+cmd|' /C calc'!A0"]]).startswith("'-1")


def test_told_lines_have_no_control_characters() -> None:
    assert for_terminal(f"a{TITLE}\tb\nc") == "a\\x1b]0;owned\\x07\\x9b2J\\x202egnp\tb\nc"
    echoes = [
        name for name in TRAIN for line in [ast_text(name)] if "click.echo(" in line
    ]  # fmt: skip
    assert echoes == ["egma_train.evaluate.cli"]
    assert ast_text(echoes[0]).count("click.echo(") == 1  # its own help


def ast_text(name: str) -> str:
    return ast.unparse(TREES[name])


def test_markdown_of_others_stays_text() -> None:
    hostile = "[x](javascript:y)|<script>\n# head `code`"
    shown = markdown(hostile)
    assert "\n" not in shown
    for sign in "[]|<>#`":
        assert shown.count(sign) == shown.count(f"\\{sign}")
    record = {
        "preset": "tiny", "started_from": f"weights from {hostile}", "shards_fingerprint": "0",
        "epochs_done": 1, "versions": {}, "options": {"loss": {"objective": "egma"},
        "execution": {"cache": hostile}}, "counts": {"readings": 1, "images": 1,
        "readings_with_used_gaze": 1, "datasets": [hostile]},
    }  # fmt: skip
    card = model_card(record)
    assert "<script>" not in card and "\n# head" not in card and "[x](" not in card
