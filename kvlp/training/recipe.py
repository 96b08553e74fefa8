"""Recipes: strict, frozen settings of a pretraining run. YAML is only their written form."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvlp.errors import ConfigError
from kvlp.knowledge.embedding.settings import resolve

__all__ = [
    "ClipPart",
    "ConceptAlignPart",
    "ConceptVectorsPart",
    "EntityPart",
    "EvaluationPart",
    "KnowledgePart",
    "Recipe",
    "Stage",
    "apply_overrides",
    "load_recipe",
    "recipe_names",
    "recipe_text",
]

Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, protected_namespaces=())


class ModelSettings(_Strict):
    """The two towers and what goes into them.

    A tower is a small one of ours by name (`kvlp.models.towers.TOWERS`); an image tower may be any timm name too, a
    text tower a folder of a transformers encoder: with its weights, and then its tokenizer, where it holds any.
    `start` names a model whose towers and weights the run begins from: a checkpoint of ours or an open_clip one
    (`open_clip:NAME/FILE`, `local-dir:FOLDER`).
    """

    image: str = "tiny-cnn"
    text: str = "tiny-text"
    embed_dim: Positive = 128
    image_size: Positive = 96
    start: str | None = None


class TokenizerSettings(_Strict):
    """A vocabulary built from the graph and from pieces that several patients share, or one from a file."""

    vocabulary: Path | None = None
    vocab_size: Positive = 2000
    min_patients: Positive = 3
    context_length: Positive = 48


class DataSettings(_Strict):
    """Which rows are read and how a report becomes text.

    `max_sentences`: a training text is a random subset of 1 to this many sentences of the report (0: whole report).
    `text`: `report`, or `labels` to write sentences from labels even where a report exists, or `auto`: labels only
    where there is no report. Rows with neither are left out and named in skipped.jsonl; more than the share
    `max_skipped` of them stops the run.
    """

    split: str = "train"
    text: Literal["auto", "report", "labels"] = "auto"
    max_sentences: Annotated[int, Field(ge=0)] = 3
    max_skipped: Annotated[float, Field(ge=0, le=1)] = 0.01
    shuffle_reports: bool = False
    augment: bool = True


class KnowledgeSettings(_Strict):
    """The graph, and the controls: `use=false` leaves it out of training, `shuffled` permutes it with that seed.

    `min_patients`: a finding counts as named once it is named in reports of this many patients.
    """

    graph: str = "chest"
    use: bool = True
    shuffled: int | None = None
    min_patients: Positive = 5


class ClipPart(_Strict):
    """Weight and settings of the contrastive loss."""

    weight: Weight = 1.0
    duplicates: Literal["ignore", "positive"] = "ignore"


class EntityPart(_Strict):
    """Weight and settings of the cross-image entity loss; `scale` is where its learned scale begins."""

    weight: Weight = 1.0
    scale: Annotated[float, Field(ge=1, le=100)] = 10.0
    balanced: bool = True
    descriptions: Annotated[float, Field(ge=0, le=1)] = 0.3


class KnowledgePart(_Strict):
    """Weight and settings of the knowledge alignment: `pairs` text pairs every `every` steps."""

    weight: Weight = 1.0
    every: Positive = 2
    pairs: Positive = 96
    negated: Annotated[float, Field(ge=0, le=1)] = 0.25


class ConceptAlignPart(_Strict):
    """Weight and settings of the alignment with concept vectors, which `concept_vectors` in the recipe names.

    `unmentioned`: what a concept is of which the report does not speak: `ignore`d, or `absent` as in ARL. `texts`: the
    report's embedding is aligned too, not the image's alone; a text that is a random subset of the report's sentences
    (`data.max_sentences`) is then asked for what the whole report says.
    """

    weight: Weight = 1.0
    unmentioned: Literal["ignore", "absent"] = "ignore"
    balanced: bool = True
    texts: bool = True


class ConceptVectorsPart(_Strict):
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


class Losses(_Strict):
    """The losses of a stage; one left out (or of weight 0) is not computed."""

    clip: ClipPart | None = None
    entity: EntityPart | None = None
    knowledge: KnowledgePart | None = None
    concept_align: ConceptAlignPart | None = None

    @property
    def with_images(self) -> bool:
        """Whether some loss looks at images."""
        return bool(self.clip or self.entity or self.concept_align)


class Stage(_Strict):
    """One stage: so many epochs over the rows (or steps) with these losses and this optimiser setting.

    AdamW with linear warm-up and cosine decay to `final_lr` x lr; the text tower learns at `text_lr` x lr (0 freezes
    it). `accumulate` micro-batches of `batch_size` rows count as one batch for the contrastive losses (cached features:
    the gradient is that of the large batch). With `lock_image` the images are embedded once, as they are, and the text
    tower alone learns to meet them (Zhai et al. 2022, LiT): much cheaper steps.
    """

    name: str = "align"
    epochs: Annotated[int, Field(ge=0)] = 0
    steps: Annotated[int, Field(ge=0)] = 0
    batch_size: Annotated[int, Field(gt=1)] = 64
    accumulate: Positive = 1
    lr: Annotated[float, Field(gt=0)] = 2e-3
    text_lr: Annotated[float, Field(ge=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    lock_image: bool = False
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    final_lr: Annotated[float, Field(ge=0, le=1)] = 0.01
    grad_clip: Annotated[float, Field(gt=0)] = 5.0
    losses: Losses = Losses(clip=ClipPart())


class EvaluationPart(_Strict):
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


class Recipe(_Strict):
    """All settings of a run. See the shipped recipes for examples: `kvlp recipes ls`."""

    name: str
    description: str = ""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    save_every: Positive = 50
    model: ModelSettings = ModelSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    data: DataSettings = DataSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    concept_vectors: ConceptVectorsPart | None = None
    stages: tuple[Stage, ...] = (Stage(epochs=1),)
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
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        try:
            text, where = path.read_text(encoding="utf-8"), str(path)
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: expected a UTF-8 YAML recipe, got other bytes") from None
    else:
        text, where = recipe_text(str(name_or_path)), f"recipe {name_or_path}"
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: expected YAML, got text that does not parse") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected keys and values, got {type(raw).__name__}")
    return _validate(apply_overrides(raw, overrides), where)


def apply_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return `raw` with `a.b.0.c=value` settings put in; values are read as YAML."""
    result: Any = yaml.safe_load(yaml.safe_dump(dict(raw)))
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign or not key:
            raise ConfigError(f"--set expects key=value, got '{override}'")
        *parents, last = key.split(".")
        node = result
        for name in parents:
            node = _child(node, name, key)
        if isinstance(node, list):
            node[_index(node, last, key)] = yaml.safe_load(value)
        else:
            node[last] = yaml.safe_load(value)
    return result


