"""Held-out links: what may be held out, ranks against a slow loop, controls, intervals; the GAT against a dense one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvlp.errors import ConfigError, KnowledgeError
from kvlp.knowledge.embedding import embed, evaluate_links
from kvlp.knowledge.embedding.gat import ConceptGat, GatLayer, edge_softmax, edges_of
from kvlp.knowledge.embedding.links import CONTROLS, METRICS, _draws, _estimates
from kvlp.knowledge.embedding.ranking import FrequencyScorer, VectorScorer, filtered_ranks
from kvlp.knowledge.embedding.triples import Triples, split_triples, triples_of
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation


def grid_graph(side: int = 5) -> KnowledgeGraph:
    """A grid whose cells know their right and their lower neighbour: what is held out follows from the rest."""
    ids = [[f"c{i}{j}" for j in range(side)] for i in range(side)]
    right = [Relation(ids[i][j], "right", ids[i][j + 1]) for i in range(side) for j in range(side - 1)]
    below = [Relation(ids[i][j], "below", ids[i + 1][j]) for i in range(side - 1) for j in range(side)]
    return KnowledgeGraph([Concept(id=c, name=c) for row in ids for c in row], right + below, name="grid")


# ---- statements and their split --------------------------------------------------------------------------------------


def test_statements_by_hand():
    relations = [
        Relation("b", "z", "a"),
        Relation("a", "y", "b"),
        Relation("a", "y", "b", "twice"),
        Relation("a", "y", "?"),
    ]
    graph = KnowledgeGraph([Concept(id="a", name="a"), Concept(id="b", name="b")], relations, name="g")
    triples = triples_of(graph)
    assert triples.types == ("y", "z")
    assert triples.array.tolist() == [[0, 0, 1], [1, 1, 0]]  # a y b; b z a; the dangling one and the twin are gone
    assert triples_of(graph, relation_types=False).types == ("related",)


@given(st.integers(0, 2**20), st.floats(0.02, 0.5))
def test_nothing_that_is_held_out_is_told_by_the_rest(seed: int, share: float):
    rng = np.random.default_rng(seed)
    array = np.unique(rng.integers((0, 0, 0), (12, 3, 12), size=(60, 3)), axis=0)
    triples = Triples(array, ("x", "y", "z"), 12)
    kept, out = split_triples(triples, share, seed)
    assert sorted([*kept, *out]) == list(range(len(array)))
    assert 0 < len(out) <= round(share * len(array))
    pairs = [{frozenset((int(h), int(t))) for h, _, t in array[rows]} for rows in (kept, out)]
    assert not pairs[0] & pairs[1]
    assert set(array[out][:, [0, 2]].flat) <= set(array[kept][:, [0, 2]].flat)
    assert set(array[out, 1]) <= set(array[kept, 1])


def test_the_chest_graphs_twins_stay_together():
    triples = triples_of(KnowledgeGraph.load("chest"))
    kept, out = split_triples(triples, 0.1, 0)
    assert len(out) == pytest.approx(0.1 * len(triples), abs=2)
    train = {frozenset(s[[0, 2]].tolist()) for s in triples.array[kept]}
    assert not [s for s in triples.array[out] if frozenset(s[[0, 2]].tolist()) in train]
    again = split_triples(triples, 0.1, 0)
    np.testing.assert_array_equal(out, again[1])
    assert not np.array_equal(out, split_triples(triples, 0.1, 1)[1])


def test_graphs_too_thin_and_shares_that_are_none_are_refused():
    chain = Triples(np.array([[0, 0, 1], [2, 0, 3]]), ("x",), 4)
    with pytest.raises(KnowledgeError, match="while every concept keeps a relation"):
        split_triples(chain, 0.5, 0)
    for share in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match="above 0 and below 1"):
            split_triples(chain, share, 0)


def test_shuffled_tails_keep_what_stands_at_each_end_of_a_relation():
    triples = triples_of(grid_graph())
    shuffled = triples.with_shuffled_tails(0)
    for column in (0, 2):
        for kind in (0, 1):
            ends = [sorted(t.array[t.array[:, 1] == kind, column]) for t in (triples, shuffled)]
            assert ends[0] == ends[1]
    same = (triples.array == shuffled.array).all(axis=1).mean()
    assert same < 0.2


# ---- ranks -----------------------------------------------------------------------------------------------------------


def slow_rank(scores: list[float], target: int, filtered: set[int]) -> float:
    """One by one: those better, and half of those alike."""
    rank = 1.0
    for candidate, score in enumerate(scores):
        if candidate == target or candidate in filtered:
            continue
        rank += 1.0 if score > scores[target] else 0.5 if score == scores[target] else 0.0
    return rank


def slow_scores(scorer: VectorScorer, given: int, kind: int, side: str) -> list[float]:
    end, by = scorer.entities[given], scorer.relations[0 if side == "tail" else 1][kind]
    if scorer.move == "turn":
        half = len(end) // 2
        turned = (end[:half] + 1j * end[half:]) * (by[:half] + 1j * by[half:])
        query = np.concatenate([turned.real, turned.imag])
    else:
        query = end + by if scorer.move == "add" else end * by
    if scorer.compare == "dot":
        return [float(query @ other) for other in scorer.entities]
    p = 1 if scorer.compare == "l1" else 2
    return [-float(np.linalg.norm(query - other, p)) for other in scorer.entities]


@pytest.mark.parametrize("compare", ["l1", "l2", "dot"])
@pytest.mark.parametrize("move", ["add", "multiply", "turn"])
@pytest.mark.parametrize("at_once", [0, 1, 3])
def test_ranks_equal_a_slow_loop_with_ties(move: str, compare: str, at_once: int):
    rng = np.random.default_rng(0)
    # small whole numbers: many ties, all exact
    entities = rng.integers(-1, 2, size=(9, 4)).astype(np.float32)
    scorer = VectorScorer(entities, rng.integers(-1, 2, size=(2, 2, 4)).astype(np.float32), move, compare)  # type: ignore[arg-type]
    known = np.unique(rng.integers((0, 0, 0), (9, 2, 9), size=(40, 3)), axis=0)
    test = known[rng.permutation(len(known))[:7]]
    expected = []
    for head, kind, tail in test.tolist():
        tails = {t for h, k, t in known.tolist() if (h, k) == (head, kind)}
        heads = {h for h, k, t in known.tolist() if (k, t) == (kind, tail)}
        expected.append(
            [
                slow_rank(slow_scores(scorer, head, kind, "tail"), tail, tails),
                slow_rank(slow_scores(scorer, tail, kind, "head"), head, heads),
            ]
        )
    ranks = filtered_ranks(scorer, test, known, entities=9, at_once=at_once)
    np.testing.assert_array_equal(ranks, expected)
    assert len({r % 1 for r in ranks.flat}) == 2  # ties did occur


def test_a_scorer_that_says_the_same_of_all_stands_in_the_middle():
    scorer = VectorScorer(np.zeros((11, 2), np.float32), np.zeros((2, 1, 2), np.float32), "add", "l2")
    ranks = filtered_ranks(scorer, np.array([[3, 0, 5]]), np.array([[3, 0, 5]]), entities=11)
    assert ranks.tolist() == [[6.0, 6.0]]


def test_scores_that_are_no_numbers_are_refused():
    scorer = VectorScorer(np.full((3, 2), np.nan, np.float32), np.zeros((2, 1, 2), np.float32), "add", "dot")
    with pytest.raises(KnowledgeError, match="NaN or infinity"):
        filtered_ranks(scorer, np.array([[0, 0, 1]]), np.array([[0, 0, 1]]), entities=3)


def test_frequency_by_hand():
    train = np.array([[0, 0, 1], [2, 0, 1], [0, 0, 2], [3, 1, 0]])
    scorer = FrequencyScorer(train, 4)
    assert scorer.scores(np.array([3]), np.array([0]), "tail").tolist() == [[0, 2, 1, 0]]
    assert scorer.scores(np.array([1, 1]), np.array([0, 1]), "head").tolist() == [[2, 0, 1, 0], [0, 0, 0, 1]]


def test_intervals_of_a_known_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, len(METRICS))) + 1.0
    held = np.stack([np.arange(400), np.zeros(400, int), np.arange(400) + 400], axis=1)
    estimate = _estimates(values, _draws(held, 0))["mrr"]
    half = 1.96 * values[:, 0].std() / 20
    assert estimate.value == pytest.approx(values[:, 0].mean())
    assert (estimate.low, estimate.high) == (
        pytest.approx(estimate.value - half, abs=0.02),
        pytest.approx(estimate.value + half, abs=0.02),
    )


def test_statements_of_one_pair_are_drawn_together():
    held = np.array([[0, 0, 1], [1, 1, 0], [2, 0, 3]])
    draws = _draws(held, 0)
    assert (draws[:, 0] == draws[:, 1]).all()
    assert (draws[:, 0] != draws[:, 2]).any()


# ---- the whole evaluation --------------------------------------------------------------------------------------------


def kinds_graph(kinds: int = 5, members: int = 6) -> KnowledgeGraph:
    """Members of a kind share a parent, a place and a sign: two of a member's links tell the third."""
    types = ("is_a", "located_in", "shows")
    hubs = [(c, t, f"{t}{c}") for c in range(kinds) for t in types]
    relations = [Relation(f"m{c}{i}", t, hub) for c, t, hub in hubs for i in range(members)]
    ids = [*(hub for _, _, hub in hubs), *(f"m{c}{i}" for c in range(kinds) for i in range(members))]
    return KnowledgeGraph([Concept(id=i, name=i) for i in ids], relations, name="kinds")


