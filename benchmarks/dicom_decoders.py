"""Time every DICOM decoder that pydicom finds on one full-size invented X-ray; prints Markdown.

Run by ``make bench``. Ours are gdcm and pyjpegls; to compare with the others, install them first:
``pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg``.
"""

import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import gdcm
import numpy as np
import pydicom
from pydicom.pixels import get_decoder

from egma_prep.synth import write_tree

REPEATS = 5
PACKAGES = ("pydicom", "python-gdcm", "pyjpegls", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg")
SYNTAXES = {
    "JPEG lossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEG-LS": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000Lossless,
    "RLE": gdcm.TransferSyntax.RLELossless,
}


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder), 4, seed=11, layout="reflacx", dicom=True)
        plain = min(Path(folder).rglob("*.dcm"))
        wanted = pydicom.dcmread(plain).pixel_array
        rows, columns = wanted.shape
        print(f"One {columns} x {rows} image of 16 bits; {installed()}.\n")
        print("| compression | decoder | MB | ms, median of", REPEATS, "| exact |")
        print("|---|---|---|---|---|")
        begin = time.perf_counter()
        for _ in range(REPEATS):
            _ = pydicom.dcmread(plain).pixel_array
        each = (time.perf_counter() - begin) / REPEATS
        print(f"| none | pydicom | {plain.stat().st_size / 1e6:.1f} | {1000 * each:.0f} | yes |")
        for name, syntax in SYNTAXES.items():
            compressed = compress(plain, syntax, Path(folder) / "compressed.dcm")
            for row in rows_of(compressed, wanted):
                print(f"| {name} | {row}", flush=True)


def installed() -> str:
    """List the versions that are compared."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def compress(plain: Path, syntax: int, to: Path) -> Path:
    """Write the image again in another transfer syntax."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(to))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return to


def rows_of(compressed: Path, wanted: np.ndarray) -> list[str]:
    """Decode with each plugin in turn, interleaved."""
    data = pydicom.dcmread(compressed)
    plugins = sorted(get_decoder(data.file_meta.TransferSyntaxUID).available_plugins)
    seconds: dict[str, list[float]] = {plugin: [] for plugin in plugins}
    exact = {}
    for _ in range(REPEATS):
        for plugin in plugins:
            fresh = pydicom.dcmread(compressed)
            fresh.pixel_array_options(decoding_plugin=plugin)
            begin = time.perf_counter()
            pixels = fresh.pixel_array
            seconds[plugin].append(time.perf_counter() - begin)
            exact[plugin] = "yes" if np.array_equal(pixels, wanted) else "no"
    megabytes = compressed.stat().st_size / 1e6
    return [
        f"{plugin} | {megabytes:.1f} | {1000 * median(seconds[plugin]):.0f} | {exact[plugin]} |"
        for plugin in plugins
    ]


if __name__ == "__main__":
    main()
