"""
Any bytes: readings or the remote kind of error, the same whole and octet by octet, in bounded memory.

And back: what our encoder writes our decoder reads, for every data type, storage, tariff and subunit.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from loadtest.meters.wmbus import WirelessMeter
from node.lmn.mbus.application import Context, readings_of
from node.lmn.mbus.decode import decode_stream as decode_wired
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.keys import KeyStore
from node.lmn.mbus.link import FrameReader, LongFrame, encode_frame
from node.lmn.mbus.profiles import find_base, unroll
from node.lmn.mbus.records import Record, encode_record, parse_records
from node.lmn.mbus.values import real32
from node.lmn.wmbus.decode import decode_stream as decode_wireless
from node.lmn.wmbus.framing import amber_frame, imst_frame, rtl_wmbus_line
from node.lmn.wmbus.link import Format, guess_format
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

NOISE = st.binary(max_size=300)
KEY = bytes(range(16))
DEVICE = DeviceAddress.from_text("8ISK0112345678", 7)
CLOCK = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HEADER = DEVICE.to_transport() + bytes(4)

# Bytes that look like records: known first octets make hypothesis reach deep into the tables.
RECORD_LIKE = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from([bytes.fromhex(text) for text in (
            "0403", "8c1003", "02fd17", "04ff07", "0d7c03414243", "046d", "426c", "0dfd0a", "8d0483130352", "0f", "1f",
            "0b3b", "05fb2c", "c402", "0d9513", "2f2f",
        )]),
    ),
    max_size=20,
).map(b"".join)  # fmt: skip


def outcome(stream: Iterable[Reading | RemoteProtocolError]) -> list[str]:
    out = list(stream)
    assert all(isinstance(item, Reading | RemoteProtocolError) for item in out)
    for item in out:
        if isinstance(item, Reading):
            item.to_json()
    return [repr(item) for item in out]


@given(NOISE)
def test_any_bytes_on_the_wire(data: bytes) -> None:
    assert outcome(decode_wired([data])) == outcome(decode_wired(bytes([octet]) for octet in data))


@given(RECORD_LIKE, st.sampled_from([0x72, 0x7A, 0x78, 0x73, 0x70]), st.integers(0, 255))
def test_any_records_in_a_good_frame(records: bytes, ci: int, control: int) -> None:
    header = {0x72: HEADER, 0x7A: bytes(4)}.get(ci, b"")
    frame = encode_frame(LongFrame(control, 1, ci, (header + records)[:252]))
    assert outcome(decode_wired([frame])) == outcome(decode_wired(bytes([octet]) for octet in frame))


@given(st.lists(NOISE, max_size=8))
def test_the_reader_holds_no_more_than_a_frame(chunks: list[bytes]) -> None:
    reader = FrameReader()
    for chunk in chunks:
        list(reader.feed(chunk))
        assert reader.pending_size <= 261


@given(st.sampled_from([b"", b"\xa5\x82\x03", b"\xff\x03", b"telegram=|", b"T1;1;1;"]), NOISE)
def test_any_bytes_of_a_receiver(start: bytes, data: bytes) -> None:
    stream = start + data
    assert outcome(decode_wireless([stream], KEY)) == outcome(
        decode_wireless((bytes([octet]) for octet in stream), KEY)
    )  # fmt: skip


@given(
    st.sampled_from([0x44, 0x46, 0x08, 0x48]),
    st.lists(st.sampled_from([bytes.fromhex(text) for text in (
        "8c2030", "8d203039d16820", "900f002c25", "7a0100100590", "72", "78", "79", "73", "a2", "70", "8a", "7b010000",
        "7a0100ff0a1001", "7a0100200510", "900200409002",
    )]), max_size=4).map(b"".join),
    RECORD_LIKE,
)  # fmt: skip
def test_any_layers_in_a_good_datagram(control: int, layers: bytes, rest: bytes) -> None:
    body = (bytes([control]) + DEVICE.to_link() + layers + rest)[:255]
    datagram = bytes([len(body)]) + body
    for receiver in (Receiver(KeyStore(default=KEY)), Receiver(accept_decrypted=True)):
        for _ in range(2):
            try:
                readings = receiver.decode(datagram)
            except RemoteProtocolError:
                continue
            assert all(isinstance(reading, Reading) for reading in readings)


@given(
    st.integers(-(1 << 63) + 1, (1 << 63) - 1),
    st.integers(0, 1 << 41), st.integers(0, 1 << 20), st.integers(0, 1 << 10),
    st.integers(0, 3), st.sampled_from([1, 2, 3, 4, 6, 7]),
)  # fmt: skip
def test_records_there_and_back(value: int, storage: int, tariff: int, subunit: int, function: int, field: int) -> None:
    size = (0, 1, 2, 3, 4, 4, 6, 8)[field]
    value %= 1 << (8 * size - 1)
    storage, tariff, subunit = storage % (1 << 41), tariff % (1 << 20), subunit % (1 << 10)
    octets = encode_record(
        b"\x13", value.to_bytes(size, "little"), field,
        function=function, storage=storage, tariff=tariff, subunit=subunit,
    )  # fmt: skip
    (record,) = parse_records(octets)
    assert isinstance(record, Record)
    data = record.header.data
    assert (data.storage, data.tariff, data.subunit, data.function) == (storage, tariff, subunit, function)
    (reading,) = readings_of([record], Context("8ISK0112345678", 7))
    assert (reading.value, reading.scaler, reading.unit) == (value, -3, 13)


@given(st.binary(min_size=4, max_size=4))
def test_floats_are_exact_to_the_last_bit(octets: bytes) -> None:
    import struct
    from decimal import Decimal

    decoded = real32(octets)
    if decoded.value is not None:
        assert isinstance(decoded.value, int)
        back = struct.pack("<f", float(Decimal(decoded.value).scaleb(decoded.scaler)))
        assert back == octets or octets == b"\0\0\0\x80"


@given(st.binary(max_size=60))
def test_any_profile(octets: bytes) -> None:
    record = encode_record(b"\x83\x13", bytes([len(octets)]) + octets, 0xD)
    (item,) = parse_records(record)
    assert isinstance(item, Record)
    base, moment = find_base(item, [item])
    try:
        values = unroll(item, base, moment)
    except RemoteProtocolError:
        return
    assert len(values) <= len(octets)


@given(
    st.sampled_from([0, 5, 7, 10]), st.integers(0, (1 << 40)), st.booleans(), st.booleans(),
    st.sampled_from([imst_frame, amber_frame, rtl_wmbus_line]),
)  # fmt: skip
def test_telegrams_there_and_back(
    mode: Any, value: int, compact: bool, long: bool, framed: Callable[[bytes], bytes]
) -> None:
    radio = DeviceAddress.from_text("FRAD0287654321", 0x37) if long else None
    volume = Obis(8, 0, 1, 0, 0, 255)
    meter = WirelessMeter(
        DEVICE, lambda _: [(volume, value, -3, 13)], lambda: CLOCK,
        key=KEY, mode=mode, radio=radio, compact=compact, full_every=2,
    )  # fmt: skip
    datagrams = [meter.datagram() for _ in range(2)]
    # Where a line's last two octets happen to be its check sum, nothing says that they are not one: one line in 65,536.
    assume(all(guess_format(each) is Format.STRIPPED for each in datagrams))
    stream = b"".join(map(framed, datagrams))
    out = list(decode_wireless([stream], KEY))
    readings = [r for r in out[::2] if isinstance(r, Reading)]
    assert [(r.device, r.obis, r.value) for r in readings] == [(str(DEVICE), volume, value)] * 2


@given(st.binary(max_size=80), st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 0x3F))
def test_a_frame_that_carries_a_whole_frame_is_itself_however_it_is_cut(
    content: bytes, before: bytes, behind: bytes, ci: int
) -> None:
    """Under the CI field of a DLMS segment too, where a longer frame is looked for if none of that length fits."""
    inner = encode_frame(LongFrame(0x53, 0xFF, 0x11, content))
    outer = LongFrame(0x53, 0xFF, ci, before + inner + behind)
    octets = encode_frame(outer)
    whole, single = FrameReader(), FrameReader()
    assert list(whole.feed(octets)) == [outer]
    assert [frame for octet in octets for frame in single.feed(bytes([octet]))] == [outer]
