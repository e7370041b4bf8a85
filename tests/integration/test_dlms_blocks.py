"""Long messages of DLMS: lists and parameters in blocks, windows of general blocks, and blocks that get lost."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from loadtest.meters.dlms import DlmsServer, ServerSettings, serve_wrapper
from loadtest.meters.dlms_objects import MESSAGE, CosemObjects
from node.lmn.dlms import apdu
from node.lmn.dlms.acse import Mechanism
from node.lmn.dlms.axdr import octets
from node.lmn.dlms.block_transfer import receive_blocks
from node.lmn.dlms.client import DEFAULT_CONFORMANCE, Association, Conformance, DlmsClient
from node.lmn.dlms.driver import MeterSession, MeterSettings
from node.lmn.dlms.fields import Attribute
from node.lmn.dlms.security import Keys
from node.lmn.dlms.transport import WrapperTransport
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
REGISTERS = [(Obis(1, 0, 1, 8, e, 255), 1000 + e, 0, 30) for e in range(64)]
KEYS = Keys(bytes(range(16)), bytes(range(16, 32)))
SECURE = (
    Association(Mechanism.HLS_GMAC, b"clientchallenge1", keys=KEYS, system_title=b"SMG\x00\x00\x00\x00\x01"),
    ServerSettings(Mechanism.HLS_GMAC, b"meterchallenge01", keys=KEYS, system_title=b"STK\x00\x00\x00\x00\x01"),
)
PLAIN = (Association(), ServerSettings())
MESSAGE_VALUE = Attribute(1, MESSAGE, 2)
SILENCE = RemoteProtocolError("dlms_timeout", "nothing came")


def meter(server: ServerSettings) -> DlmsServer:
    return DlmsServer(CosemObjects("1STK0000000001", lambda _: REGISTERS, lambda: NOON), server)


def talk(conversation: Any, server: DlmsServer, lose: Callable[[], bool] = lambda: False, turns_max: int = 2000) -> Any:
    """Hold a conversation with a meter over a way that loses packets in both directions."""
    waiting = []
    try:
        request = next(conversation)
        for _ in range(turns_max):
            if request and not lose():
                waiting = [answer for answer in server.answer(request) if not lose()]
            elif request:
                waiting = []
            request = conversation.send(waiting.pop(0)) if waiting else conversation.throw(SILENCE)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("an endless conversation")


@pytest.mark.parametrize("ways", [PLAIN, SECURE], ids=["plain", "hls-gmac"])
@pytest.mark.parametrize("general_block", [False, True])
def test_lists_that_are_longer_than_a_message(ways: tuple[Association, ServerSettings], general_block: bool) -> None:
    association, its_settings = ways
    server = meter(replace(its_settings, pdu_size_max=256, general_block=general_block, block_window=4))
    client = DlmsClient(association)
    talk(client.associate(), server)
    wanted = [Attribute(3, code, 2) for code, *_ in REGISTERS]
    results = talk(client.get_list([*wanted, Attribute(3, Obis(9, 9, 9, 9, 9, 9), 2)]), server)
    assert [data.value for data in results[:-1]] == [value for _, value, *_ in REGISTERS]
    assert results[-1] == 4
    assert talk(client.set_list([(MESSAGE_VALUE, octets(bytes(n))) for n in (1, 700, 20)]), server) == [0, 0, 0]
    assert server.objects.message == octets(bytes(20))
    assert talk(client.set_list([(wanted[0], octets(b"x")), (MESSAGE_VALUE, octets(b"y"))]), server) == [3, 0]


def test_parameters_of_a_method_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    server = meter(ServerSettings(pdu_size_max=128))
    client = DlmsClient(Association())
    talk(client.associate(), server)
    heard = []
    monkeypatch.setattr(server.objects, "action", lambda *what: heard.append(what) or (0, octets(b"done")))
    long, method = octets(bytes(n % 251 for n in range(1000))), Attribute(18, Obis(0, 0, 44, 0, 0, 255), 2)
    assert talk(client.action(method, long), server) == octets(b"done")
    assert heard == [(method, long)]


@pytest.mark.parametrize("window", [1, 3, 8, 30])
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.3]))
def test_general_blocks_arrive_through_losses_in_both_directions(window: int, seed: int, loss: float) -> None:
    """A long get and a long set under ciphering: either all of it arrives, or an error; nothing is done twice."""
    association, server_settings = SECURE
    conformance = DEFAULT_CONFORMANCE & ~(Conformance.BLOCK_SET | Conformance.BLOCK_GET)
    server = meter(replace(server_settings, pdu_size_max=128, general_block=True, block_window=window))
    client = DlmsClient(replace(association, conformance=conformance))
    talk(client.associate(), server)
    rng, sets, original = Random(seed), [], server.objects.set
    server.objects.set = lambda *what: sets.append(what) or original(*what)  # type: ignore[method-assign]
    text = octets(bytes(n % 251 for n in range(2000)))
    failed = ""
    try:
        talk(client.set(MESSAGE_VALUE, text), server, lambda: rng.random() < loss)
        assert talk(client.get(MESSAGE_VALUE), server, lambda: rng.random() < loss) == text
    except RemoteProtocolError as error:
        failed = error.reason
    assert failed in ({"", "dlms_timeout", "dlms_block_number"} if loss else {""})
    assert sets == [(MESSAGE_VALUE, text)] or (failed and not sets)


@pytest.mark.parametrize("lost", range(1, 12))
@pytest.mark.parametrize("window", [1, 4])
def test_one_lost_block_anywhere_is_asked_for_again(lost: int, window: int) -> None:
    server = meter(ServerSettings(pdu_size_max=128, general_block=True, block_window=window))
    client = DlmsClient(Association())
    talk(client.associate(), server)
    server.objects.message = octets(bytes(n % 251 for n in range(1000)))
    passed = iter(range(1000))
    # The request and the first block pass: a get whose beginning is lost is not repeated, it is asked anew.
    assert talk(client.get(MESSAGE_VALUE), server, lambda: next(passed) == lost + 1) == server.objects.message


def test_a_meter_that_streams_the_same_block_for_ever_is_given_up() -> None:
    block = apdu.GeneralBlock(0x41, 7, 0, b"again").to_bytes()
    conversation = receive_blocks(block, 0)
    next(conversation)
    with pytest.raises(RemoteProtocolError, match="dlms_block_number"):
        [conversation.send(block) for _ in range(1000)]


def test_a_meter_whose_messages_are_too_small_for_anything_is_refused() -> None:
    """Found by reading: a PDU size below the blocks' own overhead made a negative step, and that a ValueError."""
    with pytest.raises(RemoteProtocolError, match="dlms_association"):
        talk(DlmsClient(Association()).associate(), meter(ServerSettings(pdu_size_max=20)))


class Lossy(trio.abc.Stream):
    """Swallows the n-th packet."""

    def __init__(self, stream: trio.abc.Stream, lost: int) -> None:
        self._stream, self._lost, self._count = stream, lost, 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._count += 1
        if self._count != self._lost:
            await self._stream.send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@pytest.mark.parametrize("lost", [4, 6, 9])
async def test_a_block_lost_behind_a_gateway_costs_one_time_out(lost: int, autojump_clock: MockClock) -> None:
    server = meter(ServerSettings(pdu_size_max=128, general_block=True, block_window=4))
    server.objects.message = octets(bytes(n % 251 for n in range(1000)))
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_wrapper, server, Lossy(theirs, lost))
        session = MeterSession(WrapperTransport(ours), MeterSettings("1STK0000000001", exchange_timeout_s=5))
        await session.open()
        assert await session.get(1, MESSAGE, 2) == server.objects.message
        assert [
            getattr(item, "value", item) for item in await session.get_list([Attribute(3, REGISTERS[1][0], 2)])
        ] == [1001]
        assert await session.set_list([(MESSAGE_VALUE, octets(b"short"))]) == [0]
        await session.close()
        nursery.cancel_scope.cancel()
