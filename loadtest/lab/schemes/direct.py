"""Schemes that send each household's own values: plain, under pseudonyms, and to a third party that adds."""

from __future__ import annotations

from functools import lru_cache

from loadtest.lab.schemes.base import Scheme
from loadtest.lab.transcript import EMP, GWA, TTP, Form, Message, Shape, meter

_FOR_EMP = frozenset({EMP})
_SEALED_BYTES = 96  # an 8-byte reading in an authenticated envelope with an ephemeral key


@lru_cache(maxsize=64)
def plain_shape(n: int) -> Shape:
    """Each meter to the EMP."""
    return Shape(n, tuple(Message(meter(i), EMP, Form({i: 1})) for i in range(n)))


def _relayed(n: int, relay: str, *, batched: bool) -> Shape:
    """Each meter to a relay, sealed for the EMP; the relay forwards it under a pseudonym, at once or all together."""
    up = tuple(Message(meter(i), relay, Form({i: 1}), sealed_for=_FOR_EMP, size_bytes=_SEALED_BYTES) for i in range(n))
    everybody = tuple(range(n))
    down = tuple(
        Message(
            relay, EMP, Form({i: 1}), sealed_for=_FOR_EMP, alias=True, after=everybody if batched else (i,),
            size_bytes=_SEALED_BYTES,
        )
        for i in range(n)
    )  # fmt: skip
    return Shape(n, up + down)


@lru_cache(maxsize=64)
def pseudonyms_shape(n: int) -> Shape:
    """Petrlic: the third party strips the identity and forwards at once."""
    return _relayed(n, TTP, batched=False)


@lru_cache(maxsize=64)
def batched_pseudonyms_shape(n: int) -> Shape:
    """The same, but the third party waits for all meters and forwards in random order."""
    return _relayed(n, TTP, batched=True)


@lru_cache(maxsize=64)
def tr03109_shape(n: int) -> Shape:
    """TR-03109-1: through the administrator, who puts the pseudonym in the identity's place."""
    return _relayed(n, GWA, batched=False)


@lru_cache(maxsize=64)
def third_party_sum_shape(n: int) -> Shape:
    """The third party reads all and sends the sum."""
    up = tuple(Message(meter(i), TTP, Form({i: 1})) for i in range(n))
    total = Message(TTP, EMP, Form(dict.fromkeys(range(n), 1)), after=tuple(range(n)))
    return Shape(n, (*up, total))


SCHEMES = (
    Scheme("plain", "Plain readings", "TAF 7 without pseudonyms", "nobody", plain_shape),
    Scheme(
        "pseudonyms-ttp", "Pseudonyms by a trusted third party", "Petrlic 2010", "third party", pseudonyms_shape,
        note="forwards at once",
    ),
    Scheme(
        "pseudonyms-ttp-batched", "Pseudonyms, third party waits for all", "Petrlic 2010, batched here", "third party",
        batched_pseudonyms_shape, note="forwards a whole group in random order",
    ),
    Scheme(
        "pseudonyms-tr03109", "Pseudonyms by TR-03109", "BSI TR-03109-1, TAF 10", "administrator", tr03109_shape,
        note="a new pseudonym each week",
    ),
    Scheme(
        "sum-ttp", "Sum by a trusted third party", "review of Garten 2021", "third party", third_party_sum_shape,
        exact_sum=True,
    ),
)  # fmt: skip
