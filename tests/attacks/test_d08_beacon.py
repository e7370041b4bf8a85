"""D8: a coordinator that grinds the order of the rings, by lists, withheld values and tries, or invents members."""

import random
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.dcnet.setup.beacon import (
    RANDOM_SIZE,
    ListEntry,
    Try,
    ValueCollector,
    beacon,
    check_list,
    check_values,
    commit,
    list_digest,
)
from protocol.dcnet.setup.crowd import (
    CHECKED_MIN,
    DAY_S,
    REVEALS_MAX,
    Pins,
    admit,
    check_budget,
    check_part,
    choose_spot_checks,
    part_of,
    split_bits,
    spot_checks,
)
from protocol.dcnet.setup.rings import cut_rings
from protocol.errors import LocalProtocolError, RemoteProtocolError

CALL = b"c" * 32
EPOCH = 7


def values(count: int, seed: int = 1) -> dict[str, bytes]:
    source = random.Random(seed)
    return {f"G{index:03d}": source.randbytes(RANDOM_SIZE) for index in range(count)}


def entries(of: dict[str, bytes], try_: int = 0) -> list[ListEntry]:
    return [ListEntry(each, commit(each, EPOCH, try_, value), b"j" * 32) for each, value in sorted(of.items())]


def reason(call: object, *arguments: object, **named: object) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    return caught.value.reason


# --- one list ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["identity", "commitment", "join_digest", "fewer", "more", "call"])
def test_a_value_is_shown_for_one_list_and_for_no_other(change: str) -> None:
    """D8: shown for two lists, one value lets a coordinator choose between two orders of the rings."""
    mine = values(6)
    first = entries(mine)
    other, call = list(first), CALL
    match change:
        case "fewer":
            other.pop(3)
        case "more":
            other.append(ListEntry("Z", bytes(32), bytes(32)))
        case "call":
            call = b"d" * 32
        case "identity":
            other[3] = replace(other[3], identity="G002b")
        case "commitment":
            other[3] = replace(other[3], commitment=b"x" * 32)
        case _:
            other[3] = replace(other[3], join_digest=b"x" * 32)
    me = Try(EPOCH, 0, mine["G000"])
    shown = me.show_for("G000", list_digest(CALL, first), first)
    assert shown.show_for("G000", list_digest(CALL, first), first) == shown, "resent after a loss or a restart"
    assert list_digest(call, other) != list_digest(CALL, first)
    assert reason(shown.show_for, "G000", list_digest(call, other), other) == "second_list"


def test_a_list_without_our_own_commitment_gets_no_value() -> None:
    mine = values(4)
    me = Try(EPOCH, 0, mine["G000"])
    without = entries(mine)[1:]
    assert reason(me.show_for, "G000", list_digest(CALL, without), without) == "not_listed"
    forged = entries({**mine, "G000": bytes(32)})
    assert reason(me.show_for, "G000", list_digest(CALL, forged), forged) == "not_listed"
    earlier_try = entries(mine, try_=1)
    assert reason(me.show_for, "G000", list_digest(CALL, earlier_try), earlier_try) == "not_listed"


def test_ids_that_repeat_fall_or_were_rejected_make_no_list() -> None:
    good = entries(values(5))
    check_list(good, ["G009"])
    check_list([], [])
    for bad in (good[::-1], [good[0], good[0]], [*good, good[2]]):
        assert reason(check_list, bad, []) == "bad_list"
    assert reason(check_list, good, ["G003"]) == "rejected_member"


def test_a_part_of_the_beacon_is_32_bytes_and_stays_out_of_texts() -> None:
    with pytest.raises(LocalProtocolError):
        Try(EPOCH, 0, bytes(31))
    assert "171" not in repr(Try(EPOCH, 0, b"\xab" * RANDOM_SIZE))
    assert "xab" not in repr(Try(EPOCH, 0, b"\xab" * RANDOM_SIZE))


# --- all values or none ------------------------------------------------------------------------------------------


def test_with_one_value_withheld_there_is_no_beacon() -> None:
    """D8: going on without the values of w gateways of its own, the coordinator would choose among 2^w orders."""
    mine = values(9)
    listed = entries(mine)
    collector = ValueCollector(listed, EPOCH, 0, list_digest(CALL, listed))
    for identity in ("G004", "G000", "G007"):
        assert not collector.take(identity, collector.list_digest, mine[identity])
    assert set(collector.missing) == mine.keys() - {"G004", "G000", "G007"}
    with pytest.raises(LocalProtocolError):
        _ = collector.values
    for withheld in range(1, 9):
        for kept in combinations(sorted(mine), 9 - withheld):
            assert reason(check_values, listed, EPOCH, 0, [mine[each] for each in kept]) == "wrong_values"


