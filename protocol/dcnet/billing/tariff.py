"""
A tariff: integer prices of one register, interval by interval, as the market participant publishes and signs them.

The published document is canonical JSON (sorted keys, no spaces); the very same bytes are hashed, signed, sent to
gateways and shown to customers, so that a customer can hold the digest that the gateway names against the public one:

    {"currency":"ct","interval_s":900,"name":"Dynamic 2026-11","price_scaler":-5,"prices":[3120,2985,-12],
     "obis":"1-0:1.8.0*255","start":"2026-11-01T00:00:00Z","unit":"Wh"}

Price i counts for the interval that starts at start + i·interval_s; it is an integer of 10^price_scaler currency for
one unit, here 10^-5 ct/Wh, which is 0.01 ct/kWh.  A positive amount is owed by the customer: a negative price pays for
energy drawn, and what is paid for feed-in has negative prices.  An amount is Σ price·value over values at the scaler
of the register and so an exact integer of 10^(price_scaler + register scaler) currency.

Two keys may be added. "tiers" (TAF 4), such as [[100000,50],[null,20]]: on top of the intervals' prices each unit of
the bill's sum costs what its tier does, the first 100,000 units 50 and those beyond 20. "use_case" names the tariff use
case of BSI TR-03109-1; 1, 2 and 4 are billed so.  The price of a unit in TAF 3 follows from the power at the time, that
in TAF 8 from the largest power: no sum of commitments tells either, and they are refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact
from functools import lru_cache
from typing import Any

import numpy as np

from protocol.dcnet.billing.bill import PRICE_MAX
from protocol.dcnet.crypto.suite import digest
from protocol.errors import RemoteProtocolError
from protocol.metering.interval import index_starting_at, start_of
from protocol.wire import MAX_PRICES, MAX_TARIFF_SIZE

SCALER_RANGE = range(-12, 7)
USE_CASES = (1, 2, 4)
TIERS_MAX = 10
_ADDED = ("tiers", "use_case")
_KEYS = ("currency", "interval_s", "name", "obis", "price_scaler", "prices", "start", "unit")
_TEXT_MAX = {"currency": 8, "name": 64, "obis": 32, "start": 20, "unit": 8}
_EXACT = Context(prec=60, traps=[Inexact])
_START_FORM = "%Y-%m-%dT%H:%M:%SZ"
_END_S_MAX = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())  # a calendar has no date for what lies much later


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices of the register `obis` from `start_s` (Unix time in seconds), one each `interval_s`; see the head."""

    name: str
    obis: str
    unit: str
    currency: str
    price_scaler: int
    start_s: int
    interval_s: int
    prices: tuple[int, ...]
    tiers: tuple[tuple[int | None, int], ...] = ()
    use_case: int | None = None

    def to_bytes(self) -> bytes:
        """The published document."""
        document = {
            "currency": self.currency, "interval_s": self.interval_s, "name": self.name,
            "price_scaler": self.price_scaler, "prices": self.prices, "obis": self.obis,
            "start": datetime.fromtimestamp(self.start_s, UTC).strftime(_START_FORM), "unit": self.unit,
            **({"tiers": self.tiers} if self.tiers else {}),
            **({} if self.use_case is None else {"use_case": self.use_case}),
        }  # fmt: skip
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, document: bytes) -> Tariff:
        """Read a published document.  Raises RemoteProtocolError `bad_tariff` where it is anything else."""
        tariff = cls.from_document(_load(document))
        if tariff.to_bytes() != document:
            raise RemoteProtocolError("bad_tariff", "the tariff is not in canonical form")
        return tariff

    @classmethod
    def from_document(cls, document: Any) -> Tariff:
        """The tariff of a parsed JSON document, in any order of its keys.  Raises RemoteProtocolError `bad_tariff`."""
        if not isinstance(document, dict) or sorted(document.keys() - _ADDED) != sorted(_KEYS):
            raise RemoteProtocolError(
                "bad_tariff", f"expected an object with {', '.join(_KEYS)}, and {' or '.join(_ADDED)} where wanted"
            )
        for key, size in _TEXT_MAX.items():
            value = document[key]
            if not isinstance(value, str) or not 0 < len(value) <= size or not value.isprintable():
                raise RemoteProtocolError("bad_tariff", f"{key}: expected printable text of 1 to {size} characters")
        if type(document["price_scaler"]) is not int or document["price_scaler"] not in SCALER_RANGE:
            raise RemoteProtocolError("bad_tariff", "price_scaler: expected a whole number from -12 to 6")
        if type(document["interval_s"]) is not int or not 0 < document["interval_s"] <= 86_400:
            raise RemoteProtocolError("bad_tariff", "interval_s: expected whole seconds, at most a day")
        prices = document["prices"]
        if not isinstance(prices, list | tuple) or not 0 < len(prices) <= MAX_PRICES:
            raise RemoteProtocolError("bad_tariff", f"prices: expected a list of 1 to {MAX_PRICES}")
        if any(type(price) is not int or abs(price) > PRICE_MAX for price in prices):
            raise RemoteProtocolError("bad_tariff", f"prices: expected whole numbers, at most {PRICE_MAX} either way")
        start_s = _seconds(document["start"])
        if start_s < 0 or start_of(len(prices), start_s, document["interval_s"]) > _END_S_MAX:
            raise RemoteProtocolError("bad_tariff", "start: expected prices of intervals between 1970 and 9998")
        return cls(
            document["name"], document["obis"], document["unit"], document["currency"], document["price_scaler"],
            start_s, document["interval_s"], tuple(prices), _tiers(document), _use_case(document),
        )  # fmt: skip

    def interval_s_of(self, index: int) -> int:
        """The start of the interval of price `index`, Unix time in seconds."""
        return start_of(index, self.start_s, self.interval_s)

    def index_of(self, interval_start_s: int) -> int | None:
        """The index of the price of an interval, None where the tariff has none for it."""
        return index_starting_at(interval_start_s, self.start_s, self.interval_s, len(self.prices))


