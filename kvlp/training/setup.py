"""What a run needs before its first step (graph, texts, tokenizer, towers, pixels), and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import kvlp
from kvlp.checkpoint_files import read_exposure
from kvlp.checkpoints import EXPOSURE, load, save_checkpoint
from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError, DataError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.names import AND_OTHERS
from kvlp.models.checkpointing import checkpoint_blocks
from kvlp.models.concept_head import ConceptHead
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.initialise import start_as_mean_of_words
from kvlp.models.preprocess import Preprocess
from kvlp.models.query_network import QueryNetwork
from kvlp.models.towers import has_weights, model_config
from kvlp.tokenizers import TextTokenizer, build_tokenizer, load_tokenizer
from kvlp.training.data import TrainingRows
from kvlp.training.fusion import build_fusion, fusion_concepts
from kvlp.training.groups import row_groups
from kvlp.training.knowledge_store import STORE, final_tensors
from kvlp.training.lora import Adapters
from kvlp.training.objectives.part import Sources
from kvlp.training.pixels import cached_pixels
from kvlp.training.recipe import Recipe
from kvlp.training.reports import build_report_head
from kvlp.training.texts import TextRows, has_text, read_texts
from kvlp.training.triples import read_triples
from kvlp.training.views import study_rows, with_study_reports

if TYPE_CHECKING:
    from kvlp.checkpoints import Model
    from kvlp.knowledge.embedding import ConceptVectors
    from kvlp.training.facts import Fact
    from kvlp.typing import IntArray

__all__ = ["Prepared", "finish", "prepare"]

Phase = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Prepared:
    """Everything that the stages of a run share.

    Attributes:
        graph: the graph that reports are read with; `taught`: the one whose texts train the model (permuted in the
            shuffled control, names alone without a graph); `uses_graph` False switches knowledge pairs off.
        model, model_cfg, preprocess, tokenizer: the towers and what describes them.
        rows, tokenize, normalise: see `Batches`.
        data_hash, exposure: hash of the rows used, and of each of their images.
        concept_vectors: the vectors that the recipe names, or None.
        heads: modules that last over the stages and are saved beside the model: concept_align, the projections to these
            vectors; query, the query network; fusion, image and text with what they name; decoder, of reports.
        adapters: LoRA's, in the towers, if the recipe says so.
        groups: for each row a number, equal for rows of one patient or study.
        triples: of each row's report, where the recipe names a column that tells them.
    """

    graph: KnowledgeGraph
    taught: KnowledgeGraph
    uses_graph: bool
    model: nn.Module
    model_cfg: dict[str, Any]
    preprocess: Preprocess
    tokenizer: Any
    rows: TrainingRows
    tokenize: TextTokenizer
    normalise: Callable[[Tensor], Tensor]
    data_hash: str
    exposure: tuple[str, ...]
    start: Model | None = None
    concept_vectors: ConceptVectors | None = None
    heads: Mapping[str, nn.Module] = field(default_factory=dict)
    groups: tuple[int, ...] = ()
    adapters: Adapters | None = None
    triples: tuple[tuple[Fact, ...], ...] | None = None

    @cached_property
    def sources(self) -> Sources:
        """What losses draw their texts from."""
        shared = (self.graph, self.taught, self.uses_graph, self.rows.texts, self.tokenize)
        return Sources(*shared, keys=tuple(self.rows.keys), groups=self.groups, triples=self.triples)


def prepare(recipe: Recipe, manifest: Manifest, out: Path, phase: Phase, *, shards: Path | None = None) -> Prepared:
    """Read the data and build the towers.

    Raises:
        DataError: no rows in the split, unreadable images or rows without text.
        ConfigError: a tower that does not exist.
    """
    rows = _usable(recipe, manifest, out)
    graph = KnowledgeGraph.load(recipe.knowledge.graph)
    triples = _triples(recipe, rows, graph)  # a fault in them is told before the long part
    texts = _timed("read texts", len(rows), phase, lambda: _texts(recipe, rows, graph))
    torch.manual_seed(recipe.seed)
    started = load(recipe.model.start) if recipe.model.start else None
    if started is not None:
        model, tokenizer = started.module, started.tokenizer
        model_cfg, preprocess = started.model_cfg, started.preprocess
    else:
        tokenizer = _tokenizer(recipe, rows, texts, graph)
        preprocess = Preprocess(size=recipe.model.image_size)
        model_cfg = model_config(
            recipe.model.image, recipe.model.text, embed_dim=recipe.model.embed_dim, image_size=preprocess.size,
            vocab_size=len(tokenizer), eos_id=tokenizer.sep_token_id, pad_id=tokenizer.pad_token_id,
            context_length=recipe.tokenizer.context_length,
        )  # fmt: skip
        _project(model_cfg, recipe.model.projection)
        model = build_dual_encoder(model_cfg, pretrained_towers=has_weights(recipe.model.text))
        start_as_mean_of_words(model, eos_id=tokenizer.sep_token_id)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).to(memory_format=torch.channels_last)
    for tower, key in (("visual", "image"), ("text", "text")):
        if recipe.grad_checkpointing in (key, "both"):
            checkpoint_blocks(model.get_submodule(tower))
    adapters = Adapters(model, recipe.lora, seed=recipe.seed) if recipe.lora else None
    pixels, exposure = cached_pixels(
        rows, preprocess, out / "cache", shards=shards,
        progress=lambda done, total, rate: phase("decode images", done, total, rate),
    )  # fmt: skip
    taught = _taught(recipe, graph)
    vectors = _concept_vectors(recipe, taught, out / "cache" / "vectors", phase)
    heads, tokenize = _heads(recipe, vectors, texts, model_cfg, device), TextTokenizer.wrap(tokenizer)
    if recipe.fusion is not None:
        torch.manual_seed(recipe.seed + 7901)
        heads["fusion"] = build_fusion(
            recipe.fusion, model, preprocess.size, fusion_concepts(taught, texts), vectors,
            vocab_size=_vocabulary_size(model), context=tokenize.context_length, pad_id=tokenize.pad_id,
        ).to(device)  # fmt: skip
    if recipe.report_decoder is not None:
        torch.manual_seed(recipe.seed + 7883)
        heads["decoder"] = build_report_head(
            recipe.report_decoder, taught, texts.classes, tokenize, token_width=int(model_cfg["embed_dim"]),
            vocab_size=_vocabulary_size(model),
        ).to(device)  # fmt: skip
    return Prepared(
        graph=graph,
        taught=taught,
        uses_graph=recipe.knowledge.use,
        model=model,
        model_cfg=model_cfg,
        preprocess=preprocess,
        tokenizer=tokenizer,
        rows=TrainingRows(pixels, texts, [_row_key(r.id) for r in rows], _studies(recipe, rows)),
        tokenize=tokenize,
        normalise=preprocess.normalise,
        data_hash=rows.content_hash,
        exposure=exposure,
        start=started,
        concept_vectors=vectors,
        heads=heads,
        groups=row_groups(rows),
        adapters=adapters,
        triples=triples,
    )


def finish(recipe: Recipe, prepared: Prepared, out: Path) -> Path:
    """Write the final checkpoint folder and return it."""
    card = {
        "recipe": recipe.model_dump(mode="json"),
        "graph": {"name": prepared.graph.name, "content_hash": prepared.graph.content_hash},
        "graph_licence": prepared.graph.licence,
        "data_hash": prepared.data_hash,
        "rows": len(prepared.rows),
        "named_concepts": sorted(prepared.rows.texts.named | _named_before(prepared.start)),
        "trained_classes": list(prepared.rows.texts.classes),
        "seed": recipe.seed,
        "versions": {"kvlp": kvlp.__version__, "torch": str(torch.__version__), "numpy": np.__version__},
    }
    # row i of `concept_align.concepts` is the vector of trained_classes[i]
    extra = {
        f"{name}.{key}": value.detach().cpu()
        for name, head in prepared.heads.items()
        for key, value in head.state_dict().items()
    }
    if prepared.concept_vectors is not None:
        made = prepared.concept_vectors
        card["concept_vectors"] = {"method": made.method, "settings": dict(made.settings), "graph": dict(made.graph)}
    query = prepared.heads.get("query")
    if isinstance(query, QueryNetwork):
        card["query_network"] = query.settings
    if "fusion" in prepared.heads:
        card["fusion"] = prepared.heads["fusion"].settings
    if prepared.adapters is not None:
        prepared.adapters.save(out / "adapter")
        prepared.adapters.merge()
    if "decoder" in prepared.heads:
        settings: Any = prepared.heads["decoder"].settings
        card["report_decoder"] = settings
        extra |= final_tensors(prepared.model.eval(), prepared.sources, settings, out / STORE)
    module = prepared.model.to("cpu").eval()
    seen_before = _seen_before(prepared.start)
    if seen_before is None:  # part of a manifest would say of the rest that it was never seen
        card["exposure"] = f"not known: {recipe.model.start}, which the run began from, does not tell its images"
    folder = out / "checkpoint"
    save_checkpoint(
        folder, module, prepared.model_cfg, prepared.preprocess.to_dict(), prepared.tokenizer, card,
        exposure=None if seen_before is None else [*prepared.exposure, *seen_before], extra=extra,
    )  # fmt: skip
    return folder


def _named_before(start: Model | None) -> frozenset[str]:
    """What the texts of the model named that the run began from."""
    if start is None:
        return frozenset()
    named = start.card.get("named_concepts")
    return frozenset([AND_OTHERS]) if named is None else frozenset(named)


def _seen_before(start: Model | None) -> frozenset[str] | None:
    """Hashes of the images of the model that the run began from; None if it does not tell."""
    if start is None:
        return frozenset()
    path = Path(start.source.removeprefix("local-dir:")) / EXPOSURE
    return read_exposure(path) if path.is_file() else None


def _usable(recipe: Recipe, manifest: Manifest, out: Path) -> Manifest:
    """The rows of the split that a text can be made of; the others are named in skipped.jsonl."""
    rows = manifest.subset(split=recipe.data.split)
    if len(rows) < 2:
        raise DataError(f"expected training rows with split '{recipe.data.split}', got {len(rows)} of {len(manifest)}")
    rows = with_study_reports(rows) if recipe.data.views == "all" else rows
    empty = [record for record in rows if not has_text(record, recipe.data.text)]
    if len(empty) > recipe.data.max_skipped * len(rows):
        raise DataError(
            f"expected a report or labels in every row, got {len(empty)} of {len(rows)} rows without; "
            "`kvlp data check` names them; drop them, or raise data.max_skipped"
        )
    if not empty:
        return rows
    lines = [json.dumps({"row": _row_key(r.id), "reason": "neither report nor labels"}) + "\n" for r in empty]
    (out / "skipped.jsonl").write_text("".join(lines), encoding="utf-8")
    return rows.subset(where=lambda record: has_text(record, recipe.data.text))


def _studies(recipe: Recipe, rows: Manifest) -> tuple[IntArray, ...] | None:
    return study_rows(rows) if recipe.data.views == "all" else None


def _texts(recipe: Recipe, rows: Manifest, graph: KnowledgeGraph) -> TextRows:
    texts = read_texts(rows, graph, source=recipe.data.text, min_patients=recipe.knowledge.min_patients)
    if not recipe.data.shuffle_reports:
        return texts
    order = _shuffle(recipe, len(rows))
    slots, weights = tuple(texts.slots[i] for i in order), tuple(texts.weights[i] for i in order)
    return replace(
        texts, slots=slots, weights=weights, labels=texts.labels[order], signature=texts.signature[order],
        statements=tuple(texts.statements[i] for i in order),
    )  # fmt: skip


def _shuffle(recipe: Recipe, rows: int) -> IntArray:
    """Whose report each row has in the control of shuffled reports."""
    return np.random.default_rng([recipe.seed, 77]).permutation(rows)


def _triples(recipe: Recipe, rows: Manifest, graph: KnowledgeGraph) -> tuple[tuple[Fact, ...], ...] | None:
    """The column of triples that the recipe names; they go with the reports where these are shuffled."""
    decoder = recipe.report_decoder
    if decoder is None or not decoder.triples:
        return None
    told = read_triples(rows, decoder.triples, graph)
    return tuple(told[i] for i in _shuffle(recipe, len(rows))) if recipe.data.shuffle_reports else told


def _taught(recipe: Recipe, graph: KnowledgeGraph) -> KnowledgeGraph:
    if not recipe.knowledge.use:
        bare = [Concept(id=c.id, name=c.name, semantic_types=c.semantic_types, number=c.number) for c in graph.concepts]
        return KnowledgeGraph(bare, [], name=f"{graph.name}-names", licence=graph.licence)
    return graph if recipe.knowledge.shuffled is None else graph.shuffled(recipe.knowledge.shuffled)


def _concept_vectors(recipe: Recipe, taught: KnowledgeGraph, cache: Path, phase: Phase) -> ConceptVectors | None:
    """The vectors that the recipe names, of the graph that trains the model; a resumed run finds them in its folder."""
    if recipe.concept_vectors is None:
        return None
    from kvlp.knowledge.embedding import embed

    part, began = recipe.concept_vectors, time.perf_counter()

    def step(done: int, total: int, _: float) -> None:
        phase("concept vectors", done, total, done / max(1e-9, time.perf_counter() - began))

    method, settings = part.method, part.settings()
    if not recipe.knowledge.use:  # names alone have no relations to learn from: vectors that say nothing
        method, settings = "random", {key: settings[key] for key in ("dim", "seed") if key in settings}
    return embed(taught, method, cache=cache, progress=step, **settings)


def _project(model_cfg: dict[str, Any], projection: str) -> None:
    vision = model_cfg["vision_cfg"]
    if "timm_proj" in vision:
        vision["timm_proj"] = projection
    elif projection != "linear":
        raise ConfigError(f"model.projection: expected linear for an image tower that is not timm's, got {projection}")


def _heads(
    recipe: Recipe, vectors: ConceptVectors | None, texts: TextRows, model_cfg: dict[str, Any], device: torch.device
) -> dict[str, nn.Module]:
    heads: dict[str, nn.Module] = {}
    dim = int(model_cfg["embed_dim"])
    if vectors is not None:
        torch.manual_seed(recipe.seed + 7919)  # of its own, so that a recipe without it has the same weights as ever
        heads["concept_align"] = ConceptHead(dim, torch.from_numpy(vectors.rows(texts.classes)))
    if recipe.query_network is not None:
        torch.manual_seed(recipe.seed + 7907)
        heads["query"] = QueryNetwork(dim, **recipe.query_network.model_dump())
    return {name: head.to(device) for name, head in heads.items()}


def _vocabulary_size(model: Any) -> int:
    return int(model.text.vocab_size)


def _tokenizer(recipe: Recipe, rows: Manifest, texts: TextRows, graph: KnowledgeGraph) -> Any:
    settings = recipe.tokenizer
    vocabulary = settings.vocabulary or (Path(recipe.model.text) if has_weights(recipe.model.text) else None)
    if vocabulary is not None:
        if not vocabulary.exists():
            raise ConfigError(
                f"tokenizer.vocabulary: expected a word-piece file or folder, found nothing at {vocabulary}"
            )
        return load_tokenizer(vocabulary, context_length=settings.context_length)
    by_patient = (
        (record.patient_id or record.id, wording)
        for record, slots in zip(rows, texts.slots, strict=True)
        for slot in slots
        for wording in slot[:8]
    )
    return build_tokenizer(
        by_patient, graph, vocab_size=settings.vocab_size, min_patients=settings.min_patients,
        context_length=settings.context_length,
    )  # fmt: skip


def _timed(name: str, total: int, phase: Phase, work: Callable[[], TextRows]) -> TextRows:
    began = time.perf_counter()
    result = work()
    phase(name, total, total, total / max(1e-9, time.perf_counter() - began))
    return result


def _row_key(record_id: str) -> str:
    """A name for messages that tells no patient's id."""
    return hashlib.sha256(record_id.encode()).hexdigest()[:12]
