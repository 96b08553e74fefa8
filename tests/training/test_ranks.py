"""What processes that share a run must agree on, as far as one process can tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError
from kvlp.training.data import Batches
from kvlp.training.objectives import ClipPart, GraphMatchingPart, Losses, MomentumPart
from kvlp.training.ranks import Ranks, deaths_named, is_first_process, require_shareable
from kvlp.training.recipe import Stage, load_recipe
from kvlp.training.run import run_recipe
from kvlp.training.setup import prepare

SMALL = ("model.image_size=24", "tokenizer.vocab_size=400", "model.embed_dim=16", "threads=1")


@pytest.fixture(scope="module")
def batches(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Batches]:
    recipe = load_recipe("smoke-cpu", [*SMALL, "stages.0.losses.contradiction={}"])
    p = prepare(recipe, manifest, tmp_path_factory.mktemp("run"), lambda *_: None)

    def of(part: int, parts: int) -> Batches:
        return Batches(
            rows=p.rows, tokenize=p.tokenize, normalise=p.normalise, batch_size=5, accumulate=2, seed=(0, 0),
            max_sentences=3, augmented=True, share=(part, parts),
            samplers=[loss.samplers(p.sources) for loss in recipe.stages[0].losses.active.parts.values()],
        )  # fmt: skip

    return of


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2, 3, 5])
def test_the_parts_of_a_step_are_the_step_of_one_process(parts: int, batches: Callable[[int, int], Batches]):
    for step in (0, 3):
        micro, shared = batches(0, 1)[step]
        pieces = [batches(part, parts)[step] for part in range(parts)]
        for piece in pieces:
            assert all(torch.equal(piece[1][name], value) for name, value in shared.items())
        for number, whole in enumerate(micro):
            for name, value in whole.items():
                found = [piece[0][number][name] for piece in pieces]
                if name in ("text", "statement", "contradiction"):  # padded to the longest of the part
                    cut = [[int(i) for i in row if i] for part in found for row in part]
                    assert cut == [[int(i) for i in row if i] for row in value]
                else:
                    torch.testing.assert_close(torch.cat(found), value, rtol=0, atol=0, equal_nan=True)
            sizes = [len(piece[0][number]["row"]) for piece in pieces]
            assert max(sizes) - min(sizes) <= 1


def test_the_smallest_micro_batch_is_known(batches: Callable[[int, int], Batches]):
    made = batches(0, 1)
    sizes = [len(batch["row"]) for step in range(2 * made.steps_per_epoch) for batch in made[step][0]]
    assert made.fewest == min(sizes)


def stage(**losses: object) -> Stage:
    return Stage(name="align", epochs=1, losses=Losses(**losses))


def test_what_cannot_be_shared_is_named(monkeypatch: pytest.MonkeyPatch):
    several = Ranks(0, 4)
    require_shareable(stage(clip=ClipPart(), graph_matching=GraphMatchingPart()), several, 4)
    monkeypatch.setattr(GraphMatchingPart, "gathers", False)
    require_shareable(stage(clip=ClipPart(), momentum=MomentumPart()), several, 4)
    require_shareable(stage(graph_matching=GraphMatchingPart()), Ranks(), 1)
    with pytest.raises(ConfigError, match=r"stage 'align': the loss graph_matching chooses among the rows"):
        require_shareable(stage(clip=ClipPart(), graph_matching=GraphMatchingPart()), several, 4)
    with pytest.raises(ConfigError, match=r"4 processes share micro-batches of 3 rows; start fewer"):
        require_shareable(stage(clip=ClipPart()), several, 3)


def test_shards_without_torchrun_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    recipe = load_recipe("smoke-cpu", ["parallel=fsdp2"])
    with pytest.raises(ConfigError, match="parallel fsdp2 needs torchrun: torchrun --nproc-per-node N -m kvlp"):
        run_recipe(recipe, Manifest([], tmp_path), tmp_path / "run")


def test_half_of_torchruns_variables_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is set but RANK is not; start several processes with torchrun"):
        Ranks.join()
    assert is_first_process()
    monkeypatch.setenv("RANK", "1")
    assert not is_first_process()


def test_only_the_backends_words_are_taken_for_the_death_of_a_process():
    with pytest.raises(RuntimeError, match="shape"), deaths_named():
        raise RuntimeError("shape mismatch")
    with pytest.raises(Exception, match="another process of this run ended"), deaths_named():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")


def test_one_process_alone_waits_for_nobody():
    ranks, done = Ranks(), []
    ranks.wait()
    ranks.first_does(lambda: done.append(1))
    assert ranks.first_then_others(lambda: 7) == 7
    assert done == [1]
    assert [ranks.any(value) for value in (True, False)] == [True, False]
    before = torch.get_rng_state()
    with ranks.own_draws():
        drawn = torch.rand(1)
    torch.set_rng_state(before)
    np.testing.assert_array_equal(drawn, torch.rand(1))
