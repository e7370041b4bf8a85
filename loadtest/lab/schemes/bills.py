"""
Schemes that bill: by a third party, by a trusted platform in the meter, by commitments.

The EMP learns an amount for each household and period.  With commitments it holds a Pedersen commitment for each slot
besides, which hides its reading perfectly, and may ask for other weights than the tariff's: the rules of
`protocol.dcnet.billing.leverage` say which it gets.
"""

from __future__ import annotations

from functools import lru_cache

from loadtest.lab.schemes.base import Scheme
from loadtest.lab.transcript import EMP, TTP, Form, Message, Shape, meter


@lru_cache(maxsize=64)
def nothing_shape(n: int) -> Shape:
    """No message of a slot leaves the meters."""
    return Shape(n, ())


@lru_cache(maxsize=64)
def to_third_party_shape(n: int) -> Shape:
    """Readings to the third party."""
    return Shape(n, tuple(Message(meter(i), TTP, Form({i: 1})) for i in range(n)))


@lru_cache(maxsize=64)
def bill_of_third_party_shape(n: int) -> Shape:
    """The amounts from the third party, by name."""
    return Shape(n, tuple(Message(TTP, EMP, Form({i: 1})) for i in range(n)))


@lru_cache(maxsize=64)
def bill_of_meter_shape(n: int) -> Shape:
    """The amounts from the meters."""
    return Shape(n, tuple(Message(meter(i), EMP, Form({i: 1}), size_bytes=96) for i in range(n)))


@lru_cache(maxsize=64)
def commitments_shape(n: int) -> Shape:
    """A commitment a slot: the reading under a blinding that only the meter holds."""
    return Shape(
        n,
        tuple(Message(meter(i), EMP, Form({i: 1}, {f"blinding:{i}": 1}), size_bytes=32) for i in range(n)),
        {f"blinding:{i}": frozenset({meter(i)}) for i in range(n)},
    )


SCHEMES = (
    Scheme(
        "bill-ttp", "Bill by a third party", "review of Garten 2021", "third party", to_third_party_shape,
        bill=bill_of_third_party_shape,
    ),
    Scheme(
        "bill-platform", "Bill by a trusted platform in the meter", "review of Garten 2021", "the platform's maker",
        nothing_shape, bill=bill_of_meter_shape, note="covert data in the attested messages cannot be excluded",
    ),
    Scheme(
        "bill-commitments", "Bill by Pedersen commitments", "Jawurek, Johns, Kerschbaum 2011",
        "nobody", commitments_shape, bill=bill_of_meter_shape, note="linear tariffs only",
    ),
)  # fmt: skip
