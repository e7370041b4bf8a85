"""How a part of an area draws its rings: joins, one list, all values or another try, a restart between the steps."""

from dataclasses import replace
from functools import partial

import pytest

from coordinator.epoch_config import EpochConfig
from coordinator.events import To
from coordinator.rings.areas import SETTLE_S, Areas
from coordinator.rings.epochs import AreaEpoch, Phase
from coordinator.rings.part import Stage
from loadtest.coordination import bare_join, commitment_of, join_all, lay_out, make_areas, reveal_all, value_of
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.setup.beacon import check_values
from protocol.dcnet.setup.crowd import DAY_S, part_of
from protocol.dcnet.setup.epoch import check_epoch_list, entries_of, list_text
from protocol.errors import RemoteProtocolError

NOW_S = 1_772_000_000.0
SUITE = StandardSuite()
LIST_KEY = SUITE.verify_key(b"l" * 32)
NAMES = [f"ESTK{index:010}" for index in range(8)]


def called(names: list[str] = NAMES, config: EpochConfig | None = None) -> tuple[Areas, AreaEpoch]:
    """An area whose first round is a quarter of an hour away at least: there is time for another try."""
    areas = make_areas(config or EpochConfig(dropout=0.1))
    for name in names:
        areas.arrive(areas.areas["north"], name, NOW_S)
    ((_, epoch),) = areas.call_due(NOW_S + SETTLE_S)
    start_ms = epoch.call.start_ms + 3_600_000
    for part in epoch._parts:
        part.call = replace(part.call, start_ms=start_ms)
    return areas, epoch


def restarted(epoch: AreaEpoch, now_s: float) -> AreaEpoch:
    return AreaEpoch.from_state(SUITE, epoch.to_state(), [], now_s, partial(SUITE.sign, SUITE.signing_key(b"l" * 32)))


def lists(messages: list[To]) -> dict[str, wire.EpochList]:
    return {to.identity: to.message for to in messages if isinstance(to.message, wire.EpochList)}


def reveal(epoch: AreaEpoch, name: str) -> wire.BeaconReveal:
    part = epoch.part_for(name)
    return wire.BeaconReveal(part.call.epoch, part.call.try_, part.list_digest, value_of(name))


def test_a_list_is_made_once_all_have_joined_and_is_signed() -> None:
    _, epoch = called()
    assert join_all(epoch, NAMES[:-1], NOW_S + 3) == []
    out = join_all(epoch, NAMES[-1:], NOW_S + 3)
    shown = lists(out)
    assert set(shown) == set(NAMES)
    (message,) = set(shown.values())
    call = epoch.part_for(NAMES[0]).call
    assert check_epoch_list(call, message, lambda text, signature: SUITE.verify(LIST_KEY, text, signature))
    assert SUITE.verify(LIST_KEY, list_text(epoch.part_for(NAMES[0]).list_digest), message.signature)
    assert [each[0] for each in message.entries] == NAMES
    out = reveal_all(epoch, NAMES, NOW_S + 4)
    layouts = [to.message for to in out if isinstance(to.message, wire.EpochLayout)]
    assert len(layouts) == 8
    check_values(entries_of(message), 0, 0, layouts[0].values)


def test_a_join_counts_once_and_only_in_its_try() -> None:
    _, epoch = called()
    part = epoch.part_for(NAMES[0])
    first = bare_join()(part.call, NAMES[0])
    epoch.join(NAMES[0], first, NOW_S)
    epoch.join(NAMES[0], replace(first, commitment=bytes(32)), NOW_S)
    assert part.joined[NAMES[0]] == first
    epoch.join(NAMES[1], replace(bare_join()(part.call, NAMES[1]), try_=1), NOW_S)
    assert NAMES[1] not in part.joined


def test_a_withheld_value_makes_everybody_else_commit_afresh() -> None:
    """D8: nobody's value is used twice, and who withholds is left out instead of choosing among orders."""
    _, epoch = called()
    join_all(epoch, NAMES, NOW_S + 3)
    assert reveal_all(epoch, NAMES[1:], NOW_S + 4) == []
    assert epoch.phase is Phase.CALLED
    out = epoch.on_timer(epoch.next_timer_s())
    (call,) = {to.message for to in out if isinstance(to.message, wire.EpochCall)}
    assert (call.try_, call.rejected) == (1, (NAMES[0],))
    assert commitment_of(call, NAMES[1]) != commitment_of(replace(call, try_=0), NAMES[1])
    assert join_all(epoch, NAMES[:1], NOW_S + 400) == [], "a rejected gateway cannot join"
    out = lay_out(epoch, NAMES[1:], NOW_S + 400)
    layouts = [to.message for to in out if isinstance(to.message, wire.EpochLayout)]
    assert {each.try_ for each in layouts} == {1}
    assert sorted(to.identity for to in out) == NAMES[1:]
    assert epoch.invite(NAMES[0]) == []


