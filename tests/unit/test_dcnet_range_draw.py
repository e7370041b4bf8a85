"""Who is drawn to prove ranges, and what a proof is about."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from loadtest.ring import RingSize, lay_out
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.machines.range_draw import commitments_of, draw_members, range_text
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of
from protocol.dcnet.setup.schema import WORD_MODULUS
from protocol.wire import Outcome


def view_of(n: int) -> RingView:
    size = RingSize(n=n, k=4, t=3, t_c=3, k_min=3, n_min=3, committed=(1, 2))
    return lay_out(StandardSuite(), size, bytes(32))[0]


def ended(view: RingView, roster: int, imported: int = 700, exported: int = 0, *, verified: bool = True) -> Ended:
    total = (roster.bit_count(), imported % WORD_MODULUS, exported % WORD_MODULUS, 5)
    return Ended(1, 0, 3, Outcome.OPENED, 0, 0, roster, roster, total, verified, "", 0.0, 1.0)


@pytest.mark.parametrize(("n", "drawn"), [(5, 1), (24, 1), (25, 2), (64, 3), (97, 5)])
def test_one_in_24_of_the_roster_is_drawn_each_alike(n: int, drawn: int) -> None:
    view, draw = view_of(n), random.Random(n)
    roster = view.everybody & ~1
    counts: Counter[int] = Counter()
    for _ in range(2000):
        members = positions_of(draw_members(view, ended(view, roster | (n == 24)), draw.randrange))
        assert len(members) == -(-(n - (n != 24)) // 24)
        counts.update(members)
    assert drawn in {len(members), len(members) + 1}
    assert bitmap(list(counts)) == roster | (n == 24)
    mean = sum(counts.values()) / len(counts)
    assert all(abs(count - mean) < 6 * mean**0.5 for count in counts.values())


@pytest.mark.parametrize("total", [-1, 1 << 19, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("slot", ["imported", "exported"])
def test_a_total_out_of_range_draws_the_whole_roster(total: int, slot: str) -> None:
    view = view_of(30)
    roster = view.everybody & ~0b1010
    assert draw_members(view, ended(view, roster, **{slot: total}), random.Random(1).randrange) == roster  # type: ignore[arg-type]
    assert draw_members(view, ended(view, roster, **{slot: (1 << 19) - 1}), random.Random(1).randrange) != roster  # type: ignore[arg-type]


def test_nobody_is_drawn_where_nothing_was_verified() -> None:
    view = view_of(5)
    opened = ended(view, view.everybody, -5)
    void = replace(opened, outcome=Outcome.VOID, roster=0, total=())
    for each in (replace(opened, verified=False), void):
        assert draw_members(view, each, random.Random(1).randrange) == 0


def test_a_statement_is_of_one_commitment_and_no_other() -> None:
    texts = {
        range_text(bytes(32), 0, 3, 1, 2, b"C" * 32, 19), range_text(b"\1" * 32, 0, 3, 1, 2, b"C" * 32, 19),
        range_text(bytes(32), 1, 3, 1, 2, b"C" * 32, 19), range_text(bytes(32), 0, 4, 1, 2, b"C" * 32, 19),
        range_text(bytes(32), 0, 3, 2, 2, b"C" * 32, 19), range_text(bytes(32), 0, 3, 1, 1, b"C" * 32, 19),
        range_text(bytes(32), 0, 3, 1, 2, b"D" * 32, 19), range_text(bytes(32), 0, 3, 1, 2, b"C" * 32, 20),
    }  # fmt: skip
    assert len(texts) == 8


def test_a_members_commitments_are_found_by_its_rank_in_the_roster() -> None:
    view = view_of(6)
    elements = [bytes([index]) * 32 for index in range(8)]
    four = ended(view, 0b101101)
    assert [commitments_of(four, b"".join(elements), position) for position in (0, 2, 3, 5)] == [
        elements[0:2], elements[2:4], elements[4:6], elements[6:8],
    ]  # fmt: skip
