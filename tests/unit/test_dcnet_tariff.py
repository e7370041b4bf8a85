"""A tariff's document: one form, every bound, and any bytes a tariff or the publisher's fault."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import wire
from protocol.dcnet.billing.tariff import Tariff, money, pack_intervals, read_tariff, tariff_digest, unpack_intervals
from protocol.errors import RemoteProtocolError
from protocol.link import LinkLimits

TARIFF = Tariff("Dynamisch Ä", "1-0:1.8.0*255", "Wh", "ct", -5, 1_793_491_200, 900, (3120, -12, 0))
DOCUMENT = json.loads(TARIFF.to_bytes())


def test_the_document_is_canonical_and_comes_back() -> None:
    data = TARIFF.to_bytes()
    assert data.decode() == (
        '{"currency":"ct","interval_s":900,"name":"Dynamisch Ä","obis":"1-0:1.8.0*255","price_scaler":-5,'
        '"prices":[3120,-12,0],"start":"2026-11-01T00:00:00Z","unit":"Wh"}'
    )
    assert Tariff.from_bytes(data) == read_tariff(data) == TARIFF
    assert tariff_digest(data) != tariff_digest(replace(TARIFF, name="other").to_bytes())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("currency", ""), ("currency", "c" * 9), ("unit", 1), ("name", "a\nb"), ("name", "x" * 65), ("obis", None),
        ("price_scaler", -13), ("price_scaler", 7), ("price_scaler", True), ("price_scaler", 1.0),
        ("interval_s", 0), ("interval_s", 86_401), ("interval_s", "900"), ("prices", []), ("prices", [1.5]),
        ("prices", [True]), ("prices", ["1"]), ("prices", [2**32 + 1]), ("prices", [-(2**32) - 1]), ("prices", 3),
        ("prices", [0] * (wire.MAX_PRICES + 1)), ("start", "2026-11-01"), ("start", "2026-11-01T00:00:00+01:00"),
        ("start", "2026-13-01T00:00:00Z"),
    ],
)  # fmt: skip
def test_every_field_has_its_bounds(key: str, value: object) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Tariff.from_document(DOCUMENT | {key: value})
    assert caught.value.reason == "bad_tariff"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff", json.dumps(DOCUMENT).encode(),
        TARIFF.to_bytes().replace(b'"ct"', b'"ct" '), TARIFF.to_bytes() + b"\n",
        TARIFF.to_bytes().replace(b"3120", b"3120.0"), TARIFF.to_bytes().replace(b"3120", b"1e3"),
        TARIFF.to_bytes().replace(b'{"currency"', b'{"currency":"EUR","currency"'),
        TARIFF.to_bytes().replace(b"Dynamisch", b"\\u0044ynamisch"), b" " * (wire.MAX_TARIFF_SIZE + 1),
        TARIFF.to_bytes().replace(b"3120", b"9" * 5000),
    ],
    ids=range(15),
)  # fmt: skip
def test_what_is_no_tariff(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Tariff.from_bytes(data)
    assert caught.value.reason == "bad_tariff"


@pytest.mark.parametrize("key", DOCUMENT)
def test_no_key_is_missing_and_none_is_new(key: str) -> None:
    for document in ({k: v for k, v in DOCUMENT.items() if k != key}, DOCUMENT | {"note": 1}):
        with pytest.raises(RemoteProtocolError):
            Tariff.from_document(document)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_tariff_or_the_publishers_fault(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Tariff.from_bytes(data)


def test_intervals_and_their_prices_find_each_other() -> None:
    assert [TARIFF.interval_s_of(index) - TARIFF.start_s for index in range(3)] == [0, 900, 1800]
    assert [TARIFF.index_of(TARIFF.start_s + each) for each in (-900, 0, 1, 900, 1800, 2700)] == [
        None, 0, None, 1, 2, None,
    ]  # fmt: skip


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
@settings(max_examples=100, deadline=None)
def test_bitmaps_of_intervals(case: tuple[int, set[int]]) -> None:
    count, indices = case
    data = pack_intervals(sorted(indices), count)
    assert unpack_intervals(data, count) == sorted(indices)
    for bad in (data + b"\0", data[:-1], data[:-1] + bytes([data[-1] | 128]) if count % 8 else data[1:]):
        with pytest.raises(RemoteProtocolError):
            unpack_intervals(bad, count)


def test_amounts_are_exact_decimals() -> None:
    digits = str(2**114 + 1)
    assert str(money(2**114 + 1, -6)) == f"{digits[:-6]}.{digits[-6:]}"  # more digits than a Decimal has by default
    assert str(money(-123, -6)) == "-0.000123"
    assert money(7, 2) == 700


def test_a_year_of_quarter_hours_fits_a_message() -> None:
    """The longest prices that are any tariff's: ten digits and a sign would not fit, six and a sign do."""
    tariff = replace(TARIFF, prices=(-999_999,) * wire.MAX_PRICES)
    document = tariff.to_bytes()
    asked = wire.BillRequest(
        document, bytes(72), bytes(800), (bytes(800),), pack_intervals(list(range(wire.MAX_PRICES)), wire.MAX_PRICES)
    )
    assert len(document) < wire.MAX_TARIFF_SIZE
    assert len(wire.encode(asked)) < LinkLimits().message_bytes_max
    assert wire.decode(wire.encode(asked), wire.FROM_COORDINATOR) == asked
    assert Tariff.from_bytes(document) == tariff


TIERED = {"tiers": [[100_000, 50], [250_000, -3], [None, 20]], "use_case": 4}


def document(**more: object) -> dict[str, object]:
    return {
        "currency": "ct", "interval_s": 900, "name": "Tiered", "price_scaler": -5, "prices": [0, 0],
        "obis": "1-0:1.8.0*255", "start": "2026-11-01T00:00:00Z", "unit": "Wh",
    } | more  # fmt: skip


def test_tiers_and_use_case_are_in_the_document_where_they_are_meant() -> None:
    tariff = Tariff.from_document(document(**TIERED))
    assert (tariff.tiers, tariff.use_case) == (((100_000, 50), (250_000, -3), (None, 20)), 4)
    assert Tariff.from_bytes(tariff.to_bytes()) == tariff
    assert b"tiers" not in Tariff.from_document(document()).to_bytes()


@pytest.mark.parametrize("use_case", [3, 5, 8, 10, 14])
def test_use_cases_beyond_commitments_are_refused_with_the_reason(use_case: int) -> None:
    with pytest.raises(RemoteProtocolError, match="the gateway's own certified computation") as caught:
        Tariff.from_document(document(use_case=use_case))
    assert caught.value.reason == "use_case_not_billed"


@pytest.mark.parametrize(
    "more",
    [
        {"tiers": []}, {"tiers": None}, {"tiers": [[5]]}, {"tiers": [[None, "5"]]}, {"tiers": [[None, 2**33]]},
        {"tiers": [[5, 1]]}, {"tiers": [[0, 1], [None, 1]]}, {"tiers": [[9, 1], [5, 1], [None, 1]]},
        {"tiers": [[5, 1], [5, 1], [None, 1]]}, {"tiers": [[2.5, 1], [None, 1]]}, {"tiers": [[2**63, 1], [None, 1]]},
        {"tiers": [[each, 1] for each in range(1, 11)] + [[None, 1]]}, {"use_case": "4"}, {"use_case": None},
        {"use_case": 0}, {"use_case": 15}, {"use_case": True}, {"more": 1},
    ],
)  # fmt: skip
def test_tiers_and_use_cases_that_are_none_are_refused(more: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Tariff.from_document(document(**more))
    assert caught.value.reason == "bad_tariff"
