"""Checks that a document is valid OpenAPI 3.1, that its schemas are valid JSON Schema 2020-12, and that its examples
match their schemas.

    check.py <document>
"""

import json
import sys

import jsonschema_rs
from openapi_spec_validator import OpenAPIV31SpecValidator


def resolved(document, part):
    """The part, or the target of its `$ref`."""
    while isinstance(part, dict) and "$ref" in part:
        target = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            target = target[name.replace("~1", "/").replace("~0", "~")]
        part = target
    return part


def examples(document, part):
    """The examples given next to a schema."""
    if "example" in part:
        yield part["example"]
    for example in part.get("examples", {}).values():
        yield resolved(document, example)["value"]


def check(document, part, place, checked):
    """Checks every example under `part` against the schema next to it."""
    if isinstance(part, list):
        for index, item in enumerate(part):
            check(document, item, f"{place}/{index}", checked)
    elif isinstance(part, dict):
        if isinstance(part.get("schema"), dict):
            schema = {**part["schema"], "components": document["components"]}
            validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
            for example in examples(document, part):
                checked.append(place)
                for error in validator.iter_errors(example):
                    sys.exit(f"an example at {place} does not match its schema: {error.message}")
        for name, value in part.items():
            if name not in ("example", "examples", "schema"):
                check(document, value, f"{place}/{name}", checked)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        document = json.load(file)
    OpenAPIV31SpecValidator(document).validate()
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    checked = []
    check(document, document, "#", checked)
    print(f"{len(checked)} examples")


if __name__ == "__main__":
    main()
