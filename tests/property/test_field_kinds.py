"""What real meters do, as rules over any numbers: blocks, messages, segments, powers, bit 7, CUL lines, own formats."""

from hypothesis import given
from hypothesis import strategies as st

from node.lmn.dlms import apdu
from node.lmn.dlms.axdr import Data, Type, octets, structure
from node.lmn.dlms.decode import decode_stream as decode_dlms
from node.lmn.dlms.transport import LLC_COMMAND
from node.lmn.hdlc.frame import Address, Frame, Kind
from node.lmn.iec62056_21.checks import block_check
from node.lmn.iec62056_21.decode import decode_stream as decode_text
from node.lmn.iec62056_21.framing import ETX, STX
from node.lmn.mbus.link import FrameReader, LongFrame
from node.lmn.sml.bodies import CloseResponse, GetListResponse, Message, OpenResponse
from node.lmn.sml.codec import Number
from node.lmn.sml.messages import encode_file
from node.lmn.sml.readings import frame_readings
from node.lmn.sml.values import ListEntry
from node.lmn.wmbus.framing import LineReader
from node.lmn.wmbus.link import Format, seal
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading

ENERGY = Obis(1, 0, 1, 8, 0, 255)
POWERS = [Obis(1, 0, c, 7, 0, 255) for c in (16, 36, 56, 76)]
DRAWING, FEEDING = 0x1C0104, 0x1C0904


def frame(information: bytes) -> bytes:
    return Frame(Address(16), Address(1), Kind.UNNUMBERED_INFORMATION, False, information).to_bytes()


def notification(*values: int) -> bytes:
    numbers = (Data(Type.DOUBLE_LONG_UNSIGNED, value) for value in values)
    pairs = [part for number in numbers for part in (octets(ENERGY.to_bytes()), number)]
    return apdu.DataNotification(1, None, structure(*pairs)).to_bytes()


def values(items: list[Reading | RemoteProtocolError]) -> list[object]:
    return [item.value for item in items if isinstance(item, Reading)]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40), st.integers(1, 90), st.booleans(), st.data())
def test_blocks_give_the_whole_message_or_nothing(
    numbers: list[int], size: int, headed: bool, data: st.DataObject
) -> None:
    """The LLC header in the first frame only, or in each; one lost frame costs its message."""
    whole = notification(*numbers)
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    frames = [
        frame((LLC_COMMAND if number == 1 or headed else b"")
              + apdu.GeneralBlock(0x80 * (number == len(parts)), number, 0, part).to_bytes())
        for number, part in enumerate(parts, 1)
    ]  # fmt: skip
    assert values(list(decode_dlms([b"".join(frames)]))) == numbers
    lost = data.draw(st.integers(0, len(frames) - 1))
    assert values(list(decode_dlms([b"".join(frames[:lost] + frames[lost + 1 :])]))) == []


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.booleans()), min_size=1, max_size=12))
def test_each_of_several_messages_in_a_frame_gives_its_readings(messages: list[tuple[int, bool]]) -> None:
    packet = LLC_COMMAND + notification(messages[0][0])
    packet += b"".join((LLC_COMMAND if headed else b"") + notification(value) for value, headed in messages[1:])
    assert values(list(decode_dlms([frame(packet)]))) == [value for value, _ in messages]


@given(st.binary(min_size=0, max_size=506), st.integers(0, 0x1F), st.binary(max_size=40))
def test_a_dlms_segment_of_any_length_is_found_behind_garbage(data: bytes, ci: int, garbage: bytes) -> None:
    """The length field has the lower eight bits only; a right frame of the length as written would go before."""
    body = bytes([0x53, 0xFF, ci]) + data
    written = len(body) & 0xFF
    sent = bytes([0x68, written, written, 0x68]) + body + bytes([sum(body) & 0xFF, 0x16])
    reader = FrameReader()
    found = [*reader.feed(garbage + sent), *reader.finish()]
    whole = LongFrame(0x53, 0xFF, ci, data)
    assert whole in found or any(isinstance(item, LongFrame) and item != whole for item in found) or b"\x68" in garbage


