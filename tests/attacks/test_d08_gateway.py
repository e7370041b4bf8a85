"""D8 at the gateway: what it remembers of the beacon over restarts, and which lists it shows no value for."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from loadtest.ring import RingSize, make_ring
from node.aggregation.beacon import Beacon, CrowdPolicy
from node.aggregation.spot_checks import SpotChecks
from node.storage.cipher import StorageCipher
from node.storage.engine import Statement, Store
from node.storage.errors import StoreError
from node.storage.repositories.beacon import BeaconRepository, Since
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.setup.beacon import ListEntry, commit, list_digest
from protocol.dcnet.setup.crowd import DAY_S
from protocol.dcnet.setup.epoch import call_digest, list_text
from protocol.dcnet.setup.rings import Timing
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from protocol.errors import RemoteProtocolError

ME = "ESTK0000000001"
NOW_S = 1_772_366_400.0
SUITE = StandardSuite()
SIGNING = SUITE.signing_key(bytes(range(32)))
CALL = wire.EpochCall(
    epoch=7, try_=0, area="north", split_bits=0, part=0, rejected=(), schema=DEFAULT_SCHEMA.to_bytes(), rounds=32,
    start_ms=round(NOW_S + 900) * 1000, period_ms=900_000, interval_start_s=round(NOW_S + 900), interval_s=900,
    ring_size=64, corrupt_ppm=50_000, dropout_ppm=50_000, fuse_a=63, price_sheets=(),
)  # fmt: skip
OTHERS = tuple(f"ESTK9{index:09}" for index in range(60))


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def gateway(
    path: Path, clock: Callable[[], float], policy: CrowdPolicy | None = None, *, is_first: bool = True,
    since_s: float = NOW_S, seed: int = 1,
) -> AsyncIterator[Beacon]:  # fmt: skip
    """One process of the gateway over the store in `path`."""
    store = Store(path / "registers.sqlite", StorageCipher(bytes(32)))
    repository = BeaconRepository(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        await repository.begin(ME, Since(round(since_s * 1000), is_first))
        verify = partial(SUITE.verify, SIGNING[32:])
        yield Beacon(ME, repository, policy or CrowdPolicy(), verify, random.Random(seed).randbytes, clock)
        nursery.cancel_scope.cancel()
    store.close()


def listed(call: wire.EpochCall, mine: bytes, others: tuple[str, ...] = OTHERS) -> wire.EpochList:
    entries = [ListEntry(ME, mine, b"j" * 32)]
    entries += [ListEntry(each, commit(each, call.epoch, call.try_, bytes(32)), b"j" * 32) for each in others]
    text = list_text(list_digest(call_digest(call), entries))
    rows = tuple((each.identity, each.commitment, each.join_digest) for each in entries)
    return wire.EpochList(call.epoch, call.try_, rows, SUITE.sign(SIGNING, text))


def lines(count: int, first: int = 0) -> list[ListEntry]:
    """Ours and others', as a list has them."""
    names = [ME, *(f"ESTK9{index:09}" for index in range(first, first + count - 1))]
    return [ListEntry(each, bytes(32), bytes(32)) for each in names]


async def refusal(beacon: Beacon, call: wire.EpochCall, message: wire.EpochList) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        await beacon.reveal(call, message)
    return caught.value.reason


async def draw(beacon: Beacon, call: wire.EpochCall, others: tuple[str, ...] = OTHERS) -> wire.BeaconReveal:
    commitment = (await beacon.join(call)).commitment(ME)
    reveal, _ = await beacon.reveal(call, listed(call, commitment, others))
    return reveal


async def test_a_restarted_process_shows_the_same_value_for_the_same_list_only(tmp_path: Path) -> None:
    clock = Clock()
    async with gateway(tmp_path, clock) as beacon:
        commitment = (await beacon.join(CALL)).commitment(ME)
    async with gateway(tmp_path, clock, seed=2) as beacon:  # between JOIN and LIST
        assert (await beacon.join(CALL)).commitment(ME) == commitment
        message = listed(CALL, commitment)
        reveal, entries = await beacon.reveal(CALL, message)
        assert commit(ME, 7, 0, reveal.value) == commitment
        assert len(entries) == 61
    async with gateway(tmp_path, clock, seed=3) as beacon:  # between REVEAL and LAYOUT
        assert (await beacon.join(CALL)).commitment(ME) == commitment
        assert (await beacon.reveal(CALL, message))[0] == reveal
        assert await refusal(beacon, CALL, listed(CALL, commitment, OTHERS[1:])) == "second_list"
        assert await refusal(beacon, replace(CALL, rounds=31), listed(replace(CALL, rounds=31), commitment)) == (
            "second_list"
        )


