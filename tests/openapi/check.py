"""Whether a document is OpenAPI 3.1, its schemas JSON Schema 2020-12, and its examples what its schemas say.

    check.py <document>
"""

import json
import sys

import jsonschema_rs
from openapi_spec_validator import OpenAPIV31SpecValidator


def resolved(document, part):
    """The part, or what it refers to."""
    while isinstance(part, dict) and "$ref" in part:
        target = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            target = target[name.replace("~1", "/").replace("~0", "~")]
        part = target
    return part


def examples(document, part):
    """The examples that stand beside a schema."""
    if "example" in part:
        yield part["example"]
    for example in part.get("examples", {}).values():
        yield resolved(document, example)["value"]


def check(document, part, place, checked):
    """Holds every example under `part` against the schema beside it."""
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
                    sys.exit(f"an example at {place} is not what the schema says: {error.message}")
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
