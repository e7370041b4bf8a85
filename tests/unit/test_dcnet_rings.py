"""Who sits where, who is whose neighbour, and the digest that separates all who were told different things."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import wire
from protocol.dcnet.setup.rings import (
    Member,
    RingView,
    Timing,
    bitmap,
    cut_rings,
    last_contribution_text,
    positions_of,
    result_text,
    round_digest,
)
from protocol.dcnet.setup.terms import RoundTerms
from protocol.errors import RemoteProtocolError

KEY = b"\7" * 32


def member(i: int) -> Member:
    return Member(f"g{i}", bytes([i]) * 32, bytes([i + 1]) * 32, bytes([i + 2]) * 32, bytes([i]) * 16)


def view_of(n: int, k: int) -> RingView:
    return RingView(
        epoch=3, ring=1, members=tuple(member(i) for i in range(n)),
        schema_digest=bytes(32), word_count=4, committed=(), rounds=96, k=k, t=3, t_c=3, k_min=3, n_min=4,
        result_key=bytes(32), timing=Timing.spread(0.0, 10.0),
    )  # fmt: skip


@given(st.frozensets(st.integers(0, wire.MAX_RING - 1)))
def test_bitmaps_hold_sets_of_positions(positions: frozenset[int]) -> None:
    assert positions_of(bitmap(positions)) == sorted(positions)


@given(n=st.integers(5, 40), half=st.integers(1, 25))
def test_neighbourhoods_are_regular_symmetric_and_without_oneself(n: int, half: int) -> None:
    k = min(2 * half, n - 1)
    neighbourhoods = view_of(n, k).neighbourhoods
    for i in range(n):
        assert neighbourhoods[i].bit_count() == k
        assert not neighbourhoods[i] >> i & 1
        assert all(neighbourhoods[j] >> i & 1 for j in positions_of(neighbourhoods[i]))


def test_neighbours_sit_on_either_side() -> None:
    assert positions_of(view_of(10, 4).neighbourhoods[0]) == [1, 2, 8, 9]
    assert positions_of(view_of(6, 5).neighbourhoods[2]) == [0, 1, 3, 4, 5]


@given(n=st.integers(0, 200), size=st.integers(3, 50), value=st.binary(min_size=32, max_size=32))
def test_rings_share_an_area_evenly(n: int, size: int, value: bytes) -> None:
    identities = [f"g{i}" for i in range(n)]
    rings = cut_rings(value, identities, size)
    assert sorted(each for ring in rings for each in ring) == sorted(identities)
    sizes = {len(ring) for ring in rings}
    assert all(min(n, size) <= each < 2 * size for each in sizes)
    assert len(rings) == max(min(n, 1), n // size)
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert cut_rings(value, identities[::-1], size) == rings


# A value that differs from the ring above in each field; the timing is local patience and agreed on by nobody.
OTHERWISE = {
    "epoch": 4,
    "ring": 2,
    "schema_digest": b"\1" * 32,
    "word_count": 5,
    "committed": (1,),
    "rounds": 95,
    "k": 5,
    "t": 4,
    "t_c": 4,
    "k_min": 4,
    "n_min": 5,
    "result_key": b"\1" * 32,
}


def test_everything_agreed_on_is_in_the_digest() -> None:
    view = view_of(6, 4)
    assert set(OTHERWISE) == {field.name for field in fields(RingView)} - {
        "members", "timing", "corrupt", "noise", "bits",  # the last three follow from the call: it is in the schema's
    }  # fmt: skip
    digests = {view.digest} | {replace(view, **{name: value}).digest for name, value in OTHERWISE.items()}  # type: ignore[arg-type]
    first = view.members[0]
    for member in (
        replace(first, identity="x"),
        replace(first, public_key=b"\7" * 32),
        replace(first, curve_key=b"\7" * 32),
        replace(first, verify_key=b"\7" * 32),
        replace(first, nonce=b"\7" * 16),
    ):
        digests.add(replace(view, members=(member, *view.members[1:])).digest)
    digests.add(replace(view, members=view.members[::-1]).digest)
    digests.add(replace(view, members=view.members[:-1]).digest)
    assert len(digests) == 1 + len(OTHERWISE) + 7
    assert replace(view, timing=Timing.spread(5.0, 7.0)).digest == view.digest


def test_a_confirmation_and_a_result_say_everything() -> None:
    view = view_of(6, 4)
    base: tuple[int, int, int, int, int] = (0, 0, 0, 63, 31)
    terms = RoundTerms(bytes(32), 0, bytes(32), b"\0")
    confirmed = {round_digest(view, *base, terms)}
    results = {result_text(view, 0, 1, 31)}
    for index in range(5):
        a, b, c, d, e = (value ^ (at == index) for at, value in enumerate(base))
        confirmed.add(round_digest(view, a, b, c, d, e, terms))
    for other_view in (replace(view, ring=2), replace(view, epoch=5)):
        confirmed.add(round_digest(other_view, *base, terms))
        results.add(result_text(other_view, 0, 1, 31))
    other_terms = [replace(terms, nonces=KEY), replace(terms, settled=1), replace(terms, history=KEY)]
    confirmed |= {round_digest(view, *base, other) for other in other_terms}
    results |= {result_text(view, *each) for each in [(1, 1, 31), (0, 2, 31), (0, 1, 30)]}
    assert len(confirmed) == 11
    assert len(results) == 6


@given(n=st.integers(5, 100), data=st.data())
def test_bitmaps_on_the_wire(n: int, data: st.DataObject) -> None:
    view = view_of(n, 4)
    bits = data.draw(st.integers(0, view.everybody))
    assert view.from_wire(view.to_wire(bits)) == bits
    assert len(view.to_wire(bits)) == (n + 7) // 8


@pytest.mark.parametrize("data", [b"", b"\x3f\x00", b"\x40", b"\xff"])
def test_bitmaps_that_cannot_be(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="bad_bitmap"):
        view_of(6, 4).from_wire(data)


def test_heads_follow_in_ring_order() -> None:
    view = view_of(6, 4)
    assert [view.head_of(term) for term in range(8)] == [0, 1, 2, 3, 4, 5, 0, 1]
    assert (view.size, view.committed_count, view.bitmap_size) == (6, 0, 1)


def test_rounds_and_times() -> None:
    timing = Timing.spread(100.0, 10.0)
    assert [timing.open_at_s(r) for r in (0, 1, 95)] == [100.0, 110.0, 1050.0]
    assert [timing.round_at(s) for s in (99.9, 100.0, 109.9, 110.0)] == [-1, 0, 0, 1]
    assert timing.share_s + timing.confirm_s + 2 * timing.reveal_s < timing.void_s < timing.period_s
    assert timing.gather_s < timing.silent_s < timing.void_s


def test_the_coordinator_signs_all_of_an_answer_but_the_signature() -> None:
    answer = wire.LastContribution(7, 3, 1, 7, 2, 3, 900, b"\1", b"\2" * 64, b"\3" * 64)
    values: tuple[Any, ...] = (6, 2, 0, 6, 1, 2, 901, b"\2", b"\1" * 64)
    others = [replace(answer, **{each.name: value}) for each, value in zip(fields(answer), values, strict=False)]
    texts = {last_contribution_text("g1", each) for each in (answer, *others)} | {last_contribution_text("g2", answer)}
    assert len(texts) == 11
    assert last_contribution_text("g1", replace(answer, statement=bytes(64))) == last_contribution_text("g1", answer)
