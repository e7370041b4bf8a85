"""What the slots mean: one canonical form, and nothing that two gateways could read differently."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.dcnet.setup.schema import (
    DEFAULT_SCHEMA,
    RECIPIENTS_MAX,
    VERIFIED_SCHEMA,
    Kind,
    Noise,
    Schema,
    Slot,
    signed,
)
from protocol.errors import RemoteProtocolError

COUNT = DEFAULT_SCHEMA.slots[0]
ENERGY = DEFAULT_SCHEMA.slots[1]


def packed(*rows: Any) -> bytes:
    return json.dumps(list(rows), sort_keys=True, separators=(",", ":")).encode()


def row(slot: Slot) -> dict[str, Any]:
    absent = [("noise", None), ("recipients", ())]
    return {key: value for key, value in asdict(slot).items() if (key, value) not in absent}


noises = st.none() | st.builds(Noise, epsilon_ppm=st.integers(1, 50_000_000), sensitivity=st.integers(1, 10**6))
slots = st.builds(
    Slot, name=st.text(max_size=8), obis=st.text(max_size=8), unit=st.text(max_size=8), scaler=st.integers(-9, 9),
    kind=st.sampled_from([Kind.ENERGY, Kind.POWER]), committed=st.booleans(), noise=noises,
    recipients=st.sets(st.sampled_from(["grid", "supplier", "Stadtwerke.X"])).map(lambda names: tuple(sorted(names))),
).filter(lambda slot: not (slot.committed and slot.noise))  # fmt: skip


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
        {"committed": True}, {"noise": Noise(1, 1)}, {"noise": Noise(2, 1)}, {"noise": Noise(1, 2)},
        {"recipients": ("grid",)}, {"recipients": ("grid", "supplier")},
    ]  # fmt: skip
    digests = {Schema((COUNT, ENERGY)).digest(), Schema((COUNT, ENERGY, ENERGY)).digest(), Schema((COUNT,)).digest()}
    digests |= {Schema((COUNT, replace(ENERGY, **change))).digest() for change in changes}
    assert len(digests) == 3 + len(changes)


@pytest.mark.parametrize(
    "slots",
    [
        (),
        (ENERGY,),
        (replace(COUNT, committed=True),),
        (COUNT, COUNT),
        (COUNT, replace(ENERGY, obis=None)),
        (replace(COUNT, noise=Noise(1, 1)),),
        (COUNT, replace(ENERGY, committed=True, noise=Noise(1, 1))),
    ],
    ids=["none", "no count", "committed count", "two counts", "no OBIS", "noisy count", "noise under a commitment"],
)
def test_slots_that_are_no_schema(slots: tuple[Slot, ...]) -> None:
    with pytest.raises(ValueError, match=r"slot|count"):
        Schema(slots)
    with pytest.raises(RemoteProtocolError, match="bad_schema"):
        Schema.from_bytes(packed(*map(row, slots)))


@pytest.mark.parametrize(
    "change",
    [
        {"name": 5}, {"name": None}, {"obis": 5}, {"unit": None}, {"scaler": 1.0}, {"scaler": True}, {"scaler": "0"},
        {"scaler": float("nan")}, {"scaler": 10**9}, {"scaler": -19}, {"committed": 1}, {"noise": None}, {"noise": 1},
        {"noise": {}}, {"noise": {"epsilon_ppm": 1}}, {"noise": {"epsilon_ppm": 0, "sensitivity": 1}},
        {"noise": {"epsilon_ppm": 50_000_001, "sensitivity": 9}}, {"noise": {"epsilon_ppm": 1, "sensitivity": -1}},
        {"noise": {"epsilon_ppm": 1, "sensitivity": 2**63}}, {"noise": {"epsilon_ppm": True, "sensitivity": 1}},
        {"noise": {"epsilon_ppm": 1.0, "sensitivity": 1}}, {"noise": {"epsilon_ppm": 1, "sensitivity": 10**12}},
        {"committed": None}, {"kind": "heat"}, {"extra": 1},
        {"recipients": []}, {"recipients": None}, {"recipients": "grid"}, {"recipients": ["b", "a"]},
        {"recipients": ["a", "a"]}, {"recipients": [1]}, {"recipients": [["a"]]}, {"recipients": [""]},
        {"recipients": ["a b"]}, {"recipients": ["a\n"]}, {"recipients": ["x" * 65]}, {"recipients": {"a": 1}},
        {"recipients": [f"p{index:02d}" for index in range(RECIPIENTS_MAX + 1)]},
    ],
    ids=str,
)  # fmt: skip
def test_fields_of_another_type(change: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError, match="bad_schema"):
        Schema.from_bytes(packed(row(COUNT), {**row(ENERGY), **change}))


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


def test_a_good_row_is_one() -> None:
    """What the tests above change is what makes them fail."""
    noisy = replace(ENERGY, noise=Noise(1, 1))
    assert Schema.from_bytes(packed(row(COUNT), row(ENERGY))) == Schema((COUNT, ENERGY))
    assert Schema.from_bytes(packed(row(COUNT), row(noisy))) == Schema((COUNT, noisy))
    assert Schema((COUNT, noisy)).without_noise() == Schema((COUNT, ENERGY))
    assert Schema((COUNT, noisy)).noise == ((1, Noise(1, 1)),)


def test_recipients_are_of_single_slots_and_not_of_the_count() -> None:
    mine, others = replace(ENERGY, recipients=("grid", "supplier")), replace(ENERGY, obis="1-0:2.8.0*255")
    schema = Schema((COUNT, mine, replace(others, recipients=("grid",))))
    assert Schema.from_bytes(schema.to_bytes()) == schema
    assert (schema.slots_for("grid"), schema.slots_for("supplier"), schema.slots_for("third")) == ((1, 2), (1,), ())
    assert schema.restricted_to(None) == schema.restricted_to("third") == Schema((COUNT, ENERGY, others))
    assert schema.restricted_to("supplier") == Schema((COUNT, replace(ENERGY, recipients=("supplier",)), others))
    with pytest.raises(RemoteProtocolError, match="bad_schema"):
        Schema.from_bytes(packed({**row(COUNT), "recipients": ["grid"]}, row(ENERGY)))


def test_schemas_of_before_there_was_noise_are_what_they_were() -> None:
    """Databases and gateways know these bytes."""
    assert DEFAULT_SCHEMA.digest().hex() == "d8ba0a1449e6a4d130ad0e11ba2ddd1fc5e5d191891f334813a4d9285463f23f"
    assert VERIFIED_SCHEMA.digest().hex() == "912234bfe1c2a8ebcc5ba073e8eb33e33eef5c10f0edb1f35dd5c7eeb27e4655"


@given(st.integers(-(2**63), 2**63 - 1))
def test_words_are_twos_complement(value: int) -> None:
    assert signed(value % 2**64) == value
