"""Copies of gateways' disks that run beside them, and a head and coordinator that play them against the ring (D3)."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from loadtest.ring import RingSize, lay_out
from loadtest.simulator import run
from loadtest.simulator.checks import Violation
from loadtest.simulator.exposure import ExposureLog, PrivacyBroken, Process, _pair, _Share
from loadtest.simulator.faults import CALM
from loadtest.simulator.gateway import Gateway
from loadtest.simulator.run import Scenario, play
from loadtest.simulator.suite import CheapSuite
from loadtest.simulator.world import World
from protocol.dcnet.machines.incarnations import NONCES_MAX, Incarnation, NonceTable
from protocol.dcnet.machines.member_attempt import Place
from protocol.dcnet.setup.rings import bitmap

COPIES = Scenario(gateways=16, rounds=12, liar="copies")


@pytest.mark.parametrize(("gateways", "seeds"), [(8, 12), (16, 5), (24, 3)])
def test_copies_beside_their_gateways_show_no_reading_twice(gateways: int, seeds: int) -> None:
    """Complete rings and one in which not everybody is a neighbour."""
    played = [play(seed, replace(COPIES, gateways=gateways)) for seed in range(seeds)]
    assert all(each.tally.copies >= 2 for each in played)
    assert min(each.smallest_sum for each in played) < gateways, "the head opened nothing, so nothing was shown"


def test_copies_with_the_real_primitives_show_no_reading_twice() -> None:
    assert play(0, replace(COPIES, gateways=8, real=True)).tally.copies == 2


def test_copies_that_have_their_gateways_nonces_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As copies of its memory, or as all of them in the first edition: what both masked is a reading apart."""
    boot = World._boot

    def with_the_first_nonce(world: World, gateway: Gateway) -> None:
        gateway.processes = 0
        boot(world, gateway)

    monkeypatch.setattr(World, "_boot", with_the_first_nonce)
    with pytest.raises(Violation, match="used its masks of round"):
        [play(seed, COPIES) for seed in range(12)]


def test_members_that_take_any_nonce_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NonceTable, "check", lambda *_: None)
    seen = [_broken(seed) for seed in range(12)]
    for broken in ("that it had replaced before", "that no process of it has"):
        assert any(broken in (each or "") for each in seen), seen


def _broken(seed: int) -> str | None:
    try:
        play(seed, COPIES)
    except Violation as violation:
        return str(violation)
    return None


def test_a_nonce_after_too_many_others_is_seen() -> None:
    world = World(CheapSuite(), run.ring_size(COPIES), 1, CALM)
    known = Incarnation(CheapSuite(), world.view, 0, world.view.members[0].nonce)
    for position, member in enumerate(world.view.members):
        world.checks.started(position, member.nonce)
    for count in range(NONCES_MAX):
        world.checks.masked(0, known, 0, count)
        known.newest[1] = count.to_bytes(16, "little")
        world.checks.started(1, known.newest[1])
    with pytest.raises(Violation, match=f"after {NONCES_MAX} others"):
        world.checks.masked(0, known, 1, 0)


def test_copies_in_a_ring_without_thresholds_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    size = run.ring_size
    monkeypatch.setattr(run, "ring_size", lambda scenario: replace(size(scenario), t_c=0))
    monkeypatch.setattr(Place, "check_members", lambda *_: None)
    with pytest.raises(PrivacyBroken, match=r"came open|in two opened sums"):
        [play(seed, COPIES) for seed in range(12)]


VIEW = lay_out(CheapSuite(), RingSize(7, 6, t=1, t_c=1, k_min=1, n_min=4), bytes(32))[0]
FIRST, SECOND = VIEW.members[6].nonce, b"another process!"


def camp(members: Collection[int], nonce: bytes) -> dict[Process, _Share]:
    """The shares of some members and of the gateway at 6, which they take to be this process."""
    nonces = (*(each.nonce for each in VIEW.members[:6]), nonce)
    expected = bitmap([*members, 6])
    return {Process(i, nonces[i]): _Share(expected, nonces) for i in (*members, 6)}


def test_a_reading_that_two_copies_show_in_two_sums_is_seen() -> None:
    log = ExposureLog(VIEW, set())
    attempt = log._attempt(0, 0)
    attempt.shared = camp([0, 1, 2], FIRST) | camp([3, 4, 5], SECOND)
    attempt.opened = set(attempt.shared)
    with pytest.raises(PrivacyBroken, match="a reading is in two opened sums"):
        log.close()


def test_a_mask_towards_another_copy_closes_the_share_that_has_it() -> None:
    """Member 0 masked towards the second copy, all others of the sum with the first."""
    log = ExposureLog(VIEW, set())
    attempt = log._attempt(0, 0)
    nonces = (*(each.nonce for each in VIEW.members[:6]), SECOND)
    attempt.shared = camp(range(6), FIRST)
    alone = Process(0, nonces[0])
    attempt.shared[alone] = _Share(VIEW.everybody, nonces)
    attempt.opened = set(attempt.shared)
    assert log._open_components(attempt) == []
    attempt.given_away = {_pair(alone, Process(6, SECOND)), _pair(alone, Process(6, FIRST))}
    assert log._open_components(attempt) == [set(range(7))]


def test_what_a_corrupt_member_knows_links_nobody() -> None:
    log = ExposureLog(VIEW, {6})
    attempt = log._attempt(0, 0)
    attempt.shared = camp([0, 1, 2], FIRST) | camp([3, 4, 5], SECOND)
    attempt.opened = {each for each in attempt.shared if each.position < 3}
    assert log._open_components(attempt) == [{0, 1, 2}]
