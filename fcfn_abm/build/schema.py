"""The JSON schema of a scenario file."""

from __future__ import annotations

from typing import Any

from fcfn_abm.build.registries import REGISTRIES
from fcfn_abm.registry import Registry
from fcfn_abm.scenario import Scenario


def scenario_schema() -> dict[str, Any]:
    """Return the JSON schema of a scenario file, with the options of every registered name."""
    schema = Scenario.model_json_schema()
    definitions = schema["$defs"]
    for place, registry in REGISTRIES.items():
        section = schema
        for part in place[:-1]:
            section = definitions[_definition(section["properties"][part])]
        section["properties"][place[-1]] = {
            "description": section["properties"][place[-1]].get("description", ""),
            "oneOf": [
                {"type": "string", "description": "A name alone, with the default options."},
                *(_kind_schema(registry, name) for name in registry),
            ],
        }
    definitions.pop("Choice", None)
    mechanisms = REGISTRIES["mechanism",]
    schema["properties"]["compared"] = {
        "description": schema["properties"]["compared"]["description"],
        "type": "object",
        "properties": {name: mechanisms.json_schema(name) for name in mechanisms},
        "additionalProperties": False,
    }
    schema["properties"]["extends"] = {
        "description": "A base scenario that this file changes: another file, relative to this "
        "one, or the name of a bundled scenario.",
        "type": "string",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _definition(schema: dict[str, Any]) -> str:
    options = [schema, *schema.get("allOf", []), *schema.get("anyOf", [])]
    options += [option["items"] for option in options if "items" in option]
    return next(str(o["$ref"]).rsplit("/", 1)[1] for o in options if "$ref" in o)


def _kind_schema(registry: Registry[Any], name: str) -> dict[str, Any]:
    schema = registry.json_schema(name)
    return {
        **schema,
        "properties": {"kind": {"const": name}, **schema.get("properties", {})},
        "required": ["kind", *schema.get("required", [])],
    }