def test_the_gat_tells_links_better_than_its_controls():
    seen = []
    report = evaluate_links(
        kinds_graph(), "gat", holdout=0.2, dim=16, epochs=50, lr=0.02, progress=lambda *a: seen.append(a)
    )
    assert set(report.scores) == {"vectors", *CONTROLS}
    assert set(report.differences) == set(CONTROLS)
    assert report.split == {"holdout": 0.2, "seed": 0, "part": "test", "train": 72, "held_out": 18, "entities": 45}
    assert report.differences["random"]["mrr"].low > 0
    assert report.differences["shuffled"]["mrr"].value == pytest.approx(
        report.scores["vectors"]["mrr"].value - report.scores["shuffled"]["mrr"].value
    )
    assert report.differences["shuffled"]["mrr"].low > 0
    assert seen[0] == ("vectors", 1, 50)
    assert len(report.lines()) == 8


def test_the_same_seeds_give_the_same_report():
    reports = [evaluate_links(kinds_graph(), "gat", dim=8, epochs=3).to_dict() for _ in range(2)]
    assert reports[0] == reports[1]
    assert evaluate_links(kinds_graph(), "gat", dim=8, epochs=3, seed=1).to_dict() != reports[0]


def test_validation_links_are_none_of_the_test_links():
    reports = [evaluate_links(grid_graph(6), "random", part=part) for part in ("test", "validation")]  # type: ignore[arg-type]
    assert reports[1].split["train"] + reports[1].split["held_out"] == reports[0].split["train"]
    with pytest.raises(ConfigError, match="part test or validation"):
        evaluate_links(grid_graph(), "random", part="dev")  # type: ignore[arg-type]


