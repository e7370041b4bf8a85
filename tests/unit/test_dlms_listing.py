"""The layouts of pushed lists that the corpus does not have, and values of every kind."""

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.lmn.dlms import apdu
from node.lmn.dlms.axdr import BitString, Data, Type, octets, structure
from node.lmn.dlms.clock import CosemDateTime
from node.lmn.dlms.layout import LayoutBook, find_layout, shipped_layouts
from node.lmn.dlms.listing import profile_readings, readings_from_list
from node.lmn.dlms.push import PushReceiver
from node.lmn.dlms.values import reading_of
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading, is_past

WHEN = datetime(2026, 3, 4, 5, 6, 10)
CLOCK = octets(CosemDateTime.from_datetime(WHEN).to_bytes())
TEMPLATE = Reading("fallback", None, None)


def u32(value: int) -> Data:
    return Data(Type.DOUBLE_LONG_UNSIGNED, value)


def scale(scaler: int, unit: int) -> Data:
    return structure(Data(Type.INTEGER, scaler), Data(Type.ENUM, unit))


def code(text: str) -> Data:
    return octets(Obis.parse(text).to_bytes())


def good(items: Iterable[Reading | RemoteProtocolError]) -> list[Reading]:
    """The readings, where nothing but readings came."""
    readings = [item for item in items if isinstance(item, Reading)]
    assert readings == list(items)
    return readings


def listed(body: Data, when: datetime | None, template: Reading, layouts: LayoutBook | None = None) -> list[Reading]:
    return good(readings_from_list(body, when, template, layouts))


def seen(readings: Iterable[Reading]) -> list[tuple[Any, ...]]:
    return [(str(r.obis), r.value, r.scaler, r.unit) for r in readings]


def test_kaifa_list_2_and_3_of_three_phases() -> None:
    head = [octets(b"KFM_001"), octets(b"6970631401234567"), octets(b"MA304H3E")]
    values = [u32(n) for n in (1500, 0, 7, 80, 2400, 1200, 600, 2301, 2302, 2303)]
    energy = [u32(n) for n in (123456, 1, 2, 3)]
    short = listed(structure(*head, *values), WHEN, TEMPLATE)
    long = listed(structure(*head, *values, CLOCK, *energy), None, TEMPLATE)
    assert {r.device for r in short + long} == {"6970631401234567"}
    assert {r.measured_at for r in short + long} == {WHEN}
    assert seen(short)[3:8] == [
        ("1-0:1.7.0*255", 1500, 0, 27), ("1-0:2.7.0*255", 0, 0, 27), ("1-0:3.7.0*255", 7, 0, 29),
        ("1-0:4.7.0*255", 80, 0, 29), ("1-0:31.7.0*255", 2400, -3, 33),
    ]  # fmt: skip
    assert seen(short)[-1] == ("1-0:72.7.0*255", 2303, -1, 35)
    assert seen(long)[-4:] == [
        ("1-0:1.8.0*255", 123456, 0, 30), ("1-0:2.8.0*255", 1, 0, 30),
        ("1-0:3.8.0*255", 2, 0, 32), ("1-0:4.8.0*255", 3, 0, 32),
    ]  # fmt: skip


def test_kaifa_lists_of_one_phase() -> None:
    head = [octets(b"KFM_001"), octets(b"6970631401234567"), octets(b"MA105H2E")]
    values = [u32(n) for n in (1500, 0, 7, 80, 2400, 2301)]
    assert seen(listed(structure(*head, *values), WHEN, TEMPLATE))[-1] == ("1-0:32.7.0*255", 2301, -1, 35)
    long = listed(structure(*head, *values, CLOCK, *[u32(n) for n in (9, 8, 7, 6)]), None, TEMPLATE)
    assert seen(long)[-1] == ("1-0:4.8.0*255", 6, 0, 32)


