"""
Simulated wireless M-Bus meters and the receiver that hears them: a byte stream as a radio module would give it.

A meter builds telegrams in any security mode that the gateway reads (none, 5, 7 with fragmentation layer and derived
keys, 10), full or compact, with a radio module's address of its own where wanted; bidirectional ones answer a request
within their window.  The receiver frames them as IMST or AMBER modules do or as rtl-wmbus' lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Literal

import trio

from loadtest.meters.mbus_records import Registers, clock_record, register_record
from node.lmn.mbus import security
from node.lmn.mbus.compact import signature_of
from node.lmn.mbus.crc import crc16
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.records import layout_of
from node.lmn.wmbus.framing import (
    AmberReader,
    Datagram,
    ImstReader,
    LineReader,
    Reader,
    amber_frame,
    imst_frame,
    rtl_wmbus_line,
)
from node.lmn.wmbus.link import REQ_UD2, RSP_UD, SND_NKE, SND_NR

Mode = Literal[0, 5, 7, 10]
Framing = Literal["imst", "amber", "rtl-wmbus"]
_TAG_SIZE: Final = 8
_REQUEST_CONTROLS: Final = frozenset({REQ_UD2, REQ_UD2 | 0x20})


class WirelessMeter:
    """
    One meter.  `clock` is simulated time, aware; `radio` the module's address where it is not the meter's own.

    With `compact` every telegram but each `full_every`-th leaves the headers out.  `counter` is the message counter of
    modes 7 and 10 and rises with every telegram.
    """

    def __init__(
        self,
        device: DeviceAddress,
        registers: Registers,
        clock: Callable[[], datetime],
        *,
        key: bytes = b"",
        mode: Mode = 0,
        radio: DeviceAddress | None = None,
        compact: bool = False,
        full_every: int = 8,
        bidirectional: bool = False,
        counter: int = 0,
    ) -> None:
        self.device = device
        self.bidirectional = bidirectional
        self._registers = registers
        self._clock = clock
        self._key = key
        self._mode = mode
        self._radio = radio
        self._compact = compact
        self._full_every = full_every
        self._access = 0
        self._counter = counter
        self._sent_count = 0

    def datagram(self, control: int = SND_NR) -> bytes:
        """The next telegram, check sums stripped."""
        self._access = (self._access + 1) & 0xFF
        self._counter += 1
        sender = self._radio or self.device
        link = bytes([control]) + sender.to_link()
        records = self._records()
        compact = self._compact and self._sent_count % self._full_every != 0
        self._sent_count += 1
        content = _compact(records) if compact else records
        body = self._transport(content, long=self._radio is not None, compact=compact)
        if self.bidirectional:
            body = bytes([0x8C, 0x80, self._access]) + body
        return bytes([len(link) + len(body)]) + link + body

    def answer(self, request: bytes) -> bytes | None:
        """The answer to a stripped datagram from the gateway, if the meter is bidirectional and meant."""
        if not self.bidirectional or len(request) < 19 or request[10] not in (0x80, 0x8B):
            return None
        if DeviceAddress.from_transport(request[11:19]) != self.device:
            return None
        if request[1] in _REQUEST_CONTROLS:
            return self.datagram(RSP_UD)
        if request[1] == SND_NKE:
            return self._acknowledgement()
        return None

    def _acknowledgement(self) -> bytes:
        body = bytes([0x00]) + self.device.to_link() + bytes([0x8A, self._access, 0, 0, 0])
        return bytes([len(body)]) + body

    def _records(self) -> bytes:
        now = self._clock()
        return b"".join(register_record(register) for register in self._registers(now)) + clock_record(now)

    def _transport(self, content: bytes, *, long: bool, compact: bool) -> bytes:
        ci = (0x73 if compact else 0x72) if long else (0x7B if compact else 0x7A)
        address = self.device.to_transport() if long else b""
        counter = self._counter.to_bytes(4, "little")
        match self._mode:
            case 0:
                return bytes([ci]) + address + bytes([self._access, 0, 0, 0]) + content
            case 5:
                plain = _padded(content)
                configuration = (len(plain) // 16) << 4 | 5 << 8
                vector = security.mode5_vector(self.device, self._access)
                sealed = security.encrypt_cbc(self._key, vector, plain)
                return bytes([ci]) + address + self._header(configuration) + sealed
            case 7:
                plain = _padded(content)
                configuration = (len(plain) // 16) << 4 | 7 << 8
                derived = security.derive(self._key, security.DERIVE_ENCRYPTION_FROM_METER, counter, self.device)
                sealed = security.encrypt_cbc(derived, bytes(16), plain)
                return self._fragment(
                    bytes([ci]) + address + self._header(configuration) + b"\x10" + sealed, counter
                )  # fmt: skip
            case _:
                fields = self._header(10 << 8 | 0xFF) + b"\x10\x01"
                derived = security.derive(self._key, security.DERIVE_ENCRYPTION_FROM_METER, counter, self.device)
                sealed = security.encrypt_ccm(
                    derived, security.mode10_nonce(self.device, counter), content, bytes([ci]) + fields, _TAG_SIZE
                )  # fmt: skip
                return bytes([ci]) + address + fields + counter + sealed

    def _header(self, configuration: int) -> bytes:
        return bytes([self._access, 0]) + configuration.to_bytes(2, "little")

    def _fragment(self, tpdu: bytes, counter: bytes) -> bytes:
        message_control = b"\x25"
        key = security.derive(self._key, security.DERIVE_MAC_FROM_METER, counter, self.device)
        mac = security.cmac(key, message_control + counter + tpdu)[:_TAG_SIZE]
        fields = b"\x00\x2c" + message_control + counter + mac
        return bytes([0x90, len(fields)]) + fields + tpdu


def _padded(content: bytes) -> bytes:
    plain = security.VERIFICATION + content
    return plain + b"\x2f" * (-len(plain) % security.BLOCK_SIZE)


def _compact(records: bytes) -> bytes:
    layout = layout_of(records)
    values = bytearray()
    position = 0
    starts = []
    for header in layout:
        position = records.index(header, position)
        starts.append((position, position + len(header)))
        position += len(header)
    for index, (_, value_start) in enumerate(starts):
        values += records[value_start : starts[index + 1][0] if index + 1 < len(starts) else len(records)]
    return signature_of(layout).to_bytes(2, "little") + crc16(records).to_bytes(2, "little") + bytes(values)


def framed(datagram: bytes, framing: Framing) -> bytes:
    """A datagram as that receiver would deliver it."""
    match framing:
        case "imst":
            return imst_frame(datagram)
        case "amber":
            return amber_frame(datagram)
        case _:
            return rtl_wmbus_line(datagram)


async def serve_stream(
    stream: trio.abc.Stream, meters: Sequence[WirelessMeter], framing: Framing, interval_s: float
) -> None:
    """Be the receiver behind a stream: every meter once per interval, and answers to what the gateway sends."""
    lock = trio.Lock()

    async def send(datagram: bytes) -> None:
        async with lock:
            await stream.send_all(framed(datagram, framing))

    async def transmit() -> None:
        while True:
            for meter in meters:
                await send(meter.datagram())
            await trio.sleep(interval_s)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transmit)
        reader = _request_reader(framing)
        while data := await stream.receive_some():
            for request in reader.feed(bytes(data)):
                if isinstance(request, Datagram):
                    for meter in meters:
                        if reply := meter.answer(request.octets):
                            await send(reply)
        nursery.cancel_scope.cancel()


def _request_reader(framing: Framing) -> Reader:
    if framing == "imst":
        return ImstReader(requests=True)
    return AmberReader(requests=True) if framing == "amber" else LineReader()


async def serve(
    meters: Sequence[WirelessMeter],
    framing: Framing,
    *,
    interval_s: float = 1.0,
    host: str = "127.0.0.1",
    port: int = 0,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """A receiver on TCP; reports its port when it listens."""
    listeners = await trio.open_tcp_listeners(port, host=host)

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await serve_stream(stream, meters, framing, interval_s)
        except* trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        task_status.started(listeners[0].socket.getsockname()[1])
