"""Write what is made from the recipe's schema and from the table of rooms.

That is docs/recipe.md, recipes/schema.json, ruff's list in pyproject.toml and the table of docs/architecture.md.

python scripts/generate.py           write what is stale
python scripts/generate.py --check   exit 1 when something is
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from hfpipe.recipe import catalog
from hfpipe.recipe.schema import Recipe, json_schema

ROOT = Path(__file__).resolve().parent.parent


def reference() -> str:
    schema = Recipe.model_json_schema()
    sections = schema["$defs"]
    lines = [
        "# The recipe",
        "",
        "Every field of a recipe, made from the schema by `scripts/generate.py`. YAML 1.2; an unknown field is an error.",
        "`extends: other.yaml` takes another recipe as the base: mappings are joined, everything else is replaced.",
        "On the command line and in `load_recipe(..., overrides=[...])` a field is changed by its path: `train.epochs=1`.",
        "",
        "Relative paths (`data_files`, `./x` of `dataset.path` and `model.checkpoint`, scripts of metrics) start from the folder",
        "of the file that says them, also in a file that is extended; in overrides, and in a recipe that Python gives as a",
        "mapping, from the working directory. A run keeps them absolute, so that it can be evaluated, resumed and reproduced",
        "from any folder; when it was moved together with its data, they are found where they lay from the run. What is pushed",
        "or exported has only their last part. `module:attribute` is imported by Python, which looks on PYTHONPATH and not",
        "beside the recipe.",
        "",
    ]
    plain = {name: spec for name, spec in schema["properties"].items() if "$ref" not in spec}
    lines += ["## Top level", "", *_table(plain, schema.get("required", []))]
    for name, spec in schema["properties"].items():
        if "$ref" not in spec:
            continue
        section = sections[spec["$ref"].rpartition("/")[2]]
        lines += [
            "",
            f"## `{name}`",
            "",
            section["description"],
            "",
            *_table(section["properties"], section.get("required", [])),
        ]
        for key, nested in section["properties"].items():
            for part in (nested, *nested.get("anyOf", [])):
                if "$ref" not in part:
                    continue
                inner = sections[part["$ref"].rpartition("/")[2]]
                required = inner.get("required", [])
                lines += [
                    "",
                    f"### `{name}.{key}`",
                    "",
                    inner["description"],
                    "",
                    *_table(inner["properties"], required),
                ]
    lines += ["", "## Names", "", "Beside these, `module:attribute` names an object of your own.", ""]
    for title, table in (
        ("Losses", catalog.LOSSES),
        ("Optimizers", catalog.OPTIMIZERS),
        ("Schedules", catalog.SCHEDULES),
        ("Metrics", catalog.METRICS),
    ):
        lines += [f"### {title}", "", "| name | arguments |", "| --- | --- |"]
        lines += [f"| `{name}` | {', '.join(f'`{a}`' for a in entry.arguments)} |" for name, entry in table.items()]
        lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _table(properties: dict[str, Any], required: list[str]) -> list[str]:
    rows = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, spec in properties.items():
        default = "required" if name in required else f"`{json.dumps(spec['default'])}`" if "default" in spec else ""
        if "$ref" in spec:
            default = ""
        meaning = " ".join(spec.get("description", "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {_type(spec)} | {default} | {meaning} |")
    return rows


def _type(spec: dict[str, Any]) -> str:
    if "anyOf" in spec:
        return " or ".join(dict.fromkeys(_type(part) for part in spec["anyOf"]))
    if "enum" in spec:
        return ", ".join(f"`{value}`" for value in spec["enum"])
    if "const" in spec:
        return f"`{spec['const']}`"
    if "$ref" in spec:
        return "section"
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    names |= {"array": "list", "object": "mapping", "null": "null"}
    bounds = []
    for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")):
        if key in spec:
            bounds.append(f"{sign} {spec[key]}")
    return names.get(spec.get("type", ""), "anything") + (f" {', '.join(bounds)}" if bounds else "")


def schema_json() -> str:
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def rooms() -> list[dict[str, Any]]:
    """The table of rooms, from the ground up."""
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "hfpipe"
    ]["rooms"]
    return found


def between(path: Path, name: str, text: str) -> str:
    """A file with other lines between its two marks of this name."""
    marked = re.compile(rf"(?<=<{name}>)(?P<end>[^\n]*\n).*?(?=[^\n]*</{name}>)", re.DOTALL)
    return marked.sub(lambda found: found["end"] + text, path.read_text(encoding="utf-8"))


def heavy_modules() -> str:
    """Ruff's list of modules that may import torch and the like."""
    lines = [f'"hfpipe/{room["name"]}/{one}" = ["TID253"]\n' for room in rooms() for one in room["heavy"]]
    return "".join(lines).replace('build/**"', 'build.py"')


def table_of_rooms() -> str:
    """The rooms for docs/architecture.md."""
    rows = [f"| {room['floor']} | `{room['name']}` | {room['what']} |\n" for room in rooms()]
    return "".join(["\n| floor | room | what is in it |\n| --- | --- | --- |\n", *rows, "\n"])


def main() -> None:
    made = {
        ROOT / "docs" / "recipe.md": reference(),
        ROOT / "recipes" / "schema.json": schema_json(),
        ROOT / "pyproject.toml": between(ROOT / "pyproject.toml", "heavy", heavy_modules()),
        ROOT / "docs" / "architecture.md": between(ROOT / "docs" / "architecture.md", "rooms", table_of_rooms()),
    }
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run python scripts/generate.py")
        sys.exit(1 if stale else 0)
    for path in stale:
        path.write_text(made[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
