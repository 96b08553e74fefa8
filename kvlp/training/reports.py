"""How a recipe describes the decoder of reports and its knowledge, and the head that is built of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from kvlp.errors import ConfigError
from kvlp.training.settings import Positive, Strict

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.models.report_head import ReportHead
    from kvlp.tokenizers import TextTokenizer

__all__ = ["ReportDecoderPart", "build_report_head"]


class ReportDecoderPart(Strict):
    """How the decoder is built and what it knows; it lasts over the stages and is saved in the checkpoint.

    `general`: whether image tokens look at a tree of the graph. Its nodes are `roots` (concept ids) and what lies
    `levels` below them by is_a; without roots the findings that the training texts name and all that is above them.
    `retrieve`: so many other rows' facts are looked at for each image; 0 leaves them out. `facts` of a row at most;
    `triples`: a column of the manifest that tells each report's triples, "head | relation | tail; ...", in place of
    those that the linker finds.
    `mix`: each with its row's weight (`tokens`), or the rows' facts summed place by place (`sum`, as published).
    `layers` of the decoder; `knowledge_layers` of the tree's encoder and of each of the two that look at knowledge.
    """

    width: Positive = 768
    heads: Positive = 12
    layers: Positive = 12
    knowledge_layers: Positive = 2
    general: bool = True
    roots: tuple[str, ...] = ()
    levels: Positive | None = None
    retrieve: Annotated[int, Field(ge=0)] = 3
    facts: Positive = 30
    triples: str = ""
    mix: Literal["tokens", "sum"] = "tokens"


def build_report_head(
    part: ReportDecoderPart,
    graph: KnowledgeGraph,
    classes: Sequence[str],
    tokenize: TextTokenizer,
    *,
    token_width: int,
    vocab_size: int,
) -> ReportHead:
    """Build the head of a recipe.

    Args:
        part: its settings.
        graph: the one that trains the model; classes: ids of the findings that the training texts name.
        tokenize: the model's tokenizer, which must tell where a text begins and ends.
        token_width: of the joint space; vocab_size: of the text tower.

    Raises:
        ConfigError: the tokenizer has no tokens for a text's ends.
        KnowledgeError: a root that the graph does not have.
    """
    import torch

    from kvlp.knowledge.branches import branch_tree
    from kvlp.models.report_head import ReportHead

    source: Any = tokenize.source
    start, end = (getattr(source, name, None) for name in ("cls_token_id", "sep_token_id"))
    if start is None or end is None:
        raise ConfigError(
            "report_decoder needs a tokenizer with [CLS] and [SEP], and this model has none: train from a recipe's own "
            "vocabulary, or start from a text tower that has one"
        )
    tree, nodes = None, []
    if part.general and (part.roots or classes):
        read = branch_tree(graph, roots=part.roots, classes=classes, levels=part.levels)
        nodes = list(read.concepts)
        names = tokenize(["", *(graph[c].name for c in nodes)])  # the root has no name
        names = names.masked_fill((names == start) | (names == end), tokenize.pad_id)
        tree = {"names": names, **{k: torch.from_numpy(getattr(read, k)) for k in ("depth", "branch", "mask")}}
    settings = {
        **part.model_dump(mode="json"), "token_width": token_width, "vocab_size": vocab_size,
        "context": tokenize.context_length, "pad_id": tokenize.pad_id, "start": int(start), "end": int(end),
        "nodes": nodes,
    }  # fmt: skip
    return ReportHead(settings, tree)
