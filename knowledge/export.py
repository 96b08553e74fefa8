"""Graphs for other programs: a folder of CSV, GraphML (Gephi, Cytoscape, yEd), networkx's node-link JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.sources.tables import join_list
from kvlp.knowledge.surfaces import near
from kvlp.typing import PathLike

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["FORMATS", "export"]

#: what XML 1.0 cannot hold, not even escaped
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def export(graph: KnowledgeGraph, path: PathLike, format: str) -> Path:
    """Write a graph in a format of `FORMATS`; return the file, for "csv" the folder.

    "csv" is the folder that `KnowledgeGraph.load` reads; "graphml" holds lists as texts joined by ";"; "networkx" is
    read by `networkx.node_link_graph(json.load(file), edges="links")`. Edges have `type` and `source`.

    Raises:
        KnowledgeError: an unknown format, or `path` is a folder where a file is written, or the other way round.
    """
    if format not in FORMATS:
        close = near(format, FORMATS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise KnowledgeError(f"unknown format '{format}': expected {', '.join(FORMATS)}{hint}")
    target = Path(path)
    if target.exists() and target.is_dir() != (format == "csv"):
        wanted = "a folder" if format == "csv" else "a file"
        raise KnowledgeError(f"{target}: format {format} writes {wanted}; that name is taken by something else")
    target.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[format](graph, target)
    return target


def _csv(graph: KnowledgeGraph, folder: Path) -> None:
    from kvlp.knowledge.sources.csv_folder import write_folder

    write_folder(graph, folder)


def _graphml(graph: KnowledgeGraph, path: Path) -> None:
    import networkx as nx

    plain = nx.MultiDiGraph(**{k: _xml(str(v)) for k, v in graph.subgraph().graph.items()})
    whole = graph.subgraph()
    for node, data in whole.nodes(data=True):
        plain.add_node(_xml(node), **{k: _xml(v if isinstance(v, str) else join_list(v)) for k, v in data.items()})
    for number, (head, tail, data) in enumerate(whole.edges(data=True)):
        plain.add_edge(_xml(head), _xml(tail), key=str(number), **{k: _xml(v) for k, v in data.items()})
    _write_whole(path, lambda partial: nx.write_graphml_xml(plain, partial))


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)


def _networkx(graph: KnowledgeGraph, path: Path) -> None:
    import networkx as nx

    whole: nx.MultiDiGraph = graph.subgraph()
    whole.graph["content_hash"] = graph.content_hash
    text = json.dumps(nx.node_link_data(whole, edges="links"), ensure_ascii=False)
    _write_whole(path, lambda partial: partial.write_text(text + "\n", encoding="utf-8"))


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file, then put it in its place, so that a torn file is never taken for a graph."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


#: name -> writer
FORMATS: dict[str, Callable[[KnowledgeGraph, Path], None]] = {"csv": _csv, "graphml": _graphml, "networkx": _networkx}
