"""The benchmark's own arithmetic: a figure is only worth what its median, its verdict and its round are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.bench.fleet_processes import crashed, sizes
from loadtest.bench.gateways import SLOTS, EnergyCheck
from loadtest.bench.measure import Row, Spread, Target, pairs
from loadtest.bench.rounds import dropped, play, ring_size
from loadtest.bench.table import write_json, write_markdown
from loadtest.ring import RingSize, make_ring
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite, counter_block, derive, zeros
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.machines.masks import MaskSchedule, words_from_bytes


def test_a_ratio_is_taken_pair_by_pair() -> None:
    ours, theirs = iter([9.0, 1.0, 2.0, 4.0]), iter([9.0, 2.0, 6.0, 40.0])
    mine, peers, ratio = pairs(lambda: next(ours), lambda: next(theirs), 3)
    assert (mine.median, peers.median, ratio.median) == (2.0, 6.0, 3.0)  # the first pair only warms up


@pytest.mark.parametrize(("at_least", "value", "met"), [(True, 500, True), (True, 499, False), (False, 20, False)])
def test_a_target_is_met_or_missed(at_least: bool, value: int, met: bool) -> None:
    row = Row("x", "ms", Spread.of([value]), target=Target("ours", 500 if at_least else 20, at_least=at_least))
    assert row.met is met


def test_a_target_on_a_ratio_is_open_where_no_peer_was_measured() -> None:
    assert Row("x", "ms", Spread.of([1.0]), target=Target("ratio", 500, at_least=True)).met is None


def test_the_table_says_what_was_missed_and_what_is_quoted(tmp_path: Path) -> None:
    about = {
        "cpu": "c", "cores": 2, "memory_gb": 1.0, "system": "s", "python": "p", "cryptography": "1", "numpy": "2",
        "pynacl": "3", "pyzmq": "4", "date": "2026-01-01 00:00 UTC", "load_start": 3.0, "load_end": 1.0, "quick": False,
    }  # fmt: skip
    rows = [
        Row("slow", "ms", Spread.of([60.0, 61.0]), target=Target("ours", 50, at_least=False), clock="wall"),
        Row("quoted", "ms", Spread.of([1.0]), "Somebody (quoted)", Spread.of([4070.0]), quoted=True),
    ]
    write_json(tmp_path / "a.json", "A suite", rows, about)
    write_json(tmp_path / "earlier.json", "Measured before", [Row("quick", "s", Spread.of([7.0]))], about)
    write_markdown(tmp_path / "b.md", [tmp_path / "a.json", tmp_path / "earlier.json"])
    before = (tmp_path / "b.md").read_text()
    write_markdown(tmp_path / "b.md", [tmp_path / "a.json", tmp_path / "missing.json"])
    assert (tmp_path / "b.md").read_text() == before
    write_json(tmp_path / "c.json", "Elsewhere", [Row("slower", "s", Spread.of([8.0]))], about | {"cpu": "Z80"})
    write_markdown(tmp_path / "b.md", [tmp_path / "c.json"])
    text = (tmp_path / "b.md").read_text()
    assert text.replace(text[text.index("## Elsewhere") : text.index("## Where it")], "") == before
    assert "2026-01-01 00:00 UTC, Z80, 2 cores, load 3.0 to 1.0" in text
    text = (tmp_path / "b.md").read_text()
    assert "Missed: 1: slow" in text
    assert "| slow | 60.5 [60.2, 60.8] ms wall |  |  | < 50 MISSED |" in text
    assert "| quoted | 1 ms | Somebody (quoted): 4,070 ms |  |" in text


@pytest.mark.parametrize("kind", [wire.MaskedInput, wire.Reveal])
def test_a_measured_round_opens_the_exact_sum_and_counts_every_part(kind: Any) -> None:
    played = play(ring_size(20, 8), dropped(20), kind)
    assert 0 < played.opening_s <= played.head_s < played.all_s
    assert played.member_s > 0
    assert played.up_octets > 8 * 8


def test_a_fleet_has_every_gateway_once_and_loses_a_twentieth() -> None:
    rings = sizes(10_000)
    assert sum(rings) == 10_000
    assert max(rings) <= 64
    gone = [crashed(ring, n, 1) for ring, n in enumerate(rings)]
    assert 450 <= sum(map(len, gone)) <= 550
    assert not any(0 in each for each in gone)


def test_a_ledger_refuses_a_total_that_is_not_the_sum() -> None:
    def ended(round_: int, roster: int, energy: int) -> Ended:
        who = [i for i in range(3) if roster >> i & 1]
        total = (len(who), *[energy] * (SLOTS - 2), sum(who))
        return Ended(1, 0, round_, wire.Outcome.OPENED, 0, 0, 7, roster, total, False, "", 0.0, 0.0)

    energy_check = EnergyCheck(3)
    energy_check.check(ended(0, 0b011, 1 + 2))
    energy_check.check(ended(1, 0b111, 1 + 2 + 2 * 3))  # the third carries the energy of the round it missed
    with pytest.raises(ValueError, match="something else"):
        energy_check.check(ended(2, 0b111, 1 + 2 + 2 * 3))


def test_masks_from_one_buffer_are_the_pairs_keystreams() -> None:
    suite = StandardSuite()
    view, secrets = make_ring(suite, RingSize(5, 4, 3, 3, 3, 4, words=5, rounds=7), bytes(32))
    masks = MaskSchedule(suite, view, secrets[2])
    nonces = [member.nonce for member in view.members]

    def key(other: int) -> bytes:
        return derive(secrets[2].pair(other).mask, "incarnations", nonces[min(2, other)], nonces[max(2, other)])

    expected = np.zeros(5, dtype=np.uint64)
    for other in (0, 1, 3, 4):
        words = words_from_bytes(suite.keystream(key(other), 0, 8 * 6 * 3, 40))
        expected = expected + words if other > 2 else expected - words
    assert np.array_equal(masks.words(3, 0, view.everybody), expected)
    assert np.array_equal(masks.words(3, 1, 0b00001), -words_from_bytes(suite.keystream(key(0), 1, 144, 40)))


def test_a_stream_longer_than_the_zeros_is_one_stream() -> None:
    suite = StandardSuite()
    whole = suite.keystream(bytes(32), 3, 0, (1 << 17) + 64)
    assert whole[1 << 17 :] == suite.keystream(bytes(32), 3, 1 << 17, 64)
    buffer = memoryview(bytearray(64 + 15))
    suite.encryptor(bytes(32), counter_block(3, 1 << 17)).update_into(zeros(64), buffer)
    assert bytes(buffer[:64]) == whole[1 << 17 :]
    assert bytes(buffer[64:]) == bytes(15)