def test_values_of_an_earlier_try_and_false_ones_are_not_used() -> None:
    _, epoch = called()
    join_all(epoch, NAMES, NOW_S + 3)
    old = reveal(epoch, NAMES[2])
    with pytest.raises(RemoteProtocolError, match="wrong_values"):
        epoch.reveal(NAMES[3], replace(reveal(epoch, NAMES[3]), value=bytes(32)), NOW_S + 4)
    with pytest.raises(RemoteProtocolError, match="not_listed"):
        epoch.reveal("ESTK9999999999", old, NOW_S + 4)
    reveal_all(epoch, NAMES[1:], NOW_S + 4)
    epoch.on_timer(epoch.next_timer_s())
    join_all(epoch, NAMES[1:], NOW_S + 400)
    assert epoch.reveal(NAMES[2], old, NOW_S + 401) == []
    assert len(epoch.part_for(NAMES[2])._collector.missing) == 7  # type: ignore[union-attr]


def test_nobody_is_left_out_where_most_values_are_missing() -> None:
    """It is the coordinator's own network then; left out, they would not come back for hours."""
    _, epoch = called()
    join_all(epoch, NAMES, NOW_S + 3)
    reveal_all(epoch, NAMES[:3], NOW_S + 4)
    out = epoch.on_timer(epoch.next_timer_s())
    assert {(to.message.try_, to.message.rejected) for to in out if isinstance(to.message, wire.EpochCall)} == {(1, ())}


def test_without_time_for_a_try_the_epoch_is_called_without_withholders() -> None:
    areas, epoch = called()
    for part in epoch._parts:
        part.call = replace(part.call, start_ms=round(NOW_S * 1000))
    join_all(epoch, NAMES, NOW_S + 3)
    reveal_all(epoch, NAMES[1:], NOW_S + 4)
    out = epoch.on_timer(epoch.next_timer_s())
    assert epoch.phase is Phase.REFUSED
    (reason,) = {to.message.reason for to in out if isinstance(to.message, wire.Refused)}
    assert reason == f"1 of 8 gateways of area north showed no value in time, {NAMES[0]} among them"
    later_s = NOW_S + 2000
    assert areas.drop_finished(later_s, set()) == [epoch]
    ((_, again),) = areas.call_due(later_s + 900)
    assert again.part_for(NAMES[1]).call.rejected == (NAMES[0],)
    again.on_timer(again.next_timer_s())
    assert again.phase is Phase.REFUSED, "nobody joined"
    areas.drop_finished(later_s + 900, set())
    ((_, third),) = areas.call_due(later_s + 1800)
    assert third.part_for(NAMES[1]).call.rejected == ()


@pytest.mark.parametrize("steps", range(5))
def test_a_restart_between_any_two_steps_goes_on_with_the_try(steps: int) -> None:
    """Call, joins, list, some values, all values: what gateways say again after their greeting is the very same."""
    _, epoch = called()
    now_s = NOW_S + 3
    before: set[wire.EpochList] = set()
    if steps >= 1:
        join_all(epoch, NAMES[:4], now_s)
    if steps >= 2:
        before = set(lists(join_all(epoch, NAMES[4:], now_s)).values())
    if steps >= 3:
        reveal_all(epoch, NAMES[:5], now_s)
    if steps >= 4:
        reveal_all(epoch, NAMES[5:], now_s)
    layouts = epoch._layouts
    epoch = restarted(epoch, now_s + 1)
    greetings = [to for name in NAMES for to in epoch.invite(name)]
    assert {to.message for to in greetings if isinstance(to.message, wire.EpochCall)} == {epoch.part_for("x").call}
    if steps < 2:
        assert epoch.part_for(NAMES[0]).stage is Stage.JOINING
        out = lay_out(epoch, NAMES, now_s + 2)
    else:
        assert set(lists(greetings).values()) == before, "no second list"
        out = reveal_all(epoch, NAMES, now_s + 2)
    assert epoch.phase is (Phase.RUNNING if steps == 4 else Phase.DEALING)
    if steps == 4:
        assert epoch._layouts == layouts
    else:
        assert sorted(to.identity for to in out) == NAMES


def test_a_restart_waits_for_those_who_were_called_before_it() -> None:
    _, epoch = called()
    epoch = restarted(epoch, NOW_S + 100)
    assert epoch.next_timer_s() > NOW_S + 100
    assert join_all(epoch, NAMES[:7], NOW_S + 101) == [], "the eighth was called too"
    assert lists(epoch.on_timer(epoch.next_timer_s())).keys() == set(NAMES[:7])


def test_who_was_rejected_or_is_not_listed_is_waited_for_by_nobody() -> None:
    _, epoch = called()
    join_all(epoch, NAMES, NOW_S + 3)
    assert epoch.invite("ESTK9999999999") == [], "it came after the list"
    reveal_all(epoch, NAMES[1:], NOW_S + 4)
    epoch.on_timer(epoch.next_timer_s())
    call = epoch.part_for(NAMES[0]).call
    assert epoch.invite(NAMES[0]) == [To(NAMES[0], call)], "it reads there that it is left out"
    assert lists(join_all(epoch, NAMES[1:], NOW_S + 400)), "and the list is made without it"


