"""
Meters of the wired LMN (LKS1): SML inside TLS inside HDLC, on a bus where participants are found by their names.

BSI TR-03109-1 Detailspezifikation chapters 8 and 9.  One bus is one `Lks1Bus`: it invites until nobody new answers,
and again whenever a wanted meter is not on its list.  A session is connected, used and disconnected, because the bus
belongs to one participant at a time.

Certificates and keys leave the gateway here only [REQ.SML.CLI.UpdateMtrCertAndKey.10, UpdateSmgwCert.10]: the client
marks their requests, and an `SmlLink` over anything but TLS refuses to send them.  Where a status word shows that a
base meter was tampered with the state is reset in the same session [REQ.SML.CLI.ResetTamperState.10, .20]; the reading
keeps its status word, and `meter_tampered` goes to the log.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import trio

from node.lmn.hdlc.link import HdlcBus
from node.lmn.hdlc.lmn import AddressTable, Participant, Selector, discover, lmn_link
from node.lmn.hdlc.primary import Timing
from node.lmn.hdlc.tls import open_lks1
from node.lmn.sml.client import Exchange, SmlClient, refused
from node.lmn.sml.driver import SmlLink
from node.lmn.status_word import bits_of, mirrored
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

_MAGNETIC_BIT, _MECHANICAL_BIT, _BASE_METER_BIT = 9, 10, 2  # table 15.1
_CLOSE_TIMEOUT_S: Final = 5.0
_INVITATION_COUNT: Final = 4  # an answer may be lost in a collision, or come late


@dataclass(frozen=True, slots=True)
class Lks1Settings:
    """How long a session takes to open, and an answer to come; the timing of the HDLC below."""

    connect_timeout_s: float = 20.0
    answer_timeout_s: float = 10.0
    timing: Timing | None = None


class Lks1Bus:
    """One RS-485 line, from the gateway's end."""

    def __init__(self, stream: trio.abc.Stream, table: AddressTable | None = None) -> None:
        self.bus = HdlcBus(stream)
        self.table = table or AddressTable()

    async def participant(self, meter_id: str) -> Participant:
        """Where a meter is.  Raises RemoteProtocolError `lmn_absent` where it does not answer an invitation."""
        for _ in range(_INVITATION_COUNT):
            if meter_id not in self.table.participants:
                await discover(self.bus, self.table)
        if meter_id in self.table.participants:
            return self.table.participants[meter_id]
        others = len(self.table.participants)
        raise RemoteProtocolError("lmn_absent", f"{meter_id!r} does not answer an invitation, {others} others do")


class Lks1Session:
    """
    An open TLS session with one meter, which has shown `peer_certificate` (DER).

    Everything raises RemoteProtocolError.
    """

    def __init__(self, link: SmlLink, client: SmlClient, answer_timeout_s: float, peer_certificate: bytes) -> None:
        self.peer_certificate = peer_certificate
        self._link = link
        self._client = client
        self._timeout_s = answer_timeout_s

    async def read(self, registers: Iterable[Obis] = ()) -> list[Reading | RemoteProtocolError]:
        """
        These registers, or the meter's list; a manipulation that it reports is reported after them, and reset.

        A meter that does not support the reset refuses it, which changes nothing for its readings.
        """
        wanted = tuple(registers)
        exchange = self._client.request_meter_data(wanted) if wanted else self._client.get_list()
        readings = await self._link.ask_readings(exchange, self._timeout_s)
        found: list[Reading | RemoteProtocolError] = [*readings]
        words = {bits_of(mirrored(reading.status)) for reading in readings if reading.status is not None}
        bits = frozenset().union(*(word for word in words if _BASE_METER_BIT in word))
        magnetic, mechanical = _MAGNETIC_BIT in bits, _MECHANICAL_BIT in bits
        if magnetic or mechanical:
            kinds = [name for name, shown in (("magnetic", magnetic), ("mechanical", mechanical)) if shown]
            found.append(RemoteProtocolError("meter_tampered", f"{' and '.join(kinds)} manipulation"))
            try:
                await self._send(self._client.reset_tamper_state(magnetic=magnetic, mechanical=mechanical))
            except RemoteProtocolError as error:
                found.append(error)
        return found

    async def renew_meter_certificate(self, certificate_and_key: bytes) -> None:
        """The meter's next certificate and private key (DER, one after the other), used from the next session on."""
        await self._send(self._client.update_meter_key(certificate_and_key))

    async def renew_gateway_certificate(self, certificate: bytes) -> None:
        """The certificate (DER) by which the meter will know the gateway from the next session on."""
        await self._send(self._client.update_gateway_certificate(certificate))

    async def _send(self, exchange: Exchange) -> None:
        answer, _ = await self._link.ask(exchange, self._timeout_s)
        if (refusal := refused(answer)) is not None:
            raise RemoteProtocolError("meter_refused", f"attention {refusal.hex()}")


@asynccontextmanager
async def lks1_session(
    bus: Lks1Bus,
    meter_id: str,
    context: ssl.SSLContext,
    client: SmlClient,
    now: Callable[[], datetime],
    settings: Lks1Settings | None = None,
    on_error: Callable[[RemoteProtocolError], None] | None = None,
) -> AsyncGenerator[Lks1Session, None]:
    """
    A session with a meter, found on the bus by its identification (DIN 43849), and closed at the end.

    `context` pins the meter's certificate (`node.lmn.hdlc.tls.lmn_context`).  Raises RemoteProtocolError.
    """
    how = settings or Lks1Settings()
    participant = await bus.participant(meter_id)
    hdlc = lmn_link(bus.bus, participant, Selector.LKS1, how.timing)
    stream = await open_lks1(hdlc, context, how.connect_timeout_s)
    try:
        link = SmlLink(stream, now, on_error=on_error or (lambda _: None), is_confidential=True)
        yield Lks1Session(link, client, how.answer_timeout_s, stream.peer_certificate)
    finally:
        with trio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
            try:
                await stream.aclose()
            except trio.BrokenResourceError:
                await hdlc.disconnect()
