"""Small checkpoints under the names and in the containers of published systems, and what each says.

The features are computed from the published names by plain functions of torch: nothing here comes
from what is tested, and transformers only where a system is one of its own classes.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it
from torch import Tensor, nn

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

_WORDS = (
    "no acute the lungs are clear pneumonia is present an apical pneumothorax left right heart"
    " size normal ##s ##ing opac ##ity effusion small large . , 1 2"
)
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS.split()]
WIDTH, LAYERS, D = 128, 4, 24
STEM, STAGES, DEPTHS = 8, (16, 32, 64, 128), (1, 2, 1, 1)


@dataclass(frozen=True)
class Said:
    """Features of pixels ``[k, 3, h, w]`` and tokens ``[t, l]``."""

    patches: Tensor
    pooled: Tensor
    texts: Tensor
    sentences: Tensor | None = None


@dataclass(frozen=True)
class Published:
    """A checkpoint on the disk, its tensors by published name, and its features by an oracle."""

    family: str
    place: Path
    state: State
    says: Callable[[State, Tensor, Tensor, Tensor], Said]
    grid: int


def drawn(shapes: Shapes, seed: int = 0) -> State:
    """Draw weights; norms near 1, variances above 0."""
    generator = torch.Generator().manual_seed(seed)

    def one(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(7)
        values = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            return values.abs() + 0.5
        if len(shape) == 1:  # a bias, or a norm's weight
            return (1.0 if name.endswith("weight") else 0.0) + 0.2 * values
        return values * (1.5 / math.sqrt(math.prod(shape[1:]) or 1))

    return {name: one(name, shape) for name, shape in shapes.items()}


# --- ResNet of torchvision -------------------------------------------------------------------


def norm_shapes(at: str, width: int, affine: bool = True) -> Shapes:
    own: Shapes = {f"{at}.weight": (width,), f"{at}.bias": (width,)} if affine else {}
    return own | {
        f"{at}.running_mean": (width,), f"{at}.running_var": (width,),
        f"{at}.num_batches_tracked": (),
    }  # fmt: skip


def resnet_shapes(at: str, head: int = 0) -> Shapes:
    shapes: Shapes = {f"{at}conv1.weight": (STEM, 3, 7, 7)} | norm_shapes(f"{at}bn1", STEM)
    before = STEM
    for stage, (width, depth) in enumerate(zip(STAGES, DEPTHS, strict=True), 1):
        for block in range(depth):
            own, inner = f"{at}layer{stage}.{block}.", width // 4
            sizes = [(inner, before, 1, 1), (inner, inner, 3, 3), (width, inner, 1, 1)]
            for k, size in enumerate(sizes, 1):
                shapes |= {f"{own}conv{k}.weight": size} | norm_shapes(f"{own}bn{k}", size[0])
            if block == 0:
                shapes |= {f"{own}downsample.0.weight": (width, before, 1, 1)}
                shapes |= norm_shapes(f"{own}downsample.1", width)
            before = width
    if head:
        shapes |= {f"{at}fc.weight": (head, before), f"{at}fc.bias": (head,)}
    return shapes


def batch_norm(state: Mapping[str, Tensor], at: str, x: Tensor) -> Tensor:
    own = (state[f"{at}.running_mean"], state[f"{at}.running_var"])
    return F.batch_norm(x, *own, state.get(f"{at}.weight"), state.get(f"{at}.bias"))


def resnet(state: State, at: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Give the maps of stages 3 and 4; stride 2 in the second convolution of a stage."""
    x = batch_norm(state, f"{at}bn1", F.conv2d(x, state[f"{at}conv1.weight"], None, 2, 3)).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    maps = []
    for stage, depth in enumerate(DEPTHS, 1):
        for block in range(depth):
            own, stride = f"{at}layer{stage}.{block}.", 2 if block == 0 and stage > 1 else 1
            y = F.conv2d(x, state[f"{own}conv1.weight"])
            y = batch_norm(state, f"{own}bn1", y).relu()
            y = F.conv2d(y, state[f"{own}conv2.weight"], None, stride, 1)
            y = batch_norm(state, f"{own}bn2", y).relu()
            y = batch_norm(state, f"{own}bn3", F.conv2d(y, state[f"{own}conv3.weight"]))
            if block == 0:
                x = F.conv2d(x, state[f"{own}downsample.0.weight"], None, stride)
                x = batch_norm(state, f"{own}downsample.1", x)
            x = (x + y).relu()
        maps.append(x)
    return maps[2], maps[3]


def rows(feature_map: Tensor) -> Tensor:
    return feature_map.permute(0, 2, 3, 1).flatten(1, 2)


