"""Pages of the PPC interface on processing profiles ("Auswertungsprofile"): their periods, registers and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final
from xml.etree.ElementTree import Element

from node.han.accounts import Account
from node.han.facades import ppc_pages as pages
from node.han.facades.facade import decimal_of, is_valid, signature_of
from node.han.facades.ppc_times import span_of
from node.han.models import Meter, Period, UseCase
from node.han.query import Query
from node.han.signing import SIGNED_MAX
from node.han.view import NotThere, View
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis

_Page = Callable[[Account, Mapping[str, str], str], list[Element]]
_ANY: Final = Query()
_LOAD_PROFILE: Final = 7
VALUES_MAX: Final = 20_000
"""Of one answer: three months of quarter hours and two registers."""
_VALID, _INVALID = "valide", "nicht valide"


class TariffPages:
    """`actions` make the content of a page from account, form and token."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.actions: Mapping[str, _Page] = {
            "tariffform": self._profiles, "showTariffProfile": self._profile, "showTarificationForm": self._span_form,
            "showTarification": self._periods, "showTarificationRegister": self._registers,
        }  # fmt: skip

    def _profiles(self, account: Account, _form: Mapping[str, str], token: str) -> list[Element]:
        options = [
            (name, f"{name} (TAF-{self._view.use_case(account, name, _ANY).taf})")
            for name in self._view.profile_ids(account)
        ]
        choice = pages.choice("tid", "tarifform_select_profile", options)
        shown = pages.tag("input", type="submit", value="Auswählen")
        return [pages.form(token, "showTariffProfile", choice, shown, id="form_tarifform")]

    def _profile(self, account: Account, form: Mapping[str, str], token: str) -> list[Element]:
        found = self._view.use_case(account, form.get("tid", ""), _ANY)
        meters = self._meters(account, found)
        about = {
            "Profil-ID": found.id, "Profilname": found.id, "TAF-Typ": f"TAF-{found.taf}",
            "Registerperiode (sek.)": str(found.registration_period_s),
            "Abrechnungsperiode (sek.)": "", "Vorhaltezeit (Tage)": str(found.retention_days),
            "Beginn Validierungsperiode": pages.moment_text(found.valid_from),
            "Ende Validierungsperiode": _end(found.valid_to), "Alias": found.id,
            "Zählpunktbezeichnung": found.metering_point, "Tarifstufen": "", "Tag Beginn": "",
        }  # fmt: skip
        rows = [
            pages.cells(
                "table_tafvalues_col",
                {"obis": pages.short(found.obis), "messgroesse": pages.short(found.obis), "domain": f"{each.id}.sm"},
                "table_tafvalues_line",
            )
            for each in meters
        ]
        further = pages.form(
            token, "showTarificationForm", pages.hidden_field("tid", found.id),
            pages.tag("input", type="submit", value="Tarifierung"),
        )  # fmt: skip
        values = pages.table(("OBIS", "Messgröße", "Zähler"), rows, id="tafvalues")
        return [pages.labelled(about), values, further]

    def _span_form(self, account: Account, form: Mapping[str, str], token: str) -> list[Element]:
        found = self._view.use_case(account, form.get("tid", ""), _ANY)
        fields = (
            pages.hidden_field("tid", found.id), pages.tag("input", name="from"), pages.tag("input", name="to"),
            pages.tag("input", type="submit", value="Anzeigen"),
        )  # fmt: skip
        return [pages.form(token, "showTarification", *fields, name="input_tarification")]

    def _periods(self, account: Account, form: Mapping[str, str], token: str) -> list[Element]:
        """Billing periods; of a load profile its values, which are all that it has."""
        found = self._view.use_case(account, form.get("tid", ""), _ANY)
        if found.taf == _LOAD_PROFILE:
            return [self._values(account, found, form)]
        from_s, to_s = span_of(form)
        rows = []
        for period in self._view.registers(account, found.id, _ANY).closed:
            if _is_in(period, from_s, to_s):
                shown = {
                    "periodbegin": pages.moment_text(period.start), "periodend": pages.moment_text(period.end),
                    "register": str(len(period.registers)), "status": _VALID if period.is_complete else _INVALID,
                }  # fmt: skip
                row = pages.cells("table_tarification_col", shown, "table_tarification_line")
                row.append(pages.tag("td", _register_form(token, found.id, period)))
                rows.append(row)
        return [pages.table(("Beginn", "Ende", "Register", "Status", ""), rows, id="tarification")]

    def _registers(self, account: Account, form: Mapping[str, str], _token: str) -> list[Element]:
        name, _, start = form.get("ttid", "").rpartition("@")
        for period in self._view.registers(account, name, _ANY).closed:
            if str(int(period.start.timestamp())) == start:
                return [_register_table([(period, each.obis, each.value) for each in period.registers])]
        raise NotThere

    def _values(self, account: Account, profile: UseCase, form: Mapping[str, str]) -> Element:
        from_s, to_s = span_of(form)
        query = Query(from_s, to_s, obis=Obis.parse(profile.obis))
        rows = []
        found = [
            (meter, each)
            for meter in self._meters(account, profile)
            for each in self._view.readings(account, meter.id, query).records
        ]
        if len(found) > VALUES_MAX:
            raise RemoteProtocolError("bad_span", f"from, to: more than {VALUES_MAX} values lie between them")
        for meter, each in found:
            wert, einheit = decimal_of(each)
            sign = signature_of(self._view.signer, meter.id, each) if len(found) <= SIGNED_MAX else ""
            quality = _VALID if is_valid(each) else _INVALID
            rows.append(_row(each.registered_for or each.measured_at, each.obis, wert, einheit, quality, sign))
        return _table(rows)

    def _meters(self, account: Account, profile: UseCase) -> list[Meter]:
        meters = [self._view.meter(account, name, _ANY) for name in self._view.meter_ids(account)]
        return [each for each in meters if profile.metering_point in each.metering_points]


