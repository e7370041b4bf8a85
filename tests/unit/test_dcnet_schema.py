"""What the slots mean: one canonical form, and nothing that two gateways could read differently."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.dcnet.schema import DEFAULT_SCHEMA, Kind, Schema, Slot, signed
from protocol.errors import RemoteProtocolError

COUNT = DEFAULT_SCHEMA.slots[0]
ENERGY = DEFAULT_SCHEMA.slots[1]


def packed(*rows: Any) -> bytes:
    return json.dumps(list(rows), sort_keys=True, separators=(",", ":")).encode()


slots = st.builds(
    Slot, name=st.text(max_size=8), obis=st.text(max_size=8), unit=st.text(max_size=8), scaler=st.integers(-9, 9),
    kind=st.sampled_from([Kind.ENERGY, Kind.POWER]), committed=st.booleans(),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(slots, max_size=3))
def test_a_schema_travels(others: list[Slot]) -> None:
    schema = Schema((COUNT, *others))
    assert Schema.from_bytes(schema.to_bytes()) == schema
    assert schema.committed == tuple(i + 1 for i, slot in enumerate(others) if slot.committed)


@given(st.binary(max_size=200) | st.text(max_size=60).map(lambda text: json.dumps(text).encode()))
def test_any_bytes_are_a_schema_or_the_peers_fault(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="bad_schema"):
        Schema.from_bytes(data)


def test_every_part_of_a_slot_is_in_the_digest() -> None:
    changes: list[dict[str, Any]] = [
        {"name": "x"}, {"obis": "1-0:2.8.0*255"}, {"unit": "kWh"}, {"scaler": 0}, {"kind": Kind.POWER},
        {"committed": True},
    ]  # fmt: skip
    digests = {Schema((COUNT, ENERGY)).digest(), Schema((COUNT, ENERGY, ENERGY)).digest(), Schema((COUNT,)).digest()}
    digests |= {Schema((COUNT, replace(ENERGY, **change))).digest() for change in changes}
    assert len(digests) == 3 + len(changes)


@pytest.mark.parametrize(
    "slots",
    [(), (ENERGY,), (replace(COUNT, committed=True),), (COUNT, COUNT), (COUNT, replace(ENERGY, obis=None))],
    ids=["none", "no count", "committed count", "two counts", "no OBIS"],
)
def test_slots_that_are_no_schema(slots: tuple[Slot, ...]) -> None:
    with pytest.raises(ValueError, match=r"slot|count"):
        Schema(slots)
    with pytest.raises(RemoteProtocolError, match="bad_schema"):
        Schema.from_bytes(packed(*map(asdict, slots)))


@pytest.mark.parametrize(
    "change",
    [
        {"name": 5}, {"name": None}, {"obis": 5}, {"unit": None}, {"scaler": 1.0}, {"scaler": True}, {"scaler": "0"},
        {"scaler": float("nan")}, {"committed": 1}, {"committed": None}, {"kind": "heat"}, {"extra": 1},
    ],
    ids=str,
)  # fmt: skip
def test_fields_of_another_type(change: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError, match="bad_schema"):
        Schema.from_bytes(packed(asdict(COUNT), {**asdict(ENERGY), **change}))


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"{}",
        b'{"kind":1}',
        b"[[]]",
        b"[{}]",
        b"null",
        b"\xff",
        DEFAULT_SCHEMA.to_bytes() + b" ",
        DEFAULT_SCHEMA.to_bytes().replace(b",", b", "),
        DEFAULT_SCHEMA.to_bytes().replace(b'"gateways"', b'"\\u0067ateways"'),
        b'[{"name":"x",' + DEFAULT_SCHEMA.to_bytes()[2:],
    ],
    ids=lambda data: repr(data[:20]),
)
def test_other_forms_of_the_same_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="bad_schema"):
        Schema.from_bytes(data)


@given(st.integers(-(2**63), 2**63 - 1))
def test_words_are_twos_complement(value: int) -> None:
    assert signed(value % 2**64) == value
