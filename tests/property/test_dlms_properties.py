"""Any bytes, any cuts, any values: the codecs of HDLC and DLMS hold their invariants."""

import random
import tracemalloc
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loadtest.meters.dlms import DlmsServer, ServerSettings, push_frames
from loadtest.meters.dlms_objects import CosemObjects
from node.lmn.dlms import acse, apdu
from node.lmn.dlms.axdr import BitString, Data, Reader, Type, TypeDescription, decode_data
from node.lmn.dlms.clock import CosemDateTime
from node.lmn.dlms.decode import decode_stream
from node.lmn.dlms.fields import Access, Attribute
from node.lmn.dlms.security import InvocationCounter, Keys, protect, unprotect
from node.lmn.dlms.transport import wrap
from node.lmn.hdlc.frame import Address, Frame, FrameReader, Kind, crc_x25
from node.lmn.hdlc.station import Parameters, Receiver, Sender
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

BYTES = st.binary(max_size=300)
INTEGERS = {
    Type.DOUBLE_LONG: (4, True), Type.DOUBLE_LONG_UNSIGNED: (4, False), Type.INTEGER: (1, True), Type.LONG: (2, True),
    Type.UNSIGNED: (1, False), Type.LONG_UNSIGNED: (2, False), Type.LONG64: (8, True), Type.LONG64_UNSIGNED: (8, False),
    Type.ENUM: (1, False), Type.BCD: (1, False),
}  # fmt: skip


def integers(kind: Type) -> st.SearchStrategy[Data]:
    size, signed = INTEGERS[kind]
    low = -(1 << 8 * size - 1) if signed else 0
    return st.integers(low, low + (1 << 8 * size) - 1).map(lambda value: Data(kind, value))


SIMPLE = st.one_of(
    *(integers(kind) for kind in INTEGERS),
    st.just(Data(Type.NULL)),
    st.just(Data(Type.DONT_CARE)),
    st.booleans().map(lambda value: Data(Type.BOOLEAN, value)),
    BYTES.map(lambda value: Data(Type.OCTET_STRING, value)),
    BYTES.map(lambda value: Data(Type.VISIBLE_STRING, value)),
    st.text(max_size=40).map(lambda value: Data(Type.UTF8_STRING, value)),
    st.binary(min_size=12, max_size=12).map(lambda value: Data(Type.DATE_TIME, value)),
    st.binary(min_size=5, max_size=5).map(lambda value: Data(Type.DATE, value)),
    st.binary(min_size=4, max_size=4).map(lambda value: Data(Type.TIME, value)),
    st.floats(width=32, allow_nan=False).map(lambda value: Data(Type.FLOAT32, value)),
    st.floats(allow_nan=False).map(lambda value: Data(Type.FLOAT64, value)),
    st.binary(max_size=5).flatmap(
        lambda data: st.integers(max(0, 8 * len(data) - 7), 8 * len(data)).map(
            lambda count: Data(Type.BIT_STRING, BitString(data, count))
        )
    ),
)
COMPACT = st.lists(st.tuples(integers(Type.LONG), integers(Type.ENUM)), max_size=20).map(
    lambda rows: Data(
        Type.COMPACT_ARRAY,
        tuple(Data(Type.STRUCTURE, row) for row in rows),
        TypeDescription(Type.STRUCTURE, (TypeDescription(Type.LONG), TypeDescription(Type.ENUM))),
    )
)
DATA = st.recursive(
    SIMPLE | COMPACT,
    lambda inner: st.tuples(st.sampled_from([Type.ARRAY, Type.STRUCTURE]), st.lists(inner, max_size=5)).map(
        lambda pair: Data(pair[0], tuple(pair[1]))
    ),
    max_leaves=20,
)
ATTRIBUTES = st.builds(
    Attribute, st.integers(0, 65535), st.binary(min_size=6, max_size=6).map(Obis.from_bytes), st.integers(-128, 127)
)
BYTE, WORD = st.integers(0, 255), st.integers(0, 2**32 - 1)
DATE_TIMES = st.binary(min_size=12, max_size=12).map(CosemDateTime.from_bytes)
ACCESS = st.none() | st.builds(Access, BYTE, DATA)
APDUS = st.one_of(
    st.builds(apdu.GetRequest, BYTE, ATTRIBUTES, ACCESS),
    st.builds(apdu.GetRequestNext, BYTE, WORD),
    st.builds(apdu.GetRequestList, BYTE, st.lists(st.tuples(ATTRIBUTES, ACCESS), max_size=4).map(tuple)),
    st.builds(apdu.GetResponse, BYTE, DATA | BYTE),
    st.builds(apdu.GetResponseBlock, BYTE, st.booleans(), WORD, BYTES | BYTE),
    st.builds(apdu.GetResponseList, BYTE, st.lists(DATA | BYTE, max_size=4).map(tuple)),
    st.builds(apdu.SetRequest, BYTE, ATTRIBUTES, ACCESS, DATA),
    st.builds(apdu.SetRequestFirstBlock, BYTE, ATTRIBUTES, ACCESS, st.booleans(), WORD, BYTES),
    st.builds(apdu.SetResponseLastBlock, BYTE, BYTE, WORD),
    st.builds(
        apdu.SetRequestListFirstBlock,
        BYTE,
        st.lists(st.tuples(ATTRIBUTES, ACCESS), max_size=4).map(tuple),
        st.booleans(),
        WORD,
        BYTES,
    ),
    st.builds(apdu.SetResponseListLastBlock, BYTE, st.lists(BYTE, max_size=4).map(tuple), WORD),
    st.builds(apdu.ActionRequestFirstBlock, BYTE, ATTRIBUTES, st.booleans(), WORD, BYTES),
    st.builds(apdu.ActionRequestBlock, BYTE, st.booleans(), WORD, BYTES),
    st.builds(apdu.ActionResponseNextBlock, BYTE, WORD),
    st.builds(apdu.ActionRequest, BYTE, ATTRIBUTES, st.none() | DATA),
    st.builds(apdu.ActionResponse, BYTE, BYTE, st.none() | DATA | BYTE),
    st.builds(apdu.DataNotification, WORD, st.none() | DATE_TIMES, DATA),
    st.builds(apdu.EventNotification, st.none() | DATE_TIMES, ATTRIBUTES, DATA),
    st.builds(apdu.GeneralBlock, BYTE, st.integers(0, 65535), st.integers(0, 65535), BYTES),
    st.builds(apdu.GeneralGlobalCiphering, st.binary(min_size=8, max_size=8), BYTES),
    st.builds(apdu.Ciphered, st.sampled_from(sorted(apdu.GLOBAL_TAGS.values())), BYTES),
)


