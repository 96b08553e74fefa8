"""kvlp kg embed, its figures script, and PyKEEN (slow: importing it takes longer than all other tests here)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from kvlp.cli import main
from kvlp.errors import KnowledgeError, MissingExtraError
from kvlp.knowledge.embedding import ConceptVectors, embed, evaluate_links
from kvlp.knowledge.embedding.fit_pykeen import _MODELS, _back, _import_pykeen, _real
from kvlp.knowledge.embedding.ranking import VectorScorer
from kvlp.knowledge.graph import KnowledgeGraph


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(["kg", "embed", *args])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def test_vectors_from_the_shell(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    code, out, _ = run(capsys, "--method", "random", "--dim", "8", "--no-cache", "--out", str(tmp_path / "v"))
    chest = KnowledgeGraph.load("chest")
    assert (code, out) == (0, f"random: {len(chest)} concepts x 8 -> {tmp_path / 'v'}\n")
    assert ConceptVectors.load(tmp_path / "v").ids == tuple(c.id for c in chest)


def test_links_from_the_shell_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    settings = ["--method", "gat", "--dim", "8", "--epochs", "2", "--seed", "1", "--no-cache", "--json"]
    code, out, err = run(capsys, *settings, "--evaluate", "--holdout", "0.05", "--out", str(tmp_path / "v"))
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert told["links"]["split"]["held_out"] == pytest.approx(
        0.05 * len(KnowledgeGraph.load("chest").relations), abs=2
    )
    assert set(told["links"]["differences"]) == {"random", "shuffled", "frequency"}
    assert json.loads((tmp_path / "v" / "links.json").read_text()) == told["links"]
    assert told["settings"]["epochs"] == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--method", "trans"], "did you mean 'transe'"),
        (["--method", "text", "--epochs", "3"], "method 'text' has no setting 'epochs'"),
        (["--method", "random", "--evaluate", "--holdout", "1.5"], "above 0 and below 1, got 1.5"),
        (["--graph", "nothing"], "no graph 'nothing'"),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, args: list[str], message: str):
    code, out, err = run(capsys, *args, "--no-cache", "--out", str(tmp_path / "v"))
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_the_figures_script_runs_and_shows_its_table(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    import importlib.util

    spec = importlib.util.spec_from_file_location("graph_vectors", repository / "examples" / "graph_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(["--smoke", "--out", str(tmp_path / "f.json")])
    first = capsys.readouterr().out
    script.main([str(tmp_path / "f.json")])
    assert capsys.readouterr().out == first
    assert "| gat | 0." in first


def test_without_pykeen_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pykeen", None)
    with pytest.raises(MissingExtraError, match=r"pykeen is not installed; .*kvlp\[vectors\]"):
        embed(KnowledgeGraph.load("chest"), "transe", cache=False, epochs=1)


# ---- PyKEEN ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", _MODELS)
def test_our_scores_are_pykeens(method: str):
    import torch

    parts = _import_pykeen()
    factory = parts["factory"](
        mapped_triples=torch.tensor([[0, 0, 1], [1, 1, 2], [3, 0, 2]]), num_entities=4, num_relations=2
    )
    name, extra, move, compare = _MODELS[method]
    model = getattr(parts["models"], name)(triples_factory=factory, embedding_dim=3, random_seed=0, **extra).eval()
    entities, relations = (_real(r) for r in (model.entity_representations[0], model.relation_representations[0]))
    scorer = VectorScorer(entities, np.stack([relations, _back(relations, move)]), move, compare)
    given, kind = np.array([0, 1, 3]), np.array([0, 1, 0])
    tails = model.score_t(torch.tensor(np.stack([given, kind], axis=1))).detach().numpy()
    heads = model.score_h(torch.tensor(np.stack([kind, given], axis=1))).detach().numpy()
    np.testing.assert_allclose(scorer.scores(given, kind, "tail"), tails, atol=2e-6)
    np.testing.assert_allclose(scorer.scores(given, kind, "head"), heads, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", _MODELS)
def test_pykeens_vectors_are_real_and_the_same_again(method: str):
    told: list[tuple[int, int]] = []
    graph = KnowledgeGraph.load("chest")
    made = [
        embed(graph, method, cache=False, dim=16, epochs=3, threads=1, progress=lambda d, t, _: told.append((d, t)))
        for _ in range(2)
    ]
    assert made[0].vectors.shape == (len(graph), 16)
    np.testing.assert_array_equal(made[0].vectors, made[1].vectors)
    assert told[:3] == [(1, 3), (2, 3), (3, 3)]
    other = embed(graph, method, cache=False, dim=16, epochs=3, threads=1, seed=1)
    assert not np.allclose(made[0].vectors, other.vectors)


@pytest.mark.slow
def test_transe_beats_untrained_and_shuffled_vectors_on_the_chest_graph():
    report = evaluate_links(KnowledgeGraph.load("chest"), "transe", epochs=60, lr=0.03)
    assert report.differences["random"]["mrr"].low > 0
    assert report.differences["shuffled"]["mrr"].low > 0


@pytest.mark.slow
def test_an_import_that_pykeen_cannot_bear_is_one_line(monkeypatch: pytest.MonkeyPatch):
    import builtins

    real = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "pykeen":
            raise ValueError("RegistrationNameConflict")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(KnowledgeError, match="after bitsandbytes was imported: make the vectors first"):
        embed(KnowledgeGraph.load("chest"), "transe", cache=False, epochs=1)
