"""From the raw tree to a scored model, on every layout that needs no credentials."""

import json
from pathlib import Path

import pytest
from conftest import egma_prep, invoked, run_etl
from evaluation import egma_eval, written

from egma_prep.synth import write_tree
from egma_train.cli import main

OWN = {  # whose licence and citation everything made of it repeats
    "localized_narratives": ("CC BY 4.0", "J. Pont-Tuset"),
    "open_i": ("CC BY-NC-ND 4.0", "D. Demner-Fushman"),
    "recordings": ("CC0 1.0", "PHANTOM laboratory, no year"),
}
SMALL = (
    "--set", "model.swin_width=12", "--set", "model.text_width=32", "--set", "model.text_heads=2",
    "--set", "model.projection=32", "--batch-size", "8", "--epochs", "1", "--name", "one",
)  # fmt: skip


def assert_names_its_own_terms(page: Path, layout: str) -> None:
    text = page.read_text().replace("\\", "")
    licence, author = OWN[layout]
    assert licence in text and author in text, page
    for word in ("PhysioNet", "physionet", "credentialed", "REFLACX"):
        assert word not in text, page


@pytest.mark.parametrize("layout", OWN)
def test_whatever_is_made_of_a_layout_works_and_names_its_terms(
    layout: str, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_tree(data, 12, small=True, seed=3, layout=layout)
    assert run_etl(data, out, "--privacy").exit_code == 0
    assert "no raw gaze." in (out / "README.md").read_text()
    assert run_etl(data, out, "--no-privacy").exit_code == 0
    for command in (("verify", "--against", data), ("report",), ("inspect",)):
        done = egma_prep(*command, "--out", out)
        assert done.exit_code == 0, done.output
    for kind in ("hf-dataset", "webdataset", "png", "npz"):
        done = egma_prep("export", tmp_path / kind, "--to", kind, "--out", out)
        assert done.exit_code == 0, done.output
    pages = [out / "README.md", out / "report.html", *tmp_path.glob("*/README.md")]
    assert len(pages) == 7  # the run's own README.md twice
    for page in pages:
        assert_names_its_own_terms(page, layout)
    trained = invoked(main, "--shards", out, "--out", out, *SMALL)
    assert trained.exit_code == 0, trained.output
    assert_names_its_own_terms(out / "runs/one/README.md", layout)
    against = "regions" if layout == "recordings" else "gaze"
    scored = egma_eval(
        "grounding", "--shards", out, "--out", tmp_path, "--against", against, out / "runs/one"
    )
    if layout == "open_i":  # reports that nobody looked at while they were written
        assert scored.exit_code == 2 and "Traceback" not in scored.output
        return
    assert scored.exit_code == 0, scored.output
    report = json.loads(written(tmp_path, f"grounding-{against}", name="one").read_text())
    assert report["metrics"]