def money(amount: int, scaler: int) -> Decimal:
    """amount·10^scaler, exact: the default context would round at 28 digits, and an amount may have 35."""
    return Decimal(amount).scaleb(scaler, _EXACT)


@lru_cache(maxsize=4)
def read_tariff(document: bytes) -> Tariff:
    """As `Tariff.from_bytes`, once for the many gateways of a process that are asked by the same tariff."""
    return Tariff.from_bytes(document)


def tariff_digest(document: bytes) -> bytes:
    """The 32 bytes that name a published document, and the text that the market participant signs."""
    return digest("tariff", document)


def pack_intervals(indices: Sequence[int], count: int) -> bytes:
    """Indices of a tariff's intervals as a bitmap over all `count`: index i is bit i%8 of byte i//8."""
    flags = np.zeros(count, bool)
    flags[list(indices)] = True
    return np.packbits(flags, bitorder="little").tobytes()


def unpack_intervals(data: bytes, count: int) -> list[int]:
    """Strict inverse of `pack_intervals`, ascending.  Raises RemoteProtocolError `bad_intervals`."""
    if len(data) != -(-count // 8) or int.from_bytes(data, "little") >> count:
        raise RemoteProtocolError("bad_intervals", f"expected a bitmap of {count} intervals")
    flags = np.unpackbits(np.frombuffer(data, np.uint8), count=count, bitorder="little")
    indices: list[int] = np.flatnonzero(flags).tolist()
    return indices


def _tiers(document: dict[str, Any]) -> tuple[tuple[int | None, int], ...]:
    tiers = document.get("tiers", [])
    is_list = isinstance(tiers, list | tuple) and all(
        isinstance(each, list | tuple) and len(each) == 2 for each in tiers
    )
    if not is_list or len(tiers) > TIERS_MAX or ("tiers" in document and not tiers):
        raise RemoteProtocolError("bad_tariff", f"tiers: expected 1 to {TIERS_MAX} pairs of limit and price")
    limits, prices = [each[0] for each in tiers], [each[1] for each in tiers]
    if any(type(price) is not int or abs(price) > PRICE_MAX for price in prices):
        raise RemoteProtocolError("bad_tariff", f"tiers: expected prices of at most {PRICE_MAX} either way")
    if tiers and (
        limits[-1] is not None
        or any(type(limit) is not int or not 0 < limit < 2**63 for limit in limits[:-1])
        or sorted(set(limits[:-1])) != limits[:-1]
    ):
        raise RemoteProtocolError("bad_tariff", "tiers: expected rising limits in the unit, the last one null")
    return tuple((each[0], each[1]) for each in tiers)


def _use_case(document: dict[str, Any]) -> int | None:
    use_case = document.get("use_case")
    if "use_case" not in document:
        return None
    if type(use_case) is not int or not 1 <= use_case <= 14:
        raise RemoteProtocolError("bad_tariff", "use_case: expected the number of a tariff use case, 1 to 14")
    if use_case not in USE_CASES:
        raise RemoteProtocolError(
            "use_case_not_billed",
            f"TAF {use_case} cannot be billed by sums of commitments, expected one of"
            f" {', '.join(map(str, USE_CASES))}; TAF 3 and 8 are the gateway's own certified computation",
        )
    return use_case


def _load(document: bytes) -> Any:
    if len(document) > MAX_TARIFF_SIZE:
        raise RemoteProtocolError("bad_tariff", f"expected at most {MAX_TARIFF_SIZE} bytes")
    try:
        return json.loads(document)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("bad_tariff", "expected a JSON document") from error


def _seconds(text: str) -> int:
    try:
        return int(datetime.strptime(text, _START_FORM).replace(tzinfo=UTC).timestamp())
    except (ValueError, OverflowError) as error:
        raise RemoteProtocolError("bad_tariff", "start: expected a time such as 2026-11-01T00:00:00Z") from error
