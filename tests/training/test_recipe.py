"""Recipes: shipped ones are sound, wrong ones are answered with every error and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from kvlp.errors import ConfigError
from kvlp.training.recipe import Recipe, derived, load_recipe, recipe_names, recipe_text


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_under_their_own_name_and_survive_a_round_trip(name: str, tmp_path: Path):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    path = tmp_path / "copy.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_the_control_differs_from_its_recipe_in_the_graph_alone():
    recipe, control = load_recipe("phantom-cpu"), load_recipe("phantom-cpu-shuffled")
    same = {"name": recipe.name, "description": recipe.description, "knowledge": recipe.knowledge}
    assert control.model_copy(update=same) == recipe
    assert control.knowledge.model_copy(update={"shuffled": None}) == recipe.knowledge


def test_all_errors_come_at_once_with_the_nearest_names():
    with pytest.raises(ConfigError) as caught:
        load_recipe("phantom-cpu", ["model.imag=x", "stages.1.losses.clip.wieght=2", "seed=high"])
    message = str(caught.value)
    assert "unknown key 'model.imag'; did you mean 'image'?" in message
    assert "unknown key 'stages.1.losses.clip.wieght'; did you mean 'weight'?" in message
    assert "seed: " in message
    assert "'high'" in message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.0.lr=-1"], "greater than 0"),
        (["stages.1.steps=3"], "either epochs or steps"),
        (["stages.4.lr=1"], "expected a number below 3, got '4'"),
        (["lr"], "expects key=value"),
        (["seed.x=1"], "is a value, not a group"),
    ],
)
def test_wrong_settings_are_named(overrides: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        load_recipe("phantom-cpu", overrides)


def test_settings_are_put_where_they_belong():
    recipe = load_recipe("phantom-cpu", ["stages.1.epochs=3", "knowledge.shuffled=7", "model.start=runs/a/checkpoint"])
    assert (recipe.stages[1].epochs, recipe.knowledge.shuffled, recipe.model.start) == (3, 7, "runs/a/checkpoint")


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'phantom-cpu'"):
        recipe_text("phantom-cp")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "line 1: expected YAML"),
        (b"- 1\n", "expected keys and values, got list"),
        (b"name: \xff\xfe", "expected a UTF-8 YAML recipe"),
        (b"name: x\nseed: !!python/object:os.system {}\n", "expected YAML"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_recipe_cannot_be_changed_after_it_was_made():
    with pytest.raises(ValidationError):
        Recipe(name="x").seed = 3  # type: ignore[misc]


# ---- a recipe from another one ---------------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_sets_keys_of_its_base(tmp_path: Path):
    path = written(tmp_path, "name: mine\nbase: kad-512\nset: {stages.1.lr: 0.5, seed: 3}\n")
    mine, base = load_recipe(path, ["stages.1.epochs=2"]), load_recipe("kad-512")
    assert (mine.name, mine.seed, mine.stages[1].lr, mine.stages[1].epochs) == ("mine", 3, 0.5, 2)
    assert mine.model == base.model
    assert mine.model.image_size == 512


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: mine\nbase: kad\nseed: 3\n", "beside base it has the key 'seed'; put it under set"),
        ("name: mine\nbase: kat\n", "no recipe 'kat'.*did you mean 'kad'"),
        ("name: mine\nbase: kad\nset: {stages.7.lr: 1}\n", "stages.7.lr: expected a number below 2, got '7'"),
        ("name: mine\nbase: kad\nset: {modle.image: x}\n", "unknown key 'modle'; did you mean 'model'"),
        ("name: mine\nbase: kad\nset: [1]\n", "expected dotted keys and values under set, got list"),
    ],
)
def test_wrong_bases_are_named(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_recipe(written(tmp_path, text))


def test_a_recipe_is_not_its_own_base(tmp_path: Path):
    with pytest.raises(ConfigError, match="it is its own base"):
        load_recipe(written(tmp_path, f"name: mine\nbase: {tmp_path / 'mine.yaml'}\n"))


@pytest.mark.parametrize(("name", "change"), [("no-graph", {"use": False}), ("shuffled-graph", {"shuffled": 0})])
def test_a_control_differs_from_what_it_is_compared_with_in_the_graph_alone(name: str, change: dict[str, object]):
    recipe, control = load_recipe("kad-phantom"), derived(name, "kad-phantom")
    same = {"name": recipe.name, "description": recipe.description, "knowledge": recipe.knowledge}
    assert control.model_copy(update=same) == recipe
    assert control.knowledge == recipe.knowledge.model_copy(update=change)


def test_a_control_of_shuffled_reports_keeps_everything_else():
    recipe, control = load_recipe("negation-phantom"), derived("shuffled-reports", "negation-phantom", ["seed=4"])
    assert control.data == recipe.data.model_copy(update={"shuffle_reports": True})
    assert control.stages == recipe.stages
    assert (control.seed, derived("clip-baseline", "kad-phantom")) == (4, load_recipe("clip-baseline"))