@given(DATA)
def test_data_comes_back(data: Data) -> None:
    assert decode_data(data.to_bytes()) == data


@given(APDUS)
def test_apdus_come_back(message: Any) -> None:
    assert apdu.decode_apdu(message.to_bytes()) == message


@given(APDUS, st.data())
def test_a_cut_apdu_is_the_remote_kind(message: Any, data: st.DataObject) -> None:
    whole = message.to_bytes()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(RemoteProtocolError):
        apdu.decode_apdu(cut)


@given(BYTES)
@example(b"\x13\x00\xff\xff\xff\xff")
@example(b"\x13\x01\xff\xff\x01\xff\xff\x00\x00")
@example(b"\x01" * 200)
@example(b"\x02\x01" * 100)
def test_any_bytes_are_data_or_the_remote_kind(junk: bytes) -> None:
    for decoder in DECODERS:
        try:
            decoder(junk)
        except RemoteProtocolError:
            continue


@given(st.binary(min_size=12, max_size=12))
def test_any_date_time_is_a_moment_or_none(raw: bytes) -> None:
    when = CosemDateTime.from_bytes(raw)
    assert when.to_bytes() == raw
    assert when.to_datetime() is None or isinstance(when.to_datetime(), datetime)


def test_month_not_specified_is_no_moment_and_no_error() -> None:
    when = CosemDateTime.from_bytes(bytes.fromhex("07e4ffffff00000000800000"))
    assert when.to_datetime() is None
    winter = CosemDateTime.from_bytes(bytes.fromhex("07e4010f03 0c000000 ffc4 00".replace(" ", "")))
    noon = winter.to_datetime()
    assert noon is not None
    assert noon.isoformat() == "2020-01-15T12:00:00+01:00"


