"""Second-order graph matching of two views in a recipe: images alone, as in LVM-Med."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from kvlp.errors import ConfigError
from kvlp.training.objectives.part import Drawn, Inputs, LossPart, Samplers, Sources
from kvlp.training.settings import Positive, Share, Weight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from kvlp.losses.output import LossOutput
    from kvlp.typing import IntArray

__all__ = ["GraphMatchingPart"]

#: How far white is from black once an image is normalised with a deviation of about a quarter.
WHITE = 4.0


class GraphMatchingPart(LossPart):
    """Weight and settings of graph matching: two crops of every image are matched as graphs, see `kvlp.losses`.

    `dim`: the width of the joint space (`model.embed_dim`); `neighbours` that each image has an edge to; `layers` of
    messages. `alpha`: the share of the whole image's affinity, the rest is that of places; 1 leaves places out.
    `edge_weight`: of the second order; 0 leaves it out. `temperature` of the noise; `strength` of the second matching.
    `area`: least share of the image in a crop. `flip`: mirror half of the crops, as published; not for chest films.
    """

    joint: ClassVar[bool] = True
    gathers: ClassVar[bool] = True

    dim: Positive = 128
    neighbours: Positive = 5
    layers: Annotated[int, Field(ge=0)] = 1
    alpha: Share = 0.8
    edge_weight: Weight = 1.0
    temperature: Weight = 0.02
    strength: Annotated[float, Field(gt=0)] = 0.5
    area: Annotated[float, Field(gt=0, le=1)] = 0.4
    flip: bool = False

    def needs(self) -> tuple[str, ...]:
        return ("view_first", "view_second")

    def samplers(self, sources: Sources) -> Samplers:
        def rows(indices: IntArray, rng: np.random.Generator) -> Drawn:
            return {"view_draw": rng.integers(1 << 31, size=len(indices))}

        return Samplers(rows=rows)

    def encode(
        self, model: Any, heads: Mapping[str, Any], batch: Mapping[str, Tensor], features: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Of both crops NAME: `view_NAME` (B, D), and their cells `cells_NAME` (B, P, D) at `places_NAME` (B, P, 2).

        Raises:
            ConfigError: the batch has no images (a locked tower), or the tower gives no map of places.
        """
        from kvlp.datasets.multi_crop import CropSettings, cell_places, crop_images
        from kvlp.models.image_tokens import encode_with_tokens
        from kvlp.training.ranks import Together

        if "image" not in batch:
            raise ConfigError("graph_matching looks at the images themselves; leave lock_image out of its stage")
        settings = CropSettings(size=batch["image"].shape[-1], area=(self.area, 1.0), flip=self.flip)
        rows = Together(len(batch["image"]))  # crops of all processes' rows are drawn together
        rng = np.random.default_rng(int(rows.join(batch["view_draw"])[0]))
        found: dict[str, Tensor] = {}
        part = (rows.own.start, rows.count)
        views = crop_images(batch["image"], settings, rng, white=WHITE, part=part)
        for name, crops in zip(("first", "second"), views, strict=True):
            seen = encode_with_tokens(model.visual, crops.pixels)
            found |= {f"view_{name}": seen.pooled, f"cells_{name}": seen.tokens}
            found[f"places_{name}"] = cell_places(crops.boxes, *seen.grid)
        return found

    def loss(self) -> nn.Module:
        """The graphs of views, which are learned, and the matching."""
        from torch import nn

        from kvlp.losses.graph_matching import GraphMatchingLoss
        from kvlp.models.graph_views import ViewGraph

        match = GraphMatchingLoss(
            alpha=self.alpha, edge_weight=self.edge_weight, temperature=self.temperature, strength=self.strength
        )
        graph = ViewGraph(self.dim, dim=self.dim, hidden=4 * self.dim, neighbours=self.neighbours, layers=self.layers)
        return nn.ModuleDict({"graph": graph, "match": match})

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        import torch

        from kvlp.losses.graph_matching import gumbel_noise, local_affinity

        width = x.features["view_first"].shape[1]
        if width != self.dim:
            raise ConfigError(f"graph_matching: dim is {self.dim}, the model embeds in {width}; set dim to {width}")
        with_cells = self.alpha < 1
        nodes = [
            loss["graph"](x.features[f"view_{name}"], x.features[f"cells_{name}"] if with_cells else None)
            for name in ("first", "second")
        ]
        local = None
        if with_cells:
            places = (x.features["places_first"], x.features["places_second"])
            local = local_affinity(nodes[0].cells, nodes[1].cells, *places)
        draw = torch.Generator().manual_seed(int(x.batch["view_draw"][0]))
        noise = gumbel_noise(len(nodes[0].emb), draw).to(nodes[0].emb.device)
        output: LossOutput = loss["match"](
            nodes[0].emb, nodes[1].emb, nodes[0].neighbours, nodes[1].neighbours, noise, local
        )
        return output
