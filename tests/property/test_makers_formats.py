"""Makers' formats over any octets: no exception, nothing to bill, octets kept; and any values through the cipher."""

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from node.lmn.mbus.device import DeviceAddress, manufacturer_code
from node.lmn.mbus.makers.diehl import open_prios, open_real_data
from node.lmn.mbus.makers.table import MakersFormat, shipped_formats
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Quality

NUMBERS = st.integers(0, 99_999_999).map("{:08}".format)
BEHIND_CI = [each for each in shipped_formats() if each.where == "ci"]
ELSEWHERE = [each for each in shipped_formats() if each.where in ("data", "record")]


def datagram(address: DeviceAddress, layer: bytes) -> bytes:
    body = b"\x44" + address.to_link() + layer
    return bytes([len(body)]) + body


def address_of(meter: str, number: str) -> DeviceAddress:
    maker, version, medium = meter.split()
    return DeviceAddress(manufacturer_code(maker), number, int(version, 16), int(medium, 16))


@given(st.sampled_from(BEHIND_CI), NUMBERS, st.binary(max_size=200), st.data())
def test_any_octets_behind_a_makers_ci_are_kept_and_never_for_billing(
    table: MakersFormat, number: str, octets: bytes, data: st.DataObject
) -> None:
    begin = data.draw(st.sampled_from([b"", *table.begins]))
    address = address_of(data.draw(st.sampled_from(table.meters)), number)
    ci = data.draw(st.sampled_from(table.ci))
    readings = Receiver().decode(datagram(address, ci + begin + octets))
    assert readings[-1].value == begin + octets
    assert all(each.quality is not Quality.VALID for each in readings)


@given(st.sampled_from(ELSEWHERE), NUMBERS, st.binary(max_size=200), st.data())
def test_any_octets_inside_a_makers_data_give_nothing_to_bill(
    table: MakersFormat, number: str, octets: bytes, data: st.DataObject
) -> None:
    address = address_of(data.draw(st.sampled_from(table.meters)), number)
    content = (data.draw(st.sampled_from([b"", *table.begins])) + octets)[: table.size or None]
    place = b"\x0f" if table.where == "data" else b"\x0d" + table.vib + bytes([len(content)])
    try:
        readings = Receiver().decode(datagram(address, b"\x78" + place + content))
    except RemoteProtocolError:  # an LVAR that is reserved
        return
    assert all(each.quality is not Quality.VALID for each in readings if "format" in each.record)


LINKS = st.builds(DeviceAddress, st.just(manufacturer_code("DME")), NUMBERS, st.integers(0, 255), st.integers(0, 255))


@given(
    LINKS, st.binary(min_size=4, max_size=4), st.integers(0, 2**32 - 1), st.dates(date(2000, 1, 1), date(2080, 1, 1))
)
def test_prios_gives_back_what_was_ciphered_with_either_default_key(
    link: DeviceAddress, head: bytes, total: int, day: date
) -> None:
    """The cipher is an exclusive or: opening twice is to close."""
    low, year = day.day, day.year - 2000
    packed = bytes([low | (year & 7) << 5, day.month | (year & 0x78) << 1])
    plain = b"\x4b" + total.to_bytes(4, "little") + bytes(4) + packed
    layer = b"\xa2" + head
    stream = _stream(link, layer, len(plain))
    sealed = bytes(a ^ b for a, b in zip(plain, stream, strict=True))
    assert open_prios(link, layer + sealed) == head + plain
    damaged = bytes([sealed[0] ^ 1]) + sealed[1:]
    opened = open_prios(link, layer + damaged)
    assert opened is None or opened[4:] != plain


def _stream(link: DeviceAddress, layer: bytes, size: int) -> bytes:
    """The key stream of the first default key, bit by bit as its polynomial has it."""
    register = 0x39BC8A10 ^ 0xE66D83F8
    for part in (link.to_link()[:4], link.to_link()[4:], layer[:4]):
        register ^= int.from_bytes(part, "big")
    bits = [register >> at & 1 for at in range(31, -1, -1)]  # the oldest first
    while len(bits) < 32 + 8 * size:
        bits.append(bits[-2] ^ bits[-3] ^ bits[-12] ^ bits[-32])
    octets = bits[32:]
    return bytes(int("".join(map(str, octets[at : at + 8])), 2) for at in range(0, len(octets), 8))


@given(LINKS, st.binary(max_size=120))
def test_real_data_of_any_octets_opens_to_as_many_or_not_at_all(link: DeviceAddress, octets: bytes) -> None:
    opened = open_real_data(link, b"\x7a\x01\x00\x00\x15" + octets)
    assert opened is None or len(opened) == len(octets)
