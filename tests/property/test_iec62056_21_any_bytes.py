"""
Invariant: any bytes lead to readings or RemoteProtocolError, the same however they are cut, within a bounded buffer.
"""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.meters.iec62056_21 import MeterSettings, SimulatedMeter
from loadtest.meters.p1 import P1Settings, telegram
from node.lmn.iec62056_21.checks import block_check, with_even_parity
from node.lmn.iec62056_21.client import ReadoutClient
from node.lmn.iec62056_21.decode import decode_stream
from node.lmn.iec62056_21.framing import ETX, STX, Readout, ReadoutReader
from node.lmn.iec62056_21.quantities import decimal_text, quantity
from node.lmn.iec62056_21.readings import Interpretation, readings_of
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading
from protocol.metering.units import WATT_HOUR

SIZE_MAX = 512
EPOCH = datetime.fromtimestamp(0, UTC)
FRAGMENTS = st.sampled_from(
    [
        b"/ABC5METER\r\n", b"/ABC5\\2X\r\n\r\n", b"\x02", b"\x03", b"!\r\n", b"\n!", b"!BB3D\r\n", b"\r\n", b"\xafABC",
        b"1-0:1.8.0*255(000123.4*kWh)\r\n", b"0-1:24.2.1(170102161005W)(00000.107*m3)\r\n", b"(1)", b"0-1:96.1.0()\r\n",
        b"1-0:99.97.0(2)(0-0:96.7.19)(000104180320W)(0000237126*s)\r\n", b"F.F(01)\r\n", b"P.01(260101120000)(00)(15)",
        b"(1)(1.5)(kW)(0.1)\r\n", b"0.9.1(123456)\r\n0.9.2(260101)\r\n", b"\x06050\r\n", b"\x15", b"/?!\r\n", b"\x8d\n",
    ]
)  # fmt: skip
LINE = st.lists(st.one_of(FRAGMENTS, st.binary(max_size=12), FRAGMENTS.map(with_even_parity)), max_size=30).map(
    b"".join
)


@st.composite
def checked(draw: st.DrawFn) -> bytes:
    """A block whose check is right, with anything inside: what reaches the interpretation on real lines."""
    body = draw(LINE).replace(STX, b"").replace(ETX, b"").replace(b"\n/", b"\n")
    data = bytes(c & 0x7F for c in body) + ETX
    return b"/ABC5METER\r\n" + STX + data + bytes([block_check(data)])


@given(st.one_of(LINE, checked(), st.binary(max_size=200)))
@settings(max_examples=300, deadline=None)
def test_any_bytes_any_cut(data: bytes) -> None:
    whole = list(decode_stream([data]))
    assert all(isinstance(item, Reading | RemoteProtocolError) for item in whole)
    pieces = decode_stream(data[i : i + 1] for i in range(len(data)))
    assert [str(item) for item in pieces] == [str(item) for item in whole]
    for item in whole:
        if isinstance(item, Reading):
            item.to_json()


@given(st.lists(LINE, max_size=10), st.integers(1, 64))
@settings(max_examples=150, deadline=None)
def test_bounded_and_the_same_at_the_bound(lines: list[bytes], cut: int) -> None:
    data = b"".join(lines)
    readers = [ReadoutReader(SIZE_MAX), ReadoutReader(SIZE_MAX)]
    out: list[list[str]] = [[], []]
    out[0] += map(str, readers[0].receive(data) + readers[0].end())
    for i in range(0, len(data), cut):
        out[1] += map(str, readers[1].receive(data[i : i + cut]))
        assert len(readers[1]._buffer) <= SIZE_MAX
    out[1] += map(str, readers[1].end())
    assert out[0] == out[1]


@given(st.text(max_size=300), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_text_in_a_readout(body: str, verified: bool) -> None:
    for item in readings_of(Readout("ABC5", body, verified, 0), Interpretation()):
        assert isinstance(item, Reading | RemoteProtocolError)


@given(st.lists(st.one_of(LINE, st.none()), max_size=20))
@settings(max_examples=150, deadline=None)
def test_the_client_takes_any_line(steps: list[bytes | None]) -> None:
    client = ReadoutClient()
    client.start()
    try:
        for step in steps:
            done = client.timeout() if step is None else client.receive(step)
            if any(type(instruction).__name__ == "Done" for instruction in done):
                return
    except RemoteProtocolError:
        return


@given(st.integers(-(10**14), 10**14), st.integers(-9, 9))
def test_numbers_survive_text(value: int, scaler: int) -> None:
    read = quantity(decimal_text(value, scaler), "kWh")
    assert read is not None
    assert Decimal(read.value).scaleb(read.scaler) == Decimal(value).scaleb(scaler + 3)


@given(st.integers(0, 10**12), st.integers(-4, 3))
def test_what_a_simulated_meter_says_is_what_is_read(value: int, scaler: int) -> None:
    obis = Obis(1, 0, 1, 8, 0, 255)
    meter = SimulatedMeter(MeterSettings("00000001"), lambda _: [(obis, value, scaler, WATT_HOUR)], lambda: EPOCH)
    items = list(decode_stream([meter.identification + meter.block()]))
    (reading,) = (item for item in items if isinstance(item, Reading) and item.obis == obis)
    assert reading.decimal() == Decimal(value).scaleb(scaler)
    pushed = list(decode_stream([telegram(P1Settings("X"), [(obis, value, scaler, WATT_HOUR)], EPOCH)]))
    (reading,) = (item for item in pushed if isinstance(item, Reading) and item.obis == obis)
    assert reading.decimal() == Decimal(value).scaleb(scaler) // 1