def test_a_flat_list_of_code_value_and_scale() -> None:
    body = structure(
        code("0-0:1.0.0*255"), CLOCK,
        code("1-0:32.7.0*255"), Data(Type.LONG_UNSIGNED, 2337), scale(-1, 35),
        code("1-0:1.8.0*255"), u32(12345), scale(0, 30),
        code("0-0:96.1.0*255"), octets(b"1KFM0200000001"),
    )  # fmt: skip
    readings = listed(body, None, TEMPLATE)
    assert seen(readings)[1:] == [
        ("1-0:32.7.0*255", 2337, -1, 35), ("1-0:1.8.0*255", 12345, 0, 30),
        ("0-0:96.1.0*255", "1KFM0200000001", 0, None),
    ]  # fmt: skip
    assert {(r.device, r.measured_at) for r in readings} == {("1KFM0200000001", WHEN)}


def test_the_standards_own_push_begins_with_its_description() -> None:
    def entry(class_id: int, text: str, attribute: int) -> Data:
        parts = (
            Data(Type.LONG_UNSIGNED, class_id),
            code(text),
            Data(Type.INTEGER, attribute),
            Data(Type.LONG_UNSIGNED, 0),
        )
        return structure(*parts)

    description = Data(
        Type.ARRAY,
        (
            entry(40, "0-0:25.9.0*255", 2), entry(8, "0-0:1.0.0*255", 2),
            entry(3, "1-0:1.8.0*255", 2), entry(3, "1-0:1.8.0*255", 3), entry(1, "0-0:96.1.0*255", 2),
        ),
    )  # fmt: skip
    body = structure(description, CLOCK, u32(77), scale(1, 30), Data(Type.VISIBLE_STRING, b"1ABC0000000001"))
    readings = listed(body, None, TEMPLATE)
    assert seen(readings)[1:] == [("1-0:1.8.0*255", 77, 1, 30), ("0-0:96.1.0*255", "1ABC0000000001", 0, None)]
    assert {(r.device, r.measured_at) for r in readings} == {("1ABC0000000001", WHEN)}


def test_other_attributes_of_a_register_do_not_pass_for_its_value() -> None:
    """A status or a time under the register's code would stand in its place, and look like a counter that falls."""

    def entry(class_id: int, text: str, attribute: int) -> Data:
        parts = (Data(Type.LONG_UNSIGNED, class_id), code(text), Data(Type.INTEGER, attribute))
        return structure(*parts, Data(Type.LONG_UNSIGNED, 0))

    energy = "1-0:1.8.0*255"
    description = Data(
        Type.ARRAY,
        (
            entry(40, "0-0:25.9.0*255", 2),
            entry(4, energy, 2),
            entry(4, energy, 3),
            entry(4, energy, 4),
            entry(4, energy, 5),
        ),
    )
    body = structure(description, u32(77), scale(1, 30), u32(8), CLOCK)
    value, status, captured = listed(body, WHEN, TEMPLATE)
    assert (str(value.obis), value.value) == (energy, 77)
    assert (status.obis, status.value, status.record) == (None, 8, {"class": 4, "object": energy, "attribute": 4})
    assert (captured.obis, captured.record["attribute"]) == (None, 5)


def test_the_rows_of_a_profile_are_past_values_and_its_statuses_no_register() -> None:
    columns = [
        (8, Obis.parse("0-0:1.0.0*255"), 2),
        (3, Obis.parse("1-0:1.8.0*255"), 2),
        (4, Obis.parse("1-0:1.8.0*255"), 4),
    ]
    rows = Data(Type.ARRAY, tuple(structure(CLOCK, u32(n), u32(8)) for n in (5, 6)))
    readings = profile_readings(rows, columns, {Obis.parse("1-0:1.8.0*255"): (0, 30)}, TEMPLATE)
    assert [(r.obis is None, r.value, r.record["period"], is_past(r)) for r in readings] == [
        (False, 5, 0, True), (True, 8, 0, True), (False, 6, 1, True), (True, 8, 1, True),
    ]  # fmt: skip


def test_a_time_that_the_meter_itself_doubts_is_none() -> None:
    when = CosemDateTime.from_datetime(WHEN)
    for status, valid in ((0, True), (0x80, True), (0xFF, True), (0x01, False), (0x81, False)):
        assert (replace(when, status=status).to_datetime() is not None) is valid


