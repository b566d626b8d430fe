"""The SHA-256 of every file of a release, as PhysioNet lists them at a dataset's root."""

import codecs
import hashlib
import re
from binascii import a2b_hex
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadUsageError
from egma_prep.sources.csv_table import MAX_TABLE_BYTES
from egma_prep.storage.listing import tree_at
from egma_prep.storage.paths import Fingerprint, place_of

LIST = "SHA256SUMS.txt"

# PhysioNet writes one space (make_checksum_file of its server), sha256sum two or " *".
_LINE = re.compile(rb"^([0-9a-fA-F]{64}) [ *]?(?:\./)?([^\r\n]+?)\r?$", re.MULTILINE)


class Release(NamedTuple):
    """What a list says, by hashes of its paths: 15 MB for MIMIC-CXR-JPG, where a dict takes 110.

    Attributes
    ----------
    keys : ndarray
        ``(n,)`` int64, sorted.
    digests : ndarray
        ``(n,)``, 32 bytes each, in the same order.
    """

    fingerprint: Fingerprint
    keys: NDArray[np.int64]
    digests: NDArray[np.void]

    def differs(self, path: str, sha256: str) -> bool:
        """Tell whether a path is listed, in whatever capitals, with another digest alone."""
        key = hash(path.encode(errors="surrogateescape").lower())  # of this process alone
        first, end = (np.searchsorted(self.keys, key, side) for side in ("left", "right"))
        told = [one.tobytes().hex() for one in self.digests[first:end]]
        return bool(told) and sha256 not in told


def listed_in(data: bytes, where: object) -> Iterator[tuple[str, str]]:
    """Read a list's lines: path and SHA-256; paths that lead out of the dataset are passed over.

    Raises
    ------
    BadUsageError
        If no line is one, as of a login page that was saved under the name.
    """
    for line in _usable(data, where):
        yield line[2].decode(errors="surrogateescape"), line[1].decode().lower()


def _usable(data: bytes, where: object) -> Iterator[re.Match[bytes]]:
    found = False
    for line in _LINE.finditer(data.removeprefix(codecs.BOM_UTF8)):
        if not line[2].startswith(b"/") and b".." not in line[2].split(b"/"):
            found = True
            yield line
    if not found:
        raise BadUsageError(
            f"{where} has no line with a SHA-256 and a path; download it again, or remove it"
        )


def read_list(root: str, path: str) -> bytes:
    """Read a list below a root.

    Raises
    ------
    BadUsageError
        If it cannot be read.
    """
    tree = tree_at(place_of(root))
    try:
        if tree.look(path).stamp["size"] > MAX_TABLE_BYTES:
            raise OSError(f"more than {MAX_TABLE_BYTES:,} bytes")
        return tree.read(path)
    except OSError as error:
        raise BadUsageError(
            f"{root}/{path} cannot be read ({error.strerror or error}); mend that, or compare"
            " nothing: --set source.as_published=false"
        ) from None


@lru_cache(maxsize=4)
def release(root: str, path: str, stamp: tuple[tuple[str, object], ...]) -> Release:
    """Read a list once a process; `stamp` tells it from what lay there before."""
    data = read_list(root, path)
    known = dict(stamp) | {"sha256": hashlib.sha256(data).hexdigest()}
    stored = bytearray()

    def keys_of(lines: Iterator[re.Match[bytes]]) -> Iterator[int]:
        for line in lines:
            stored.extend(a2b_hex(line[1]))
            yield hash(line[2])

    keys = np.fromiter(keys_of(_usable(data.lower(), f"{root}/{path}")), np.int64)
    digests = np.frombuffer(stored, np.dtype("V32"))
    order = np.argsort(keys, kind="stable")
    return Release(cast(Fingerprint, known), keys[order], digests[order])