@given(
    st.integers(1, 99_999_999), st.integers(2, 3), st.sampled_from(POWERS), st.booleans(),
    st.sampled_from([None, DRAWING, FEEDING]), st.data(),
)  # fmt: skip
def test_a_dzg_power_is_unsigned_in_its_ranges_or_by_contradiction(
    serial: int, size: int, power: Obis, two_way: bool, status: int | None, data: st.DataObject
) -> None:
    value = data.draw(st.integers(-(1 << 8 * size - 1), (1 << 8 * size - 1) - 1))
    server = b"\x0a\x01DZG\0" + serial.to_bytes(4, "big")
    entries = [ListEntry(ENERGY.to_bytes(), status, None, 30, -1, Number(5, 4, signed=True), None)]
    if two_way:
        export = Obis(1, 0, 2, 8, 0, 255).to_bytes()
        entries.append(ListEntry(export, status, None, 30, -1, Number(6, 4, signed=True), None))
    entries.append(ListEntry(power.to_bytes(), None, None, 27, -2, Number(value, size, signed=True), None))
    body = GetListResponse(None, server, None, None, tuple(entries), None, None)
    opening = Message(b"1", OpenResponse(None, None, b"1", server, None))
    *_, reading = frame_readings(encode_file([opening, Message(b"2", body), Message(b"3", CloseResponse())]))
    in_range = 42_000_000 <= serial <= 48_999_999 or 55_000_000 <= serial <= 58_999_999
    mended = in_range or (not two_way and status == DRAWING)
    assert reading.value == (value % (1 << 8 * size) if mended else value)


@given(st.integers(0, 10**9), st.data())
def test_bit_7_anywhere_on_a_line_without_parity_makes_the_readout_none(energy: int, data: st.DataObject) -> None:
    block = f"0.0.0(70000001)\r\n1.8.0({energy}*kWh)\r\n!\r\n".encode("ascii") + ETX
    head = b"/STK5\\2X\r\n"
    sent = bytearray(head + STX + block + bytes([block_check(block)]))
    at = data.draw(st.integers(1, len(sent) - 1).filter(lambda index: index != len(head)))
    sent[at] |= 0x80
    assert values(list(decode_text([bytes(sent)]))) == []


@given(st.binary(min_size=1, max_size=230), st.sampled_from([(b"b", Format.A), (b"bY", Format.B)]), st.data())
def test_a_line_of_a_cul_gives_its_datagram_and_none_once_damaged(
    rest: bytes, framed: tuple[bytes, Format], data: st.DataObject
) -> None:
    """With signal quality behind it or without; the check sums of both formats see every damage within 16 bits."""
    mark, frame_format = framed
    datagram = bytes([10 + len(rest), 0x44, *range(8), 0xA0, *rest])
    sealed = seal(datagram, frame_format)
    quality = data.draw(st.sampled_from([b"", b"\x7b\xe1"]))

    def heard(octets: bytes) -> list[object]:
        events = LineReader().feed(mark + (octets + quality).hex().upper().encode() + b"\r\n")
        return [getattr(event, "octets", None) for event in events]

    assert heard(sealed) == [datagram]
    at, damage = data.draw(st.integers(1, len(sealed) - 1)), data.draw(st.integers(1, 255))
    assert heard(sealed[:at] + bytes([sealed[at] ^ damage]) + sealed[at + 1 :]) == [None]


@given(st.lists(st.integers(0, 99_999_999), min_size=1, max_size=8), st.integers(0, 12), st.booleans())
def test_a_makers_own_format_gives_no_number_and_right_records_do(
    numbers: list[int], empty_count: int, foreign: bool
) -> None:
    """Records without data in the majority are another format's zeros; fewer cost nothing."""
    count = len(numbers) + 1 + empty_count if foreign else min(empty_count, len(numbers))
    body = b"".join(b"\x0c\x06" + bytes.fromhex(f"{number:08d}")[::-1] for number in numbers) + bytes(2 * count)
    datagram = bytes([14 + len(body), 0x44, *range(7), 0x04, 0x7A, 1, 0, 0, 0, *body])
    found = Receiver().decode(datagram)
    energies = [item.value for item in found if item.value is not None and item.quality is Quality.VALID]
    assert energies == ([] if foreign else numbers)