def _register_form(token: str, name: str, period: Period) -> Element:
    return pages.form(
        token, "showTarificationRegister", pages.hidden_field("ttid", f"{name}@{int(period.start.timestamp())}"),
        pages.tag("input", type="submit", id="button_tarification_register", value="Register"),
    )  # fmt: skip


def _register_table(found: list[tuple[Period, str, str]]) -> Element:
    rows = []
    for period, obis, value in found:
        is_energy = period.unit == "Wh"
        number = Decimal(value).scaleb(period.scaler - (3 if is_energy else 0))
        unit = "kWh" if is_energy else period.unit
        quality = _VALID if period.is_complete else _INVALID
        rows.append(_row(period.end, obis, format(number, "f"), unit, quality, ""))
    return _table(rows)


def _row(moment: datetime, obis: str, wert: str, einheit: str, quality: str, sign: str) -> Element:
    shown = {
        "zeitstempel": pages.moment_text(moment), "sollzeitpunkt": pages.moment_text(moment),
        "obis": pages.short(obis), "wert": wert, "einheit": einheit, "kostenstufe": str(Obis.parse(obis).e),
        "qualitaet": quality, "sign": sign,
    }  # fmt: skip
    return pages.cells("table_tafregister_col", shown, "table_tafregister_line")


def _table(rows: list[Element]) -> Element:
    heads = ("Zeitstempel", "Sollzeitpunkt", "OBIS", "Wert", "Einheit", "Tarifstufe", "Qualität", "Signatur")
    return pages.table(heads, rows, id="tarification_register")


def _is_in(period: Period, from_s: int | None, to_s: int | None) -> bool:
    begin, end = period.start.timestamp(), period.end.timestamp()
    return (from_s is None or end > from_s) and (to_s is None or begin < to_s)


def _end(moment: datetime | None) -> str:
    return "unbegrenzt" if moment is None else pages.moment_text(moment)