async def test_what_is_not_durable_is_neither_promised_nor_shown(tmp_path: Path) -> None:
    clock = Clock()
    async with gateway(tmp_path, clock) as beacon:
        commitment = (await beacon.join(CALL)).commitment(ME)
        beacon.repository._store._stopped = True
        with pytest.raises(StoreError):
            await beacon.join(replace(CALL, try_=1))
        with pytest.raises(StoreError):
            await beacon.reveal(CALL, listed(CALL, commitment))
    async with gateway(tmp_path, clock) as beacon:
        assert beacon.repository.load(ME, 7, 1) is None
        other = listed(CALL, commitment, OTHERS[2:])
        assert (await beacon.reveal(CALL, other))[0].list_digest, "the first list was shown nothing"


async def test_lists_by_another_key_of_another_part_or_of_no_try_get_no_value(tmp_path: Path) -> None:
    async with gateway(tmp_path, Clock()) as beacon:
        assert await refusal(beacon, CALL, listed(CALL, bytes(32))) == "uncalled_list"
        commitment = (await beacon.join(CALL)).commitment(ME)
        message = listed(CALL, commitment)
        assert await refusal(beacon, CALL, replace(message, signature=bytes(64))) == "bad_signature"
        assert await refusal(beacon, CALL, replace(message, entries=message.entries[:-1])) == "bad_signature"
        assert await refusal(beacon, CALL, listed(CALL, bytes(32))) == "not_listed"
        rejecting = replace(CALL, try_=1, rejected=(OTHERS[0],))
        mine = (await beacon.join(rejecting)).commitment(ME)
        assert await refusal(beacon, rejecting, listed(rejecting, mine)) == "rejected_member"