def test_what_nothing_names_is_kept_with_its_place() -> None:
    body = structure(u32(5), scale(0, 30), octets(b"\x00\x01"))
    readings = listed(body, WHEN, TEMPLATE)
    assert [(r.obis, r.value, r.record) for r in readings] == [
        (None, 5, {"index": 0}),
        (None, None, {"index": 1, "scaler": 0, "unit": 30}),
        (None, b"\x00\x01", {"index": 2}),
    ]
    assert {r.device for r in readings} == {"fallback"}


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        (Type.FLOAT32, Quality.VALID, Quality.NOT_FOR_BILLING),
        (Type.FLOAT32, Quality.UNVERIFIED, Quality.UNVERIFIED),
        (Type.FLOAT64, Quality.VALID, Quality.VALID),
        (Type.DOUBLE_LONG_UNSIGNED, Quality.VALID, Quality.VALID),
    ],
)
def test_a_counter_as_float32_is_not_for_billing(kind: Type, before: Quality, after: Quality) -> None:
    """16,777,217 Wh is 16,777,216 Wh as one."""
    template = replace(TEMPLATE, quality=before)
    assert reading_of(Data(kind, 16_777_216), Obis.parse("1-0:1.8.0*255"), template).quality is after


def test_values_of_every_kind() -> None:
    def value(data: Data, text: str = "1-0:1.8.0*255") -> Any:
        return reading_of(data, Obis.parse(text), TEMPLATE)

    assert value(Data(Type.FLOAT32, 230.5)).decimal() == Decimal("230.5")
    tiny = value(Data(Type.FLOAT64, -0.001))  # exact: the mantissa and power of ten of the binary fraction itself
    assert Fraction(tiny.value) / 10**-tiny.scaler == Fraction(-0.001)
    broken = value(Data(Type.FLOAT32, math.nan))
    assert (broken.value, broken.quality) == (None, Quality.METER_ERROR)
    assert value(Data(Type.BOOLEAN, True)).value == 1
    assert value(Data(Type.BIT_STRING, BitString(b"\xa0", 4))).value == b"\xa0"
    assert value(Data(Type.NULL)).value is None
    assert value(octets(b"text"), "0-0:96.1.0*255").value == "text"
    assert value(octets(b"text")).value == b"text"
    assert value(Data(Type.BCD, 0x12)).value == b"\x12"  # 12 by the standard, 18 to others: no number
    nested = structure(u32(1))
    assert value(nested).value == nested.to_bytes()


def test_a_push_in_general_blocks_and_one_of_which_a_block_is_lost() -> None:
    whole = apdu.DataNotification(1, None, structure(code("1-0:1.8.0*255"), u32(4711))).to_bytes()
    parts = [whole[at : at + 7] for at in range(0, len(whole), 7)]
    blocks = [
        apdu.GeneralBlock(0x80 * (number == len(parts)) | 0x40 * (number < len(parts)), number, 0, part).to_bytes()
        for number, part in enumerate(parts, 1)
    ]
    receiver = PushReceiver("meter")
    assert [receiver.message(block) for block in blocks[:-1]] == [[]] * (len(blocks) - 1)
    (reading,) = good(receiver.message(blocks[-1]))
    assert reading.value == 4711
    for lost in range(len(blocks) - 1):
        receiver, errors, got = PushReceiver("meter"), [], []
        for block in blocks[:lost] + blocks[lost + 1 :] + blocks:
            try:
                got += good(receiver.message(block))
            except RemoteProtocolError as error:
                errors.append(error.reason)
        assert set(errors) == {"dlms_block_number"}
        assert [item.value for item in got] == [4711]
    # The last one: only the next message's first block shows it.
    receiver = PushReceiver("meter")
    found = [item for block in blocks[:-1] + blocks for item in receiver.message(block)]
    assert [getattr(item, "reason", None) or getattr(item, "value", None) for item in found] == [
        "dlms_block_number", 4711,
    ]  # fmt: skip


BARE = [u32(n) for n in (500, 60, 7, 8)]
OWN = """
title = "A meter of ours"
source = "its manual"
certainty = "document"
elements = [
  { type = "octet-string", role = "meter-number" },
  { type = "double-long-unsigned", obis = "1-0:1.8.0", scaler = 1, unit = "Wh" },
  { type = "number" },
]
"""


