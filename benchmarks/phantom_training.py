"""Train ``tiny`` on phantoms, for egma and clip equally long; test on other phantoms.

Zero-shot: images with exactly one of six findings; the class whose best prompt is most similar, to
the pooled feature as in the paper, or to the best patch. Pointing: each sentence that looks at a
place; a hit if the most similar patch touches the place's box. Prints a Markdown table.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from os import environ
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from egma_prep import open_shards
from egma_prep.synth.findings import KINDS
from egma_train import load_model
from egma_train.data.loading import pixels

FRAME_PX, PATCH_PX = 224, 32
SEEDS, OBJECTIVES = (0, 1, 2), ("egma", "clip")
CLASSES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Lung Lesion", "Pleural Effusion",
           "Pneumothorax")  # fmt: skip


@click.command()
@click.option("--train-readings", default=600, show_default=True)
@click.option("--test-readings", default=400, show_default=True)
@click.option("--epochs", default=30, show_default=True)
def main(train_readings: int, test_readings: int, epochs: int) -> None:
    """Print what training brings on phantoms, three seeds each."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, number, seed in (("train", train_readings, 11), ("test", test_readings, 12)):
            tree, out = root / f"{name}-tree", root / name
            command("egma_prep", "synth", tree, "--readings", number, "--small", "--seed", seed)
            command("egma_prep", "run", tree, "--out", out, "--config", "phantom")
        jobs = [(root, objective, seed, epochs) for seed in SEEDS for objective in OBJECTIVES]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda job: trained(*job), jobs))
        tests = held_out(root)
        print(f"{train_readings} readings to train, {epochs} epochs; {len(tests[0])} images of one"
              f" finding and {len(tests[1])} sentences with a place to test\n")  # fmt: skip
        report(root, tests)


def command(module: str, *arguments: object) -> None:
    """Run one of our commands on one thread."""
    script = "from egma_prep.cli import main; main()" if module == "egma_prep" else None
    call = ["-c", script] if script else ["-m", module]
    words = [sys.executable, *call, *map(str, arguments)]
    subprocess.run(words, check=True, stdout=sys.stderr, env=environ | {"OMP_NUM_THREADS": "1"})


def trained(root: Path, objective: str, seed: int, epochs: int) -> None:
    """Train one model."""
    command("egma_train", "--shards", root / "train", "--out", root, "--preset", "tiny",
            "--objective", objective, "--seed", seed, "--epochs", epochs)  # fmt: skip


def held_out(root: Path) -> tuple[list[Any], list[Any]]:
    """List (image, class) with one finding, and (image, text, touching patches [49])."""
    truth = json.loads((root / "test-tree" / "PHANTOM-truth.json").read_text())["readings"]
    by_key = {(one["dataset"], one["reading_id"]): one for one in truth}
    single: dict[str, Any] = {}
    places = []
    for reading in open_shards(root / "test"):
        names = {name.partition(":")[2] for name, value in reading.labels.items()
                 if name.startswith("chexpert:") and value == 1}  # fmt: skip
        if len(found := names & set(CLASSES)) == 1:
            single[reading.dicom_id] = (reading.image, CLASSES.index(found.pop()))
        known = by_key[reading.dataset, reading.reading_id]
        for sentence in known["sentences"]:
            if sentence["target_box"]:
                touched = patches_in(sentence["target_box"], known["width"], known["height"])
                finding = any(f["ellipse"] == sentence["target_box"] for f in known["findings"])
                places.append((reading.image, sentence["text"], touched, finding))
    return list(single.values()), places


def patches_in(box: list[float], width: int, height: int) -> Any:
    """Tell which of the 7 x 7 patches a box in image px touches: ``(49,)`` bool."""
    side = max(width, height)
    offset = np.array([(side - width) // 2, (side - height) // 2] * 2)
    x0, y0, x1, y1 = (np.array(box) + offset + 0.5) * FRAME_PX / side - 0.5
    low = np.arange(0, FRAME_PX, PATCH_PX)
    columns, rows = (low < x1) & (low + PATCH_PX > x0), (low < y1) & (low + PATCH_PX > y0)
    return (rows[:, None] & columns).ravel()


@torch.no_grad()
def measured(folder: Path, tests: tuple[list[Any], list[Any]]) -> dict[str, float]:
    """Measure one model."""
    model, tokenizer = load_model(folder)
    model.eval()

    def unit(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(values, dim=-1)

    def seen(images: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        stored = torch.from_numpy(np.stack(images))
        made = pixels(stored, model.options.image_px, model.options.image_mean,
                      model.options.image_std, None)  # fmt: skip
        parts = [model.vision_model(part) for part in made.split(64)]
        patches, pooled = (torch.cat(each) for each in zip(*parts, strict=True))
        return unit(patches), unit(pooled)

    def read(texts: list[str]) -> torch.Tensor:
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        return unit(model.text_model(tokens["input_ids"], tokens["attention_mask"]))

    prompts = [
        (CLASSES.index(kind.labels[2]), f"{phrase.format(place=place, side=place.split()[0])}.")
        for kind in KINDS.values()
        if kind.labels[2] in CLASSES
        for phrase in kind.phrases
        for place in kind.places
    ]
    classes = np.array([number for number, _ in prompts])
    said = read([text for _, text in prompts])
    patches, pooled = seen([image for image, _ in tests[0]])
    truth = np.array([number for _, number in tests[0]])
    scores = {"pooled": pooled @ said.T, "best patch": (patches @ said.T).amax(1)}
    result = {}
    for name, score in scores.items():
        best = np.stack([score.numpy()[:, classes == c].max(1) for c in range(len(CLASSES))], 1)
        hits = best.argmax(1) == truth
        result[f"zero-shot, {name}"] = float(np.mean([hits[truth == c].mean() for c in set(truth)]))
    texts = sorted({text for _, text, *_ in tests[1]})
    vectors = dict(zip(texts, read(texts), strict=True))
    patches, _ = seen([image for image, *_ in tests[1]])
    best_patch = torch.stack(
        [own @ vectors[one[1]] for own, one in zip(patches, tests[1], strict=True)]
    )
    hits = np.array([one[2][i] for one, i in zip(tests[1], best_patch.argmax(1), strict=True)])
    finding = np.array([one[3] for one in tests[1]])
    return result | {
        "pointing": float(hits.mean()),
        "pointing, findings": float(hits[finding].mean()),
    }


def report(root: Path, tests: tuple[list[Any], list[Any]]) -> None:
    """Print a row for chance and for each objective, before and after: mean [least, most]."""
    touched, finding = (
        np.array([one[2] for one in tests[1]]),
        np.array([one[3] for one in tests[1]]),
    )
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for objective in OBJECTIVES:
        for seed in SEEDS:
            run = root / "runs" / f"tiny-{objective}-seed{seed}"
            if objective == OBJECTIVES[0]:
                found["before training"].append(measured(run / "start", tests))
            found[objective].append(measured(run / "model", tests))
    columns = list(found[OBJECTIVES[0]][0])
    chances = [1 / len(CLASSES)] * 2 + [touched.mean(), touched[finding].mean()]
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    print(f"| chance | {' | '.join(f'{chance:.2f}' for chance in chances)} |")
    for name, rows in found.items():
        cells = [[row[column] for row in rows] for column in columns]
        told = (f"{np.mean(c):.2f} [{min(c):.2f}, {max(c):.2f}]" for c in cells)
        print(f"| {name} | {' | '.join(told)} |")


if __name__ == "__main__":
    main()
