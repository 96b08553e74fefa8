"""Report metrics by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from kvlp.errors import ConfigError
from kvlp.eval.reports.concept_graph import ConceptGraphF1
from kvlp.eval.reports.green import Green
from kvlp.eval.reports.label_f1 import LabelF1
from kvlp.eval.reports.metric import ReportMetric
from kvlp.eval.reports.overlap import Bleu, Cider, RougeL
from kvlp.eval.reports.radgraph import RadGraphF1
from kvlp.knowledge.surfaces import near

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking import EntityLinker

__all__ = ["DEFAULT", "FROM_FOLDER", "METRICS", "Tools", "get_metric"]


class Tools:
    """The graph and one linker for all metrics that read reports, made when they are needed.

    Args:
        graph: None is the bundled one.
    """

    def __init__(self, graph: KnowledgeGraph | None = None) -> None:
        self._graph = graph

    @cached_property
    def graph(self) -> KnowledgeGraph:
        """The graph."""
        from kvlp.knowledge.graph import KnowledgeGraph

        return self._graph or KnowledgeGraph.load("chest")

    @cached_property
    def linker(self) -> EntityLinker:
        """The linker of that graph, which reads hypotheses in any language."""
        from kvlp.knowledge.linking import EntityLinker

        return EntityLinker(self.graph, language=None)


#: name -> how the metric is made
METRICS: dict[str, Callable[[Tools], ReportMetric]] = {
    "bleu-1": lambda _: Bleu(1),
    "bleu-2": lambda _: Bleu(2),
    "bleu-3": lambda _: Bleu(3),
    "bleu-4": lambda _: Bleu(4),
    "rouge-l": lambda _: RougeL(),
    "cider": lambda _: Cider(),
    "chexpert-f1": lambda tools: LabelF1(tools.graph, linker=tools.linker),
    "concept-graph-f1": lambda tools: ConceptGraphF1(tools.graph, tools.linker),
}
#: name -> how the metric is made from a local folder: "radgraph:FOLDER"
FROM_FOLDER: dict[str, Callable[[str], ReportMetric]] = {
    "radgraph": RadGraphF1.from_folder,
    "green": Green.from_folder,
}
#: what is computed unless you choose
DEFAULT = ("bleu-1", "bleu-4", "rouge-l", "cider", "chexpert-f1", "concept-graph-f1")


def get_metric(name: str, tools: Tools | None = None) -> ReportMetric:
    """The metric of a name, or of "radgraph:FOLDER" or "green:FOLDER".

    Raises:
        ConfigError: no such name; the message holds near ones.
        MissingExtraError: the library behind it is not installed.
        CheckpointError: the folder holds no such model.
    """
    kind, colon, folder = name.partition(":")
    if colon and kind in FROM_FOLDER:
        return FROM_FOLDER[kind](folder)
    if name not in METRICS:
        known = [*METRICS, *(f"{k}:FOLDER" for k in FROM_FOLDER)]
        close = near(name, known)
        raise ConfigError(f"no report metric {name!r}; {'did you mean' if close else 'there are'} "
                          f"{', '.join(close or known)}{'?' if close else ''}")  # fmt: skip
    return METRICS[name](tools or Tools())
