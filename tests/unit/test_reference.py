"""The reference pages say what the code says: made anew they are the same."""

import re

import pytest

from protocol.wire.fields import gateway_identity, integer, many, octets, record
from tools import layers, reference


@pytest.mark.parametrize("page", reference.PAGES)
def test_a_reference_page_is_what_the_code_makes(page: str) -> None:
    """`make reference` writes them."""
    assert (reference.FOLDER / f"{page}.md").read_text(encoding="utf-8") == reference.PAGES[page]()


def test_bounds_of_nested_fields_are_said_in_full() -> None:
    assert reference.bound(integer(0, 1_000)) == "integer, 0 to 1,000"
    assert reference.bound(octets(0, 64, 8)) == "0 to 64 octets in multiples of 8"
    nested = many(record(gateway_identity, octets(32)), 5)
    assert reference.bound(nested) == "at most 5 × ((printable text of 1 to 64 characters; 32 octets))"


def test_every_route_and_schema_of_the_document_has_its_heading() -> None:
    document, page = reference.openapi(), reference.rest()
    assert len(document["paths"]) > 8
    assert len(re.findall(r"^## `", page, re.MULTILINE)) == sum(map(len, document["paths"].values()))
    assert re.findall(r"^### (.+)$", page, re.MULTILINE) == sorted(document["components"]["schemas"])


def test_the_pictures_of_the_layers_are_the_import_contracts() -> None:
    """`make docs` draws them."""
    assert layers.block() in (layers.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(layers.contracts()) > 3
    assert layers.mermaid({"layers": ["a", "b | c"]}) == (
        'flowchart TD\n    layer0["a"]\n    layer1["b · c"]\n    layer0 --> layer1'
    )
