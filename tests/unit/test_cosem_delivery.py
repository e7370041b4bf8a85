"""Deliveries as COSEM XML: what was said comes back, what does not fit is refused without its values."""

from __future__ import annotations

from dataclasses import replace
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.cosem.data import add_number, date_time, moment_of
from protocol.cosem.delivery import Delivery, Detail, PeriodResult, Row, canonical_name
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis

IMPORT = Obis(1, 0, 1, 8, 0, 255)
OCTOBER_S = 1_790_805_600
PLANTED = 987_654_321_012
DELIVERY = Delivery(
    "ab" * 16, canonical_name("ESTK0100000001"),
    PeriodResult(
        "p1", 7, "DE0001234567890123456789012345678", IMPORT, -1, 30, 900, OCTOBER_S, OCTOBER_S + 1_800,
        is_complete=False, is_billable=True, derivation=5,
        registers=((IMPORT, 12), (IMPORT._replace(e=63), -3)),
        rows=(Row(OCTOBER_S, PLANTED), Row(OCTOBER_S + 900, 2, is_valid=False, status=2**63)),
    ),
)  # fmt: skip


def test_a_delivery_comes_back_from_its_document() -> None:
    assert Delivery.from_xml(DELIVERY.to_xml()) == DELIVERY


DETAILS = (
    Detail("high", "event", Obis(1, 0, 32, 7, 0, 255), -1, 35, OCTOBER_S * 1000 + 7, OCTOBER_S * 1000 + 7, PLANTED),
    Detail("limited", "wallbox", Obis(1, 0, 1, 7, 0, 255), 0, 27, 0, 900_000, 4_200, is_valid=False, status=3),
)


def test_details_come_back_from_their_document() -> None:
    made = replace(DELIVERY, result=replace(DELIVERY.result, details=DETAILS))
    assert Delivery.from_xml(made.to_xml()) == made


@pytest.mark.parametrize("old", ["<cod:long64>4200</cod:long64>", "<cod:visible-string>limited</cod:visible-string>"])
def test_a_detail_of_another_form_is_refused_without_values(old: str) -> None:
    document = replace(DELIVERY, result=replace(DELIVERY.result, details=DETAILS)).to_xml()
    for new in (b"<cod:boolean>true</cod:boolean>", b""):
        with pytest.raises(RemoteProtocolError) as refused:
            Delivery.from_xml(document.replace(old.encode(), new))
        assert str(PLANTED) not in str(refused.value)


def test_the_document_has_the_elements_of_the_annex() -> None:
    document = DELIVERY.to_xml().decode()
    assert document.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<container xmlns="urn:k461-dke-de:cor-1"')
    device = b"estk0100000001.sm".hex()
    assert f'<ldevs count="1"><ldev id="{device}"><objects count="4"><object class-id="1" version="0"' in document
    assert (
        '<object class-id="3" version="0" id="010001083fff"><attributes count="3"><attribute id="1">'
        "<cod:octet-string>010001083fff</cod:octet-string></attribute>"
    ) in document
    assert "<cod:date_time>07ea091e0316" in document  # 2026-09-30, a Wednesday, 22:00 UTC
    assert '<object class-id="7" version="1" id="0100010800ff"><attributes count="4">' in document


@given(st.integers(0, 2**33), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1) | st.none())
def test_every_value_and_moment_comes_back(moment_s: int, value: int, status: int | None) -> None:
    assert moment_of(date_time(moment_s)) == moment_s
    made = replace(DELIVERY, result=replace(DELIVERY.result, rows=(Row(moment_s, value, status=status),)))
    assert Delivery.from_xml(made.to_xml()) == made


def test_a_number_too_large_for_its_type_is_not_cut() -> None:
    with pytest.raises(OverflowError):
        replace(DELIVERY, result=replace(DELIVERY.result, registers=((IMPORT, 2**63),))).to_xml()
    with pytest.raises(OverflowError):
        add_number(Element("x"), "integer", 128)


CHANGES = [
    (b"<?xml", b"<!DOCTYPE a []><?xml"), (b"<container", b"<contained"), (b"</container>", b""),
    (b"long64>2<", b"long64>zwei<"), (b"<cod:boolean>false", b"<cod:boolean>2"), (b'id="abab', b'id="xyab'),
    (b"<cod:date_time>07ea09", b"<cod:date_time>07ea0d"), (b"<cod:unsigned>7<", b"<cod:visible-string>7<"),
    (b'class-id="1"', b'class-id="2"'), (b"cod:long64>-3<", b"cod:strange>-3<"),
    (b"<cod:unsigned>1<", b"<cod:unsigned>2<"), (b"long64>2<", b"long64>9223372036854775808<"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_a_document_that_does_not_fit_is_refused_without_values(old: bytes, new: bytes) -> None:
    document = DELIVERY.to_xml()
    assert old in document
    with pytest.raises(RemoteProtocolError, match="bad_cosem") as refused:
        Delivery.from_xml(document.replace(old, new))
    assert str(PLANTED) not in str(refused.value)
    assert refused.value.__cause__ is None


@given(st.integers(0, 4_000), st.binary(max_size=8))
def test_mutated_documents_raise_nothing_else(position: int, octets: bytes) -> None:
    document = DELIVERY.to_xml()
    cut = position % len(document)
    try:
        Delivery.from_xml(document[:cut] + octets + document[cut + len(octets) :])
    except RemoteProtocolError as error:
        assert error.reason == "bad_cosem"  # noqa: PT017


def test_repr_of_a_result_shows_no_reading() -> None:
    assert str(PLANTED) not in repr(DELIVERY)
