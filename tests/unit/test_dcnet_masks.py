"""Masks cancel, whoever is missing, in whatever block, attempt and vector; and nowhere else are two words alike."""

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.ring import RingSize, lay_out, make_ring
from loadtest.simulator.suite import CheapEncryptor, CheapSuite
from protocol.dcnet.crypto.commitments import add_blinding_vectors, subtract_blinding_vectors
from protocol.dcnet.crypto.suite import StandardSuite, derive
from protocol.dcnet.machines import masks as masks_module
from protocol.dcnet.machines.masks import (
    Fleet,
    MaskSchedule,
    Words,
    seed_commitment,
    self_blinding,
    self_mask,
    self_masks,
    words_from_bytes,
)
from protocol.dcnet.setup.rings import bitmap, positions_of

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
        return [int(word) for word in sum(parts, np.zeros_like(parts[0]))]


@settings(max_examples=60, deadline=None)
@given(k=st.sampled_from([4, 6]), round_=st.integers(0, 4), attempt=st.integers(0, 2), data=st.data())
def test_masks_cancel_for_any_e_and_any_u_within_it(k: int, round_: int, attempt: int, data: st.DataObject) -> None:
    """Over U: the masks towards E, less what those in U gave away towards those in E that are not in U, are nothing."""
    members = st.frozensets(st.integers(0, 6), min_size=1)
    expected = data.draw(members)
    roster = data.draw(st.frozensets(st.sampled_from(sorted(expected)), min_size=1))
    ring, gone = RINGS[k], bitmap(expected - roster)
    words, blinding_vectors = [], []
    group = CHEAP.group
    for i in roster:
        words.append(ring[i].words(round_, attempt, bitmap(expected)) - ring[i].words(round_, attempt, gone))
        blinding_vectors.append(ring[i].blindings(round_, attempt, bitmap(expected)))
        blinding_vectors.append(subtract_blinding_vectors(group, (0, 0), ring[i].blindings(round_, attempt, gone)))
    assert total(words) == [0, 0, 0]
    assert add_blinding_vectors(group, *blinding_vectors) == (0, 0)


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


class Counting(CheapSuite):
    """Notes the size of every keystream that is read, and how many ciphers were set up."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []
        self.set_up = 0

    def keystream(self, key: bytes, stream: int, offset: int, size: int) -> bytes:
        self.read.append(size)
        return super().keystream(key, stream, offset, size)

    def encryptor(self, key: bytes, counter: bytes) -> CheapEncryptor:
        self.set_up += 1
        return super().encryptor(key, counter)


def test_a_block_is_made_once() -> None:
    suite = Counting()
    view, secrets = make_ring(suite, replace(SIZE, committed=()), bytes(32))
    schedule = MaskSchedule(suite, view, secrets[0])
    schedule.prepare(0)
    assert suite.read == [5 * 32] * 4  # one call for each neighbour: five rounds of four words
    for round_ in range(5):
        schedule.prepare(round_)
        schedule.words(round_, 0, view.everybody)
    assert len(suite.read) == 4
    schedule.words(0, 0, view.everybody & ~2)
    assert suite.read[4:] == [24]  # who is missing costs one short call


def test_blocks_in_their_order_are_read_on_under_the_same_ciphers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks_module, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(masks_module, "_CIPHER_BYTES", 32)
    suite = Counting()
    view, secrets = make_ring(suite, replace(SIZE, rounds=11, committed=()), bytes(32))
    schedule = MaskSchedule(suite, view, secrets[0])
    for round_ in range(11):
        schedule.prepare(round_)
    assert len(suite.read) == 6 * 4
    assert suite.set_up == 4
    assert not schedule._standing  # nobody reads on behind the last block
    schedule.words(10, 0, view.everybody & ~2)  # a missing one has a cipher of its own and disturbs nobody's
    schedule.prepare(0)
    schedule.prepare(2)
    assert suite.set_up == 4 + 1 + 4


def test_a_long_epoch_of_short_rounds_is_made_in_blocks_and_keeps_no_cipher() -> None:
    suite = Counting()
    view, secrets = make_ring(suite, replace(SIZE, rounds=96, committed=()), bytes(32))
    schedule = MaskSchedule(suite, view, secrets[0])
    for round_ in range(96):
        schedule.prepare(round_)
        assert not schedule._standing
    assert suite.read == [32 * 32] * 4 * 3  # 32 rounds of 32 bytes


def test_a_fleet_reads_a_pair_with_both_ends_in_it_once() -> None:
    suite = Counting()
    view, secrets = make_ring(suite, replace(SIZE, committed=()), bytes(32))
    fleet = Fleet()
    ring = [MaskSchedule(suite, view, each, fleet) for each in secrets[:6]]
    ring[3].prepare(0)
    for each in ring:
        each.prepare(4)
    assert suite.set_up == len(suite.read) == 7 * 4 // 2  # the seventh lives elsewhere: its pairs are read as ever
    late = MaskSchedule(suite, view, secrets[6], fleet)
    alone = schedules(replace(SIZE, committed=()))[6]
    assert late.words(1, 0, view.everybody).tolist() == alone.words(1, 0, view.everybody).tolist()
    assert suite.set_up == 7 * 4 // 2 + 4


def test_who_lags_behind_keeps_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway whose round is not over yet goes back by itself, and takes nobody along."""
    monkeypatch.setattr(masks_module, "_BLOCK_BYTES", 1)
    suite = Counting()
    view, secrets = make_ring(suite, replace(SIZE, committed=()), bytes(32))
    fleet = Fleet()
    ring = [MaskSchedule(suite, view, each, fleet) for each in secrets]
    ring[0].prepare(1)
    before = len(suite.read)
    ring[1].words(0, 0, view.everybody)
    assert len(suite.read) == before + 4
    ring[0].words(1, 0, view.everybody)
    assert len(suite.read) == before + 4


