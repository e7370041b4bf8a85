"""The combined status word of TR-03109-1 chapter 15, and the bit order that catches everyone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.lmn.status_word import (
    CombinedStatus,
    GatewayBit,
    MeterKind,
    Severity,
    bits_of,
    combine,
    mirrored,
    wireless_word,
    word_of,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError


def test_the_measured_word() -> None:
    status = CombinedStatus.from_bytes(bytes.fromhex("a0000000208c3800"))
    assert status.gateway == {0, 2}
    assert status.meter == {2, 8, 12, 13, 18, 19, 20}
    assert status.kind is MeterKind.BASE_METER
    assert status.severities() == frozenset()
    assert bytes(status).hex() == "a0000000208c3800"


def test_a_base_meter_s_sml_status_is_mirrored() -> None:
    assert bits_of(mirrored(0x1C0104)) == {2, 8, 18, 19, 20}
    with pytest.raises(RemoteProtocolError, match="status_too_wide"):
        mirrored(1 << 32)


@given(st.frozensets(st.integers(0, 31)))
def test_bits_there_and_back(bits: frozenset[int]) -> None:
    assert bits_of(word_of(bits)) == bits
    assert bits_of(mirrored(sum(1 << bit for bit in bits))) == bits


def test_manipulation_of_a_base_meter_shows_in_the_gateway_s_half() -> None:
    for bit in (9, 10):
        status = combine(word_of({2, bit}))
        assert status.severities() == {Severity.TAMPER}
        assert status.gateway == {0, 2, GatewayBit.METER_TAMPER}
    assert combine(word_of({2, 17})).severities() == {Severity.FATAL}


def test_wired_gas_has_its_own_column() -> None:
    status = combine(word_of({3, 8, 9, 17}))
    assert status.kind is MeterKind.WIRED_GAS
    assert status.severities() == {Severity.WARNING, Severity.TAMPER, Severity.FATAL}


@pytest.mark.parametrize(
    ("sts", "meter", "severity"),
    [
        (0x01, {31}, None),  # busy
        (0x02, {30}, Severity.ERROR),  # application error
        (0x03, {30, 31}, Severity.ERROR),  # abnormal condition, the table's "Anomalie"
        (0x04, {29}, Severity.WARNING),  # power low
        (0x08, {28}, Severity.FATAL),  # permanent
        (0x10, {27}, Severity.ERROR),  # temporary
        (0x80, {24}, None),  # manufacturer's
    ],
)
def test_sts_of_a_wireless_meter(sts: int, meter: set[int], severity: Severity | None) -> None:
    status = combine(wireless_word(sts), wireless=True)
    assert status.kind is MeterKind.WIRELESS
    assert status.meter == meter
    assert status.severities() == (frozenset() if severity is None else {severity})
    assert (GatewayBit.METER_ERROR in status.gateway) == bool(meter & {27, 28, 30})


def test_error_flags_of_a_wireless_meter_keep_their_order() -> None:
    assert wireless_word(0x00, 0x81, 0x40, 0x02).hex() == "81400200"
    assert combine(wireless_word(0, ef1=0x81), wireless=True).gateway == {0, 2, 14, 17}
    assert combine(wireless_word(0, ef1=0x90), wireless=True).gateway == {0, 2, 15, 17}  # hardware fault: MTR_Error
    with pytest.raises(LocalProtocolError):
        wireless_word(256)


def test_the_gateway_s_own_findings() -> None:
    status = combine(gateway_bits=[GatewayBit.NO_VALUE, GatewayBit.NOT_FOR_BILLING])
    assert bytes(status).hex() == "e004000000000000"
    assert status.kind is MeterKind.OTHER


@pytest.mark.parametrize("text", ["", "a0000000", "80000000208c3800", "a0000001208c3800", "a00000002080380000"])
def test_words_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        CombinedStatus.from_bytes(bytes.fromhex(text))


def test_misuse_is_ours() -> None:
    with pytest.raises(LocalProtocolError):
        word_of([32])
    with pytest.raises(LocalProtocolError):
        combine(b"\x00")
