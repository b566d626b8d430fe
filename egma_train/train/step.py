"""One step: encode a batch, compare it, move the weights."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from egma_train.data.loading import Batch, Texts, pixels
from egma_train.errors import BadUsageError, first_line
from egma_train.losses import TERMS, EgmaLoss, clip_loss, egma_loss
from egma_train.model.backbones.backbone import Backbone
from egma_train.model.weights import open_model
from egma_train.options import Options
from egma_train.processes import Processes, gathered
from egma_train.run_folder import RunFolder
from egma_train.train.numerics import precision_of, products

TOLD = ("scale", "loss", *TERMS, "gradient_norm")
"""What a step tells, in this order."""

Compile = Callable[..., Callable[..., Any]]
"""Takes a function, and ``dynamic`` as `torch.compile` does."""


@dataclass
class Progress:
    """Where a run stands; saved with each checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches of this epoch that are done."""


class Encoded(NamedTuple):
    """What the towers say of b readings, their sentences padded to m.

    Attributes
    ----------
    patches : Tensor
        ``[b, n, d]``.
    images : Tensor
        ``[b, d]``, pooled.
    sentences, whole_texts : Tensor
        ``[b, m, d]``, zeros in the padding: to be compared with patches, and with pooled images.
    scale : Tensor
        exp(logit_scale).
    """

    patches: Tensor
    images: Tensor
    sentences: Tensor
    whole_texts: Tensor
    scale: Tensor


class Towers(nn.Module):
    """Both towers of a system as a step calls them, compiled if asked."""

    def __init__(self, model: Backbone, compiled: Compile | None = None) -> None:
        super().__init__()
        self.model = model
        self._see, self._read = model.images, model.read
        if compiled:
            # transformers puts its hooks on when a tower is first asked for all its states, under a
            # lock that cannot be compiled.
            token = torch.ones(1, 1, dtype=torch.long, device=model.logit_scale.device)
            with torch.no_grad():
                model.read(token, token)
            # Batches have two sizes, whose kernels are better known; texts have several.
            self._see = compiled(model.images, dynamic=False)
            self._read = compiled(model.read)

    def forward(self, images: Tensor, texts: Sequence[Texts], longest: int) -> Encoded:
        """Encode images ``[b, 3, h, w]`` and their sentences, at most `longest` of each."""
        patches, pooled = self._see(images)
        read = [self._read(one.input_ids, one.attention_mask) for one in texts]
        places, spaces = torch.cat([one.places for one in texts]), len(images) * longest

        def padded(rows: Sequence[Tensor]) -> Tensor:
            own = torch.cat(list(rows))
            # The last row takes what only fills up.
            spread = own.new_zeros(spaces + 1, own.shape[-1]).index_copy(0, places, own)
            return spread[:-1].view(len(images), longest, -1)

        sentences = padded([one for one, _ in read])
        same = all(one is whole for one, whole in read)
        whole_texts = sentences if same else padded([whole for _, whole in read])
        return Encoded(patches, pooled, sentences, whole_texts, self.model.logit_scale.exp())


@dataclass(frozen=True)
class Trainer:
    """What takes a step: model, optimiser and where they run.

    Attributes
    ----------
    parallel : Module
        `Towers`, or these as all processes share them.
    precision : dtype
        Of the towers; the loss is in float32.
    compare : callable
        `egma_loss`, or as it was compiled.
    """

    model: Backbone
    parallel: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    options: Options
    processes: Processes
    device: torch.device
    precision: torch.dtype
    compare: Callable[..., EgmaLoss] = egma_loss

    def step(self, batch: Batch, at: Progress, rate: float) -> Tensor:
        """Move the weights once by a batch on this device; the host waits for nothing in it.

        Returns
        -------
        Tensor
            What `TOLD` names, on the device.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss, scale = self.gradients(batch, at.step)
        norm = self.update()
        told = [scale, loss.total, *(getattr(loss, name) for name in TERMS), norm]
        return torch.stack([one.detach().float() for one in told])

    def gradients(self, batch: Batch, step: int) -> tuple[EgmaLoss, Tensor]:
        """Compute a batch's loss and scale, and add the loss's gradients to the weights'.

        Several parts are encoded twice each: without a graph, for the loss of all, then with one,
        to hand that loss's gradients on. They are those of one pass (GradCache, Gao et al. 2021),
        in the memory of a part.
        """
        torch.compiler.cudagraph_mark_step_begin()
        # All processes alike, or those of one part would wait for others in another place.
        several = batch.in_parts
        with torch.set_grad_enabled(not several):
            encoded = [self.encoded(i, batch, step) for i in range(len(batch.parts))]
        columns = list(zip(*encoded, strict=True))
        whole = [torch.cat(own) if len(own) > 1 else own[0] for own in columns[:-1]]
        leaves = Encoded(*(own.detach().requires_grad_() for own in (*whole, columns[-1][0])))
        with products(self.device, tf32=False):
            loss = batch_loss(leaves, batch, self.options, self.compare)
            self.scaler.scale(loss.total).backward()
        # What a loss does not look at has a gradient of zero: weights decay all the same.
        wanted = [torch.zeros_like(own) if own.grad is None else own.grad for own in leaves]
        sizes = [len(part.images) for part in batch.parts]
        shared = [own.split(sizes) for own in wanted[:-1]]
        for i in range(len(batch.parts)):
            scale_once = wanted[-1] if i == 0 else torch.zeros_like(wanted[-1])
            with ExitStack() as stack:
                if isinstance(self.parallel, DistributedDataParallel) and i + 1 < len(batch.parts):
                    stack.enter_context(self.parallel.no_sync())  # the last part's has them all
                stack.enter_context(products(self.device, self.options.execution.tf32))
                made = self.encoded(i, batch, step) if several else encoded[0]
                gradients = [*(own[i] for own in shared), scale_once]
                # A tower whose weights are frozen has none to hand on.
                handed = [at for at, one in enumerate(made) if one.requires_grad]
                torch.autograd.backward(
                    [made[at] for at in handed], [gradients[at] for at in handed]
                )
        return loss, leaves.scale

    def update(self) -> Tensor:
        """Take one step of the optimiser; return the gradient's norm before clipping."""
        self.scaler.unscale_(self.optimizer)
        longest = self.options.train.clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.parallel.parameters(), longest)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.model.clamp_scale()
        return norm

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs beside the weights and where the run stands."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def restore(self, run: RunFolder) -> Progress:
        """Go on from the run's last checkpoint, or begin."""
        place = run.last_checkpoint()
        if place is None:
            return Progress()
        try:
            self.model.load_state_dict(open_model(place).state_dict())
            stored = torch.load(place / "training.pt", self.device, weights_only=True)
            for group in stored["optimizer"]["param_groups"]:
                # It may have been written on another device.
                group["fused"] = self.optimizer.param_groups[0]["fused"]
            self.optimizer.load_state_dict(stored["optimizer"])
            self.scaler.load_state_dict(stored["scaler"])
            progress = Progress(**stored["progress"])
        except ImportError:
            raise
        except Exception as error:
            why = first_line(error).partition(". ")[0]  # torch tells a paragraph
            raise BadUsageError(f"{place} is damaged ({why}); {run.without(place)}") from None
        if stored.get("run") not in (None, run.identity()):  # earlier versions did not say
            raise BadUsageError(f"{place} is of another run; {run.without(place)}")
        return progress

    def encoded(self, i: int, batch: Batch, step: int) -> Encoded:
        """Encode a part of a batch."""
        part, seen = batch.parts[i], self.model.facts
        # Dropout repeats itself after a resume and in the second pass, and differs between
        # processes and parts.
        of_step = self.options.train.seed * 1_000_003 + step
        torch.manual_seed(of_step * 4099 + self.processes.rank + (i << 48))
        images = pixels(part.images, seen.image_px, seen.mean, seen.std, part.draws, part.shares)
        low = self.precision != torch.float32
        with (
            products(self.device, self.options.execution.tf32),
            torch.autocast(self.device.type, self.precision, enabled=low),
        ):
            made: Encoded = self.parallel(images, part.texts, batch.sentence_mask.shape[1])
        return made


