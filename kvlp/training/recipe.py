"""Recipes: strict, frozen settings of a pretraining run. YAML is only their written form."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from kvlp.errors import ConfigError
from kvlp.knowledge.embedding.settings import resolve
from kvlp.training.fusion import FusionPart
from kvlp.training.lora import LoraPart
from kvlp.training.objectives import ClipPart, Losses
from kvlp.training.reports import ReportDecoderPart
from kvlp.training.settings import LayerDecay, Positive, Strict

__all__ = [
    "ConceptVectorsPart",
    "Difference",
    "EvaluationPart",
    "QueryNetworkPart",
    "Recipe",
    "Stage",
    "ValidationPart",
    "apply_overrides",
    "derived",
    "load_recipe",
    "recipe_names",
    "recipe_text",
]


class ModelSettings(Strict):
    """The two towers and what goes into them.

    A tower is a small one of ours by name (`kvlp.models.towers.TOWERS`); an image tower may be any timm name too, a
    text tower a folder of a transformers encoder: with its weights, and then its tokenizer, where it holds any.
    `start` names a model whose towers and weights the run begins from: a checkpoint of ours or an open_clip one
    (`open_clip:NAME/FILE`, `local-dir:FOLDER`). `projection`: how a timm tower's features come into the joint space: by
    a matrix, or by a network of two layers.
    """

    image: str = "tiny-cnn"
    text: str = "tiny-text"
    embed_dim: Positive = 128
    image_size: Positive = 96
    projection: Literal["linear", "mlp"] = "linear"
    start: str | None = None


class TokenizerSettings(Strict):
    """A vocabulary built from the graph and from pieces that several patients share, or one from a file."""

    vocabulary: Path | None = None
    vocab_size: Positive = 2000
    min_patients: Positive = 3
    context_length: Positive = 48


class DataSettings(Strict):
    """Which rows are read and how a report becomes text.

    `max_sentences`: a training text is a random subset of 1 to this many sentences of the report (0: whole report).
    `text`: `report`, or `labels` to write sentences from labels even where a report exists, or `auto`: labels only
    where there is no report; `entities` writes a sentence for each finding that the report states or denies, `tags` the
    same in KAD's words ("pneumothorax observation definitely absent"). Rows with neither report nor labels are left out
    and named in skipped.jsonl; more than the share `max_skipped` of them stops the run. `workers`: so many processes
    make the batches ahead (0: the run itself does); the batches are the same to the bit. `views`: each image is a
    sample of its own, or all images of a study are one: embedded each, averaged, and met by one report.
    """

    split: str = "train"
    text: Literal["auto", "report", "labels", "entities", "tags"] = "auto"
    max_sentences: Annotated[int, Field(ge=0)] = 3
    max_skipped: Annotated[float, Field(ge=0, le=1)] = 0.01
    shuffle_reports: bool = False
    augment: bool = True
    views: Literal["one", "all"] = "one"
    workers: Annotated[int, Field(ge=0, le=256)] = 0


class KnowledgeSettings(Strict):
    """The graph, and the controls: `use=false` leaves it out of training, `shuffled` permutes it with that seed.

    `min_patients`: a finding counts as named once it is named in reports of this many patients.
    """

    graph: str = "chest"
    use: bool = True
    shuffled: int | None = None
    min_patients: Positive = 5


class ConceptVectorsPart(Strict):
    """Which vectors stand for the graph's concepts: a method of `graph.embed` and its settings; None is its default.

    They are made once of the graph that trains the model (the permuted one in the shuffled control), kept in the run
    folder, and not changed by training.
    """

    method: Literal["transe", "rotate", "complex", "gat", "text", "random"] = "transe"
    dim: Positive | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=0)] | None = None
    lr: Annotated[float, Field(gt=0)] | None = None
    batch_size: Positive | None = None
    negatives: Positive | None = None
    relation_types: bool | None = None
    start: Literal["random", "text", "transe"] | None = None

    def settings(self) -> dict[str, Any]:
        """The settings that are given, for `graph.embed`."""
        return self.model_dump(exclude={"method"}, exclude_none=True)


class QueryNetworkPart(Strict):
    """How the query network is built; it lasts over the stages and is saved in the checkpoint (`model.query`).

    `states`: false, true and, with 3, uncertain. `mix_queries`: queries attend to each other, as published; the answer
    to one then depends on what else is asked.
    """

    layers: Positive = 4
    heads: Positive = 4
    ffn: Positive = 1024
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    states: Literal[2, 3] = 3
    mix_queries: bool = False


class Stage(Strict):
    """One stage: so many epochs over the rows (or steps) with these losses and this optimiser setting.

    AdamW with linear warm-up and cosine decay to `final_lr` x lr; the text tower learns at `text_lr` x lr (0 freezes
    it), what lasts beside the towers (projections to concepts, query network, fusion) at `head_lr` x lr. `accumulate`
    micro-batches of `batch_size` rows count as one batch for the contrastive losses (cached features: the gradient is
    that of the large batch). With `lock_image` the images are embedded once, as they are, and the text tower alone
    learns to meet them (Zhai et al. 2022, LiT): much cheaper steps. `image_layer_decay` and `text_layer_decay`: each
    layer of the tower learns at this share of the rate of the one above it (see `rate_scales`). `freeze_image_blocks`
    and `freeze_text_blocks`: the stem and so many of the lowest blocks stay as they are.
    """

    name: str = "align"
    epochs: Annotated[int, Field(ge=0)] = 0
    steps: Annotated[int, Field(ge=0)] = 0
    batch_size: Annotated[int, Field(gt=1)] = 64
    accumulate: Positive = 1
    lr: Annotated[float, Field(gt=0)] = 2e-3
    text_lr: Annotated[float, Field(ge=0)] = 1.0
    head_lr: Annotated[float, Field(gt=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    lock_image: bool = False
    image_layer_decay: LayerDecay = 1.0
    text_layer_decay: LayerDecay = 1.0
    freeze_image_blocks: Annotated[int, Field(ge=0)] = 0
    freeze_text_blocks: Annotated[int, Field(ge=0)] = 0
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    final_lr: Annotated[float, Field(ge=0, le=1)] = 0.01
    grad_clip: Annotated[float, Field(gt=0)] = 5.0
    losses: Losses = Losses(clip=ClipPart())


class EvaluationPart(Strict):
    """One evaluation after training, on rows that were not trained on.

    `split`: by default test, or dev where there is no test split. `source`: only rows of that source. `classes`:
    names, or "A vs B"; by default every label that has both values. `queries`: class names to search for.
    `controls`: also fit a logistic regression on 32x32 pixels, and what the source or the border alone would give.
    """

    name: str = "test"
    split: str = ""
    source: str = ""
    classes: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    controls: bool = False


class ValidationPart(Strict):
    """Figures on held-out rows while training, every so many steps and at the end of each stage, in validation.jsonl.

    `rows`: so many rows of the split, the first ones; `classes`: by default every label that has both values there.
    """

    split: str = "dev"
    every: Positive = 100
    rows: Positive = 512
    classes: tuple[str, ...] = ()


class Difference(Strict):
    """Where a recipe departs from what was published: `key` has the value `published` there, and `why` it has not here.

    `applied`: the recipe has the published value.
    """

    key: str
    published: Any
    why: str
    applied: bool = False


class Recipe(Strict):
    """All settings of a run. See the shipped recipes for examples: `kvlp recipes ls`.

    A recipe's file may instead name another one as its `base` and `set` some of its keys (dotted: `stages.0.lr: 1e-3`).
    With `as_published` each of its `differences` takes the published value. `parallel`: how processes that torchrun
    starts hold the towers: whole in each (`ddp`), or their blocks in shards (`fsdp2`). `tensorboard`: curves in the run
    folder. `ema`: a moving average of the weights with this decay is what is scored and saved (see `WeightAverage`).
    `grad_checkpointing`: that tower computes its blocks again for the gradient instead of keeping them, for less
    memory. `lora`: of the towers only adapters learn. `compile`: the blocks of both towers go through torch.compile.
    """

    name: str
    description: str = ""
    as_published: bool = False
    differences: tuple[Difference, ...] = ()
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    save_every: Positive = 50
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    tensorboard: bool = False
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    grad_checkpointing: Literal["image", "text", "both"] | None = None
    lora: LoraPart | None = None
    compile: bool = False
    model: ModelSettings = ModelSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    data: DataSettings = DataSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    concept_vectors: ConceptVectorsPart | None = None
    query_network: QueryNetworkPart | None = None
    fusion: FusionPart | None = None
    report_decoder: ReportDecoderPart | None = None
    stages: tuple[Stage, ...] = (Stage(epochs=1),)
    validation: ValidationPart | None = None
    evaluation: tuple[EvaluationPart, ...] = (EvaluationPart(),)

    def to_yaml(self) -> str:
        """The recipe as YAML, every key written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def recipe_names() -> list[str]:
    """Names of the recipes that come with kvlp, sorted."""
    return sorted(p.name.removesuffix(".yaml") for p in _folder().iterdir() if p.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The YAML text of a shipped recipe.

    Raises:
        ConfigError: there is no such recipe.
    """
    if name not in recipe_names():
        raise ConfigError(
            f"no recipe '{name}'; expected a YAML file or one of {', '.join(recipe_names())}{_near(name)}"
        )
    return _folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or from a YAML file and apply `key=value` overrides (dotted keys; `stages.0.lr=1e-3`).

    Raises:
        ConfigError: not YAML, an unknown key (with the nearest name) or a wrong value; all errors in one message.
    """
    raw, where = _read(name_or_path)
    return _validate(_as_published(raw, overrides), where)


def derived(control: str | Path, base: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe as another one's control: what `control` sets, set in `base`; or itself, where it has no base.

    Raises:
        ConfigError: as `load_recipe`.
    """
    raw, where = _read(control, base)
    return _validate(_as_published(raw, overrides), where)


def _read(name_or_path: str | Path, base: str | Path | None = None, seen: tuple[str, ...] = ()) -> tuple[Any, str]:
    """The settings of a recipe, with its base's filled in, and what to call it in messages."""
    text, where = _text(name_or_path)
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: expected YAML, got text that does not parse") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected keys and values, got {type(raw).__name__}")
    if "base" not in raw:
        return raw, where
    unknown = sorted(set(raw) - {"name", "description", "base", "set"})
    if unknown:
        raise ConfigError(f"{where}: beside base it has the key '{unknown[0]}'; put it under set")
    if where in seen:
        raise ConfigError(f"{where}: it is its own base, by way of {', '.join(seen)}")
    below, _ = _read(base or raw["base"], seen=(*seen, where))
    told = {key: raw[key] for key in ("name", "description") if key in raw}
    return {**_with_values(below, raw.get("set") or {}, where), **told}, where


def _text(name_or_path: str | Path) -> tuple[str, str]:
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        return recipe_text(str(name_or_path)), f"recipe {name_or_path}"
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected a UTF-8 YAML recipe, got other bytes") from None


def _as_published(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The settings with the published values, where that is asked for, below what the user sets."""
    wanted = apply_overrides(raw, overrides)
    if wanted.get("as_published") is not True or not isinstance(wanted.get("differences"), list):
        return wanted
    for one in wanted["differences"]:
        if isinstance(one, dict) and not one.get("applied"):
            raw = _with_values(raw, {str(one.get("key")): one.get("published")}, "differences")
    done = [{**one, "applied": True} if isinstance(one, dict) else one for one in wanted["differences"]]
    return {**apply_overrides(raw, overrides), "differences": done}


def apply_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return `raw` with `a.b.0.c=value` settings put in; values are read as YAML."""
    values = {}
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign or not key:
            raise ConfigError(f"--set expects key=value, got '{override}'")
        values[key] = yaml.safe_load(value)
    return _with_values(raw, values, "--set")


def _with_values(raw: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy of `raw` with values put in at dotted keys."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected dotted keys and values under set, got {type(values).__name__}")
    result: Any = deepcopy(dict(raw))
    for key, value in values.items():
        *parents, last = str(key).split(".")
        node = result
        for name in parents:
            node = _child(node, name, f"{where} {key}")
        if isinstance(node, list):
            node[_index(node, last, f"{where} {key}")] = value
        else:
            node[last] = value
    return result


def _child(node: Any, name: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, name, key)]
    if node.get(name) is None:
        node[name] = {}
    if not isinstance(node[name], dict | list):
        raise ConfigError(f"{key}: '{name}' is a value, not a group of keys")
    return node[name]


def _index(node: list[Any], name: str, key: str) -> int:
    if not name.isdigit() or int(name) >= len(node):
        raise ConfigError(f"{key}: expected a number below {len(node)}, got '{name}'")
    return int(name)


def _validate(raw: dict[str, Any], where: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(_explain(e) for e in error.errors())}") from None
    _check_heads(recipe, where)
    for stage in recipe.stages:
        _check_stage(stage, where)
        single = [n for n, part in stage.losses.active.parts.items() if recipe.data.views == "all" and not part.pooled]
        if single:
            raise ConfigError(
                f"{where}: stage '{stage.name}': the loss {single[0]} works on single images; leave it out, or set "
                "data.views to one"
            )
        if recipe.lora and recipe.lora.towers == "image" and not stage.losses.with_images:
            raise ConfigError(
                f"{where}: stage '{stage.name}' has texts alone, and lora.towers leaves the text tower as it is; "
                "set lora.towers to both"
            )
    return recipe


def _check_stage(stage: Stage, where: str) -> None:
    parts = stage.losses.active.parts
    if not parts:
        raise ConfigError(f"{where}: stage '{stage.name}' has no loss; give one of {', '.join(Losses.model_fields)}")
    if not stage.losses.with_images and all(getattr(part, "every", 1) > 1 for part in parts.values()):
        name = next(iter(parts))
        raise ConfigError(f"{where}: stage '{stage.name}' has texts alone; set losses.{name}.every to 1")
    if (stage.epochs > 0) == (stage.steps > 0):
        raise ConfigError(f"{where}: stage '{stage.name}': give either epochs or steps")


def _check_heads(recipe: Recipe, where: str) -> None:
    """What a loss works through is named where it is needed, and its settings are sound."""
    stages = {name: stage.name for stage in recipe.stages for name in stage.losses.active.parts}
    if "concept_align" in stages and recipe.concept_vectors is None:
        raise ConfigError(
            f"{where}: stage '{stages['concept_align']}' has the loss concept_align; name its vectors: "
            "concept_vectors: {method: transe, dim: 64}"
        )
    if "query" in stages and recipe.query_network is None:
        raise ConfigError(
            f"{where}: stage '{stages['query']}' has the loss query; say how its network is built: "
            "query_network: {layers: 4, heads: 4}"
        )
    if "arl" in stages and recipe.fusion is None:
        raise ConfigError(
            f"{where}: stage '{stages['arl']}' has the loss arl; say how fusion is built: "
            "fusion: {layers: 6, width: 768}"
        )
    if "motor" in stages and recipe.report_decoder is None:
        raise ConfigError(
            f"{where}: stage '{stages['motor']}' has the loss motor; say how its decoder is built: "
            "report_decoder: {layers: 12, width: 768}"
        )
    if recipe.fusion is not None and recipe.fusion.reason and recipe.concept_vectors is None:
        raise ConfigError(
            f"{where}: fusion.reason needs concept vectors: concept_vectors: {{method: transe, dim: 256}}; or set "
            "fusion.reason to false"
        )
    for stage in recipe.stages:
        if stage.losses.arl and stage.lock_image:
            raise ConfigError(f"{where}: stage '{stage.name}': the loss arl needs images; set lock_image to false")
    if recipe.concept_vectors is not None:
        try:
            resolve(recipe.concept_vectors.method, recipe.concept_vectors.settings())
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None


def _explain(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key '{place}'{_nearest_key(error['loc'])}"
    return f"{place}: {error['msg'].lower()}, got {error['input']!r}"


def _nearest_key(location: Sequence[str | int]) -> str:
    """The valid keys live in the model that the location leads to."""
    model: Any = Recipe
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return _near(str(location[-1]), list(model.model_fields))


def _near(name: str, names: Sequence[str] | None = None) -> str:
    near = difflib.get_close_matches(name, recipe_names() if names is None else names, n=1, cutoff=0.4)
    return f"; did you mean '{near[0]}'?" if near else ""


def _folder() -> Any:
    return resources.files("kvlp.recipes")