def test_every_shipped_layout_is_known_by_its_shape_or_name() -> None:
    """Two that fit one list would leave it without names."""
    by_shape = [each for each in shipped_layouts() if each.elements and not each.identification]
    assert {"wiener-netze-e450", "kelag-am550", "slovenia-am550-18"} <= {each.name for each in by_shape}
    for layout in by_shape:
        items = [_item(element.type, element.octets) for element in layout.elements]
        assert [each.name for each in by_shape if not each.deviation(items)] == [layout.name]
        assert layout.source
        assert layout.title


def _item(kind: str, size: int | None) -> Data:
    types = {"any": Type.LONG_UNSIGNED, "number": Type.DOUBLE_LONG_UNSIGNED, "text": Type.OCTET_STRING}
    type_ = types.get(kind) or Type[kind.replace("-", "_").upper()]
    return octets(bytes(size if size is not None else 7)) if type_ is Type.OCTET_STRING else Data(type_, 1)


def test_a_layout_of_the_users_own_names_what_the_shipped_ones_do_not(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(OWN, encoding="utf-8")
    book = LayoutBook((find_layout(str(file)),))
    readings = listed(structure(octets(b"70000001"), u32(4), u32(5)), WHEN, TEMPLATE, book)
    assert seen(readings) == [
        ("0-0:96.1.0*255", "70000001", 0, None), ("1-0:1.8.0*255", 4, 1, 30), ("None", 5, 0, None)
    ]  # fmt: skip
    assert {reading.device for reading in readings} == {"70000001"}
    *bare, error = readings_from_list(structure(*BARE), WHEN, TEMPLATE, book)
    assert [each.obis for each in bare if isinstance(each, Reading)] == [None] * 4
    assert isinstance(error, RemoteProtocolError)
    assert str(error).endswith("ours: 4 elements where 3 were expected")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN.replace('"number"', '"integer-of-ours"'), "elements.2: no type 'integer-of-ours'"),
        (OWN.replace('"Wh"', '"kWh"'), "elements.1.unit: no unit 'kWh'"),
        (OWN.replace("1-0:1.8.0", "energy"), "elements.1.obis"),
        (OWN.replace('"document"', '"sure"'), "certainty: Input should be 'document'"),
        (OWN.partition("elements")[0], "a layout has elements, or pairs"),
        (OWN.replace("elements", "element"), "element: Extra inputs"),
        (OWN + "[pairs]\n", "no TOML|a layout has elements"),
        ("title =", "no TOML"),
    ],
)
def test_a_layout_that_is_none_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(text, encoding="utf-8")
    if text.endswith("[pairs]\n"):
        assert find_layout(str(file)).elements  # an empty table says nothing
        return
    with pytest.raises(LocalProtocolError, match=f"table ours: .*{said}"):
        find_layout(str(file))


def test_a_layout_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match="wiener-netze-e450"):
        find_layout("wiener-netze")
    with pytest.raises(LocalProtocolError, match="cannot be read"):
        find_layout(str(tmp_path / "none.toml"))


def test_one_number_alone_is_no_power_to_be_billed() -> None:
    """It is Kaifa's list 1, and what any other meter may push, too."""
    placed = LayoutBook().place([u32(4711)], TEMPLATE)
    assert placed is not None
    assert {each.quality for each in placed.readings} == {Quality.NOT_FOR_BILLING}
    named = LayoutBook((find_layout("kaifa-1"),)).place([u32(4711)], TEMPLATE)
    assert named is not None
    assert {each.quality for each in named.readings} == {TEMPLATE.quality}


@given(
    st.lists(st.sampled_from([u32(1), octets(b"12345678"), octets(bytes(12)), octets(b"\0\0\1\0\0\xff")]), max_size=20)
)
def test_a_list_is_named_by_its_whole_shape_or_not_at_all(items: list[Data]) -> None:
    fitting = [each for each in shipped_layouts() if each.elements and not each.deviation(items)]
    placed = LayoutBook().place(items, TEMPLATE)
    assert (placed is not None) == (len(fitting) == 1)
    assert len(fitting) <= 1
