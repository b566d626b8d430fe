"""Every family by its name, and how to tell which one a file holds."""

import re

from egma_train.errors import BadUsageError
from egma_train.model.backbones.backbone import Backbone, State
from egma_train.model.backbones.biomedclip import BiomedClip
from egma_train.model.backbones.biovil import Biovil, BiovilT
from egma_train.model.backbones.clip import CheXzero, Clip
from egma_train.model.backbones.cxr_clip import CxrClip, CxrClipSwin
from egma_train.model.backbones.gloria import Gloria
from egma_train.model.backbones.medclip_resnet import MedclipResnet
from egma_train.model.backbones.mgca import MgcaResnet, MgcaVit
from egma_train.model.backbones.pair import DualEncoder, Folders
from egma_train.model.backbones.siglip import Siglip

# The first whose signature fits is taken: a BioViL-T has all that a BioViL has, and what shares
# its keys with another (CheXzero with CLIP) is taken by its name alone.
FAMILIES: dict[str, type[Backbone]] = {
    one.family: one
    for one in (
        Siglip,
        Clip,
        CheXzero,
        Gloria,
        MgcaVit,
        MgcaResnet,
        MedclipResnet,
        BiovilT,
        Biovil,
        CxrClip,
        CxrClipSwin,
        BiomedClip,
        DualEncoder,
        Folders,
    )
}

NAMES: dict[str, tuple[type[Backbone], ...]] = {
    **{name: (one,) for name, one in FAMILIES.items()},
    "mgca": (MgcaVit, MgcaResnet),
    "cxr-clip": (CxrClip, CxrClipSwin),
}
"""What a user may call a system; of several kinds its keys decide."""

_LEFT_OUT = {
    r"visual\.attnpool\..*": "a CLIP with a ResNet (RN50 and larger): its attention pooling is in"
    " no class of transformers; take a ViT's",
    r"(image_encoder\..*res_l1|res_features\.0)\.weight": "a ConVIRT, which its authors never"
    " released; the paper's own row stands in the table",
    r"ave_tokens|.*\bdisease_book.*": "a MedKLIP: it has no text tower at use",
    r"query_proj.*|.*\bdecoder\.layers\.0\.multihead_attn.*": "a KAD or MedKLIP: it scores by its"
    " query decoder, not by a cosine",
}


def family_of(state: State) -> type[Backbone] | None:
    """Tell a family by its keys; None for MedCLIP's and EGMA's, and for what nobody knows.

    Raises
    ------
    BadUsageError
        For systems that are left out, by name.
    """
    for pattern, why in _LEFT_OUT.items():
        if any(re.fullmatch(rf"(.*\.)?(?:{pattern})", name) for name in state):
            raise BadUsageError(f"this is {why}")
    fitting = (one for one in FAMILIES.values() if prefix_of(one, state) is not None)
    return next(fitting, None)


def family_named(name: str, state: State) -> type[Backbone]:
    """Take the kind of a named system that a file holds.

    Raises
    ------
    BadUsageError
        If it holds none.
    """
    for family in NAMES[name]:
        if prefix_of(family, state) is not None:
            return family
    wanted = " or ".join(one.signature.replace("\\", "") for one in NAMES[name])
    found = family_of(state)
    raise BadUsageError(
        f"this is no {name}, whose keys have {wanted}"
        + (f"; it looks like a {found.family}" if found else "")
    )


def prefix_of(family: type[Backbone], state: State) -> str | None:
    """Find what stands before a family's keys, such as Lightning's ``gloria.``; None: not its."""
    whole = re.compile(rf"((?:module\.|model\.|gloria\.|net\.|_orig_mod\.)*)(?:{family.signature})")
    return next((found[1] for found in map(whole.fullmatch, state) if found), None)
