"""The cross-image entity loss in a recipe: several wordings in one step, and what a report's silence counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from losses_suite import unit

from kvlp.errors import ConfigError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker
from kvlp.training.objectives.entity import EntityPart
from kvlp.training.objectives.part import Inputs, Sources
from kvlp.training.recipe import load_recipe
from kvlp.training.texts import TextRows
from kvlp.typing import Assertion

CLASSES = ("cardiomegaly", "pleural_effusion", "pneumothorax")
LABELS = torch.tensor([[1.0, 0, float("nan")], [0, 1, 1], [float("nan"), 0, 0], [1, -1, 1]])


def inputs(prompts: torch.Tensor) -> Inputs:
    learned = {"log_scale": torch.tensor(2.0), "bias": torch.tensor(-1.0)}
    features = {"image_emb": torch.from_numpy(unit(4, 6, seed=1)), "prompts": prompts}
    return Inputs(features, {"labels": LABELS}, {}, learned, {}, torch.ones(()))


def test_statements_stand_before_denials_and_each_wording_asks_for_every_finding() -> None:
    graph = KnowledgeGraph.load("chest")
    texts = TextRows((), (), CLASSES, np.zeros((0, 3), np.float32), np.zeros(0, np.int64), frozenset())
    part = EntityPart(wordings=3, descriptions=0)
    draw = part.samplers(Sources(graph, graph, True, texts, None)).shared  # type: ignore[arg-type]
    assert draw is not None
    drawn: list[str] = draw(0, np.random.default_rng(0))["prompts"]  # type: ignore[assignment]
    assert len(drawn) == 2 * 3 * len(CLASSES)
    read = EntityLinker(graph, spelling=False)
    for number, text in enumerate(drawn):
        said = {m.concept: m.assertion for m in read(text)}
        wanted = Assertion.PRESENT if number < len(drawn) / 2 else Assertion.ABSENT
        assert said[CLASSES[number % len(CLASSES)]] is wanted
    assert len(set(drawn[: 3 * len(CLASSES) : len(CLASSES)])) > 1  # worded anew


def test_the_loss_is_the_mean_over_the_wordings() -> None:
    prompts = torch.from_numpy(unit(2 * 2 * 3, 6, seed=2))  # statements of two wordings, then their denials
    both, one = EntityPart(wordings=2, unmentioned=0.3), EntityPart(unmentioned=0.3)
    alone = [
        one.compute(one.loss(), inputs(torch.cat([prompts[k : k + 3], prompts[6 + k : 9 + k]]))).total for k in (0, 3)
    ]
    together = both.compute(both.loss(), inputs(prompts)).total
    torch.testing.assert_close(together, torch.stack(alone).mean())


@pytest.mark.parametrize(("given", "taken"), [("ignore", 0), ("absent", 1), (0.25, 0.25)])
def test_silence_is_a_word_or_a_number(given: object, taken: float) -> None:
    recipe = load_recipe("smoke-cpu", [f"stages.0.losses.entity.unmentioned={given}"])
    assert recipe.stages[0].losses.entity.unmentioned == taken  # type: ignore[union-attr]


@pytest.mark.parametrize("given", ["1.5", "sometimes", "true"])
def test_other_silence_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"stages\.0\.losses\.entity\.unmentioned"):
        load_recipe("smoke-cpu", [f"stages.0.losses.entity.unmentioned={given}"])
