"""
The first pairing of a meter with its gateway, and its undoing, on the wired LMN (BSI TR-03109-1 details 8.3).

The gateway makes both key pairs, brings the meter its own and both certificates under the meter's main key MK0 (`sym`),
and keeps what it needs to read the meter from then on.  The messages are our own definition, since the standard's are
not at hand: only our own simulated meters pair so.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from node.lmn.counters import CounterStore
from node.lmn.hdlc.certificate import Identity, make_certificate
from node.lmn.hdlc.link import HdlcLink
from node.lmn.hdlc.lmn import Selector, lmn_link
from node.lmn.hdlc.primary import Timing
from node.lmn.lks1.session import Lks1Bus
from node.lmn.lks1.sym import Credentials, PairingGateway
from node.lmn.pairing import Pairing
from protocol.errors import RemoteProtocolError

TIMEOUT_S: Final = 20.0
_DISCONNECT_TIMEOUT_S: Final = 2.0
MESSAGE_COUNT: Final = 4  # a pairing takes three, a reset one
_SLOW_CLOCK: Final = timedelta(days=1)  # a meter whose clock is behind must not find its certificate not yet valid


def new_pairing(gateway_id: str, meter_id: str, now: datetime, life: timedelta) -> tuple[Pairing, Credentials]:
    """
    Key pairs and certificates for both ends: what the gateway keeps, and what the meter is to be brought.

    Raises LocalProtocolError for ids that no LMN certificate can be made for.
    """
    keys = [ec.generate_private_key(ec.BrainpoolP256R1()) for _ in range(2)]
    own, meter = (
        Identity.of(make_certificate(name, key, x509.random_serial_number(), now - _SLOW_CLOCK, now + life), key)
        for name, key in zip((gateway_id, meter_id), keys, strict=True)
    )
    return Pairing(own, meter.certificate), Credentials(own.certificate, meter.certificate, meter.private_key)


async def pair_meter(
    bus: Lks1Bus, meter_id: str, main_key: bytes, credentials: Credentials, counters: CounterStore,
    timing: Timing | None = None,
) -> None:  # fmt: skip
    """
    Bring a meter its credentials.

    Raises RemoteProtocolError: `lmn_absent`, `sym_refused` where the meter is paired already, `sym_silent` where it
    does not answer, as to another main key; StoreError where the counter cannot be kept.
    """
    machine = PairingGateway(main_key, meter_id.encode("ascii"), await counters.reserve(_name(meter_id), MESSAGE_COUNT))
    async with _link(bus, meter_id, timing) as link:
        machine.receive(await link.exchange(machine.hello()))
        machine.receive(await link.exchange(machine.credentials(credentials)))


async def reset_meter(
    bus: Lks1Bus, meter_id: str, main_key: bytes, counters: CounterStore, timing: Timing | None = None
) -> None:
    """Undo a pairing (crypto reset).  Raises as `pair_meter`."""
    machine = PairingGateway(main_key, meter_id.encode("ascii"), await counters.reserve(_name(meter_id), MESSAGE_COUNT))
    async with _link(bus, meter_id, timing) as link:
        machine.receive(await link.exchange(machine.reset()))


@asynccontextmanager
async def _link(bus: Lks1Bus, meter_id: str, timing: Timing | None) -> AsyncGenerator[HdlcLink, None]:
    """A connection for pairing messages; what takes longer than `TIMEOUT_S` altogether is silence."""
    with trio.move_on_after(TIMEOUT_S) as scope:
        link = lmn_link(bus.bus, await bus.participant(meter_id), Selector.LKS1_PSK, timing)
        await link.connect()
        try:
            yield link
        finally:
            with trio.move_on_after(_DISCONNECT_TIMEOUT_S, shield=True):
                await link.disconnect()
    if scope.cancelled_caught:
        raise RemoteProtocolError("sym_silent", f"no answer of {meter_id}: has it another main key?")


def _name(meter_id: str) -> str:
    return f"sym/{meter_id}"
