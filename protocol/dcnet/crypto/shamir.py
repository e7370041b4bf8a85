"""
Shamir's secret sharing with Feldman's commitments: t of the shares give the secret, and a bad dealer is named.

A secret s is the value at 0 of a polynomial of degree t - 1 whose other coefficients are random; the holder at x gets
its value there. Any t values fix the polynomial, t - 1 say nothing. The dealer publishes each coefficient times the
generator: from these everybody computes the public point of every share, so that a holder sees at once whether its
share fits (Feldman 1987), and so that partial results made from a share can be verified by third parties.

Feldman's commitments reveal s·G. That is no loss here: the secrets are random keys of a PRF that is secure when s·G
is known, and never values of small entropy.

Zero is excluded for the secret and for every coefficient: its commitment would be the identity, which no peer accepts
(a leading zero would mean a threshold lower than announced). The distance from the uniform draw is below 2^-240.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocol.dcnet.crypto.group import Group
from protocol.errors import LocalProtocolError, RemoteProtocolError


@dataclass(frozen=True, slots=True)
class Deal:
    """The shares by holder x (secret, one for each holder) and the commitments to the t coefficients (public)."""

    shares: dict[int, int] = field(repr=False)
    commitments: tuple[bytes, ...]


def deal(group: Group, secret: int, threshold: int, xs: Sequence[int], coefficients: Sequence[int]) -> Deal:
    """
    Share `secret` among the holders `xs` so that any `threshold` of them recover it.

    `coefficients` are threshold - 1 independent uniform scalars from 1 to order - 1 (the randomness; never used
    twice). Raises `LocalProtocolError` for a threshold out of 1..len(xs), for holders that are 0 or equal mod the
    order, and for a secret or coefficient out of range. Source: Feldman, FOCS 1987, section 4.
    """
    _check_holders(group.order, xs)
    if not 1 <= threshold <= len(xs):
        raise LocalProtocolError(f"threshold {threshold} of {len(xs)} holders")
    if len(coefficients) != threshold - 1:
        raise LocalProtocolError(f"{len(coefficients)} random coefficients for threshold {threshold}")
    polynomial = (secret, *coefficients)
    if not all(0 < coefficient < group.order for coefficient in polynomial):
        raise LocalProtocolError("secret and coefficients are scalars from 1 to order - 1")
    return Deal(
        {x: _value_at(polynomial, x, group.order) for x in xs},
        tuple(group.multiply_base(coefficient) for coefficient in polynomial),
    )


def share_key(group: Group, commitments: Sequence[bytes], x: int) -> bytes:
    """
    The public point (share at x)·G of an honest deal, from the commitments alone.

    Costs len(commitments) group multiplications: compute it once per deal. Raises `RemoteProtocolError` if there is
    no commitment or one is no element of prime order.
    """
    if not commitments:
        raise RemoteProtocolError("no_share_commitments")
    point = group.multiply_base(0)
    for commitment in reversed(commitments):
        if not group.is_element(commitment):
            raise RemoteProtocolError("bad_share_commitment")
        point = group.add(group.multiply(x, point), commitment)
    return point


def verify_share(group: Group, commitments: Sequence[bytes], x: int, share: int) -> bool:
    """
    Whether `share` is the value at x of the polynomial that `commitments` commit to; bad commitments are simply False.

    The caller compares len(commitments) with the threshold of the ring first: it is the dealer's polynomial's.
    """
    try:
        return share_key(group, commitments, x) == group.multiply_base(share)
    except RemoteProtocolError:
        return False


def lagrange_at_zero(order: int, xs: Sequence[int]) -> dict[int, int]:
    """
    The factors c_x with f(0) = Σ c_x·f(x) mod `order` for every polynomial of degree below len(xs).

    Raises `LocalProtocolError` if xs is empty or has elements that are 0 or equal mod the order.
    """
    _check_holders(order, xs)
    if not xs:
        raise LocalProtocolError("interpolation through no point")
    factors = {}
    for x in xs:
        numerator = denominator = 1
        for other in xs:
            if other != x:
                numerator = numerator * other % order
                denominator = denominator * (other - x) % order
        factors[x] = numerator * pow(denominator, -1, order) % order
    return factors


def _value_at(polynomial: Sequence[int], x: int, order: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * x + coefficient) % order
    return value


def _check_holders(order: int, xs: Sequence[int]) -> None:
    residues = {x % order for x in xs}
    if len(residues) != len(xs) or 0 in residues:
        raise LocalProtocolError("the holders' x must be distinct and not 0")