def test_the_last_value_completes_the_list_in_its_order_once() -> None:
    mine = values(5)
    listed = entries(mine)
    collector = ValueCollector(listed, EPOCH, 0, list_digest(CALL, listed))
    done = [collector.take(each, collector.list_digest, mine[each]) for each in ("G003", "G000", "G004", "G001")]
    assert done == [False] * 4
    assert collector.take("G002", collector.list_digest, mine["G002"])
    assert not collector.take("G002", collector.list_digest, mine["G002"]), "a resent value completes nothing again"
    assert collector.values == tuple(mine[each] for each in sorted(mine))
    check_values(listed, EPOCH, 0, collector.values)


def test_values_of_others_other_lists_and_other_bytes_are_refused() -> None:
    mine = values(3)
    listed = entries(mine)
    collector = ValueCollector(listed, EPOCH, 0, list_digest(CALL, listed))
    assert reason(collector.take, "G009", collector.list_digest, bytes(32)) == "not_listed"
    assert reason(collector.take, "G001", b"o" * 32, mine["G001"]) == "not_listed"
    assert reason(collector.take, "G001", collector.list_digest, mine["G002"]) == "wrong_values"
    shown = [mine["G000"], mine["G002"], mine["G001"]]
    assert reason(check_values, listed, EPOCH, 0, shown) == "wrong_values"
    assert reason(check_values, listed, EPOCH, 1, list(mine.values())) == "wrong_values"


@given(st.integers(2, 40), st.integers(0, 2**32), st.data())
def test_every_single_value_moves_the_order_of_the_rings(count: int, seed: int, data: st.DataObject) -> None:
    """D8 (b): the victim's own value alone makes the order unforeseeable, whatever all others are."""
    mine = values(count, seed)
    listed = entries(mine)
    shown = [mine[each.identity] for each in listed]
    first = beacon(list_digest(CALL, listed), shown)
    index = data.draw(st.integers(0, count - 1))
    other = data.draw(st.binary(min_size=32, max_size=32).filter(lambda each: each != shown[index]))
    assert beacon(list_digest(CALL, listed), [*shown[:index], other, *shown[index + 1 :]]) != first


def test_a_grinding_coordinator_meets_its_victim_no_oftener_than_by_chance() -> None:
    """
    D8 (b): 15 invented ids put a victim among four accomplices in 0.2 s.  Bound to its commitments before it sees the
    victim's value, a coordinator gets one order a try: the best of eight tries, not of any number.
    """
    tries, wins, runs = 8, 0, 400
    source = random.Random(8)
    crew = {"G000", "G001", "G002", "G003", "G004"}
    for _ in range(runs):
        for try_ in range(tries):
            mine = {f"G{index:03d}": source.randbytes(RANDOM_SIZE) for index in range(20)}
            listed = entries(mine, try_)
            order = cut_rings(beacon(list_digest(CALL, listed), list(mine.values())), list(mine), 5)
            wins += {"G000"} < set(next(ring for ring in order if "G000" in ring)) <= crew
    assert wins <= 3, "chance alone: 8 tries at 1 of 3,876, in 400 runs 0.8"


# --- the budget --------------------------------------------------------------------------------------------------


def test_eight_values_in_a_day_are_shown_and_no_ninth() -> None:
    """D8: each value that is withheld rolls the dice once more; eight rolls are 3 bits."""
    shown: list[float] = []
    for index in range(REVEALS_MAX):
        check_budget(shown, now_s := 1_000_000 + 60 * index, old_key=False)
        shown.append(now_s)
    assert reason(check_budget, shown, shown[-1] + 1, old_key=False) == "reveals_spent"
    assert reason(check_budget, shown, shown[0] + DAY_S - 1, old_key=False) == "reveals_spent"
    check_budget(shown, shown[0] + DAY_S, old_key=False)
    assert reason(check_budget, shown, shown[0] - 30 * DAY_S, old_key=False) == "reveals_spent", "a clock set back"


def test_a_key_older_than_the_store_shows_one_value_a_day() -> None:
    """D8 with D2: the store that counted the values was moved away."""
    check_budget([], 1_000_000, old_key=True)
    assert reason(check_budget, [1_000_000], 1_000_060, old_key=True) == "reveals_spent"


@given(st.lists(st.integers(0, 40 * 3600), min_size=1, max_size=60))
def test_no_day_ever_has_more_than_eight_values(asked_s: list[int]) -> None:
    shown: list[float] = []
    for now_s in sorted(asked_s):
        try:
            check_budget(shown, now_s, old_key=False)
        except RemoteProtocolError:
            continue
        shown.append(now_s)
    for start_s in shown:
        assert sum(start_s <= each < start_s + DAY_S for each in shown) <= REVEALS_MAX


