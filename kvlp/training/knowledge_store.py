"""What is retrieved while a decoder of reports trains, in a folder that can be looked at.

`KnowledgeStore.load("run/knowledge_store").show(0)` tells which rows are nearest to row 0, and what facts they state.
The folder holds no text of a report and no id: rows go by their keys (hashes).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvlp.errors import ArchiveError, DataError
from kvlp.training.facts import Fact, KnowledgeRows, knowledge_rows
from kvlp.typing import PathLike
from kvlp.vectors import VectorIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from kvlp.models.knowledge_memory import KnowledgeMemory
    from kvlp.training.objectives.part import Sources

__all__ = ["STORE", "KnowledgeStore", "Neighbour", "final_tensors", "new_memory", "write_store"]

#: Its name in a run folder.
STORE = "knowledge_store"

_ABOUT, _ROWS, _FACTS = "store.json", "rows.jsonl", "facts.jsonl"
_INDEX, _FACT_INDEX = "reports.faiss", "facts.faiss"


@dataclass(frozen=True)
class Neighbour:
    """A row that was found: its number, its key, its cosine with the query, and its facts."""

    row: int
    key: str
    score: float
    facts: tuple[Fact, ...]


class KnowledgeStore:
    """Vectors of the reports of N rows (FAISS, IndexFlatIP), and the triples that each states.

    Attributes:
        index: of the N vectors; fact_index: of those of the U facts.
        facts: the U triples; row_facts: for each row the numbers of its own.
        keys: names of the rows; groups: equal for rows of one patient or study.
        about: when it was made, graph, width.
    """

    def __init__(
        self,
        index: VectorIndex,
        fact_index: VectorIndex,
        facts: Sequence[Fact],
        row_facts: Sequence[Sequence[int]],
        keys: Sequence[str],
        groups: Sequence[int],
        about: dict[str, Any],
    ) -> None:
        self.index, self.fact_index = index, fact_index
        self.facts, self.row_facts = tuple(facts), [tuple(row) for row in row_facts]
        self.keys, self.groups, self.about = list(keys), np.asarray(groups, dtype=np.int64), about

    def __len__(self) -> int:
        return len(self.index)

    def search(self, query: int | str | NDArray[np.floating], k: int = 3) -> list[Neighbour]:
        """The k rows nearest to a vector (D,), for example an image's, or to a row by its number or key.

        A row is compared by the vector of its text, and finds no row of its own patient or study.

        Raises:
            DataError: no such row.
        """
        allowed = None
        if isinstance(query, int | str | np.integer):
            row = self._row(query)
            query = self.index.vectors[row]
            allowed = np.flatnonzero(self.groups != self.groups[row])
        found, scores = self.index.search(query, k, allowed=allowed)
        return [
            Neighbour(int(i), self.keys[i], float(s), tuple(self.facts[f] for f in self.row_facts[i]))
            for i, s in zip(found, scores, strict=True)
        ]

    def show(self, query: int | str | NDArray[np.floating], k: int = 3) -> str:
        """What `search` finds, as text to print: a line for each row, then its triples."""
        lines = []
        for place, one in enumerate(self.search(query, k), 1):
            lines.append(f"{place}. row {one.row} ({one.key}), cosine {one.score:.3f}")
            lines += [f"   {fact.head} | {fact.relation} | {fact.tail}" for fact in one.facts] or ["   no facts"]
        return "\n".join(lines) or "nothing to be found"

    def _row(self, row: int | str | np.integer) -> int:
        number = self.keys.index(row) if isinstance(row, str) and row in self.keys else row
        if isinstance(number, str) or not 0 <= number < len(self):
            raise DataError(f"knowledge store: expected a key or a number below {len(self)}, got {row!r}")
        return int(number)

    def save(self, folder: PathLike) -> Path:
        """Write the folder whole or not at all; an older one there is replaced."""
        folder = Path(folder)
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        (temporary / _INDEX).write_bytes(self.index.flat_bytes())
        (temporary / _FACT_INDEX).write_bytes(self.fact_index.flat_bytes())
        rows = zip(self.keys, self.groups.tolist(), self.row_facts, strict=True)
        _write_lines(temporary / _ROWS, [{"row": key, "group": group, "facts": facts} for key, group, facts in rows])
        _write_lines(temporary / _FACTS, [fact._asdict() for fact in self.facts])
        (temporary / _ABOUT).write_text(json.dumps(self.about, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        return folder

    @classmethod
    def load(cls, folder: PathLike) -> KnowledgeStore:
        """Open a folder that `save` wrote.

        Raises:
            DataError: a file is missing or damaged.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            rows, facts = (_read_lines(folder / name) for name in (_ROWS, _FACTS))
            dim = int(about["dim"])
            indexes = [
                VectorIndex.from_bytes((folder / name).read_bytes(), count=len(lines), dim=dim)
                for name, lines in ((_INDEX, rows), (_FACT_INDEX, facts))
            ]
            triples = [Fact(line["head"], line["relation"], line["tail"]) for line in facts]
            columns = [[line[name] for line in rows] for name in ("facts", "row", "group")]
        except (OSError, ValueError, KeyError, TypeError, ArchiveError) as error:
            raise DataError(
                f"{folder}: expected a knowledge store as a run writes it, got {type(error).__name__}; it is written "
                "again when the run goes on or ends"
            ) from None
        return cls(indexes[0], indexes[1], triples, columns[0], columns[1], columns[2], about)