def test_random_vectors_know_nothing():
    report = evaluate_links(KnowledgeGraph.load("chest"), "random", repeats=3)
    assert report.scores["vectors"]["mrr"].value < 0.04
    assert report.scores["frequency"]["mrr"].value > 0.08


# ---- the graph attention network -------------------------------------------------------------------------------------

ARRAY = torch.tensor([[0, 0, 1], [2, 1, 1], [1, 0, 3], [3, 1, 0]])


def dense_layer(layer: GatLayer, nodes: torch.Tensor, edges: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Node by node, head by head, edge by edge."""
    source, target, kind = (e.tolist() for e in edges)
    rows = []
    for node in range(len(nodes)):
        heads = []
        for h in range(layer.heads):
            weight = layer.weight[:, h * layer.dim_out : (h + 1) * layer.dim_out]
            logits, told = [], []
            for s, t, k in zip(source, target, kind, strict=True):
                if t != node:
                    continue
                message = nodes[s] @ weight
                logit = layer.from_source[h] @ message + layer.from_target[h] @ (nodes[t] @ weight)
                if layer.relation is not None:
                    message = message + layer.relation[k, h]
                    logit = logit + layer.from_relation[h] @ layer.relation[k, h]
                logits.append(torch.nn.functional.leaky_relu(logit, 0.2))
                told.append(message)
            share = torch.softmax(torch.stack(logits), dim=0)
            heads.append((share[:, None] * torch.stack(told)).sum(dim=0))
        rows.append(torch.cat(heads) + layer.bias)
    return torch.stack(rows)


@pytest.mark.parametrize("kinds", [0, 5])
def test_a_layer_equals_a_dense_loop_and_its_gradient(kinds: int):
    torch.manual_seed(0)
    layer = GatLayer(3, 2, heads=2, kinds=kinds).double()
    torch.nn.init.normal_(layer.bias)
    nodes = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    edges = edges_of(ARRAY, 4, 2)
    torch.testing.assert_close(layer(nodes, *edges), dense_layer(layer, nodes, edges))
    parameters = dict(layer.named_parameters())

    def call(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        named = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(layer, named, (x, *edges))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(call, (nodes, *parameters.values()))


def test_edges_by_hand():
    source, target, kind = edges_of(torch.tensor([[0, 1, 2]]), 3, 2)
    assert source.tolist() == [0, 2, 0, 1, 2]
    assert target.tolist() == [2, 0, 0, 1, 2]
    assert kind.tolist() == [1, 3, 4, 4, 4]


def test_softmax_over_the_edges_of_a_node_sums_to_one_and_survives_large_numbers():
    logits = torch.tensor([[1000.0], [999.0], [-1000.0], [5.0]])
    weight = edge_softmax(logits, torch.tensor([0, 0, 0, 2]), 3)
    expected = 1 / (1 + math.exp(-1))
    torch.testing.assert_close(weight[:, 0], torch.tensor([expected, 1 - expected, 0.0, 1.0]))


@pytest.mark.parametrize("kinds", [0, 5])
def test_the_names_of_concepts_do_not_matter(kinds: int):
    torch.manual_seed(0)
    gat = ConceptGat(8, kinds=kinds).double().eval()
    nodes, order = torch.randn(4, 8, dtype=torch.float64), torch.tensor([2, 0, 3, 1])
    place = order.argsort()
    moved = ARRAY.clone()
    moved[:, 0], moved[:, 2] = place[ARRAY[:, 0]], place[ARRAY[:, 2]]
    there, here = gat(nodes[order], *edges_of(moved, 4, 2)), gat(nodes, *edges_of(ARRAY, 4, 2))
    torch.testing.assert_close(there, here[order])


def test_without_relation_types_it_is_the_published_network():
    torch.manual_seed(0)
    gat = ConceptGat(256).eval()
    shapes = {name: tuple(p.shape) for name, p in gat.named_parameters()}
    assert shapes["first.weight"] == (256, 8 * 64)
    assert shapes["second.weight"] == (512, 256)
    assert not [name for name in shapes if "relation" in name]
    nodes, (source, target, kind) = torch.randn(4, 256), edges_of(ARRAY, 4, 2)
    torch.testing.assert_close(gat(nodes, source, target, kind), gat(nodes, source, target, kind * 0))


def test_with_relation_types_it_reads_them():
    torch.manual_seed(0)
    gat = ConceptGat(8, kinds=5).eval()
    nodes, (source, target, kind) = torch.randn(4, 8), edges_of(ARRAY, 4, 2)
    assert not torch.allclose(gat(nodes, source, target, kind), gat(nodes, source, target, kind * 0))


@pytest.mark.parametrize("relation_types", [True, False])
def test_the_gat_trains_on_the_chest_graph(relation_types: bool):
    losses: list[float] = []
    made = embed(
        KnowledgeGraph.load("chest"), "gat", cache=False, dim=16, epochs=25, lr=0.02, relation_types=relation_types,
        progress=lambda _done, _total, loss: losses.append(loss),
    )  # fmt: skip
    assert made.vectors.shape == (len(KnowledgeGraph.load("chest")), 16)
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
