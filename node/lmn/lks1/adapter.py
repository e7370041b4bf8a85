"""Meters of the wired LMN as the runtime wants them: who is on the line is found once for each link."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import trio

from node.lmn.hdlc.certificate import Identity
from node.lmn.hdlc.lmn import AddressTable, discover
from node.lmn.hdlc.tls import lmn_context_from_der
from node.lmn.lks1.session import Lks1Bus, lks1_session
from node.lmn.pairing import PairedMeter, Pairing
from node.lmn.profiles import MeterProfile
from node.lmn.session import Batch, Clock, Discovered, Driver, LmnStores, datetimes
from node.lmn.sml.client import SmlClient
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.reading import Reading

_KEYS: Final = ("certificate", "private_key", "meter_certificate")


class Lks1Poll:
    """One line: the participants of its present link, and each meter's pairing and client."""

    def __init__(self, profiles: Sequence[MeterProfile], stores: LmnStores) -> None:
        self._pairings = stores.pairings
        self._configured = {profile.device: configured_pairing(profile) for profile in profiles}
        self._meters: dict[str, tuple[PairedMeter, SmlClient]] = {}
        self._stream: trio.abc.Stream | None = None
        self._table = AddressTable()

    async def ask(self, stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
        """
        The registers of a meter; what is due of certificates is renewed in the same session.

        Raises RemoteProtocolError where no session comes about, `certificate_expired` before one is tried; StoreError.
        """
        if stream is not self._stream:
            self._stream, self._table = stream, AddressTable()
        bus = Lks1Bus(stream, self._table)
        paired, _ = self._meter(profile)
        *likelier, last = paired.credential_candidates(datetimes(clock)())
        for own, believed in likelier:
            with suppress(RemoteProtocolError):
                return await self._ask_showing(own, believed, bus, profile, clock)
        return await self._ask_showing(*last, bus, profile, clock)

    async def _ask_showing(
        self, own: Identity, believed: Sequence[bytes], bus: Lks1Bus, profile: MeterProfile, clock: Clock
    ) -> Batch:
        paired, client = self._meter(profile)
        now, faults = datetimes(clock), list[Reading | RemoteProtocolError]()
        context = lmn_context_from_der(own.certificate, own.private_key, *believed)
        opened = lks1_session(bus, profile.name_on_bus, context, client, now, on_error=faults.append)
        async with opened as session:
            readings = await session.read(profile.registers)
            return [*readings, *await paired.keep(own, session, now()), *faults]

    def pairing(self, profile: MeterProfile) -> Pairing:
        """What has become of a meter's configured pairing.  Raises StoreError."""
        return self._meter(profile)[0].pairing

    def _meter(self, profile: MeterProfile) -> tuple[PairedMeter, SmlClient]:
        if profile.device not in self._meters:
            paired = PairedMeter(profile.name_on_bus, self._configured[profile.device], self._pairings)
            self._meters[profile.device] = paired, SmlClient(profile.device.encode())
        return self._meters[profile.device]


def configured_pairing(profile: MeterProfile) -> Pairing:
    """The pairing that a profile's keys are.  Raises LocalProtocolError where they are missing or do not fit."""
    parts = [profile.key(name) for name in _KEYS]
    if None in parts:
        raise LocalProtocolError(f"a meter with TLS needs the keys {', '.join(_KEYS)} (DER, hexadecimal)")
    own, private, meter = (part or b"" for part in parts)
    try:
        lmn_context_from_der(own, private, meter)
    except (ValueError, TypeError, ssl.SSLError):
        raise LocalProtocolError(f"{', '.join(_KEYS)}: one of them is no DER, or they do not fit together") from None
    return Pairing(Identity(own, private), meter)


async def _find(stream: trio.abc.Stream, _profile: MeterProfile, _: LmnStores, _clock: Clock) -> list[Discovered]:
    """Who answers an invitation on the bus."""
    bus = Lks1Bus(stream)
    await discover(bus.bus, bus.table)
    return [Discovered(each.sensor_id, f"station={each.address}") for each in bus.table.participants.values()]


LKS1: Final = Driver("lks1", poll=Lks1Poll, find=_find)
