"""Who is here: gateways that fall silent are counted no more, and no epoch is called for them."""

import pytest

from coordinator.epoch_config import EpochConfig
from coordinator.events import To
from coordinator.rings.areas import SETTLE_S, SHORT_MAX, SILENT_S, Area, Areas
from coordinator.rings.epochs import AreaEpoch, Phase
from loadtest.coordination import bare_join, join_all, lay_out, make_areas
from protocol import wire

NOW_S = 1_772_000_000.0


@pytest.fixture
def areas() -> Areas:
    made = make_areas(EpochConfig())
    for index in range(6):
        made.arrive(made.areas["north"], f"ESTK{index:010}", NOW_S)
    return made


def test_a_silent_gateway_is_not_here(areas: Areas) -> None:
    north = areas.areas["north"]
    later_s = NOW_S + SILENT_S
    areas.arrive(north, "ESTK0000000000", later_s)
    areas.forget_silent(later_s)
    assert areas.present_count == 6
    areas.forget_silent(later_s + 1)
    assert set(north.present) == {"ESTK0000000000"}
    assert north.last_arrival_s == NOW_S  # it was here all along
    areas.arrive(north, "ESTK0000000001", later_s + 2)
    assert (areas.present_count, north.last_arrival_s) == (2, later_s + 2)


def test_an_epoch_waits_for_none_that_has_gone(areas: Areas) -> None:
    north = areas.areas["north"]
    for index in range(5):
        areas.arrive(north, f"ESTK{index:010}", NOW_S + SILENT_S)
    areas.forget_silent(NOW_S + SILENT_S + 1)
    ((area, epoch),) = areas.call_due(NOW_S + SILENT_S + 1 + SETTLE_S)
    assert area is north
    assert "ESTK0000000005" not in area.present
    assert epoch.invite("ESTK0000000005") == [To("ESTK0000000005", epoch.call)]  # unless it comes back in time


def test_an_area_whose_last_gateway_has_gone_calls_nobody(areas: Areas) -> None:
    areas.forget_silent(NOW_S + SILENT_S + 1)
    assert areas.call_due(NOW_S + 1_000_000) == []


def test_a_clock_that_is_set_back_delays_no_epoch_and_keeps_nobody(areas: Areas) -> None:
    earlier_s = NOW_S - 7200
    areas.areas["north"].not_before_s = NOW_S + 900  # an epoch was refused a moment ago
    areas.forget_silent(earlier_s)
    assert areas.call_due(earlier_s + 899) == []
    assert areas.next_timer_s() == earlier_s + 900
    areas.forget_silent(earlier_s + SILENT_S + 1)
    assert areas.present_count == 0


def joined(size: int, ring_size: int, certificate_size: int) -> tuple[AreaEpoch, list[To]]:
    """An area in which so many have joined, with certificates of so many bytes."""
    areas = make_areas(EpochConfig(ring_size=ring_size))
    names = [f"ESTK{index:010}" for index in range(size)]
    for name in names:
        areas.arrive(areas.areas["north"], name, NOW_S)
    ((_, epoch),) = areas.call_due(NOW_S + SETTLE_S)
    return epoch, lay_out(epoch, names, NOW_S, bare_join(certificate_size))


def test_an_area_of_too_many_gateways_is_refused_and_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.wire.MAX_LIST", 99)
    epoch, out = joined(100, 25, 700)
    assert epoch.phase is Phase.REFUSED
    assert {each.message for each in out} == {wire.Refused(0, "area north has 100 gateways in a part, of at most 99")}
    assert len(out) == 100


def test_an_area_whose_layout_fits_no_message_is_refused_and_told_why() -> None:
    epoch, out = joined(256, 256, 4096)
    assert epoch.phase is Phase.REFUSED
    assert (epoch.rings, epoch.members) == ([], frozenset())
    ((reason,),) = {(each.message.reason,) for each in out if isinstance(each.message, wire.Refused)}
    assert reason.startswith("area north is too large for its rings: a layout of ")
    assert len(out) == 256


