"""Laws of sharing, combining, blinding vectors and totals, for any values; on a cheap group."""

from hypothesis import given
from hypothesis import strategies as st

from loadtest.transparent_group import TransparentGroup
from protocol.dcnet.billing.bill import make_bill, verify_bill
from protocol.dcnet.crypto import prf, shamir
from protocol.dcnet.crypto.commitments import (
    Pedersen,
    add_blinding_vectors,
    subtract_blinding_vectors,
    total_of_word,
)
from protocol.dcnet.crypto.group import Group
from protocol.dcnet.setup.ranges import BITS_MAX, contribution_limit

GROUP: Group = TransparentGroup()
ORDER = GROUP.order
PEDERSEN = Pedersen(GROUP)

scalars = st.integers(1, ORDER - 1)
words = st.integers(-(2**63), 2**63 - 1)


@given(secret=scalars, label=st.binary(max_size=40), data=st.data())
def test_any_t_neighbours_open_what_the_owner_masked(secret: int, label: bytes, data: st.DataObject) -> None:
    xs = data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=9, unique=True))
    threshold = data.draw(st.integers(1, len(xs)))
    coefficients = data.draw(st.lists(scalars, min_size=threshold - 1, max_size=threshold - 1))
    dealt = shamir.deal(GROUP, secret, threshold, xs, coefficients)
    helpers = data.draw(st.permutations(xs))[:threshold]
    parts = {x: prf.partial(GROUP, dealt.shares[x], label) for x in helpers if dealt.shares[x]}
    if len(parts) == threshold:
        assert prf.combine(GROUP, parts) == prf.evaluate(GROUP, secret, label)
    for x, share in dealt.shares.items():
        assert shamir.verify_share(GROUP, dealt.commitments, x, share)
        proof = prf.prove_partial(GROUP, share, label)
        key = shamir.share_key(GROUP, dealt.commitments, x)
        assert prf.verify_partial(GROUP, key, label, prf.partial(GROUP, share, label), proof)


@given(blinding_vectors=st.lists(st.tuples(scalars, scalars), min_size=1, max_size=8))
def test_lanes_cancel(blinding_vectors: list[tuple[int, ...]]) -> None:
    total = add_blinding_vectors(GROUP, *blinding_vectors)
    assert subtract_blinding_vectors(GROUP, total, *blinding_vectors) == (0, 0)


@given(n=st.integers(1, 1024), bits=st.integers(1, BITS_MAX), data=st.data())
def test_totals_of_values_in_their_range_survive_the_word(n: int, bits: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, contribution_limit(bits)), max_size=20))
    values += [contribution_limit(bits)] * (n - len(values))
    assert total_of_word(sum(value % 2**64 for value in values) % 2**64, signed=True) == sum(values)


@given(
    rows=st.lists(st.tuples(st.integers(-(2**32), 2**32), words, scalars), min_size=1, max_size=20),
    error=st.integers(-(2**115), 2**115),
)
def test_exactly_one_bill_passes(rows: list[tuple[int, int, int]], error: int) -> None:
    prices, readings, blindings = ([row[at] for row in rows] for at in range(3))
    points = [PEDERSEN.commit(x, rho) for x, rho in zip(readings, blindings, strict=True)]
    if not all(map(GROUP.is_element, points)):
        return
    bill = make_bill(PEDERSEN, prices, readings, blindings)
    assert verify_bill(PEDERSEN, prices, points, bill, reading_max=2**63)
    wrong = type(bill)(bill.amount + error, bill.blinding)
    assert verify_bill(PEDERSEN, prices, points, wrong, reading_max=2**63) == (error == 0)
