"""Training of models: recipes and their stages. Start at `pipeline.py`."""

from __future__ import annotations

from .pipeline import run_recipe
from .recipe import Recipe, RecipeError, embedded_recipes, read_recipe

__all__ = ["Recipe", "RecipeError", "embedded_recipes", "read_recipe", "run_recipe"]
