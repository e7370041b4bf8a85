"""Query parameters, content negotiation and canonical JSON of the HAN API (detailed specification 2.0, chapter 6)."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.han.answers import accepted, canonical
from node.han.catalogue import ACTIONS, TYPES, Tree
from node.han.query import NAMES, Query, parse_query
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis


def test_no_query_asks_for_everything() -> None:
    assert parse_query(None, NAMES) == Query()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q.fromtime=2026-11-30", Query(from_s=1_795_993_200)),  # midnight in Berlin
        ("q.fromtime=2026-07-01", Query(from_s=1_782_856_800)),  # with summer time
        ("q.fromtime=2026-11-30T12:00:00Z", Query(from_s=1_796_040_000)),
        ("q.totime=2026-11-30T12:00:00%2B01:00", Query(to_s=1_796_036_400)),
        ("q.totime=2026-11-30T12:00:00+01:00", Query(to_s=1_796_036_400)),  # a plus is a plus
        ("q.fromtime=2026-11-30t12:00:00.25z", Query(from_s=1_796_040_001)),
        ("q.obis=1-0:1.8.0", Query(obis=Obis(1, 0, 1, 8, 0, 255))),
        ("q.obis=1-0:1.8.0*0", Query(obis=Obis(1, 0, 1, 8, 0, 0))),
        ("q.count=0", Query()),
        ("q.count=17&q.level=W&q.type=2201", Query(count=17, level="W", type="2201")),
        ("q.signed=CMS_ECDSA_SHA256_Detached", Query(is_signed=True)),
        ("q%2Ecount=3", Query(count=3)),
    ],
)
def test_each_parameter_means_what_table_6_5_says(text: str, expected: Query) -> None:
    assert parse_query(text, NAMES) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "q.count", "q.count=1&", "&", "=1", "q.count=1&q.count=2", "q.count=-1", "q.count=1 ", "q.count=%4",
        "q.level=w", "q.level=IW", "q.obis=1.8.0", "q.obis=1-0:1.8", "q.obis=1-0:1.8.999", "q.signed=RSA", "q.other=1",
        "q.fromtime=2026-13-01", "q.fromtime=2026-11-30T12:00:00", "q.fromtime=1796040000", "q.fromtime=",
        "q.type=" + "a" * 256, "a" * 51 + "=1", "q.count=1=2", "q.type=ü", "q.type=a b", "q.type=#",
    ],
)  # fmt: skip
def test_what_is_off_the_grammar_is_refused_by_name(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="bad_query"):
        parse_query(text, NAMES)


def test_a_parameter_that_a_resource_does_not_know_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match=r"q\.fromtime, q\.count"):
        parse_query("q.obis=1-0:1.8.0", ("q.fromtime", "q.count"))


@given(st.text(max_size=200))
def test_any_query_is_read_or_refused(text: str) -> None:
    with suppress(RemoteProtocolError):
        parse_query(text, NAMES)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "application/json"), ("", "application/json"), ("*/*", "application/json"),
        ("application/*", "application/json"), ("text/csv", "text/csv"),
        ("text/csv, application/json", "application/json"),
        ("application/json;q=0.5, text/csv", "text/csv"), ("text/html, */*;q=0.1", "application/json"),
        ("application/xml", None), ("application/json;q=0", None), ("application/json;q=x", None),
    ],
)  # fmt: skip
def test_the_type_of_the_answer_follows_accept(header: str | None, expected: str | None) -> None:
    assert accepted(header, ("application/json", "text/csv")) == expected


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20,
)  # fmt: skip


@given(_JSON, st.sampled_from([None, 1, "\t", "  "]), st.booleans())
def test_canonical_json_drops_white_space_between_components_alone(value: object, indent: object, ascii_: bool) -> None:
    plain = json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_)
    pretty = json.dumps(value, indent=indent, ensure_ascii=ascii_).replace("\n", "\r\n")  # type: ignore[arg-type]
    assert canonical(pretty.encode("utf-8", "surrogatepass")) == plain.encode("utf-8", "surrogatepass")


def test_every_type_and_action_has_a_schema_and_a_role() -> None:
    assert len({(each.tree, each.name) for each in TYPES}) == len(TYPES)
    for each in TYPES:
        assert each.model.model_json_schema()["properties"]
        assert each.roles
        assert each.tree is Tree.EXPORT or not each.parameters
    assert len({each.name for each in ACTIONS}) == len(ACTIONS)
