"""What to fine-tune and how: the schema, its YAML, and the table of names. Nothing heavy is imported here."""

from hfpipe.recipe.schema import Recipe
from hfpipe.recipe.source import load_recipe, parse_value, to_yaml, with_overrides

__all__ = ["Recipe", "load_recipe", "parse_value", "to_yaml", "with_overrides"]
