"""Names of Swin weights: transformers 5 renamed them; files keep the names of MedCLIP and 4."""

import re
from collections.abc import Container

BUFFERS = re.compile(r"(\.position_ids|\.token_type_ids|relative_position_index)$")
"""Made anew with each model; some versions of transformers keep them among the weights."""

_RENAMED = (  # on disk, in transformers 5; the first fit wins
    ("attention.self.query", "attention.q_proj"),
    ("attention.self.key", "attention.k_proj"),
    ("attention.self.value", "attention.v_proj"),
    (
        "attention.self.relative_position_bias_table",
        "attention.relative_position_bias.relative_position_bias_table",
    ),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)
_SWIN = "vision_model.model."


def as_on_disk(name: str) -> str:
    """Name a weight as in files, whatever transformers calls it."""
    if name.startswith(_SWIN):
        for old, new in _RENAMED:
            if new in name:
                return name.replace(new, old)
    return name


def as_in_model(name: str, own: Container[str]) -> str:
    """Name a weight of a file as in a model whose names are `own`."""
    name = as_on_disk(name)
    if name.startswith(_SWIN) and name not in own:
        for old, new in _RENAMED:
            if old in name:
                return name.replace(old, new)
    return name
