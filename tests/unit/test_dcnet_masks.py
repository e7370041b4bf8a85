"""Masks cancel, whoever is missing, in whatever block, attempt and lane; and nowhere else are two words alike."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.ring import RingSize, make_ring
from loadtest.simulator.suite import CheapSuite
from protocol.dcnet import masks as masks_module
from protocol.dcnet.commitments import add_lanes, subtract_lanes
from protocol.dcnet.masks import MaskSchedule, Words, self_blinding, self_mask, words_from_bytes
from protocol.dcnet.rings import bitmap, positions_of
from protocol.dcnet.suite import StandardSuite

CHEAP, REAL = CheapSuite(), StandardSuite()
SIZE = RingSize(n=7, k=4, t=3, t_c=3, k_min=3, n_min=4, rounds=5, words=3, committed=(1, 2))


def schedules(size: RingSize, suite: CheapSuite | StandardSuite = CHEAP) -> list[MaskSchedule]:
    view, secrets = make_ring(suite, size, bytes(32))
    return [MaskSchedule(suite, view, each) for each in secrets]


RINGS = {
    k: schedules(replace(SIZE, k=k)) for k in (4, 6)
}  # fmt: skip


def total(parts: list[Words]) -> list[int]:
    with np.errstate(over="ignore"):
        return np.sum(parts, axis=0, dtype=np.uint64).tolist()  # type: ignore[no-any-return]


@settings(max_examples=60, deadline=None)
@given(k=st.sampled_from([4, 6]), round_=st.integers(0, 4), attempt=st.integers(0, 2), data=st.data())
def test_masks_cancel_for_any_e_and_any_u_within_it(k: int, round_: int, attempt: int, data: st.DataObject) -> None:
    """Over U: the masks towards E, less what those in U gave away towards those in E that are not in U, are nothing."""
    members = st.frozensets(st.integers(0, 6), min_size=1)
    expected = data.draw(members)
    roster = data.draw(st.frozensets(st.sampled_from(sorted(expected)), min_size=1))
    ring, gone = RINGS[k], bitmap(expected - roster)
    words, lanes = [], []
    group = CHEAP.group
    for i in roster:
        words.append(ring[i].words(round_, attempt, bitmap(expected)) - ring[i].words(round_, attempt, gone))
        lanes.append(ring[i].blindings(round_, attempt, bitmap(expected)))
        lanes.append(subtract_lanes(group, (0, 0), ring[i].blindings(round_, attempt, gone)))
    assert total(words) == [0, 0, 0]
    assert add_lanes(group, *lanes) == (0, 0)


@pytest.mark.parametrize("word_count", [1, 2, 3, 4, 96, 97])
@pytest.mark.parametrize("suite", [CHEAP, REAL], ids=["cheap", "real"])
def test_a_mask_is_the_sum_over_pairs_however_it_is_made(word_count: int, suite: CheapSuite | StandardSuite) -> None:
    """By blocks when most are there, pair by pair when few are: the same words; odd counts leave a word unused."""
    ring = schedules(replace(SIZE, words=word_count, committed=()), suite)
    for round_ in range(5):
        for attempt in (0, 1):
            pairs = {j: ring[2].words(round_, attempt, 1 << j) for j in (0, 1, 3, 4)}
            for others in (0b0011011, 0b0001011, 0b0000010, 0):
                inside = [pairs[j] for j in pairs if others >> j & 1]
                expected = total(inside) if inside else [0] * word_count
                assert ring[2].words(round_, attempt, others).tolist() == expected
            assert ring[2].words(round_, attempt, 0b1111111).tolist() == total(list(pairs.values()))


def test_blocks_of_rounds_are_cut_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    size = replace(SIZE, rounds=11, committed=())
    whole = schedules(size)[0]
    everywhere = [whole.words(r, 0, 0b1111111).tolist() for r in range(11)]
    for block_bytes in (1, 32, 64, 96, 1000):
        monkeypatch.setattr(masks_module, "_BLOCK_BYTES", block_bytes)
        blocks = schedules(size)[0]
        assert [blocks.words(r, 0, 0b1111111).tolist() for r in range(11)] == everywhere
        assert [blocks.words(r, 0, 0b1111111).tolist() for r in reversed(range(11))] == everywhere[::-1]


def test_a_block_is_made_once() -> None:
    calls: list[int] = []

    class Counting(CheapSuite):
        def keystream(self, key: bytes, stream: int, offset: int, size: int) -> bytes:
            calls.append(size)
            return super().keystream(key, stream, offset, size)

    suite = Counting()
    view, secrets = make_ring(suite, replace(SIZE, committed=()), bytes(32))
    schedule = MaskSchedule(suite, view, secrets[0])
    schedule.prepare(0)
    assert calls == [5 * 32] * 4  # one call for each neighbour: five rounds of four words
    for round_ in range(5):
        schedule.prepare(round_)
        schedule.words(round_, 0, view.everybody)
    assert len(calls) == 4
    schedule.words(0, 0, view.everybody & ~2)
    assert calls[4:] == [24]  # who is missing costs one short call


def test_the_caller_may_change_the_words_it_gets() -> None:
    ring = schedules(replace(SIZE, committed=()))
    first = ring[0].words(0, 0, 0b1111111)
    before = first.tolist()
    first += np.uint64(1)
    assert ring[0].words(0, 0, 0b1111111).tolist() == before


def test_no_two_words_of_an_epoch_are_alike() -> None:
    """Rounds, attempts, pairs and slots each have words of their own; only the two ends of a pair share them."""
    ring = schedules(replace(SIZE, committed=()), REAL)
    seen: list[int] = []
    for i in range(7):
        for j in positions_of(ring[i]._neighbours):
            if i < j:
                for round_ in range(5):
                    for attempt in range(3):
                        words = ring[i].words(round_, attempt, 1 << j)
                        assert total([words, ring[j].words(round_, attempt, 1 << i)]) == [0, 0, 0]
                        seen += words.tolist()
    assert len(set(seen)) == len(seen) == 14 * 5 * 3 * 3


def test_no_two_blindings_of_an_epoch_are_alike() -> None:
    ring = schedules(SIZE, REAL)
    lanes = [
        ring[0].blindings(r, a, 1 << j) for r in range(5) for a in range(3) for j in positions_of(ring[0]._neighbours)
    ]
    scalars = [scalar for lane in lanes for scalar in lane]
    assert len(set(scalars)) == len(scalars) == 5 * 3 * 4 * 2


def test_self_masks_grow_from_their_seed() -> None:
    one, other = bytes(32), b"\1" * 32
    assert self_mask(REAL, one, 4).tolist() == self_mask(REAL, one, 5).tolist()[:4]
    assert set(self_mask(REAL, one, 8).tolist()).isdisjoint(self_mask(REAL, other, 8).tolist())
    assert self_blinding(REAL, one, 0) == ()
    assert self_blinding(REAL, one, 1) == self_blinding(REAL, one, 2)[:1]
    assert self_blinding(REAL, one, 2) != self_blinding(REAL, other, 2)
    assert self_mask(REAL, one, 8).tobytes() != self_blinding(REAL, one, 1)[0].to_bytes(64, "little")


def test_words_are_little_endian() -> None:
    assert words_from_bytes(b"\1" + bytes(7) + bytes(7) + b"\1").tolist() == [1, 1 << 56]


def test_without_committed_slots_there_is_no_second_lane() -> None:
    assert schedules(replace(SIZE, committed=()))[0].blindings(0, 0, 0b1111111) == ()