def test_a_fleet_keeps_nobody_alive() -> None:
    """Keys of an epoch that is over are gone with its schedules, and nothing is left of its ring."""
    view, secrets = make_ring(CHEAP, replace(SIZE, committed=()), bytes(32))
    fleet = Fleet()
    ring = [MaskSchedule(CHEAP, view, each, fleet) for each in secrets]
    ring[0].prepare(0)
    assert len(fleet.ring(view)) == 7
    del ring
    gc.collect()
    assert len(fleet.ring(view)) == 0
    gc.collect()
    assert not fleet._rings


@pytest.mark.parametrize("fleet", [None, Fleet()], ids=["alone", "fleet"])
@pytest.mark.parametrize(("words", "stands"), [(96, False), (160, True)], ids=["short", "long"])
def test_memory_does_not_grow_with_the_epoch(fleet: Fleet | None, words: int, *, stands: bool) -> None:
    """A year of quarter hours: a gateway has a block and what it is made with, and a cipher a pair of long rounds."""
    size = RingSize(n=7, k=4, t=3, t_c=3, k_min=3, n_min=4, rounds=35_040, words=words)
    view, secrets = lay_out(REAL, size, bytes(32))
    for position, each in enumerate(secrets):
        each.bind(view, position)
    tracemalloc.start()
    try:
        ring = [MaskSchedule(REAL, view, each, fleet) for each in secrets]
        for round_ in range(0, 4000, 80):
            for masks in ring:
                masks.prepare(round_)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(each._block.nbytes <= 1 << 16 for each in ring)
    assert 7 * (1 << 14) < peak < (2 * 7 + 2) * (1 << 16)  # the old blocks, the new ones, the keystream
    kept = [each for schedule in ring for ciphers in schedule._standing.values() for each in ciphers]
    assert len(kept) == stands * 7 * 4 // (1 if fleet is None else 2)


def test_many_self_masks_are_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [bytes([number]) * 32 for number in range(5)]
    for suite in (CHEAP, REAL):
        expected = total([self_mask(suite, seed, 9) for seed in seeds])
        for piece_words in (2, 4, 8, 1 << 14):
            monkeypatch.setattr(masks_module, "_PIECE_WORDS", piece_words)
            assert self_masks(suite, seeds, 9).tolist() == expected
        assert self_masks(suite, [], 9).tolist() == [0] * 9


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
    blinding_vectors = [
        ring[0].blindings(r, a, 1 << j) for r in range(5) for a in range(3) for j in positions_of(ring[0]._neighbours)
    ]
    scalars = [scalar for blinding_vector in blinding_vectors for scalar in blinding_vector]
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


def test_a_binding_is_neither_a_mask_nor_a_key_of_one() -> None:
    """It is expanded for a purpose of its own: to tell it tells no word of what the seed masks."""
    seed = bytes(range(32))
    other = [derive(seed, purpose) for purpose in ("self-words", "self-scalars")]
    masks = [self_mask(StandardSuite(), seed, 4).tobytes(), seed]
    assert seed_commitment(seed) not in [*other, *masks]
    assert seed_commitment(seed) == derive(seed, "self-binding")
    assert seed_commitment(seed) != seed_commitment(bytes(32))
