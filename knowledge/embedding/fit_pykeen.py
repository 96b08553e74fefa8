"""TransE, RotatE and ComplEx through PyKEEN: its models, losses and training loop; our seeds, progress and silence."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kvlp.errors import KnowledgeError, MissingExtraError
from kvlp.knowledge.embedding.cache import cache_folder
from kvlp.knowledge.embedding.ranking import VectorScorer

if TYPE_CHECKING:
    from kvlp.knowledge.embedding.fit import Step
    from kvlp.knowledge.embedding.triples import Triples
    from kvlp.typing import FloatArray

__all__ = ["fit_pykeen"]

#: our name -> PyKEEN's model, its own arguments, our way to score with its vectors
_MODELS: dict[str, tuple[str, dict[str, Any], Literal["add", "turn"], Literal["l1", "l2", "dot"]]] = {
    "transe": ("TransE", {"scoring_fct_norm": 1}, "add", "l1"),
    "rotate": ("RotatE", {}, "turn", "l2"),
    "complex": ("ComplEx", {}, "turn", "dot"),
}
#: ComplEx begins small: from numbers of size 1 it learns by heart before it learns anything. PyKEEN would also add a
#: regulariser that, on a graph of hundreds of links, keeps every number at 0: it is left out.
COMPLEX_STD = 0.01


def fit_pykeen(triples: Triples, method: str, settings: Mapping[str, Any], step: Step) -> VectorScorer:
    """Train a PyKEEN model on `triples`. The caller has seeded torch, NumPy and random.

    Returns:
        Vectors as real numbers: a complex row of D/2 numbers becomes D, real parts first.

    Raises:
        MissingExtraError: PyKEEN is not installed.
        KnowledgeError: PyKEEN cannot be imported, because bitsandbytes was imported before it in this process.
    """
    with _quiet():
        parts = _import_pykeen()
        factory = parts["factory"](
            mapped_triples=_tensor(triples.array), num_entities=triples.entities, num_relations=len(triples.types)
        )
        name, extra, move, compare = _MODELS[method]
        if method == "complex":
            small = partial(_normal, std=COMPLEX_STD)
            extra = {**extra, "entity_initializer": small, "relation_initializer": small, "regularizer": None}
        loss = parts["product_loss" if compare == "dot" else "distance_loss"]()
        width = settings["dim"] // 2 if move == "turn" else settings["dim"]
        model = getattr(parts["models"], name)(
            triples_factory=factory, embedding_dim=width, random_seed=settings["seed"], loss=loss, **extra
        )
        _train(parts, model, factory, settings, step)
    entities, relations = (_real(r) for r in (model.entity_representations[0], model.relation_representations[0]))
    return VectorScorer(entities, np.stack([relations, _back(relations, move)]), move, compare)


def _train(parts: Mapping[str, Any], model: Any, factory: Any, settings: Mapping[str, Any], step: Step) -> None:
    if not settings["epochs"]:
        return
    import torch

    loop = parts["loop"](
        model=model,
        triples_factory=factory,
        optimizer=torch.optim.Adam(model.get_grad_params(), lr=settings["lr"]),
        negative_sampler=parts["sampler"],
        negative_sampler_kwargs={"num_negs_per_pos": settings["negatives"]},
    )

    batch = min(settings["batch_size"], factory.num_triples)
    with _little_to_collect():
        loop.train(
            triples_factory=factory,
            num_epochs=settings["epochs"],
            batch_size=batch,
            sub_batch_size=batch,
            use_tqdm=False,
            use_tqdm_batch=False,
            num_workers=0,
            callbacks=_teller(parts["callback"], settings["epochs"], step),
        )


def _teller(base: type, epochs: int, step: Step) -> Any:
    """A training callback of PyKEEN's that calls ours."""

    def post_epoch(_: Any, epoch: int, epoch_loss: float, **kwargs: Any) -> None:
        step(epoch, epochs, float(epoch_loss))

    return type("Teller", (base,), {"post_epoch": post_epoch})()


def _import_pykeen() -> dict[str, Any]:
    try:
        with _home():
            from pykeen import models
        from pykeen.losses import NSSALoss, SoftplusLoss
        from pykeen.sampling import BernoulliNegativeSampler
        from pykeen.training import SLCWATrainingLoop
        from pykeen.training.callbacks import TrainingCallback
        from pykeen.triples import CoreTriplesFactory
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "pykeen", "vectors") from error
    except Exception as error:  # its registry of optimisers refuses names that come twice with an error of its own
        raise KnowledgeError(
            f"PyKEEN does not import here ({type(error).__name__}); it cannot after bitsandbytes was imported: "
            "make the vectors first, or in a process of their own (`kvlp kg embed`)"
        ) from error
    return {
        "models": models,
        "distance_loss": NSSALoss,
        "product_loss": SoftplusLoss,
        "sampler": BernoulliNegativeSampler,
        "loop": SLCWATrainingLoop,
        "callback": TrainingCallback,
        "factory": CoreTriplesFactory,
    }


@contextmanager
def _home() -> Iterator[None]:
    """PyKEEN makes folders in the user's home when imported: give it a place in our cache, unless one is named."""
    if os.environ.keys() & {"PYKEEN_HOME", "PYSTOW_HOME"}:
        yield
        return
    os.environ["PYSTOW_HOME"] = str(cache_folder().parent)
    try:
        yield
    finally:
        del os.environ["PYSTOW_HOME"]


def _normal(values: Any, std: float) -> Any:
    import torch

    return torch.nn.init.normal_(values, std=std)


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def _real(representation: Any) -> FloatArray:
    values = representation(indices=None).detach()
    array = np.asarray(values.cpu().numpy())
    if np.iscomplexobj(array):
        array = np.concatenate([array.real, array.imag], axis=-1)
    result: FloatArray = np.ascontiguousarray(array, dtype=np.float32)
    return result


def _back(relations: FloatArray, move: str) -> FloatArray:
    """What leads from a tail to its heads: the opposite shift, or the conjugate."""
    if move == "add":
        return -relations
    half = relations.shape[1] // 2
    return np.concatenate([relations[:, :half], -relations[:, half:]], axis=1)


@contextmanager
def _little_to_collect() -> Iterator[None]:
    """PyKEEN collects garbage after each epoch, half a second over all that is loaded: set that aside meanwhile."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _quiet() -> Iterator[None]:
    """PyKEEN and what it loads log and warn of their own affairs."""
    names = ("pykeen", "torch_max_mem", "class_resolver", "pystow")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