# --- Transformers ----------------------------------------------------------------------------


def linear_shapes(at: str, out: int, into: int, bias: bool = True) -> Shapes:
    return {f"{at}.weight": (out, into)} | ({f"{at}.bias": (out,)} if bias else {})


def layer_norm_shapes(at: str, width: int) -> Shapes:
    return {f"{at}.weight": (width,), f"{at}.bias": (width,)}


def linear(state: State, at: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{at}.weight"].flatten(1), state.get(f"{at}.bias"))


def layer_norm(state: State, at: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{at}.weight"], state[f"{at}.bias"], eps)


def attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Attend with heads of 64 over ``[b, l, w]``; `allowed` is ``[b or 1, 1, l or 1, l]``."""
    q, k, v = (one.unflatten(-1, (-1, 64)).transpose(1, 2) for one in (q, k, v))
    scores = q @ k.mT / 8
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def bert_shapes(
    at: str, *, types: bool = True, pooler: bool = True, layers: int = LAYERS
) -> Shapes:
    e = f"{at}embeddings."
    shapes: Shapes = {
        f"{e}word_embeddings.weight": (len(VOCABULARY), WIDTH),
        f"{e}position_embeddings.weight": (600, WIDTH),
    }
    shapes |= {f"{e}token_type_embeddings.weight": (2, WIDTH)} if types else {}
    shapes |= layer_norm_shapes(f"{e}LayerNorm", WIDTH)
    for i in range(layers):
        own = f"{at}encoder.layer.{i}."
        for name in ("query", "key", "value"):
            shapes |= linear_shapes(f"{own}attention.self.{name}", WIDTH, WIDTH)
        shapes |= linear_shapes(f"{own}attention.output.dense", WIDTH, WIDTH)
        shapes |= layer_norm_shapes(f"{own}attention.output.LayerNorm", WIDTH)
        shapes |= linear_shapes(f"{own}intermediate.dense", 2 * WIDTH, WIDTH)
        shapes |= linear_shapes(f"{own}output.dense", WIDTH, 2 * WIDTH)
        shapes |= layer_norm_shapes(f"{own}output.LayerNorm", WIDTH)
    return shapes | (linear_shapes(f"{at}pooler.dense", WIDTH, WIDTH) if pooler else {})


def bert(
    state: State,
    at: str,
    ids: Tensor,
    mask: Tensor,
    *,
    positions: bool = True,
    layers: int = LAYERS,
) -> list[Tensor]:
    """Give all hidden states of a BERT."""
    e, eps = f"{at}embeddings.", 1e-12
    x = state[f"{e}word_embeddings.weight"][ids]
    places = torch.arange(ids.shape[1]) * positions
    x = x + state[f"{e}position_embeddings.weight"][places]
    if f"{e}token_type_embeddings.weight" in state:
        x = x + state[f"{e}token_type_embeddings.weight"][0]
    states = [layer_norm(state, f"{e}LayerNorm", x, eps)]
    for i in range(layers):
        own, x = f"{at}encoder.layer.{i}.", states[-1]
        qkv = (linear(state, f"{own}attention.self.{one}", x) for one in ("query", "key", "value"))
        seen = attend(*qkv, allowed=mask[:, None, None].bool())
        x = linear(state, f"{own}attention.output.dense", seen) + x
        x = layer_norm(state, f"{own}attention.output.LayerNorm", x, eps)
        y = F.gelu(linear(state, f"{own}intermediate.dense", x))
        y = linear(state, f"{own}output.dense", y) + x
        states.append(layer_norm(state, f"{own}output.LayerNorm", y, eps))
    return states


def vit_shapes(at: str, px: int = 224, patch: int = 16, layers: int = 2) -> Shapes:
    shapes: Shapes = {
        f"{at}cls_token": (1, 1, WIDTH),
        f"{at}pos_embed": (1, (px // patch) ** 2 + 1, WIDTH),
        f"{at}patch_embed.proj.weight": (WIDTH, 3, patch, patch),
        f"{at}patch_embed.proj.bias": (WIDTH,),
    }
    for i in range(layers):
        own = f"{at}blocks.{i}."
        shapes |= layer_norm_shapes(f"{own}norm1", WIDTH) | layer_norm_shapes(f"{own}norm2", WIDTH)
        shapes |= linear_shapes(f"{own}attn.qkv", 3 * WIDTH, WIDTH)
        shapes |= linear_shapes(f"{own}attn.proj", WIDTH, WIDTH)
        shapes |= linear_shapes(f"{own}mlp.fc1", 2 * WIDTH, WIDTH)
        shapes |= linear_shapes(f"{own}mlp.fc2", WIDTH, 2 * WIDTH)
    return shapes | layer_norm_shapes(f"{at}norm", WIDTH)


def vit(state: State, at: str, x: Tensor, layers: int = 2) -> Tensor:
    """Give the tokens of timm's ViT after its last norm (epsilon 1e-6)."""
    patch = state[f"{at}patch_embed.proj.weight"]
    x = rows(F.conv2d(x, patch, state[f"{at}patch_embed.proj.bias"], patch.shape[-1]))
    x = torch.cat([state[f"{at}cls_token"].expand(len(x), -1, -1), x], 1) + state[f"{at}pos_embed"]
    for i in range(layers):
        own = f"{at}blocks.{i}."
        y = layer_norm(state, f"{own}norm1", x, 1e-6)
        x = x + linear(
            state, f"{own}attn.proj", attend(*linear(state, f"{own}attn.qkv", y).chunk(3, -1))
        )
        y = F.gelu(linear(state, f"{own}mlp.fc1", layer_norm(state, f"{own}norm2", x, 1e-6)))
        x = x + linear(state, f"{own}mlp.fc2", y)
    return layer_norm(state, f"{at}norm", x, 1e-6)


# --- CLIP ------------------------------------------------------------------------------------

CLIP_PX, CLIP_PATCH, CLIP_LENGTH, CLIP_LAYERS = 64, 16, 77, 2


def clip_shapes(vocabulary: int) -> Shapes:
    n = (CLIP_PX // CLIP_PATCH) ** 2 + 1
    shapes: Shapes = {
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": (n, WIDTH),
        "visual.proj": (WIDTH, D),
        "visual.conv1.weight": (WIDTH, 3, CLIP_PATCH, CLIP_PATCH),
        "token_embedding.weight": (vocabulary, 64),
        "positional_embedding": (CLIP_LENGTH, 64),
        "text_projection": (64, D),
        "logit_scale": (),
    }
    for name, width in (("visual.ln_pre", WIDTH), ("visual.ln_post", WIDTH), ("ln_final", 64)):
        shapes |= layer_norm_shapes(name, width)
    for at, width in (("visual.transformer", WIDTH), ("transformer", 64)):
        for i in range(CLIP_LAYERS):
            own = f"{at}.resblocks.{i}."
            shapes |= {f"{own}attn.in_proj_weight": (3 * width, width)}
            shapes |= {f"{own}attn.in_proj_bias": (3 * width,)}
            shapes |= linear_shapes(f"{own}attn.out_proj", width, width)
            shapes |= linear_shapes(f"{own}mlp.c_fc", 4 * width, width)
            shapes |= linear_shapes(f"{own}mlp.c_proj", width, 4 * width)
            shapes |= layer_norm_shapes(f"{own}ln_1", width) | layer_norm_shapes(
                f"{own}ln_2", width
            )
    return shapes


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def clip_blocks(
    state: State, at: str, x: Tensor, activation: Callable[[Tensor], Tensor], causal: bool
) -> Tensor:
    allowed = torch.ones(x.shape[1], x.shape[1]).tril().bool()[None, None] if causal else None
    for i in range(CLIP_LAYERS):
        own = f"{at}.resblocks.{i}."
        y = layer_norm(state, f"{own}ln_1", x, 1e-5)
        qkv = F.linear(y, state[f"{own}attn.in_proj_weight"], state[f"{own}attn.in_proj_bias"])
        x = x + linear(state, f"{own}attn.out_proj", attend(*qkv.chunk(3, -1), allowed=allowed))
        y = linear(state, f"{own}mlp.c_fc", layer_norm(state, f"{own}ln_2", x, 1e-5))
        x = x + linear(state, f"{own}mlp.c_proj", activation(y))
    return x


def clip_says(activation: Callable[[Tensor], Tensor]) -> Callable[..., Said]:
    def says(state: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Said:
        x = rows(F.conv2d(pixels, state["visual.conv1.weight"], None, CLIP_PATCH))
        x = torch.cat([state["visual.class_embedding"].expand(len(x), 1, -1), x], 1)
        x = layer_norm(state, "visual.ln_pre", x + state["visual.positional_embedding"], 1e-5)
        x = clip_blocks(state, "visual.transformer", x, activation, causal=False)
        seen = layer_norm(state, "visual.ln_post", x, 1e-5) @ state["visual.proj"]
        y = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
        y = clip_blocks(state, "transformer", y, activation, causal=True)
        y = layer_norm(state, "ln_final", y, 1e-5)
        ends = [int((row == row.max()).nonzero()[0, 0]) for row in ids]
        read = torch.stack([own[end] for own, end in zip(y, ends, strict=True)])
        return Said(seen[:, 1:], seen[:, 0], read @ state["text_projection"])

    return says


# --- Heads -----------------------------------------------------------------------------------


def mgca_head_shapes(at: str, into: int, local: bool) -> Shapes:
    end = (1,) if local else ()
    return {
        f"{at}.head.0.weight": (40, into, *end), f"{at}.head.0.bias": (40,),
        **norm_shapes(f"{at}.head.1", 40),
        f"{at}.head.3.weight": (D, 40, *end), f"{at}.head.3.bias": (D,),
        **norm_shapes(f"{at}.head.4", D, affine=False),
    }  # fmt: skip


def mgca_head(state: State, at: str, x: Tensor) -> Tensor:
    flat = batch_norm(state, f"{at}.head.1", linear(state, f"{at}.head.0", x.flatten(0, -2)))
    flat = batch_norm(state, f"{at}.head.4", linear(state, f"{at}.head.3", flat.relu()))
    return flat.unflatten(0, x.shape[:-1])


def mean_of_tokens(states: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([own[keep.bool()].mean(0) for own, keep in zip(states, mask, strict=True)])


def of_gloria(state: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Said:
    x = F.interpolate(pixels, (299, 299), mode="bilinear", align_corners=True)
    third, fourth = resnet(state, "gloria.img_encoder.model.", x)
    local = linear(state, "gloria.img_encoder.local_embedder", rows(third))
    pooled = linear(state, "gloria.img_encoder.global_embedder", fourth.mean((2, 3)))
    states = bert(state, "gloria.text_encoder.model.", ids, mask)
    return Said(local, pooled, mean_of_tokens(sum(states[-4:]), mask))


def mgca_texts(state: State, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Read texts as MGCA: no order of words, global head on the class token, local on words."""
    states = bert(state, "text_encoder_q.model.", ids, mask, positions=False)[-1]
    words = []
    for own, numbers, keep in zip(states, ids.tolist(), mask.tolist(), strict=True):
        sums: list[Tensor] = []
        for vector, number, counted in zip(own[1:], numbers[1:], keep[1:], strict=True):
            if not counted:
                break
            if VOCABULARY[number].startswith("##"):
                sums[-1] = sums[-1] + vector
            else:
                sums.append(vector)
        words.append(mgca_head(state, "text_encoder_q.local_embed", torch.stack(sums)).mean(0))
    return mgca_head(state, "text_encoder_q.global_embed", states[:, 0]), torch.stack(words)


def of_mgca_vit(state: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Said:
    tokens = vit(state, "img_encoder_q.model.", pixels)
    local = mgca_head(state, "img_encoder_q.local_embed", tokens[:, 1:])
    pooled = mgca_head(state, "img_encoder_q.global_embed", tokens[:, 0])
    return Said(local, pooled, *mgca_texts(state, ids, mask))


def of_mgca_resnet(state: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Said:
    x = F.interpolate(pixels, (299, 299), mode="bilinear", align_corners=True)
    third, fourth = resnet(state, "img_encoder_q.model.", x)
    local = mgca_head(state, "img_encoder_q.local_embed", rows(third))
    pooled = mgca_head(state, "img_encoder_q.global_embed", fourth.mean((2, 3)))
    return Said(local, pooled, *mgca_texts(state, ids, mask))


def of_medclip_resnet(state: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Said:
    _, fourth = resnet(state, "vision_model.model.", pixels)
    local = F.linear(rows(fourth), state["vision_model.model.fc.weight"])
    pooled = F.linear(fourth.mean((2, 3)), state["vision_model.model.fc.weight"])
    states = bert(state, "text_model.model.", ids, mask)
    read = mean_of_tokens(sum(states[-4:]) / 4, mask)
    return Said(local, pooled, F.linear(read, state["text_model.projection_head.weight"]))


def of_biovil(state: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Said:
    _, fourth = resnet(state, "encoder.encoder.", pixels)
    if "encoder.missing_previous_emb" in state:
        fourth = F.conv2d(fourth, state["encoder.backbone_to_vit.weight"])
        before = state["encoder.missing_previous_emb"].expand_as(fourth)
        fourth = torch.cat([fourth, before], 1)
    y = batch_norm(state, "projector.model.1", F.conv2d(fourth, state["projector.model.0.weight"]))
    y = F.conv2d(y.relu(), state["projector.model.3.weight"], state["projector.model.3.bias"])
    read = bert(state, "bert.", ids, mask)[-1][:, 0]
    at = "cls_projection_head."
    read = layer_norm(
        state, f"{at}LayerNorm", F.gelu(linear(state, f"{at}dense_to_hidden", read)), 1e-12
    )
    return Said(rows(y), y.mean((2, 3)), linear(state, f"{at}dense_to_output", read))


def at_separator(states: Tensor, ids: Tensor) -> Tensor:
    last = [int((row == VOCABULARY.index("[SEP]")).nonzero()[-1, 0]) for row in ids]
    return torch.stack([own[i] for own, i in zip(states, last, strict=True)])


def of_cxr_clip(state: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Said:
    _, fourth = resnet(state, "image_encoder.resnet.", pixels)
    read = at_separator(bert(state, "text_encoder.text_encoder.", ids, mask)[-1], ids)
    return Said(
        linear(state, "image_projection.projection", rows(fourth)),
        linear(state, "image_projection.projection", fourth.mean((2, 3))),
        linear(state, "text_projection.projection", read),
    )


def of_cxr_clip_swin(state: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Said:
    tower = small_swin()
    at = "image_encoder.image_encoder."
    own = {name.removeprefix(at): one for name, one in state.items() if name.startswith(at)}
    tower.load_state_dict({new: own[old] for old, new in swin_names(tower).items()}, strict=False)
    seen = tower.eval()(pixels).last_hidden_state
    read = at_separator(bert(state, "text_encoder.text_encoder.", ids, mask)[-1], ids)
    patches = linear(state, "image_projection.projection", seen)
    return Said(patches, patches[:, 0], linear(state, "text_projection.projection", read))


def of_biomedclip(state: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Said:
    tokens = F.linear(vit(state, "visual.trunk.", pixels), state["visual.head.proj.weight"])
    read = bert(state, "text.transformer.", ids, mask)[-1][:, 0]
    read = F.linear(
        F.gelu(F.linear(read, state["text.proj.0.weight"])), state["text.proj.2.weight"]
    )
    return Said(tokens[:, 1:], tokens[:, 0], read)


# --- What is one of transformers' own classes --------------------------------------------------


def small_swin() -> Any:
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(
        image_size=224, patch_size=4, embed_dim=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4]
    )
    return SwinModel(config, add_pooling_layer=False)


def swin_names(tower: Any) -> dict[str, str]:
    """Map the names of transformers 4, in which files are, to those of this version."""
    renamed = (
        ("attention.q_proj", "attention.self.query"), ("attention.k_proj", "attention.self.key"),
        ("attention.v_proj", "attention.self.value"),
        ("attention.o_proj", "attention.output.dense"),
        ("attention.relative_position_bias.relative", "attention.self.relative"),
        ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense"),
    )  # fmt: skip
    names = {}
    for name in tower.state_dict():
        old = name
        for new_part, old_part in renamed:
            old = old.replace(new_part, old_part)
        if not name.endswith("relative_position_index"):
            names[old] = name
    return names


# --- Containers --------------------------------------------------------------------------------


def save_plain(path: Path, state: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), path)
    return path


def save_lightning(path: Path, state: State, *, old: bool = False) -> Path:
    """Write what Lightning 1.1 writes: omegaconf's objects, callbacks' classes as keys."""
    made = {
        "omegaconf.dictconfig": ["DictConfig"],
        "omegaconf.base": ["ContainerMetadata"],
        "pytorch_lightning.callbacks.model_checkpoint": ["ModelCheckpoint"],
    }
    parts = {".".join(name.split(".")[:i]) for name in made for i in range(1, 5)}
    modules = {name: ModuleType(name) for name in sorted(parts)}
    for name, classes in made.items():
        for one in classes:
            setattr(modules[name], one, type(one, (), {"__module__": name}))
    sys.modules |= modules
    try:
        config = modules["omegaconf.dictconfig"].DictConfig()
        config.__dict__ |= {"_metadata": modules["omegaconf.base"].ContainerMetadata(), "lr": 5e-5}
        callback = modules["pytorch_lightning.callbacks.model_checkpoint"].ModelCheckpoint
        whole = {
            "epoch": 3,
            "hyper_parameters": config,
            "callbacks": {callback: {"best_model_score": torch.tensor(0.5)}},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
            "state_dict": state,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(whole, path, _use_new_zipfile_serialization=not old)
    finally:
        for name in modules:
            sys.modules.pop(name, None)
    return path


class _Node(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def save_torchscript(path: Path, state: State) -> Path:
    """Write what OpenAI's archives are: half-precision parameters in a tree of scripted modules."""
    root = _Node()
    for name, value in state.items():
        *folders, last = name.split(".")
        place: Any = root
        for folder in folders:
            if not hasattr(place, folder):
                place.add_module(folder, _Node())
            place = getattr(place, folder)
        place.register_parameter(last, nn.Parameter(value.half(), requires_grad=False))
    for name, number in (("input_resolution", CLIP_PX), ("context_length", 77), ("vocab_size", 50)):
        root.register_buffer(name, torch.tensor(number))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.trace(root, torch.zeros(1)).save(str(path))
    return path


def write_wordpiece(folder: Path) -> Path:
    """Write a BERT's vocab.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    return folder


def write_bpe(folder: Path) -> int:
    """Write a small CLIP's vocab.json and merges.txt; return the number of words."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(one) for one in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    merges = [("l", "u"), ("lu", "n"), ("lun", "g"), ("c", "l"), ("e", "a"), ("n", "o</w>")]
    words = [*letters, *(one + "</w>" for one in letters), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("\n".join(lines))
    told = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "pad_token": "<|endoftext|>",
    }
    told |= {"unk_token": "<|endoftext|>", "bos_token": "<|startoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told | {"eos_token": "<|endoftext|>"}))
    return len(words)


# --- The systems -------------------------------------------------------------------------------


def gloria(folder: Path) -> Published:
    at = "gloria."
    state = drawn(
        resnet_shapes(f"{at}img_encoder.model.")
        | linear_shapes(f"{at}img_encoder.global_embedder", WIDTH, STAGES[3])
        | {f"{at}img_encoder.local_embedder.weight": (WIDTH, STAGES[2], 1, 1)}
        | bert_shapes(f"{at}text_encoder.model.")
    )
    extra = {f"{at}text_encoder.model.embeddings.position_ids": torch.arange(600)[None]}
    place = save_lightning(write_wordpiece(folder) / "chexpert_resnet50.ckpt", state | extra)
    return Published("gloria", place, state, of_gloria, 19)


def mgca(folder: Path, kind: str) -> Published:
    at, is_vit = "img_encoder_q.", kind == "mgca-vit"
    tower = vit_shapes(f"{at}model.") if is_vit else resnet_shapes(f"{at}model.")
    into = (WIDTH, WIDTH) if is_vit else (STAGES[3], STAGES[2])
    shapes = tower | bert_shapes("text_encoder_q.model.", types=False, pooler=False)
    for name, sizes in (("img_encoder_q", into), ("text_encoder_q", (WIDTH, WIDTH))):
        shapes |= mgca_head_shapes(f"{name}.global_embed", sizes[0], local=False)
        shapes |= mgca_head_shapes(f"{name}.local_embed", sizes[1], local=True)
    state = drawn(shapes)
    unused = {"prototype_layer.weight": (500, D), "patch_local_atten_layer.in_proj_bias": (3,)}
    cross = {"text_encoder_q.model.encoder.layer.0.crossattention.self.query.bias": (WIDTH,)}
    whole = state | drawn(unused | cross, seed=1)
    name = "vit_base.ckpt" if is_vit else "resnet_50.ckpt"
    place = save_lightning(write_wordpiece(folder) / name, whole, old=True)
    return Published(
        kind, place, state, of_mgca_vit if is_vit else of_mgca_resnet, 14 if is_vit else 19
    )


def medclip_resnet(folder: Path) -> Published:
    shapes = resnet_shapes("vision_model.model.") | bert_shapes("text_model.model.")
    shapes |= {"vision_model.model.fc.weight": (D, STAGES[3]), "logit_scale": ()}
    shapes |= {"text_model.projection_head.weight": (D, WIDTH)}
    state = drawn(shapes)
    save_plain(write_wordpiece(folder) / "pytorch_model.bin", state)
    return Published("medclip-resnet", folder, state, of_medclip_resnet, 7)


def biovil(folder: Path, kind: str) -> Published:
    shapes = resnet_shapes("encoder.encoder.", head=10)
    into, grid, name = STAGES[3], 15, "biovil_image_resnet50_proj_size_128.pt"
    if kind == "biovil-t":
        into, grid, name = 2 * 20, 14, "biovil_t_image_model_proj_size_128.pt"
        shapes |= {"encoder.backbone_to_vit.weight": (20, STAGES[3], 1, 1)}
        shapes |= {"encoder.missing_previous_emb": (1, 20, 1, 1)}
        shapes |= {"encoder.vit_pooler.blocks.0.norm1.weight": (20,)}
    shapes |= {"projector.model.0.weight": (D, into, 1, 1), **norm_shapes("projector.model.1", D)}
    shapes |= {"projector.model.3.weight": (D, D, 1, 1), "projector.model.3.bias": (D,)}
    images = drawn(shapes)
    at = "cls_projection_head."
    text = bert_shapes("bert.", pooler=False) | {"cls.predictions.bias": (len(VOCABULARY),)}
    text |= linear_shapes(f"{at}dense_to_hidden", D, WIDTH) | layer_norm_shapes(f"{at}LayerNorm", D)
    texts = drawn(text | linear_shapes(f"{at}dense_to_output", D, D), seed=1)
    save_plain(write_wordpiece(folder) / name, images)
    save_plain(folder / "pytorch_model.bin", texts)
    return Published(kind, folder, images | texts, of_biovil, grid)


def cxr_clip(folder: Path, kind: str) -> Published:
    is_swin = kind == "cxr-clip-swin"
    if is_swin:
        tower = small_swin()
        at = "image_encoder.image_encoder."
        own = tower.state_dict()
        image: Shapes = {at + old: own[new].shape for old, new in swin_names(tower).items()}
        into = tower.config.hidden_size
    else:
        image, into = resnet_shapes("image_encoder.resnet."), STAGES[3]
    shapes = image | bert_shapes("text_encoder.text_encoder.") | {"logit_scale": ()}
    shapes |= linear_shapes("image_projection.projection", D, into)
    state = drawn(shapes | linear_shapes("text_projection.projection", D, WIDTH))
    whole = {"model": state, "optimizer": {"state": {}}, "config": {"a": 1}, "epoch": 9}
    name = "swint_mcc.tar" if is_swin else "r50_mcc.tar"
    place = save_plain(write_wordpiece(folder) / name, whole)
    return Published(kind, place, state, of_cxr_clip_swin if is_swin else of_cxr_clip, 7)


def biomedclip(folder: Path) -> Published:
    shapes = vit_shapes("visual.trunk.") | bert_shapes("text.transformer.", pooler=False)
    shapes |= {"visual.head.proj.weight": (D, WIDTH), "logit_scale": ()}
    state = drawn(shapes | {"text.proj.0.weight": (32, WIDTH), "text.proj.2.weight": (D, 32)})
    save_plain(write_wordpiece(folder) / "open_clip_pytorch_model.bin", state)
    return Published("biomedclip", folder, state, of_biomedclip, 14)


def openai_clip(folder: Path) -> Published:
    """Write OpenAI's archive; half precision, so the oracle reads what is left of the numbers."""
    state = drawn(clip_shapes(write_bpe(folder)))
    half = {name: one.half().float() for name, one in state.items()}
    place = save_torchscript(folder / "ViT-B-32.pt", state)
    return Published("clip", place, half, clip_says(quick_gelu), CLIP_PX // CLIP_PATCH)


def laion_clip(folder: Path) -> Published:
    state = drawn(clip_shapes(write_bpe(folder)))
    place = save_plain(folder / "open_clip_pytorch_model.bin", state)
    return Published("clip", place, state, clip_says(F.gelu), CLIP_PX // CLIP_PATCH)


def chexzero(folder: Path) -> Published:
    state = drawn(clip_shapes(write_bpe(folder)))
    place = save_plain(folder / "best_64_5e-05_original_17000_0.863.pt", state)
    return Published("chexzero", place, state, clip_says(quick_gelu), CLIP_PX // CLIP_PATCH)


def pubmed_clip(folder: Path) -> Published:
    state = drawn(clip_shapes(write_bpe(folder)))
    whole = {"best_epoch": 3, "state_dict": state, "best_loss": 0.1}
    place = save_plain(folder / "PubMedCLIP_ViT32.pth", whole)
    return Published("clip", place, state, clip_says(quick_gelu), CLIP_PX // CLIP_PATCH)


def hugging_face_clip(folder: Path, activation: str) -> Published:
    """Save a CLIPModel by transformers; the features are its own."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    common = {"hidden_act": activation, "num_hidden_layers": 2}
    vision = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 256}
    text = {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 128}
    sizes = {"image_size": CLIP_PX, "patch_size": CLIP_PATCH}
    words = {"vocab_size": write_bpe(folder)}
    words |= {"bos_token_id": words["vocab_size"] - 2, "eos_token_id": words["vocab_size"] - 1}
    config = CLIPConfig(
        vision_config=common | vision | sizes, text_config=common | text | words, projection_dim=D
    )
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "CLIPTokenizer"

    def says(_: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Said:
        seen = model.vision_model(pixel_values=pixels)
        tokens = model.vision_model.post_layernorm(seen.last_hidden_state)
        read = model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        project = model.visual_projection
        return Said(
            project(tokens[:, 1:]), project(seen.pooler_output), model.text_projection(read)
        )

    return Published("clip", folder, model.state_dict(), says, CLIP_PX // CLIP_PATCH)


def siglip(folder: Path) -> Published:
    """Save a SiglipModel by transformers; heads are not of 64, as in so400m."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 200}
    vision = sizes | {"num_hidden_layers": 2, "image_size": 64, "patch_size": 8}
    text = sizes | {"num_hidden_layers": 2, "vocab_size": 40, "projection_size": 96}
    text |= {"bos_token_id": None, "eos_token_id": 1}
    config = SiglipConfig(vision_config=vision, text_config=text)
    model = SiglipModel(config).eval()
    with torch.no_grad():
        model.logit_scale.fill_(math.log(117.3))
        model.logit_bias.fill_(-12.9)
        for weights in model.parameters():  # its own first weights are too near 0 to tell apart
            if weights.dim() > 1:
                weights.mul_(2)
    model.save_pretrained(folder)
    words = {word: i for i, word in enumerate(["<unk>", "</s>", *_WORDS.split()])}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="</s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)

    def says(_: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Said:
        assert ids.shape[1] == 64  # text_config's own length
        seen = model.vision_model(pixel_values=pixels)
        tokens = seen.last_hidden_state
        patches = [model.vision_model.head(tokens[:, i : i + 1]) for i in range(tokens.shape[1])]
        read = model.text_model(input_ids=ids).pooler_output
        return Said(torch.stack(patches, 1), seen.pooler_output, read)

    return Published("siglip", folder, model.state_dict(), says, 8)


def vision_tower(kind: str) -> Any:
    """Make a small image tower of transformers, and the side of its grid on 224 px."""
    from transformers import (
        Dinov2Config,
        Dinov2Model,
        ResNetConfig,
        ResNetModel,
        ViTConfig,
        ViTModel,
    )

    torch.manual_seed(1)
    sizes = {"hidden_size": 96, "num_attention_heads": 3, "num_hidden_layers": 2}
    if kind == "vit":
        return ViTModel(ViTConfig(**sizes, intermediate_size=128, image_size=224)), 14
    if kind == "dinov2":
        return Dinov2Model(Dinov2Config(**sizes, image_size=224, patch_size=14)), 16
    if kind == "resnet":
        return ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[16, 32, 64, 96])), 7
    return small_swin(), 7


def text_tower(kind: str) -> Any:
    """Make a small text tower of transformers with a pooler."""
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    torch.manual_seed(2)
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 4}
    sizes |= {"intermediate_size": 128, "vocab_size": len(VOCABULARY)}
    if kind == "roberta":
        more = {"pad_token_id": 0, "max_position_embeddings": 130, "type_vocab_size": 1}
        return RobertaModel(RobertaConfig(**sizes, **more))
    return BertModel(BertConfig(**sizes, max_position_embeddings=128))


def dual_encoder(folder: Path) -> Published:
    """Save a VisionTextDualEncoderModel by transformers; the pooled features are its own."""
    from transformers import VisionTextDualEncoderConfig, VisionTextDualEncoderModel

    (vision, grid), text = vision_tower("vit"), text_tower("bert")
    torch.manual_seed(3)
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision.config, text.config, projection_dim=D
    )
    model = VisionTextDualEncoderModel(config, vision_model=vision, text_model=text).eval()
    model.save_pretrained(write_wordpiece(folder))
    preparation = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "resample": 3}
    preparation |= {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    told = json.dumps(preparation | {"do_center_crop": True})
    (folder / "preprocessor_config.json").write_text(told)

    def says(_: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Said:
        seen = model(input_ids=ids, attention_mask=mask, pixel_values=pixels)
        tokens = model.vision_model(pixels).last_hidden_state[:, 1:]
        images = model.visual_projection(seen.vision_model_output.pooler_output)
        texts = model.text_projection(seen.text_model_output.pooler_output)
        return Said(model.visual_projection(tokens), images, texts)

    return Published("dual-encoder", folder, model.state_dict(), says, grid)


def two_folders(folder: Path, vision_kind: str, text_kind: str) -> tuple[Path, Path]:
    """Save an image tower and a text tower, each in a folder of its own."""
    vision_tower(vision_kind)[0].save_pretrained(folder / "vision")
    text_tower(text_kind).save_pretrained(write_wordpiece(folder / "text"))
    return folder / "vision", folder / "text"