ADDRESSES = st.one_of(
    st.builds(Address, st.integers(0, 127)),
    st.builds(Address, st.integers(0, 127), st.integers(0, 127), st.just(2)),
    st.builds(Address, st.integers(0, 16383), st.integers(0, 16383), st.just(4)),
)
FRAMES = st.builds(
    Frame, ADDRESSES, ADDRESSES, st.sampled_from([Kind.INFORMATION, Kind.UNNUMBERED_INFORMATION]), st.booleans(),
    st.binary(max_size=400), st.just(0), st.just(0), st.booleans(),
)  # fmt: skip


@given(st.lists(st.tuples(st.binary(max_size=20), FRAMES), max_size=5), st.lists(st.integers(1, 60), max_size=40))
def test_frames_are_found_however_the_stream_is_cut(parts: list[tuple[bytes, Frame]], cuts: list[int]) -> None:
    stream = b"".join(frame.to_bytes() for _, frame in parts)
    reader, found, at = FrameReader(), [], 0
    for cut in [*cuts, len(stream) + 1]:
        found += reader.feed(stream[at : at + cut])
        at += cut
    assert found == [frame for _, frame in parts]


@given(st.binary(max_size=30).map(lambda junk: junk.replace(b"\x7e", b"")), FRAMES, FRAMES)
def test_a_frame_after_junk_and_after_a_broken_start_is_found(junk: bytes, broken: Frame, frame: Frame) -> None:
    stream = junk + broken.to_bytes()[:-4] + frame.to_bytes()
    reader = FrameReader()
    found = reader.feed(stream) + reader.end()
    assert frame in found


@given(FRAMES, st.data())
def test_no_single_bit_goes_unnoticed(frame: Frame, data: st.DataObject) -> None:
    whole = bytearray(frame.to_bytes()[1:-1])
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError):
        Frame.from_bytes(bytes(whole))


def test_the_check_sequence_is_the_published_one() -> None:
    assert crc_x25(b"123456789") == (0x906E).to_bytes(2, "little")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.integers(1, 7), st.integers(1, 60), st.randoms())
def test_units_pass_through_windows_with_losses(units: list[bytes], window: int, size: int, rng: random.Random) -> None:
    sender, receiver = Sender(Parameters(transmit_size_max=size, transmit_window=window)), Receiver()
    for unit in units:
        sender.add(unit)
    got = []
    while len(sender):
        for number, information, segmented, _ in sender.window():
            if rng.random() < 0.2:
                continue
            frame = Frame(Address(1), Address(2), Kind.INFORMATION, True, information, number, 0, segmented)
            whole = receiver.accept(frame)
            if whole is not None:
                got.append(whole)
        sender.acknowledge(receiver.next_number)
    assert got == units


ENCRYPTION, AUTHENTICATION = bytes(range(16)), bytes(range(16, 32))
KEYS = Keys(ENCRYPTION, AUTHENTICATION)
TITLE = b"STK\x00\x00\x00\x00\x01"
REGISTERS = [(Obis(1, 0, 1, 8, 0, 255), 987654321, 0, 30), (Obis(1, 0, 16, 7, 0, 255), -77, 0, 27)]


def server() -> DlmsServer:
    objects = CosemObjects("1STK0000000001", lambda _: REGISTERS, lambda: datetime(2026, 1, 1, 12))
    return DlmsServer(objects, ServerSettings(keys=KEYS, system_title=TITLE))


def shapes() -> Any:
    meter = server()
    plain, sealed = meter.notification(), meter.notification(sealed=True)
    for message in (plain, sealed):
        yield push_frames(message, Address(1), Address(16), 40)
        yield wrap(1, 16, message)
        yield message


BOTH_KEYS = ENCRYPTION + AUTHENTICATION
SHAPES = list(shapes())
BEGINNINGS = [b"", b"\x7e\xa0", b"\x00\x01", b"\x0f", b"\xe6\xe7\x00\x0f", b"\xdb\x08"]
DECODERS = [
    decode_data,
    apdu.decode_apdu,
    CosemDateTime.from_bytes,
    Parameters.from_bytes,
    Frame.from_bytes,
    acse.AssociationRequest.from_bytes,
    acse.AssociationResponse.from_bytes,
    acse.Release.from_bytes,
]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_recording_reads_the_same_whole_and_byte_by_byte(shape: bytes) -> None:
    whole = [str(item) for item in decode_stream([shape], BOTH_KEYS)]
    assert whole == [str(item) for item in decode_stream([bytes([byte]) for byte in shape], BOTH_KEYS)]
    values = [item.value for item in decode_stream([shape], BOTH_KEYS) if isinstance(item, Reading)]
    assert values[-2:] == [987654321, -77]
    for cut in range(len(shape)):
        assert not [item for item in decode_stream([shape[:cut]], BOTH_KEYS) if isinstance(item, Reading)]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SHAPES), st.data())
