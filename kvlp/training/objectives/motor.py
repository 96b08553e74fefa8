"""What the decoder of reports learns from in a recipe: to write each image's report, and to tell whether one fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from kvlp.training.objectives.momentum import MOMENTUM
from kvlp.training.objectives.part import Drawn, Inputs, LossPart, Samplers, Sources
from kvlp.training.settings import Positive, Weight

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from kvlp.losses.output import LossOutput
    from kvlp.typing import IntArray

__all__ = ["KNOWLEDGE", "MotorPart"]

#: Name of what it remembers: the rows' vectors and facts.
KNOWLEDGE = "knowledge"
#: Draws are whole numbers below this; a share of it is a number in [0, 1).
DRAWS = 1 << 24


class MotorPart(LossPart):
    """Weights and settings of language modelling and matching; `report_decoder` in the recipe says how it is built.

    `lm`, `itm`: their weights; 0 leaves one out. `refresh`: after so many steps each the vectors of all rows' texts and
    facts are made anew, by the momentum copy of the text tower where the stage has one; before the first time nothing
    is retrieved. `negatives`: as in `arl`, for both sides: an image for each text and a text for each image.
    """

    head: ClassVar[str] = "decoder"
    joint: ClassVar[bool] = True
    gathers: ClassVar[bool] = True

    lm: Weight = 1.0
    itm: Weight = 1.0
    refresh: Positive = 200
    negatives: Literal["hard", "random"] = "hard"

    def needs(self) -> tuple[str, ...]:
        return ("image_emb", "image_tokens", "text_emb")

    def memories(self, model: Any, heads: Mapping[str, Any], sources: Sources) -> dict[str, nn.Module]:
        from kvlp.training.knowledge_store import new_memory

        return {KNOWLEDGE: new_memory(sources, heads[self.head].settings["facts"], int(model.text.output_dim))}

    def samplers(self, sources: Sources) -> Samplers:
        def rows(indices: IntArray, rng: np.random.Generator) -> Drawn:
            return {
                "motor_report": [sources.texts.sample(int(i), rng, 0) for i in indices],
                "motor_image_draw": rng.integers(DRAWS, size=len(indices)),
                "motor_text_draw": rng.integers(DRAWS, size=len(indices)),
            }

        return Samplers(rows=rows)

    def encode(
        self, model: Any, heads: Mapping[str, Any], batch: Mapping[str, Tensor], features: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Of both losses: hidden states at each word and what follows it, vectors of pairs and which there are."""
        head, memory = heads[self.head], heads[KNOWLEDGE]
        s, scale = head.settings, float(model.logit_scale.detach().exp())
        groups = memory.groups[batch["row"]]
        known = memory.find(features["image_emb"], s["retrieve"], scale, groups=groups, mix=s["mix"])
        seen, ids = head.see(features["image_tokens"], known), batch["motor_report"]
        found: dict[str, Tensor] = {}
        if self.lm:
            found |= _told(head, ids, seen)
        if self.itm:
            found |= self._pairs(head, seen, batch, features, scale)
        return found

    def _pairs(
        self, head: Any, seen: Tensor, batch: Mapping[str, Tensor], features: Mapping[str, Tensor], scale: float
    ) -> dict[str, Tensor]:
        """Each text with its own image, each with another's image, each image with another's text.

        Others are sought among the rows of all processes.
        """
        import torch

        from kvlp.losses.image_text_matching import hard_negatives
        from kvlp.training.ranks import Together

        ids = batch["text"]
        rows = Together(len(ids))
        signature, own = rows.join(batch["signature"]), rows.own
        differs = signature[:, None] != signature[None, :]
        with torch.no_grad():
            texts, images = (rows.join(features[name].detach().float()) for name in ("text_emb", "image_emb"))
            similarity = scale * texts @ images.T
            if self.negatives == "random":
                similarity = torch.zeros_like(similarity)
        found = {"motor_matched": head.decoder(ids, seen, whole=True)[:, 0]}
        every_seen, every_text = rows.join(seen), rows.join(ids, pad=head.settings["pad_id"])
        for name, table in (("image", similarity), ("text", similarity.T)):
            other = hard_negatives(table[own], differs[own], batch[f"motor_{name}_draw"].double() / DRAWS)
            chosen = other.clamp(min=0)
            pair = (ids, every_seen[chosen]) if name == "image" else (every_text[chosen], seen)
            found[f"motor_other_{name}"] = head.decoder(*pair, whole=True)[:, 0]
            found[f"motor_apart_{name}"] = (other >= 0).float()
        return found

    def loss(self) -> nn.Module:
        from torch import nn

        from kvlp.losses.image_text_matching import ImageTextMatchingLoss
        from kvlp.losses.masked_language import MaskedLanguageLoss

        return nn.ModuleDict({"lm": MaskedLanguageLoss(), "itm": ImageTextMatchingLoss()})

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        import torch

        from kvlp.losses.output import LossOutput

        decoder: Any = x.heads[self.head].decoder
        f, found = x.features, {}
        if self.lm:
            told = f["motor_told"].flatten().long()
            found["lm"] = loss["lm"](f["motor_words"].flatten(0, 1), decoder.words, decoder.bias, told)
        if self.itm:
            others = [f[f"motor_other_{name}"][f[f"motor_apart_{name}"] > 0] for name in ("image", "text")]
            judge = decoder.judge
            found["itm"] = loss["itm"](f["motor_matched"], torch.cat(others), judge.weight, judge.bias)
        total = sum(getattr(self, name) * output.total for name, output in found.items())
        parts = {name: output.total.detach() for name, output in found.items()}
        parts |= {f"{name}_accuracy": output.parts["accuracy"] for name, output in found.items()}
        return LossOutput(torch.as_tensor(total), parts)

    def after_step(self, model: Any, x: Inputs) -> None:
        """Every `refresh` steps the vectors are made anew."""
        memory: Any = x.heads[KNOWLEDGE]
        memory.steps += 1
        retrieves = x.heads[self.head].settings["retrieve"]  # type: ignore[index]
        if retrieves and int(memory.steps) % self.refresh == 0:
            momentum: Any = x.heads.get(MOMENTUM)
            tower = model if momentum is None else momentum.model.copy
            memory.build(lambda ids: tower.encode_text(ids, normalize=True))

    def leave(self, out: Path, heads: Mapping[str, Any], sources: Sources) -> None:
        """The store as it is by now, `out/knowledge_store`."""
        from kvlp.training.knowledge_store import STORE, write_store

        write_store(out / STORE, heads[KNOWLEDGE], sources, heads[self.head].settings["facts"])


def _told(head: Any, ids: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """`motor_words` (B, context - 1, D) and `motor_told`, the token that follows each, -100 after the last."""
    import torch.nn.functional as F

    hidden = head.decoder(ids[:, :-1], seen)
    after = ids[:, 1:].masked_fill(ids[:, 1:] == head.settings["pad_id"], -100)
    room = head.settings["context"] - 1 - after.shape[1]  # micro-batches differ in length
    words = F.pad(hidden, (0, 0, 0, room))
    return {"motor_words": words, "motor_told": F.pad(after.float(), (0, room), value=-100.0)}
