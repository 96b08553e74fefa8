"""Recipes as YAML files; `kvlp.training.recipe` reads them."""
