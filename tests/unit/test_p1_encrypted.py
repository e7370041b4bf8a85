"""Encrypted P1: found in any stream, told by its tag, refused when played back; nothing plain beside it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadtest.meters.p1 import P1Settings, encrypted, telegram
from node.lmn.dlms.security import Keys
from node.lmn.p1.decode import decode_stream
from node.lmn.p1.encrypted import AUTHENTICATION_KEY_LUXEMBOURG, EncryptedReader
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import WATT_HOUR

KEY, OWN = bytes(range(16)), bytes(range(16, 32))
TITLE = b"SAG\x00\x00\x00\x00\x07"
NOON = datetime(2027, 1, 15, 12, tzinfo=UTC)


def said(
    counter: int, wh: int = 1_234_567, *, authentication: bytes = AUTHENTICATION_KEY_LUXEMBOURG, version: int = 50
) -> bytes:
    registers = [(Obis(1, 0, 1, 8, 0, 255), wh, 0, WATT_HOUR)]
    plain = telegram(P1Settings("1SAG0000000007", version=version), registers, NOON)
    return encrypted(plain, Keys(KEY, authentication), TITLE, counter)


def read(stream: bytes, key: bytes | None = KEY, step: int | None = None) -> tuple[list[Any], list[str], list[Any]]:
    pieces = [stream] if step is None else [stream[at : at + step] for at in range(0, len(stream), step)]
    items = list(decode_stream(pieces, key))
    energies = [r.value for r in items if isinstance(r, Reading) and r.obis and r.obis.c == 1 and r.obis.d == 8]
    return energies, [item.reason for item in items if isinstance(item, RemoteProtocolError)], items


@pytest.mark.parametrize("step", [None, 1, 7])
def test_telegrams_one_after_the_other_begun_in_the_middle_of_one(step: int | None) -> None:
    stream = said(1)[100:] + said(2) + said(3, 1_234_568)
    energies, errors, items = read(stream, step=step)
    assert energies == [1_234_567, 1_234_568]
    assert errors == ["noise"]
    assert {item.quality for item in items if isinstance(item, Reading)} == {Quality.VALID}
    assert {item.device for item in items if isinstance(item, Reading)} == {"1SAG0000000007"}


def test_a_meter_with_an_authentication_key_of_its_own() -> None:
    stream = said(1, authentication=OWN)
    energies, errors, items = read(stream, KEY + OWN)
    assert (energies, errors, {item.quality for item in items}) == ([1_234_567], [], {Quality.VALID})
    energies, errors, items = read(stream)
    assert (energies, errors, {item.quality for item in items}) == ([1_234_567], [], {Quality.UNVERIFIED})


def test_where_neither_tag_nor_crc_can_be_checked_nothing_is_read() -> None:
    assert read(said(1, authentication=OWN, version=30))[:2] == ([], ["dlms_authentication"])
    assert read(said(1), KEY + OWN)[:2] == ([], ["dlms_authentication"])


def test_the_tag_vouches_for_a_telegram_without_a_crc() -> None:
    assert {item.quality for item in read(said(1, version=30))[2]} == {Quality.VALID}


def test_under_a_wrong_key_every_telegram_is_told_and_none_is_read() -> None:
    energies, errors, _ = read(said(1) + said(2), OWN)
    assert energies == []
    assert errors.count("dlms_authentication") == 2


def test_a_telegram_played_back_is_refused() -> None:
    assert read(said(5) + said(5) + said(4) + said(6))[:2] == ([1_234_567] * 2, ["dlms_replay"] * 2)


def test_plain_telegrams_are_refused_under_a_key_and_encrypted_without() -> None:
    plain = telegram(P1Settings("1SAG0000000007"), [(Obis(1, 0, 1, 8, 0, 255), 1, 0, WATT_HOUR)], NOON)
    assert read(plain)[:2] == ([], ["noise"])
    energies, errors, _ = read(said(1), None)
    assert energies == []
    assert errors[0] == "key_missing"


@given(st.integers(0, 10_000), st.integers(1, 255))
@example(156, 1)
def test_an_altered_octet_costs_its_telegram_only(at: int, change: int) -> None:
    first = bytearray(said(1, 1))
    first[at % len(first)] ^= change
    energies, errors, _ = read(bytes(first) + said(2, 2))
    # A length made longer may take the second along; an altered tag, or line end behind
    # the CRC, leaves the first as its CRC vouches for it.
    assert energies in ([2], [], [1, 2])
    assert energies != [1, 2] or at % len(first) < 18 or at % len(first) >= len(first) - 14
    assert errors or energies == [1, 2]


def test_a_false_beginning_holds_no_more_than_a_telegram() -> None:
    reader = EncryptedReader(KEY)
    false = b"\xdb\x08" + TITLE + b"\x82\x80\x00\x30"
    for _ in range(400):
        reader.receive(false + bytes(200))
        assert len(reader._buffer) <= 33_000
    found = [*reader.receive(said(1)), *reader.end()]
    assert any(not isinstance(item, RemoteProtocolError) for item in found)


def test_keys_have_sixteen_bytes() -> None:
    with pytest.raises(LocalProtocolError):
        list(decode_stream([b""], b"short"))
