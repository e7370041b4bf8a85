"""SML meters as the runtime wants them: asked for registers or a list, or listened to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

import trio

from node.lmn.links import parse_link
from node.lmn.profiles import MeterProfile
from node.lmn.session import Batch, Clock, Discovered, Driver, LmnStores, datetimes
from node.lmn.sml.client import SmlClient, register_class
from node.lmn.sml.driver import SmlLink
from node.lmn.sml.readings import server_id
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.reading import Reading
from protocol.metering.units import unit_symbol

_ANSWER_TIMEOUT_S: Final = 10.0  # a long list at 9600 baud takes a second


def _client(profile: MeterProfile) -> SmlClient:
    # The server id stays empty where the link has one meter only [REQ.SML.CLI.RequestMeterData.20].
    try:
        server = server_id(profile.address) if profile.address else None
    except ValueError:
        raise LocalProtocolError("an SML meter's address is its server id: 14 characters, or hexadecimal") from None
    return SmlClient(profile.device.encode(), server_id=server)


class SmlPoll:
    """One client a meter for life: its ids tell an answer from a late one to the request before."""

    def __init__(self, profiles: Sequence[MeterProfile], _stores: LmnStores) -> None:
        self._clients = {profile.device: _client(profile) for profile in profiles}

    async def ask(self, stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
        """As `PollSession.ask`."""
        faults: list[Reading | RemoteProtocolError] = []
        client = self._clients[profile.device]
        link = SmlLink(stream, datetimes(clock), on_error=faults.append)
        # Registers that are known are asked for by name [REQ.SML.CLI.RequestMeterData.10]; a list tells what there is.
        exchange = client.request_meter_data(profile.registers) if profile.registers else client.get_list()
        timeout_s = _ANSWER_TIMEOUT_S + (parse_link(profile.link).latency_s or 0.0)
        return [*await link.ask_readings(exchange, timeout_s), *faults]


class SmlPush:
    """What the meters of a line push; nothing is remembered."""

    def __init__(self, profiles: Sequence[MeterProfile], _stores: LmnStores) -> None:
        self._silence_s = max(profile.silence_s for profile in profiles)

    async def listen(self, stream: trio.abc.Stream, clock: Clock) -> AsyncGenerator[Batch, None]:
        """As `PushSession.listen`."""
        faults: list[Reading | RemoteProtocolError] = []
        link = SmlLink(stream, datetimes(clock), on_error=faults.append)
        while True:
            readings: list[Reading] = []
            try:
                readings = await link.next_pushed(self._silence_s)
            except RemoteProtocolError:
                # What was heard and could not be read is reported too; silence follows at the next turn.
                if not faults:
                    raise
            batch, faults[:] = [*faults, *readings], []
            yield batch


async def _find(stream: trio.abc.Stream, profile: MeterProfile, _: LmnStores, clock: Clock) -> list[Discovered]:
    """The objects that answer to the names in the meter's list, as a gateway asks for them."""
    client, link = _client(profile), SmlLink(stream, datetimes(clock))
    listed = await link.ask_readings(client.get_list(), _ANSWER_TIMEOUT_S)
    answered = await link.ask_readings(client.discover_objects(listed), _ANSWER_TIMEOUT_S)
    return [
        Discovered(str(each.obis), f"class={register_class(each.obis)} unit={unit_symbol(each.unit or 0)}")
        for each in answered
        if each.obis is not None
    ]


SML: Final = Driver("sml", SmlPoll, SmlPush, _find)
