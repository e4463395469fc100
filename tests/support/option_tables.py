"""What is derived from the declared options and published: the tables of docs/reference.md, and the JSON schema.

``python tests/support/option_tables.py`` writes them anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from headrace.options.declared import COMMAND, GROUPS, LOAD
from headrace.options.option import FLAG, Option
from headrace.polling.config_keys import ALERT, PARALLEL, PROVIDER, RUN, SOURCES, TOP

__all__ = ["in_the_reference", "json_schema", "published"]

DOCS = Path(__file__).resolve().parents[2] / "docs"


def published() -> dict[Path, str]:
    """The files that are derived, and what each must be."""
    reference, schema = DOCS / "reference.md", DOCS / "headrace.schema.json"
    return {reference: in_the_reference(reference.read_text()), schema: json.dumps(json_schema(), indent=2) + "\n"}


def in_the_reference(page: str) -> str:
    """`page` with its tables, each between two markers."""
    own = {**LOAD, **COMMAND}
    tables = {
        "options": _options(),
        "run": _keys("[run]", {name: key for name, key in RUN.items() if name not in own}),
        "providers": _keys("[providers.NAME]", {name: key for name, key in PROVIDER.items() if name not in own}),
        "alerts": _keys("[[providers.NAME.alerts]]", ALERT),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        page = re.sub(f"{begin}.*?{end}", lambda _, text=f"{begin}\n{table}\n{end}": text, page, flags=re.DOTALL)  # type: ignore[misc]
    return page


def _options() -> str:
    return "\n\n".join("\n".join(_group(group)) for group in GROUPS)


def _group(group: str) -> Iterator[str]:
    yield f"**{group}**\n\n| option | Python | `headrace.toml` | default | meaning |\n|---|---|---|---|---|"
    for name, option in {**LOAD, **COMMAND}.items():
        if option.group == group:
            python = f"`{name}`" if name in LOAD else ""
            file = f"`[{option.file}]` `{name}`" if option.file else ""
            env = f"`{option.env}`" + (", then " if option.without else "") if option.env else ""
            yield f"| {_flag(name, option)} | {python} | {file} | {env}{option.without} | {option.help} |"


def _flag(name: str, option: Option) -> str:
    if not option.commands:
        return ""
    flag = option.flag or "--" + name.replace("_", "-")
    if option.kind is FLAG:
        return f"`{flag}`, `--no-{flag[2:]}`"
    metavar = option.metavar or "\\|".join(option.choices) or option.kind.metavar
    return f"`{flag} {metavar}`"


def _keys(title: str, keys: Mapping[str, Option]) -> str:
    rows = [f"| `{name}` | {key.without} | {key.help} |" for name, key in keys.items()]
    return "\n".join([f"| `{title}` | default | meaning |", "|---|---|---|", *rows])


def json_schema() -> dict[str, object]:
    """The form of ``headrace.toml`` as a JSON schema (draft 2020-12)."""
    alert = _object(ALERT) | {
        "required": ["name"],
        "oneOf": [{"required": [way]} for way in ("where", "function")],
    }
    source = {"oneOf": [{"required": [way]} for way in SOURCES]}
    properties: dict[str, object] = {name: key.schema for name, key in TOP.items()}
    properties["run"] = _object(RUN)
    properties["parallel"] = _object(PARALLEL)
    properties["defaults"] = _object({name: key for name, key in PROVIDER.items() if name not in SOURCES})
    properties["providers"] = {
        "type": "object",
        "propertyNames": {"minLength": 1},
        "additionalProperties": _object(PROVIDER) | source,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "headrace.toml",
        "description": "Providers, and where their events go.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "required": ["providers"],
        "$defs": {"alert": alert},
    }


def _object(keys: Mapping[str, Option]) -> dict[str, object]:
    properties = {name: key.schema for name, key in keys.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


if __name__ == "__main__":
    for path, text in published().items():
        path.write_text(text)
