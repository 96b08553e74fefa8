"""What a loss is to a recipe and to the loop: its settings, what it needs of a batch, and how it is computed.

A loss of a recipe is one file in this package: a `LossPart` whose fields are its settings. The task asks each part what
it `needs`, embeds exactly that, and hands it over in `Inputs`. Adding a loss changes no other file but the list in
`kvlp.training.objectives`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from kvlp.training.settings import Strict, Weight

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import Tensor, nn

    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.losses.output import LossOutput
    from kvlp.tokenizers import TextTokenizer
    from kvlp.training.texts import TextRows
    from kvlp.typing import IntArray

__all__ = ["Active", "Drawn", "Inputs", "LossPart", "Sampler", "Samplers", "Sources"]

#: What a sampler draws: name -> texts, which are tokenised and embedded, or integers, which are handed on.
Drawn: TypeAlias = "Mapping[str, Sequence[str] | IntArray]"
#: (step, generator) -> what all rows of the step share; (row numbers, generator) -> what each row has of its own.
Sampler: TypeAlias = "Callable[[int, np.random.Generator], Drawn]"
RowSampler: TypeAlias = "Callable[[IntArray, np.random.Generator], Drawn]"


@dataclass(frozen=True)
class Samplers:
    """What a loss draws: `shared` by all rows at each step, or of `rows` one by one at every `every`-th step."""

    shared: Sampler | None = None
    rows: RowSampler | None = None
    every: int = 1


@dataclass(frozen=True, eq=False)
class Sources:
    """What a loss may draw its texts from.

    Attributes:
        graph: the graph that reports are read with; `taught`: the one that trains the model (permuted in a control,
            names alone without a graph).
        uses_graph: False where the recipe leaves the graph out.
        texts: the sentences and labels of the training rows.
        tokenize: texts -> token ids, for a loss that works on single words.
        keys: names of the rows for files and messages (hashes); groups: (N,) integers, equal where two rows are of one
            patient or study; both empty where there are no rows.
        triples: for each row what the data tell of its report: (head, relation, tail); None where the texts are read.
    """

    graph: KnowledgeGraph
    taught: KnowledgeGraph
    uses_graph: bool
    texts: TextRows
    tokenize: TextTokenizer
    keys: Sequence[str] = ()
    groups: Sequence[int] = ()
    triples: Sequence[Sequence[tuple[str, str, str]]] | None = None


@dataclass(frozen=True)
class Inputs:
    """What a loss is computed from.

    Attributes:
        features: name -> embeddings. `image_emb` and, for each text NAME of a row, `NAME_emb`: (B, D) of unit norm;
            `image_tokens`: (B, T, D); shared texts by their own names: (P, D). `image_raw` and `text_raw` are before
            they were brought to unit norm.
        batch: `labels` (B, C) with 1, 0, -1 uncertain, NaN; `signature` (B,); integers of the row samplers.
        shared: integers of the shared samplers.
        learned: this loss's own learned numbers, by name.
        heads: modules that last over the stages, and what losses remember, by name.
        logit_scale: the model's scale, exponentiated.
    """

    features: Mapping[str, Tensor]
    batch: Mapping[str, Tensor]
    shared: Mapping[str, Tensor]
    learned: Mapping[str, Tensor]
    heads: Mapping[str, nn.Module]
    logit_scale: Tensor

    @property
    def scale(self) -> Tensor:
        """The loss's own scale, exponentiated."""
        return self.learned["log_scale"].exp()


class LossPart(Strict):
    """Settings of one loss; a subclass says the rest. `looks_at` tells images from texts alone."""

    looks_at: ClassVar[Literal["images", "texts"]] = "images"
    #: the head of the run that it works through, if any
    head: ClassVar[str] = ""
    #: whether `encode` runs both towers, so that they cannot work side by side
    joint: ClassVar[bool] = False
    #: whether a joint `encode` treats each row by itself, so that several processes can share the rows of a step
    row_by_row: ClassVar[bool] = False
    #: whether a joint `encode` that compares rows joins those of all processes (`kvlp.training.ranks.Together`)
    gathers: ClassVar[bool] = False

    weight: Weight = 1.0

    def needs(self) -> tuple[str, ...]:
        """Names of the features that it is computed from; a step that lacks one goes without this loss."""
        raise NotImplementedError

    def taught(self) -> tuple[str, ...]:
        """Those of them that its gradient reaches; what none of the losses teaches keeps no graph."""
        return self.needs()

    def learned(self) -> dict[str, float]:
        """Where its own learned numbers begin; those called log_scale are kept between 0 and log 100."""
        return {}

    def samplers(self, sources: Sources) -> Samplers:
        """What it draws for each step."""
        del sources
        return Samplers()

    def memories(self, model: Any, heads: Mapping[str, Any], sources: Sources) -> dict[str, nn.Module]:
        """What it remembers from step to step, by name: part of the run's state, not of the checkpoint.

        Losses that name the same share it; the first of them makes it.
        """
        del model, heads, sources
        return {}

    def after_step(self, model: Any, x: Inputs) -> None:
        """Bring what it remembers up to date; called after each step that was taken, with what it was computed from."""
        del model, x

    def leave(self, out: Path, heads: Mapping[str, Any], sources: Sources) -> None:
        """Write to the run folder what may be looked at of what it remembers; called when the state is saved."""
        del out, heads, sources

    def encode(
        self, model: Any, heads: Mapping[str, Any], batch: Mapping[str, Tensor], features: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Features of its own of a micro-batch, from the towers, the heads and what was embedded; a row each."""
        del model, heads, batch, features
        return {}

    @property
    def pooled(self) -> bool:
        """Whether one embedding of several views is enough for it: it needs no places and no pixels of an image."""
        return type(self).encode is LossPart.encode and "image_tokens" not in self.needs()

    def loss(self) -> nn.Module:
        """The loss module of kvlp.losses."""
        raise NotImplementedError

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        """Call the loss module with what it needs."""
        raise NotImplementedError


@dataclass(frozen=True)
class Active:
    """The losses of a stage that are computed, by name, and what they need together."""

    parts: Mapping[str, LossPart] = field(default_factory=dict)

    @property
    def needs(self) -> frozenset[str]:
        """Every feature that some loss needs."""
        return frozenset(name for part in self.parts.values() for name in part.needs())

    @property
    def taught(self) -> frozenset[str]:
        """Every feature that some loss teaches."""
        return frozenset(name for part in self.parts.values() for name in part.taught())
