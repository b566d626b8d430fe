"""PHANTOM: an invented video of two frames, told by two actors' stories."""

import json
import shutil
from pathlib import Path

START_MS = 1_700_000_000_000


def sample(time_ms: int, x: float, y: float, frame: int) -> dict[str, float]:
    return {"x": x, "y": y, "time_ms_since_epoch": START_MS + time_ms, "kf_idx": frame}


def word(caption: str, said: str, start_ms: int, end_ms: int) -> dict[str, object]:
    at = caption.index(said)
    return {
        "referenced_word": said,
        "referenced_word_start_idx": at,
        "referenced_word_end_idx": at + len(said),
        "start_ms": start_ms,
        "end_ms": end_ms,
    }


def story(caption: str, words: list[tuple[str, int, int]], traces: list[list]) -> dict[str, object]:
    return {
        "actor_name": "PHANTOM",
        "recording_start_time_ms_since_epoch": START_MS,
        "caption": caption,
        "traces": traces,
        "time_alignment": [word(caption, *one) for one in words],
    }


FIRST = story(
    "The heart, which is large.",
    [("The", 500, 700), ("heart", 700, 1000), ("which", 1000, 1200), ("large", 1500, 2000)],
    [
        [sample(600, 0.5, 0.5, 0), sample(900, 0.55, 0.6, 0), sample(1300, 0.6, 0.6, 0)],
        [sample(1400, 0.3, 0.25, 1), sample(1900, 0.35, 0.25, 1)],
    ],
)
SECOND = story(
    "No effusion",
    [("No", 100, 300), ("effusion", 300, 900)],
    [[sample(150, 0.2, 0.8, 1), sample(450, 0.8, 0.8, 1), sample(800, 0.8, 0.7, 1)]],
)
VIDEO = {
    "dataset_id": "PHANTOM_train",
    "video_id": "A film (2025) _ PHANTOM",
    "annotator_id": 7,
    "keyframe_names": ["000021", "000062"],
    "actor_narratives": [FIRST, SECOND],
}


def write(root: Path, image: Path) -> None:
    frames = root / "frames" / str(VIDEO["dataset_id"]) / str(VIDEO["video_id"])
    frames.mkdir(parents=True)
    for name in VIDEO["keyframe_names"]:  # type: ignore[attr-defined]
        shutil.copy(image, frames / f"{name}.jpg")
    (root / "PHANTOM_train.jsonl").write_text(json.dumps(VIDEO) + "\n")