# --- the crowd ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "bits", "known", "expected"),
    [
        (80, 0, 80, None), (79, 0, 79, "area_shrunk"), (40, 1, 40, None), (39, 1, 39, "area_shrunk"),
        (100, 0, 70, None), (100, 0, 69, "unknown_members"), (400, 0, 100, "unknown_members"), (5, 0, 5, "area_shrunk"),
    ],
)  # fmt: skip
def test_a_list_is_compared_with_the_largest_area_and_known_ids(
    size: int, bits: int, known: int, expected: str | None
) -> None:
    """D8 (a): the CA puts one household among four gateways of its own; a household that knew 100 refuses."""
    if expected is None:
        Pins(100).check(size, bits, known)
    else:
        assert reason(Pins(100).check, size, bits, known) == expected


def test_the_first_list_of_a_gateway_has_nothing_to_be_compared_with() -> None:
    Pins().check(5, 0, 0)


def test_submissions_asked_for_are_66_with_the_own_ring() -> None:
    """Check values: 3 at n = 64 and 43 at n = 24."""
    assert CHECKED_MIN == 66
    assert [spot_checks(size) for size in (24, 64, 66, 67, 127)] == [43, 3, 1, 0, 0]
    assert 0.9**66 < 2**-10 < 0.9**65


@given(st.integers(1, 120), st.integers(1, 70), st.integers(0, 2**32))
def test_spot_checks_are_distinct_and_of_other_rings(count: int, ring: int, seed: int) -> None:
    listed = entries(values(count))
    own = [each.identity for each in listed[: min(ring, count)]]
    below = random.Random(seed).randrange
    chosen = choose_spot_checks(listed, own, below)
    assert len({each.identity for each in chosen}) == len(chosen) == min(count - len(own), spot_checks(len(own)))
    assert not {each.identity for each in chosen} & set(own)


@pytest.mark.parametrize("ring_size", [24, 64])
def test_a_tenth_of_invented_members_is_found_nearly_always(ring_size: int) -> None:
    """D8 (b): invented members of other rings, which nobody checked.  2^-10 of 4,000 runs are 4."""
    source, missed, size = random.Random(5), 0, 640
    listed = entries(values(size))
    names = [each.identity for each in listed]
    for _ in range(4000):
        invented = set(source.sample(names, size // 10))
        ring = source.sample(names, ring_size)
        checked = {each.identity for each in choose_spot_checks(listed, ring, source.randrange)} | set(ring[1:])
        missed += not checked & invented
    assert missed <= 12


def test_every_invented_member_may_be_drawn() -> None:
    listed = entries(values(30))
    source = random.Random(2)
    drawn = {
        each.identity for _ in range(200) for each in choose_spot_checks(listed, [f"G{i:03d}" for i in range(24)],
                                                                         source.randrange)
    }  # fmt: skip
    assert drawn == {f"G{index:03d}" for index in range(24, 30)}


# --- parts of an area --------------------------------------------------------------------------------------------


def test_areas_over_256_are_split_by_bits_of_the_ids_hash() -> None:
    assert [split_bits(count) for count in (0, 1, 256, 257, 512, 513, 1024, 1025)] == [0, 0, 0, 1, 1, 2, 2, 3]
    assert split_bits(1 << 40) == 16
    names = [f"G{index:05d}" for index in range(2048)]
    for bits in (1, 2, 3):
        parts = [part_of("north", each, bits) for each in names]
        counts = [parts.count(part) for part in range(1 << bits)]
        assert sum(counts) == 2048
        assert max(counts) < 1.3 * 2048 / (1 << bits)
        assert [part >> 1 for part in parts] == [part_of("north", each, bits - 1) for each in names]
    assert part_of("north", "G00000", 0) == 0
    assert [part_of("north", each, 4) for each in names] != [part_of("south", each, 4) for each in names]


def test_an_id_of_another_part_is_refused() -> None:
    """D8: a coordinator that moves accomplices into the victim's part of an area."""
    listed = entries(values(64))
    mine = [each for each in listed if part_of("north", each.identity, 2) == 1]
    check_part(mine, "north", 2, 1)
    check_part(listed, "north", 0, 0)
    assert 5 < len(mine) < 30
    assert reason(check_part, [*mine, next(each for each in listed if each not in mine)], "north", 2, 1) == (
        "foreign_part"
    )
    assert reason(check_part, mine, "north", 2, 0) == "foreign_part"


# --- what an honest coordinator lists ----------------------------------------------------------------------------


@given(st.integers(0, 200), st.integers(0, 200))
def test_what_an_honest_coordinator_lists_is_accepted(known: int, fresh: int) -> None:
    listed = admit([f"K{index}" for index in range(known)], [f"F{index}" for index in range(fresh)])
    Pins(known).check(len(listed), 0, known)
    assert len(listed) >= known
    assert len(listed) == known + fresh or len(listed) >= known + known * 3 // 7


def test_a_gateway_is_known_or_fresh() -> None:
    with pytest.raises(LocalProtocolError):
        admit(["a"], ["a"])