def new_memory(sources: Sources, most: int, dim: int) -> KnowledgeMemory:
    """The memory of a run's rows, with nothing in it yet."""
    import torch

    from kvlp.models.knowledge_memory import KnowledgeMemory

    rows = knowledge_rows(sources, most)
    groups = torch.tensor(sources.groups or range(len(rows.reports)))
    reports, told = (sources.tokenize(list(texts)).int() for texts in (rows.reports, rows.texts))
    return KnowledgeMemory(
        _padded(rows), groups, reports, told, dim=dim, pad_id=sources.tokenize.pad_id
    )  # fmt: skip


def write_store(folder: Path, memory: KnowledgeMemory, sources: Sources, most: int, *, made: str = "") -> None:
    """Write what a memory holds, if it holds anything; `made`: when, by default after how many steps of its stage."""
    if memory.empty:
        return
    rows = knowledge_rows(sources, most)
    index, facts = (VectorIndex(emb.cpu().numpy(), kind="flat") for emb in (memory.emb, memory.fact_emb))
    about = {
        "made": made or f"after {int(memory.built)} steps", "dim": index.dim, "graph": sources.taught.name,
        "graph_hash": sources.taught.content_hash,
    }  # fmt: skip
    keys = sources.keys or [str(i) for i in range(len(rows.reports))]
    KnowledgeStore(index, facts, rows.unique, rows.facts, keys, memory.groups.tolist(), about).save(folder)


def final_tensors(model: Any, sources: Sources, settings: Mapping[str, Any], folder: Path) -> dict[str, Tensor]:
    """The store by a finished model, written to `folder` and returned as tensors of a checkpoint; none where none is
    retrieved.

    Args:
        model: the dual encoder, in evaluation mode; settings: of the report head.
    """
    if not settings["retrieve"]:
        return {}
    device = next(model.parameters()).device
    memory = new_memory(sources, settings["facts"], int(model.text.output_dim)).to(device)
    memory.build(lambda ids: model.encode_text(ids, normalize=True))
    write_store(folder, memory, sources, settings["facts"], made="by the finished model")
    return {f"knowledge.{name}": getattr(memory, name).cpu() for name in ("emb", "fact_emb", "facts")}


def _padded(rows: KnowledgeRows) -> Tensor:
    """(N, T) int64, -1 where a row has fewer facts; T at least 1."""
    import torch

    most = max(1, *(len(facts) for facts in rows.facts))
    return torch.tensor([[*facts, *[-1] * (most - len(facts))] for facts in rows.facts])


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