def test_a_state_of_another_release_is_refused() -> None:
    _, epoch = called()
    for state in (b"", b"\x90", b"\xc1", epoch.to_state()[:-1], epoch.to_state() + b"\0"):
        with pytest.raises(RemoteProtocolError):
            AreaEpoch.from_state(SUITE, state, [], NOW_S, bytes)


def test_a_large_area_draws_in_parts_that_share_epoch_and_calendar() -> None:
    """D8: who is split from whom follows from the ids, and a ring of one part has nobody of another."""
    names = [f"ESTK{index:010}" for index in range(600)]
    _, epoch = called(names, EpochConfig(ring_size=64, dropout=0.02, corrupt=0.01))
    assert epoch.call.split_bits == 2
    parts = {name: epoch.part_for(name) for name in names}
    assert {(part.call.epoch, part.call.start_ms, part.call.interval_start_s) for part in parts.values()} == {
        (0, parts[names[0]].call.start_ms, epoch.call.interval_start_s)
    }
    assert [parts[name].call.part for name in names] == [part_of("north", name, 2) for name in names]
    out = lay_out(epoch, names, NOW_S + 3)
    assert epoch.phase is Phase.DEALING
    layouts = {to.identity: to.message for to in out if isinstance(to.message, wire.EpochLayout)}
    assert set(layouts) == set(names)
    for name, layout in layouts.items():
        assert layout.ring % 4 == part_of("north", name, 2)
        assert {part_of("north", member[0], 2) for member in layout.members} == {layout.ring % 4}
    assert len({ring.view.ring for ring in epoch.rings}) == len(epoch.rings)
    again = restarted(epoch, NOW_S + 4)
    assert [ring.view for ring in again.rings] == [ring.view for ring in epoch.rings]


def test_one_part_that_fails_does_not_stop_the_others() -> None:
    names = [f"ESTK{index:010}" for index in range(300)]
    _, epoch = called(names, EpochConfig(ring_size=32, dropout=0.02, corrupt=0.01))
    for part in epoch._parts:
        part.call = replace(part.call, start_ms=round(NOW_S * 1000))
    silent = next(name for name in names if part_of("north", name, 1) == 1)
    join_all(epoch, names, NOW_S + 3)
    assert reveal_all(epoch, [name for name in names if name != silent], NOW_S + 4) == []
    out = epoch.on_timer(epoch.next_timer_s())
    assert epoch.phase is Phase.DEALING
    served = {to.identity for to in out if isinstance(to.message, wire.EpochLayout)}
    assert served == {name for name in names if part_of("north", name, 1) == 0}
    assert {to.identity for to in out if isinstance(to.message, wire.Refused)} == set(names) - served


def test_so_many_new_gateways_are_listed_as_the_known_ones_bear() -> None:
    """Or every gateway that knows the area would show no value for a list that is a third new."""
    areas, epoch = called(NAMES[:7])
    lay_out(epoch, NAMES[:7], NOW_S + 3)
    names = NAMES + [f"ESTK1{index:09}" for index in range(4)]
    epoch.phase = Phase.RUNNING
    for name in names:
        areas.arrive(areas.areas["north"], name, NOW_S + 4)
    follower = areas.call(areas.areas["north"], NOW_S + 5)
    assert follower is not None
    out = join_all(follower, reversed(names), NOW_S + 6)
    shown = {each for each, *_ in next(iter(lists(out).values())).entries}
    assert set(NAMES[:7]) < shown
    assert len(shown) == 10, "7 are known, 3 of the 5 others come in"
    refused = {to.identity: to.message for to in out if isinstance(to.message, wire.Refused)}
    assert set(refused) == set(names) - shown
    assert len(restarted(follower, NOW_S + 7).part_for(NAMES[0]).joined) == 10
    day_later_s = epoch.call.start_ms / 1000 + DAY_S
    areas.remember("north", names, epoch.call.start_ms / 1000)
    later = areas.call(areas.areas["north"], day_later_s)
    assert later is not None
    assert len(next(iter(lists(join_all(later, names, day_later_s)).values())).entries) == 12


def test_joins_are_shown_to_who_asks_for_some_and_not_without_end() -> None:
    _, epoch = called()
    lay_out(epoch, NAMES, NOW_S + 3)
    ask = wire.SpotCheck(0, 0, (NAMES[5], "ESTK9999999999", NAMES[2]))
    ((answer, *none),) = [epoch.spot_check(NAMES[0], ask)]
    assert not none
    assert isinstance(answer.message, wire.SpotCheckAnswer)
    assert [row[0] for row in answer.message.members] == [NAMES[5], NAMES[2]]
    assert epoch.spot_check(NAMES[0], replace(ask, try_=1)) == []
    assert epoch.spot_check("ESTK9999999999", ask) == []
    assert [len(epoch.spot_check(NAMES[1], ask)) for _ in range(10)] == [1] * 8 + [0] * 2
