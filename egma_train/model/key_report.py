"""What became of a checkpoint's keys, in words, and when that is too little."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from egma_train.errors import BadUsageError
from egma_train.model.key_names import BUFFERS, as_on_disk

SCALE = "logit_scale"
_SHAPES = {
    "transpose": "transposed",
    "squeeze": "of one cell squeezed",
    "split": "split into queries, keys and values",
}
_MOST_MISSING = 0.02
_OF_A_TOWER = re.compile(
    r"(^|\.)(embeddings|encoder|layernorm|resblocks|blocks|layer[1-4]|trunk|norm_pre|fc_norm)\."
)
"""Of its features; a classifier or another head is not."""


@dataclass(frozen=True)
class KeyReport:
    """What became of a checkpoint's keys.

    Attributes
    ----------
    missing, unexpected, left_out : list of str
        Not in the checkpoint; not in the model; known to be needless.
    missing_share : float
        Of a tower's numbers, or of its tensors if that is more.
    example : str
        A key of that tower that is missing.
    note : str
        What else is to be known of it.
    loaded : int, optional
        Tensors of the model that came from it.
    reshaped : mapping
        How many were transposed, squeezed or split.
    reasons : mapping
        Why a key was left out.
    of : str
        The system that the checkpoint should be of.
    unread : str
        What else the file holds, and was not made or run.
    """

    part: str
    missing: list[str]
    unexpected: list[str]
    left_out: list[str]
    missing_share: float = 0.0
    example: str = ""
    note: str = ""
    loaded: int | None = None
    reshaped: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    of: str = "Swin-T and BERT"
    unread: str = ""

    def lines(self) -> list[str]:
        """Tell in words, every key by name."""
        told = {"missing": self.missing, "unexpected": self.unexpected, "left out": self.left_out}
        head = ", ".join(f"{len(keys)} {kind}" for kind, keys in told.items())
        if self.loaded is not None:
            shapes = [f"{count} {_SHAPES[how]}" for how, count in self.reshaped.items()]
            changed = f" ({', '.join(shapes)})" if shapes else ""
            head = f"{self.loaded} loaded{changed}, {head}"
        why = {key: " (starts untrained)" for key in self.missing}
        why |= {key: f" ({reason})" for key, reason in self.reasons.items()}
        keys = [f"  {kind}: {key}{why.get(key, '')}" for kind in told for key in told[kind]]
        notes = [f"  {one}" for one in (self.note, self.unread) if one]
        return [f"{self.part}: {head}", *keys, *notes]

    def check(self) -> None:
        """Refuse a checkpoint that fills too little, or of which a tower's part would be lost."""
        if self.missing_share > _MOST_MISSING:
            odd = f", and {self.unexpected[0]} is unknown" if self.unexpected else ""
            raise BadUsageError(
                f"{self.part}: {self.missing_share:.0%} of the tower is missing, such as"
                f" {self.example}{odd}; is this checkpoint of {self.of}?"
            )
        if lost := [key for key in self.unexpected if _OF_A_TOWER.search(key)]:
            raise BadUsageError(
                f"{self.part}: {len(lost)} weights have no place in the tower, such as {lost[0]};"
                " it has more layers or other parts than its sizes say"
            )

    def check_complete(self) -> None:
        """Refuse what starts untrained: its features would be others each time."""
        if lacking := [key for key in self.missing if key != SCALE]:
            tower = lacking[0].partition(".")[0]
            others = sorted(self.unexpected, key=lambda key: not key.startswith(tower))
            odd = f" ({others[0]} is unknown)" if others else ""
            raise BadUsageError(
                f"{self.part}: {lacking[0]} is missing{odd}, and untrained weights give no figure;"
                " name weights that have it, or train first"
            )

    def cautions(self) -> list[str]:
        """Tell what changes figures of a checkpoint that is complete."""
        no_scale = f"{SCALE} is missing; 1/0.07 is taken" if SCALE in self.missing else ""
        such = ""
        if self.unexpected and self.loaded is not None:
            count, first = len(self.unexpected), self.unexpected[0]
            such = f"{count} keys are unknown, such as {first}; what they do is not done"
        return [told for told in (no_scale, such, self.note) if told]


def share_of(missing: list[str], own: Mapping[str, Tensor], prefix: str) -> tuple[float, str]:
    """Measure what a tower lacks, by numbers or tensors, projections apart; name one of it."""
    apart = re.compile(rf"projection_head|{BUFFERS.pattern}")
    of_tower = [key for key in own if key.startswith(prefix) and not apart.search(key)]
    lost = [key for key in of_tower if key in missing]
    by_numbers = sum(own[key].numel() for key in lost) / sum(own[key].numel() for key in of_tower)
    return max(by_numbers, len(lost) / len(of_tower)), as_on_disk(lost[0]) if lost else ""
