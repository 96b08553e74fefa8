"""The pretraining task: two towers and their losses make one step. Which losses there are, it does not know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ConfigError
from kvlp.losses.output import LossOutput
from kvlp.models.image_tokens import encode_with_tokens
from kvlp.training.objectives import Losses
from kvlp.training.objectives.part import Inputs, Sources
from kvlp.training.views import pool_views

__all__ = ["MAX_LOG_SCALE", "PretrainTask"]

#: Scales are clamped to [1, 100] after each step, as CLIP does.
MAX_LOG_SCALE = math.log(100)

#: Texts are embedded so many at a time, those of like length together.
TEXT_CHUNK = 32

#: What may be known of an image.
IMAGE_FEATURES = ("image_emb", "image_tokens", "image_raw")

Features = dict[str, Tensor]


class PretrainTask(nn.Module):
    """Encodes what the losses of a stage need and adds them up, weighted.

    `model` is an open_clip dual encoder (encode_image, encode_text, logit_scale). The learned numbers of a loss belong
    to the stage and are not saved in the model. `heads` last over the stages, also through those whose losses do not
    work through them, and are saved beside the model. What losses remember (`memories`) is state of the stage.

    Raises:
        ConfigError: a loss works through a head that there is none of.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Losses,
        *,
        pad_id: int = 0,
        heads: Mapping[str, nn.Module] | None = None,
        sources: Sources | None = None,
    ) -> None:
        super().__init__()
        active = losses.active
        self.parts, self.needs, self.taught = active.parts, active.needs, active.taught
        self.pad_id = pad_id
        # in this order: it is that of the parameters, and with it of the sum that is the gradient's norm
        self.learned = nn.ModuleDict({name: _numbers(part.learned()) for name, part in self.parts.items()})
        self.model: Any = model  # open_clip's methods are not those of every nn.Module
        self.losses = nn.ModuleDict({name: part.loss() for name, part in self.parts.items()})
        self.heads = nn.ModuleDict(dict(heads or {}))
        self.still: Sequence[nn.Module] = ()  # parts of the towers that stay in evaluation mode
        self.average: nn.Module | None = None  # of the weights; here so that it is saved with them
        for name, part in self.parts.items():
            if part.head and part.head not in self.heads:
                raise ConfigError(f"the loss {name} works through the head {part.head}, which the recipe does not have")
        self.memories = nn.ModuleDict()
        if sources is not None:
            for part in self.parts.values():
                found = part.memories(model, dict(self.heads.items()), sources)
                self.memories.update({name: one for name, one in found.items() if name not in self.memories})
        self._computed: dict[str, Inputs] = {}  # what the last losses were computed from, for `remember`

    def train(self, mode: bool = True) -> PretrainTask:  # noqa: FBT001 the signature is torch's
        """Switch to training, all but what is `still`."""
        super().train(mode)
        for module in self.still:
            module.eval()
        return self

    def encode(self, batch: dict[str, Tensor]) -> Features:
        """Embed the rows of a micro-batch: image_emb and, for each text that a loss needs, NAME_emb; of unit norm.

        Losses that look at both towers at once add features of their own.
        """
        found = {**self.encode_images(batch), **self.encode_reports(batch)}
        own = [part.encode(self.model, self._modules_by_name(), batch, found) for part in self.parts.values()]
        return {**found, **{name: value for one in own for name, value in one.items()}}

    def encode_images(self, batch: dict[str, Tensor]) -> Features:
        """Embed the images of a micro-batch: image_emb and, if a loss needs them, image_tokens; views are pooled."""
        return pool_views(self._embed_images(batch), batch.get("views"))

    def _embed_images(self, batch: dict[str, Tensor]) -> Features:
        if "image" not in batch:  # a locked tower's features came with the batch
            return {name: batch[name] for name in IMAGE_FEATURES if name in batch}
        if not self.needs & {"image_tokens", "image_raw"}:
            return {"image_emb": self.model.encode_image(batch["image"], normalize=True)}
        found: Features = {}
        if "image_tokens" in self.needs:
            raw, found["image_tokens"], _ = encode_with_tokens(self.model.visual, batch["image"])
        else:
            raw = self.model.encode_image(batch["image"])
        if "image_raw" in self.needs:
            found["image_raw"] = raw
        return {"image_emb": F.normalize(raw, dim=-1), **found}

    def encode_reports(self, batch: dict[str, Tensor]) -> Features:
        """Embed the texts of a micro-batch that a loss needs: text_emb and its like."""
        names = [name for name in batch if name != "image" and f"{name}_emb" in self.needs]
        found = {f"{name}_emb": self._embed(batch[name]) for name in names}
        return {**found, "text_raw": self._embed(batch["text"], unit=False)} if "text_raw" in self.needs else found

    def encode_shared(self, shared: dict[str, Tensor]) -> Features:
        """Embed the texts that all rows of a step share."""
        found = {name: self._embed(shared[name]) for name in shared if name in self.needs}
        return {name: value if name in self.taught else value.detach() for name, value in found.items()}

    def _embed(self, tokens: Tensor, *, unit: bool = True) -> Tensor:
        """Embed (n, L) padded texts in order of length: a long one does not make all the others long."""
        lengths = (tokens != self.pad_id).sum(dim=1)
        order = lengths.argsort(stable=True)
        pieces = [
            self.model.encode_text(tokens[part, : int(lengths[part[-1]])], normalize=unit)
            for part in order.split(TEXT_CHUNK)
        ]
        return torch.cat(pieces)[order.argsort()]

    def loss(self, features: Features, batch: dict[str, Tensor], shared: dict[str, Tensor]) -> LossOutput:
        """Weighted sum of the stage's losses; parts are named `loss` or `loss.part`."""
        total = next(iter(features.values())).new_zeros((), dtype=torch.float32)
        parts: dict[str, Tensor] = {}
        self._computed = {}
        for name, part in self.parts.items():
            if not features.keys() >= set(part.needs()):
                continue
            learned: Any = self.learned[name]
            scale = self.model.logit_scale.exp()
            x = Inputs(features, batch, shared, dict(learned.items()), self._modules_by_name(), scale)
            if self.memories:
                self._computed[name] = x
            output = part.compute(self.losses[name], x)
            total = total + part.weight * output.total
            parts[name] = output.total.detach()
            parts.update({f"{name}.{key}": value for key, value in output.parts.items()})
        return LossOutput(total, parts)

    def _modules_by_name(self) -> dict[str, nn.Module]:
        return {**dict(self.heads.items()), **dict(self.memories.items())}

    @torch.no_grad()
    def remember(self) -> None:
        """Let each loss remember what it needs of a step that was taken; of one that was not, nothing is kept."""
        for name, x in self._computed.items():
            self.parts[name].after_step(self.model, x)
        self._computed = {}

    def leave(self, out: Path, sources: Sources) -> None:
        """Let each loss write to the run folder what may be looked at."""
        for part in self.parts.values():
            part.leave(out, self._modules_by_name(), sources)

    @torch.no_grad()
    def clamp_scales(self) -> None:
        """Keep every scale in [1, 100]."""
        for name, parameter in self.named_parameters():
            if name == "model.logit_scale" or name.endswith(".log_scale"):
                parameter.clamp_(0, MAX_LOG_SCALE)


def _numbers(values: Mapping[str, float]) -> nn.ParameterDict:
    numbers = nn.ParameterDict()
    for name, value in values.items():
        numbers[name] = nn.Parameter(torch.tensor(value))
    return numbers