def make_trainer(
    model: Backbone,
    options: Options,
    processes: Processes,
    device: torch.device,
    compiled: Compile | None = None,
) -> Trainer:
    """Put a model's optimiser and helpers together."""
    precision = precision_of(options.execution.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    if options.execution.gradient_checkpointing:
        model.checkpoint_gradients()
    parallel: nn.Module = Towers(model, compiled)
    if processes.world > 1:
        # Their buffers never change, and to send them would be awaited in each part of a batch, of
        # which another process may have fewer.
        parallel = DistributedDataParallel(parallel, broadcast_buffers=False)
    return Trainer(
        model,
        parallel,
        make_optimizer(model, options, fused=device.type == "cuda"),
        scaler,
        options,
        processes,
        device,
        precision,
        compiled(egma_loss) if compiled else egma_loss,
    )


def batch_loss(
    encoded: Encoded,
    batch: Batch,
    options: Options,
    compare: Callable[..., EgmaLoss] = egma_loss,
) -> EgmaLoss:
    """Compute the objective on the global batch, from every process's features."""
    own = batch.images_by_rank
    if options.loss.objective == "clip":
        texts = gathered(encoded.whole_texts, own).sum(1) / batch.sentence_mask.sum(1, keepdim=True)
        total = clip_loss(gathered(encoded.images, own), texts, encoded.scale)
        zero = torch.zeros_like(total)
        return EgmaLoss(**dict.fromkeys(TERMS, zero) | {"contrastive": total}, total=total)
    return compare(
        gathered(encoded.patches, own),
        gathered(encoded.sentences, own),
        batch.sentence_mask,
        batch.grid,
        batch.grid_mask,
        encoded.scale,
        **options.loss.keywords(),
    )


def make_optimizer(model: Backbone, options: Options, *, fused: bool = False) -> torch.optim.AdamW:
    """AdamW; the logit scale does not decay unless asked."""
    others = [one for name, one in model.named_parameters() if name != "logit_scale"]
    decay = options.train.weight_decay
    return torch.optim.AdamW(
        [
            {"params": others, "weight_decay": decay},
            {
                "params": [model.logit_scale],
                "weight_decay": decay if options.train.decay_scale else 0.0,
            },
        ],
        lr=options.train.learning_rate,
        fused=fused or None,
    )
