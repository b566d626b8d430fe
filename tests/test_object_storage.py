"""Whole commands against a real server that speaks S3, beside the same on local folders."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from upath import UPath

from tests.conftest import run_etl


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Start a server of its own kind, with one bucket; the environment names it."""
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    _, port = started.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "tester")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        place("s3://bucket").fs.mkdir("bucket")
        yield f"http://127.0.0.1:{port}"
    started.stop()


def place(url: str) -> UPath:
    return UPath(url, use_listings_cache=False)


@pytest.fixture(scope="module")
def data(server: str, phantom: Path) -> str:
    place("s3://bucket").fs.put(f"{phantom}/", "bucket/data/", recursive=True)
    return "s3://bucket/data"


def objects(url: str) -> dict[str, tuple[str, Any]]:
    """List the objects below a URL with what changes whenever one is written."""
    root = place(url)
    found = root.fs.find(root.path, detail=True)
    return {
        name.removeprefix(f"{root.path}/"): (info["ETag"], info["LastModified"])
        for name, info in found.items()
    }


def contents(out: Any) -> dict[str, Any]:
    """Read all tables, images, shards and rejects of an output folder, by name."""
    paths = [*out.glob("*/*.parquet"), out / "rejects.parquet"]
    return {
        path.relative_to(out).as_posix(): pq.read_table(path.open("rb")).to_pylist()
        for path in paths
    }


@pytest.fixture(scope="module")
def done(data: str) -> str:
    """A complete run from a bucket into it, not to be changed by tests."""
    result = run_etl(data, "s3://bucket/done")
    assert result.exit_code == 0, result.output
    return "s3://bucket/done"


def test_a_run_in_a_store_has_the_content_of_the_local_one(done: str, clean_out: Path) -> None:
    assert contents(place(done)) == contents(clean_out)
    counts = [
        json.loads((out / "run.json").read_bytes())["counts"] for out in (place(done), clean_out)
    ]
    assert counts[0] == counts[1]


def test_a_second_run_has_nothing_to_do_and_writes_no_object(data: str, done: str) -> None:
    before = objects(done)
    result = run_etl(data, done)
    assert result.exit_code == 0, result.output
    assert "nothing to do" in result.output
    assert objects(done) == before
