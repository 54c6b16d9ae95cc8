"""The OpenAPI document is valid, and says what each thing in it is."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import OpenAPIV30SpecValidator, validate

from scripts.openapi import document

DOCUMENT = document()
OPERATIONS: list[dict[str, Any]] = [path[method] for path in DOCUMENT["paths"].values() for method in ("get", "head")]
SCHEMAS: dict[str, dict[str, Any]] = DOCUMENT["components"]["schemas"]


def test_it_is_valid() -> None:
    validate(DOCUMENT, cls=OpenAPIV30SpecValidator)


def properties(where: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the properties of a schema, and of the schemas within it."""
    for name, part in schema.get("properties", {}).items():
        yield f"{where}.{name}", part
        yield from properties(f"{where}.{name}", part)


def described() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield everything that a reader of the document or of a generated client sees, with its place."""
    yield "info", DOCUMENT["info"]
    for kind in ("schemas", "headers", "securitySchemes"):
        yield from DOCUMENT["components"][kind].items()
    for name, schema in SCHEMAS.items():
        yield from properties(name, schema)
    for server in DOCUMENT["servers"]:
        yield server["url"], server
        yield from server.get("variables", {}).items()
    for tag in DOCUMENT["tags"]:
        yield tag["name"], tag
    for path in DOCUMENT["paths"].values():
        for parameter in path["parameters"]:
            yield parameter["name"], parameter
    for operation in OPERATIONS:
        for status, response in operation["responses"].items():
            yield f"{operation['operationId']} {status}", response


def test_everything_has_a_description_of_whole_sentences() -> None:
    places = list(described())
    assert len(places) > 100
    assert [] == [place for place, one in places if not re.search(r"\w.*[.?]\Z", one.get("description", ""), re.DOTALL)]


def test_operations_have_names_that_a_program_can_use() -> None:
    """Generators make functions of them; one with a number says nothing."""
    names = [operation["operationId"] for operation in OPERATIONS]
    assert [
        "getBatchProgress",
        "getBatchProgressHeaders",
        "getBatchProgressByShortPath",
        "getBatchProgressHeadersByShortPath",
    ] == names


def parts(schema: object) -> Iterator[dict[str, Any]]:
    """Yield all schemas within a schema."""
    if isinstance(schema, dict):
        yield schema
        for part in schema.values():
            yield from parts(part)
    if isinstance(schema, list):
        for part in schema:
            yield from parts(part)


def test_every_schema_has_a_type_that_generators_know() -> None:
    """No alternatives, constants or untyped values: generated clients drop them, or lose fields of them."""
    keywords = {"anyOf", "oneOf", "const"}
    found = [part for part in parts(SCHEMAS) if keywords & part.keys() or ("enum" in part and "type" not in part)]
    assert [] == found


EXAMPLES = [
    (name, schema["schema"], example["value"])
    for operation in OPERATIONS
    for response in operation["responses"].values()
    for schema in response.get("content", {}).values()
    for name, example in schema["examples"].items()
]


@pytest.mark.parametrize(("name", "schema", "example"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_the_examples_fit_their_schemas(name: str, schema: dict[str, Any], example: object) -> None:
    resolved = {**schema, "components": DOCUMENT["components"]}
    faults = [fault.message for fault in OAS30Validator(resolved).iter_errors(example)]
    assert [] == faults, name
