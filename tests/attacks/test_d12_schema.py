"""D12: a schema that repeats a register, or declares a cumulative one as a power, to read single households."""

from dataclasses import replace

import pytest

from protocol import wire
from protocol.dcnet.setup.epoch import Policy, check_call
from protocol.dcnet.setup.registers import check_registers, kind_of
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, VERIFIED_SCHEMA, Kind, Noise, Schema, Slot
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis

COUNT, ENERGY, EXPORT, POWER = DEFAULT_SCHEMA.slots


def reason(*slots: Slot) -> str:
    schema = Schema((COUNT, *slots))
    with pytest.raises(RemoteProtocolError) as caught:
        check_registers(schema)
    call = wire.EpochCall(
        1, 0, "north", 0, 0, (), schema.to_bytes(), 96, 0, 900_000, 0, 900, 64, 50_000, 50_000, 63, ()
    )
    with pytest.raises(RemoteProtocolError) as refused:  # and so at the door of every gateway
        check_call(call, Policy())
    assert refused.value.reason == caught.value.reason
    return caught.value.reason


def test_the_schemas_of_the_product_are_accepted() -> None:
    for schema in (DEFAULT_SCHEMA, VERIFIED_SCHEMA):
        check_registers(schema)


@pytest.mark.parametrize("times", [2, 3, 400])
def test_a_register_that_appears_twice_is_refused(times: int) -> None:
    """400 slots of one register, each with ε ≤ 1: the noise was averaged away."""
    noisy = replace(ENERGY, noise=Noise(1_000_000, 60_000))
    assert reason(*(replace(noisy, name=f"energy_{n}") for n in range(times))) == "register_twice"


@pytest.mark.parametrize("spelling", ["1.8.0", "1-0:1.8.0", "1-0:1.8.0&255", "01-0:1.8.0*255"])
def test_another_spelling_of_a_register_is_the_same_register(spelling: str) -> None:
    assert reason(ENERGY, replace(ENERGY, name="again", obis=spelling)) == "register_twice"


@pytest.mark.parametrize(
    "register", ["1-0:1.8.0*255", "1-0:2.8.0*255", "1-0:1.8.1*255", "1-0:3.8.0*255", "7-0:3.0.0*255"]
)
def test_a_cumulative_register_is_never_a_snapshot(register: str) -> None:
    """1.8.0 declared as power: the raw register stood in every total."""
    assert reason(ENERGY, replace(POWER, obis=register)) in {"wrong_kind", "register_twice"}
    assert reason(replace(POWER, obis=register)) == "wrong_kind"


def test_a_power_is_never_carried_as_energy() -> None:
    assert reason(replace(ENERGY, obis="1-0:16.7.0*255")) == "wrong_kind"


@pytest.mark.parametrize(
    "register",
    ["1-0:1.8.0*1", "1-0:1.6.0*255", "1-0:1.9.0*255", "1-0:16.8.0*255", "1-0:15.8.0*255", "0-0:96.1.0*255",
     "1-0:99.1.0*255", "7-0:1.0.0*255", "8-0:1.2.0*255", "4-0:1.0.0*255", "nonsense", "1-0:300.8.0*255"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Kind.ENERGY, Kind.POWER])
def test_registers_that_are_not_summed_are_refused(register: str, kind: Kind) -> None:
    """Past billing values, maxima, intervals, net sums, serial numbers, profiles: none is a quantity of an area."""
    assert reason(replace(ENERGY, obis=register, kind=kind)) == "unknown_register"


@pytest.mark.parametrize(
    ("register", "kind"),
    [("1-0:1.8.0*255", Kind.ENERGY), ("1-0:41.8.0*255", Kind.ENERGY), ("1-0:1.8.2*255", Kind.ENERGY),
     ("1-0:36.7.0*255", Kind.POWER), ("1-0:32.7.0*255", Kind.POWER), ("1-0:14.7.0*255", Kind.POWER),
     ("6-0:1.0.0*255", Kind.ENERGY), ("8-0:1.0.0*255", Kind.ENERGY)],
)  # fmt: skip
def test_what_a_register_is_follows_from_its_code(register: str, kind: Kind) -> None:
    assert kind_of(Obis.parse(register)) is kind


@pytest.mark.parametrize(
    ("register", "part"),
    [("1-0:1.8.0*255", "1-0:1.8.1*255"), ("1-0:1.8.2*255", "1-0:1.8.0*255"), ("1-0:1.8.0*255", "1-0:41.8.0*255"),
     ("1-0:1.8.1*255", "1-0:21.8.0*255"), ("1-0:41.8.0*255", "1-0:41.8.1*255"), ("1-0:3.8.0*255", "1-0:5.8.0*255"),
     ("1-0:16.7.0*255", "1-0:1.7.0*255"), ("1-0:2.7.0*255", "1-0:36.7.0*255"), ("1-0:1.8.0*255", "1-1:1.8.0*255"),
     ("7-0:3.0.0*255", "7-0:3.1.0*255")],
)  # fmt: skip
def test_a_register_beside_a_part_of_it_is_refused(register: str, part: str) -> None:
    """Noise of its own for the same energy; or other meters, of one household, in the one than in the other."""
    slots = [
        Slot(each, each, "Wh", 0, kind_of(Obis.parse(each)) or Kind.COUNT, noise=Noise(1_000_000, 60_000))
        for each in (register, part)
    ]
    assert reason(*slots) == reason(*reversed(slots)) == "register_twice"


@pytest.mark.parametrize(
    "registers",
    [["1-0:1.8.0*255", "1-0:2.8.0*255", "1-0:16.7.0*255", "1-0:3.8.0*255", "1-0:4.8.0*255", "1-0:9.8.0*255"],
     ["1-0:1.8.1*255", "1-0:1.8.2*255"], ["1-0:21.8.0*255", "1-0:41.8.0*255", "1-0:61.8.0*255"],
     ["1-0:5.8.0*255", "1-0:6.8.0*255"], ["1-0:1.7.0*255", "1-0:2.7.0*255"], ["1-0:14.7.0*255", "1-0:81.7.0*255"],
     ["6-0:1.0.0*255", "6-0:2.0.0*255", "8-0:1.0.0*255"]],
)  # fmt: skip
def test_registers_that_share_nothing_stand_beside_each_other(registers: list[str]) -> None:
    kinds = [kind_of(Obis.parse(each)) or Kind.COUNT for each in registers]
    check_registers(Schema((COUNT, *(Slot(r, r, "Wh", 0, k) for r, k in zip(registers, kinds, strict=True)))))