def test_an_altered_telegram_under_a_check_sum_gives_no_other_value(shape: Any, data: st.DataObject) -> None:
    altered = bytearray(shape)
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, len(altered) - 1))] ^= data.draw(st.integers(1, 255))
    framed = shape[0] == 0x7E
    for item in decode_stream([bytes(altered)], BOTH_KEYS):
        if isinstance(item, Reading) and framed and isinstance(item.value, int):
            assert item.value in (987654321, -77)


@settings(max_examples=300)
@given(st.binary(max_size=600), st.sampled_from(BEGINNINGS), st.sampled_from([None, ENCRYPTION, BOTH_KEYS]))
def test_any_bytes_give_readings_or_the_remote_kind_whole_and_byte_by_byte(
    junk: bytes, head: bytes, key: bytes | None
) -> None:
    stream = head + junk
    whole = [str(item) for item in decode_stream([stream], key)]
    assert whole == [str(item) for item in decode_stream([bytes([byte]) for byte in stream], key)]
    if stream:
        assert all(isinstance(item, Reading | RemoteProtocolError) for item in decode_stream([stream], key))


def test_a_packet_before_a_broken_one_is_not_lost_with_it() -> None:
    """Found by fuzzing: the reader of wrapped packets threw away what came in the same piece as the damage."""
    good = wrap(1, 16, server().notification())
    stream = good + b"\x00\x07\x00\x01\x00\x10\x00\x00" + good
    for pieces in ([stream], [bytes([byte]) for byte in stream]):
        found = list(decode_stream(pieces))
        assert isinstance(found[-1], RemoteProtocolError)
        assert [item.value for item in found[:-1] if isinstance(item, Reading)][-1] == -77


def test_memory_stays_bounded_on_an_endless_stream_without_a_frame() -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b"\x7e\xa7\xff\x03\x03\x13" * 200

    tracemalloc.start()
    count = sum(1 for _ in decode_stream(endless()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count > 0
    assert peak < 200_000


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1), st.data())
def test_protection_opens_only_with_everything_right(plain: bytes, counter: int, data: st.DataObject) -> None:
    sealed = protect(plain, KEYS, TITLE, counter)
    assert unprotect(sealed, KEYS, TITLE)[:2] == (plain, counter)
    at = data.draw(st.integers(0, len(sealed) - 1))
    altered = sealed[:at] + bytes([sealed[at] ^ data.draw(st.integers(1, 255))]) + sealed[at + 1 :]
    try:
        opened, _, control = unprotect(altered, KEYS, TITLE)
    except RemoteProtocolError:
        return
    assert at == 0
    assert not control & 0x10
    assert opened != plain or not control & 0x20


def test_a_counter_ends_with_its_reservation_and_with_the_key() -> None:
    counter = InvocationCounter(5, 7)
    assert [counter.left, counter.take(), counter.take(), counter.left] == [2, 5, 6, 0]
    with pytest.raises(LocalProtocolError):
        counter.take()
    counter.extend(2**32 - 1, 2**32 + 100)
    assert [counter.left, counter.take()] == [1, 2**32 - 1]
    with pytest.raises(LocalProtocolError):
        counter.take()


@given(st.lists(st.binary(max_size=100), max_size=6))
def test_the_meter_answers_anything(requests: list[bytes]) -> None:
    meter = server()
    for request in requests:
        for answer in meter.answer(request):
            assert isinstance(answer, bytes)


def test_values_in_one_message_are_bounded() -> None:
    body = b"\x13\x02\x05" + b"\x00" * 5 + b"\x82\xff\xff"
    with pytest.raises(RemoteProtocolError):
        decode_data(body)
    with pytest.raises(RemoteProtocolError, match="dlms_too_large"):
        Reader(b"\x01\x05" + b"\x00" * 5, value_count_max=4).data()