async def test_eight_values_a_day_over_all_epochs_tries_and_restarts(tmp_path: Path) -> None:
    """D8: epochs that were abandoned count, and so does what another process has shown."""
    clock = Clock()
    for index in range(8):
        async with gateway(tmp_path, clock) as beacon:
            await draw(beacon, replace(CALL, epoch=7 + index // 2, try_=index % 2))
        clock.now_s += 600
    async with gateway(tmp_path, clock) as beacon:
        with pytest.raises(RemoteProtocolError, match="reveals_spent"):  # not even joined: nobody waits for our value
            await beacon.join(replace(CALL, epoch=20))
        assert (await draw(beacon, replace(CALL, epoch=10, try_=1))).value, "a value that was shown is sent again"
        clock.now_s = NOW_S + DAY_S + 1
        await draw(beacon, replace(CALL, epoch=20))
        with pytest.raises(RemoteProtocolError, match="reveals_spent"):
            await beacon.join(replace(CALL, epoch=21))


async def test_a_value_promised_while_there_was_budget_is_not_shown_without(tmp_path: Path) -> None:
    """Only the newest try is kept while its value is not shown, and the budget is looked at again when it is."""
    clock = Clock()
    async with gateway(tmp_path, clock) as beacon:
        calls = [replace(CALL, epoch=7, try_=index) for index in range(3)]
        tries = [await beacon.join(call) for call in calls]
        for call, mine in zip(calls[:2], tries[:2], strict=True):
            assert await refusal(beacon, call, listed(call, mine.commitment(ME))) == "uncalled_list"
        message = listed(calls[2], tries[2].commitment(ME))
        since = Statement("UPDATE gateway_since SET is_first=0", ())
        spent = Statement("INSERT INTO beacon_try VALUES (?, 6, 0, x'', x'', ?)", (ME, round(NOW_S * 1000)))
        await beacon.repository._store.write([since, spent])
        assert await refusal(beacon, calls[2], message) == "reveals_spent"


async def test_a_store_that_is_younger_than_the_key_shows_one_value_in_a_day(tmp_path: Path) -> None:
    """D8 with D2: the store that knew the other seven was moved away, or an older one put back."""
    clock = Clock()
    async with gateway(tmp_path, clock, is_first=False) as beacon:
        await draw(beacon, CALL)
        seen = [beacon.is_spent]
        with pytest.raises(RemoteProtocolError, match=r"reveals_spent: 1 values .* 1 at most"):
            await beacon.join(replace(CALL, epoch=8))
        seen.append(beacon.is_spent)
        clock.now_s += DAY_S
        for epoch in range(8, 16):
            await draw(beacon, replace(CALL, epoch=epoch))
        assert [*seen, beacon.is_spent] == [False, True, False]


async def test_under_a_time_lapse_the_day_is_one_of_metering_time(tmp_path: Path) -> None:
    clock = Clock()
    lapse = replace(CALL, period_ms=1000)
    async with gateway(tmp_path, clock) as beacon:
        for epoch in range(8):
            await draw(beacon, replace(lapse, epoch=epoch))
        clock.now_s += 95
        with pytest.raises(RemoteProtocolError, match="reveals_spent"):
            await beacon.join(replace(lapse, epoch=8))
        clock.now_s += 1.1  # 96 quarter hours of a second each
        await draw(beacon, replace(lapse, epoch=8))


async def test_an_area_that_lost_a_fifth_gets_no_value_unless_confirmed(tmp_path: Path) -> None:
    """D8 (a): the CA puts one household among four gateways of its own; it has been among 61."""
    clock = Clock()
    async with gateway(tmp_path, clock) as beacon:
        await draw(beacon, CALL)
        await beacon.layout_held(CALL, lines(61))
        smaller = replace(CALL, epoch=8)
        mine = (await beacon.join(smaller)).commitment(ME)
        assert await refusal(beacon, smaller, listed(smaller, mine, OTHERS[:47])) == "area_shrunk"
        assert await refusal(beacon, smaller, listed(smaller, mine, OTHERS[:4])) == "area_shrunk"
        assert (await beacon.reveal(smaller, listed(smaller, mine, OTHERS[:48])))[0]
    async with gateway(tmp_path, clock, CrowdPolicy(area_size_confirmed=5)) as beacon:
        await draw(beacon, replace(CALL, epoch=9), OTHERS[:4])
    async with gateway(tmp_path, clock) as beacon:
        later = replace(CALL, epoch=10, interval_start_s=CALL.interval_start_s + 91 * DAY_S)
        await draw(beacon, later, OTHERS[:4])  # what was seen 91 days ago is forgotten


async def test_pins_compare_whole_areas_whatever_their_parts(tmp_path: Path) -> None:
    """A coordinator cannot halve the crowd by splitting: a part counts 2^d times."""
    async with gateway(tmp_path, Clock()) as beacon:
        await beacon.layout_held(replace(CALL, split_bits=2), lines(60))
        assert beacon._pins(CALL).largest == 240
        with pytest.raises(RemoteProtocolError, match="area_shrunk"):
            beacon._pins(CALL).check(95, 1, 95)
        beacon._pins(CALL).check(96, 1, 96)


async def test_a_list_alone_moves_no_pin(tmp_path: Path) -> None:
    """Else a list of a thousand invented ids would bar a gateway from its own area for 90 days."""
    async with gateway(tmp_path, Clock()) as beacon:
        await draw(beacon, CALL)
        assert beacon._pins(CALL).largest == 0


async def test_values_are_sealed_on_disk_until_they_are_shown(tmp_path: Path) -> None:
    async with gateway(tmp_path, Clock()) as beacon:
        value = (await beacon.join(CALL)).value
        assert all(value not in path.read_bytes() for path in tmp_path.iterdir())


# --- known ids ----------------------------------------------------------------------------------------------------


async def test_a_list_with_a_third_of_unknown_ids_gets_no_value_for_a_day(tmp_path: Path) -> None:
    """D8 (a): certified inventions have to be announced a day ahead, and 30 % at a time."""
    clock = Clock()
    async with gateway(tmp_path, clock) as beacon:
        await draw(beacon, CALL, OTHERS[:41])
        await beacon.layout_held(CALL, lines(42))
        grown = replace(CALL, epoch=8)
        mine = (await beacon.join(grown)).commitment(ME)
        assert (await beacon.reveal(grown, listed(grown, mine, OTHERS[:59])))[0], "18 of 60 are new"
        grown = replace(CALL, epoch=9)
        mine = (await beacon.join(grown)).commitment(ME)
        assert await refusal(beacon, grown, listed(grown, mine, OTHERS[:60])) == "unknown_members"
        clock.now_s += DAY_S - 1
        assert await refusal(beacon, grown, listed(grown, mine, OTHERS[:60])) == "unknown_members"
    async with gateway(tmp_path, clock) as beacon:
        clock.now_s += 1
        mine = (await beacon.join(grown)).commitment(ME)
        assert (await beacon.reveal(grown, listed(grown, mine, OTHERS[:60])))[0], "listed a day ago, if in vain"


async def test_ids_become_known_in_metering_time_and_the_newest_list_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    lapse = replace(CALL, period_ms=1000)
    async with gateway(tmp_path, clock) as beacon:
        await beacon.layout_held(lapse, lines(10))
        assert await beacon._note_listed(lapse, lines(20)) == 10
        clock.now_s += 95.9
        assert await beacon._note_listed(lapse, lines(20)) == 10
        clock.now_s += 0.2
        assert await beacon._note_listed(lapse, lines(20)) == 20
        for first in range(0, 6000, 1000):
            await beacon._note_listed(lapse, lines(1001, first))
        kept = beacon.repository.listed_ms(ME)
        assert len(kept) == 4096
        assert all(each.identity in kept for each in lines(1001, 5000))


# --- spot checks -----------------------------------------------------------------------------------------------------


def test_the_draw_of_spot_checks_stays_and_asks_for_other_rings_alone() -> None:
    view = make_ring(SUITE, RingSize(6, 5, 3, 3, 3, 4), bytes(32), Timing.spread(1.0, 10.0))[0]
    entries = [ListEntry(each.identity, bytes(32), bytes(32)) for each in view.members] + lines(30)
    layout = wire.EpochLayout(7, 0, (), 0, (), (), bytes(32))
    check = SpotChecks(CALL, entries, layout, view, 2, random.Random(3).getrandbits)
    request = check.request()
    assert check.request() == request
    assert sorted(request.members) == sorted(each.identity for each in lines(30)), "30 of other rings, 61 wanted"
    with pytest.raises(RemoteProtocolError, match="spot_check_unanswered"):
        check.verify(wire.SpotCheckAnswer(7, 0, ()), lambda *_: None)