def _child(node: Any, name: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, name, key)]
    if node.get(name) is None:
        node[name] = {}
    if not isinstance(node[name], dict | list):
        raise ConfigError(f"--set {key}: '{name}' is a value, not a group of keys")
    return node[name]


def _index(node: list[Any], name: str, key: str) -> int:
    if not name.isdigit() or int(name) >= len(node):
        raise ConfigError(f"--set {key}: expected a number below {len(node)}, got '{name}'")
    return int(name)


def _validate(raw: dict[str, Any], where: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(_explain(e) for e in error.errors())}") from None
    _check_concept_vectors(recipe, where)
    for stage in recipe.stages:
        if not (stage.losses.with_images or stage.losses.knowledge):
            raise ConfigError(
                f"{where}: stage '{stage.name}' has no loss; give clip, entity, concept_align or knowledge"
            )
        if stage.losses.knowledge and not stage.losses.with_images and stage.losses.knowledge.every > 1:
            raise ConfigError(f"{where}: stage '{stage.name}' has texts alone; set losses.knowledge.every to 1")
        if (stage.epochs > 0) == (stage.steps > 0):
            raise ConfigError(f"{where}: stage '{stage.name}': give either epochs or steps")
    return recipe


def _check_concept_vectors(recipe: Recipe, where: str) -> None:
    """The vectors are named where they are needed, and their settings are those of their method."""
    users = [stage.name for stage in recipe.stages if stage.losses.concept_align]
    if users and recipe.concept_vectors is None:
        raise ConfigError(
            f"{where}: stage '{users[0]}' has the loss concept_align; name its vectors: "
            "concept_vectors: {method: transe, dim: 64}"
        )
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
