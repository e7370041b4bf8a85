"""
What carries APDUs: HDLC with its three LLC bytes, or TCP with the eight bytes of the wrapper (IEC 62056-47).

Both give one thing to the client: `exchange`, an APDU out and the next one in, within a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import ClassVar, Final, TypeVar

import trio

from node.lmn.hdlc.link import HdlcLink
from protocol.errors import RemoteProtocolError

T = TypeVar("T")
LLC_COMMAND: Final = b"\xe6\xe6\x00"
LLC_RESPONSE: Final = b"\xe6\xe7\x00"
WRAPPER_HEADER_SIZE: Final = 8
WRAPPER_SIZE_MAX: Final = WRAPPER_HEADER_SIZE + 0xFFFF


class Transport(ABC):
    """A way to one meter; `repairs` says that it sends lost frames again itself, so that its silence is final."""

    repairs: ClassVar[bool] = False

    @abstractmethod
    async def open(self) -> None:
        """Make the link ready.  Raises RemoteProtocolError."""

    @abstractmethod
    async def exchange(self, apdu: bytes) -> bytes:
        """Send an APDU and wait for the next; with b"" only wait.  Raises RemoteProtocolError."""

    @abstractmethod
    async def close(self) -> None:
        """Give the link back; never raises RemoteProtocolError."""


async def converse(transport: Transport, conversation: Generator[bytes, bytes, T], exchange_timeout_s: float) -> T:
    """
    Hold a conversation (see `client`) over a transport, each exchange within its time.

    Where packets may be lost the conversation hears of the silence and may ask again.  Raises what the conversation
    raises, and RemoteProtocolError `dlms_timeout`.
    """
    try:
        request = next(conversation)
        while True:
            with trio.move_on_after(exchange_timeout_s) as scope:
                answer = await transport.exchange(request)
            if not scope.cancelled_caught:
                request = conversation.send(answer)
                continue
            silence = RemoteProtocolError("dlms_timeout", f"no answer within {exchange_timeout_s} s")
            if transport.repairs:
                raise silence
            request = conversation.throw(silence)
    except StopIteration as stop:
        result: T = stop.value
        return result


class HdlcTransport(Transport):
    """APDUs over an HDLC connection."""

    repairs = True

    def __init__(self, link: HdlcLink) -> None:
        self._link = link

    async def open(self) -> None:
        """Connect the link layer."""
        await self._link.connect()

    async def exchange(self, apdu: bytes) -> bytes:
        """One APDU in one LLC packet each way."""
        packet = await (self._link.exchange(LLC_COMMAND + apdu) if apdu else self._link.receive())
        if not packet.startswith(LLC_RESPONSE):
            raise RemoteProtocolError("dlms_llc", "an answer without the LLC header of a response")
        return packet[3:]

    async def close(self) -> None:
        """Disconnect the link layer."""
        await self._link.disconnect()


class WrapperReader:
    """
    Wrapped APDUs out of a byte stream: (source, destination, APDU).

    Holds at most one packet (64 KiB) and the piece just fed.  A header of another version gives a
    RemoteProtocolError, and after it nothing more: without a check sum there is no next packet to be found.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._offset = 0
        self._failed = False

    @property
    def pending(self) -> int:
        """Bytes of an unfinished packet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[int, int, bytes] | RemoteProtocolError]:
        """The packets that became complete, and the error that ends them."""
        if self._failed:
            return []
        self._buffer += data
        packets: list[tuple[int, int, bytes] | RemoteProtocolError] = []
        while len(self._buffer) >= WRAPPER_HEADER_SIZE:
            version, source, destination, length = (
                int.from_bytes(self._buffer[at : at + 2], "big") for at in range(0, 8, 2)
            )
            if version != 1:
                packets.append(RemoteProtocolError("dlms_wrapper", "no wrapper of version 1", offset=self._offset))
                self._failed = True
                self._buffer.clear()
                break
            size = WRAPPER_HEADER_SIZE + length
            if len(self._buffer) < size:
                break
            packets.append((source, destination, bytes(self._buffer[WRAPPER_HEADER_SIZE:size])))
            del self._buffer[:size]
            self._offset += size
        return packets


def wrap(source: int, destination: int, apdu: bytes) -> bytes:
    """One wrapped APDU."""
    return b"".join(number.to_bytes(2, "big") for number in (1, source, destination, len(apdu))) + apdu


class WrapperTransport(Transport):
    """APDUs over a TCP stream; `client` and `server` are the wrapper ports."""

    def __init__(self, stream: trio.abc.Stream, client: int = 16, server: int = 1) -> None:
        self._stream = stream
        self._client = client
        self._server = server
        self._reader = WrapperReader()
        self._packets: list[bytes] = []

    async def open(self) -> None:
        """Nothing to do: the connection is there."""

    async def exchange(self, apdu: bytes) -> bytes:
        """
        One APDU in one packet each way; packets for other ports are passed over.

        The port that a packet comes from is not looked at: some servers put the client's there, and the connection
        leads to one meter only.
        """
        try:
            if apdu:
                self._packets.clear()
                await self._stream.send_all(wrap(self._client, self._server, apdu))
            while not self._packets:
                data = bytes(await self._stream.receive_some())
                if not data:
                    raise RemoteProtocolError("link_closed", "the connection was closed")
                for item in self._reader.feed(data):
                    if isinstance(item, RemoteProtocolError):
                        raise item
                    if item[1] == self._client:
                        self._packets.append(item[2])
        except trio.BrokenResourceError as error:
            raise RemoteProtocolError("link_closed", "the connection was closed") from error
        return self._packets.pop(0)

    async def close(self) -> None:
        """Nothing to do: the stream belongs to the caller."""