def test_who_comes_back_is_told_who_was_shut_out_and_no_such_gateway_is_head() -> None:
    epoch, _ = joined(8, 8, 700)
    (ring,) = epoch.rings
    first, second, third = sorted(ring.positions, key=lambda each: ring.positions[each])[:3]
    ((told_of, told),) = epoch.expel(frozenset({first, second, "ESTK0000099999"}))
    expelled = wire.Expelled(0, 0, b"\x03")
    assert told_of is ring
    assert sorted(each.identity for each in told) == sorted(ring.positions.keys() - {first, second})
    assert {each.message for each in told} == {expelled}
    assert epoch.expel(frozenset({first, second})) == []
    out = epoch.on_timer(NOW_S + 1e6)
    assert epoch.phase is Phase.RUNNING
    assert out[-2:] == [To(third, wire.Appoint(0, 0, 2)), To(third, wire.LeftOut(0, 0, b"\xff"))]  # nobody has dealt
    assert To(third, expelled) in epoch.invite(third)
    assert To(third, expelled) in epoch.greet_again(third)
    ((_, told),) = epoch.expel(frozenset({first, second, third}))
    assert {each.message for each in told} == {wire.Expelled(0, 0, b"\x07"), wire.LeftOut(0, 0, b"\xff")}


PERIOD_S = EpochConfig().period_s


def called_with(joining: int, areas: Areas, now_s: float) -> tuple[AreaEpoch, float]:
    """The next call of the area of six, of whom so many join in time, and when its window has closed."""
    north = areas.areas["north"]
    for index in range(6):
        areas.arrive(north, f"ESTK{index:010}", now_s)
    ((_, epoch),) = areas.call_due(now_s)
    names = [f"ESTK{index:010}" for index in range(joining)]
    join_all(epoch, names, now_s)
    closed_s = now_s if joining == 6 else epoch.next_timer_s()
    epoch.on_timer(closed_s)
    return epoch, closed_s


def called_again(areas: Areas, closed_s: float) -> float:
    """Forget the refused epoch; when the next call is due."""
    areas.drop_finished(closed_s, ())
    return areas.next_timer_s()


def test_a_first_epoch_that_few_join_is_called_again_with_twice_the_wait(areas: Areas) -> None:
    now_s, waits = NOW_S + SETTLE_S, []
    for _ in range(SHORT_MAX):
        epoch, closed_s = called_with(5, areas, now_s)
        assert epoch.phase is Phase.REFUSED
        assert epoch.refusal.startswith("5 of 6 gateways that are connected joined in time")
        waits.append(closed_s - now_s)
        now_s = called_again(areas, closed_s)
        assert now_s == closed_s + SETTLE_S
    assert waits[0] == 60.0  # a minute of metering time, which the wait for six does not reach at first
    epoch, _ = called_with(5, areas, now_s)  # from now on half is enough
    assert epoch.phase is Phase.CALLED


def test_an_area_whose_gateways_mostly_refuse_serves_the_others_in_the_end(areas: Areas) -> None:
    now_s, tries = NOW_S + SETTLE_S, 0
    while (found := called_with(2, areas, now_s))[0].phase is Phase.REFUSED:
        now_s, tries = called_again(areas, found[1]), tries + 1
    assert tries > SHORT_MAX
    least_s = EpochConfig().early.epoch_rounds_min * PERIOD_S
    assert least_s <= now_s - NOW_S < least_s + 2 * PERIOD_S


def test_a_wait_for_joins_may_be_set_and_grows_where_too_few_came() -> None:
    areas = make_areas(EpochConfig(join_s=100.0))
    assert areas.windows().join_s == 100.0
    assert [areas.windows(Area("north", short=n)).join_s for n in (0, 1, 2, 3, 9)] == [100, 200, 400, 400, 400]
    assert areas.windows(Area("north")).try_s < 110  # the start is not put off for those who may be slow


def test_no_epoch_is_called_earlier_after_the_last_than_gateways_take(areas: Areas) -> None:
    """A coordinator that was restored knows its area's last epoch and is in none: gateways refuse `early_epoch`."""
    begun_s = NOW_S - 3 * PERIOD_S
    areas.remember("north", ["ESTK0000000000"], begun_s)
    due_s = areas.next_timer_s()
    least_s = begun_s + EpochConfig().early.epoch_rounds_min * PERIOD_S
    assert least_s - 2 * PERIOD_S < due_s < least_s
    epoch, _ = called_with(6, areas, due_s)
    assert least_s <= epoch.call.start_ms / 1000 < least_s + PERIOD_S
