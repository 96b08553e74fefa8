"""`kvlp recipes`: list, show and copy the pretraining recipes that come with kvlp."""

from __future__ import annotations

import json
from pathlib import Path

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.command("ls")
def list_(as_json: bool = typer.Option(False, "--json", help="Print a JSON list.")) -> None:
    """List the recipes with a line on each."""
    from kvlp.training.recipe import load_recipe, recipe_names

    rows = [{"name": name, "description": load_recipe(name).description} for name in recipe_names()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        typer.echo(f"{row['name']:<{width}}  {row['description']}")


@app.command("show")
def show(
    name: str = typer.Argument(help="A recipe's name, or a YAML file."),
    as_json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Print a recipe as it will be used: checked, every key written out."""
    from kvlp.training.recipe import load_recipe

    recipe = load_recipe(name)
    typer.echo(recipe.model_dump_json(indent=2) if as_json else recipe.to_yaml(), nl=as_json)


@app.command("cp")
def copy(
    name: str = typer.Argument(help="A recipe's name."), path: Path = typer.Argument(help="The YAML file to write.")
) -> None:
    """Copy a recipe to a file, to edit it and to hand it to `kvlp pretrain`."""
    from kvlp.errors import ConfigError
    from kvlp.training.recipe import recipe_text

    text = recipe_text(name)
    if path.exists():
        raise ConfigError(f"{path} is there already; choose another name or remove it")
    path.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {path}; run it with: kvlp pretrain {path} --data MANIFEST --out DIR")
