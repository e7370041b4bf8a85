"""
The interface of a PPC gateway: one CGI path, a first page that begins a session, then posted forms with an `action`.

Ids in its forms are those of meters and profiles; the device makes new ones for each page, and its clients take them
as they come.  `smgw-bootstream` and `smgw-services` among the software versions name the releases whose pages these are
like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Final
from urllib.parse import parse_qsl
from xml.etree.ElementTree import Element

import trio

from node.han.accounts import Account
from node.han.api import HanAnswer, HanRefusal, HanRequest, Start
from node.han.facades import ppc_exports as exports
from node.han.facades import ppc_pages as pages
from node.han.facades.facade import counters, energy_first, number_of, signature_of
from node.han.facades.ppc_sessions import PpcSession, PpcSessions
from node.han.facades.ppc_tariffs import VALUES_MAX, TariffPages
from node.han.facades.ppc_times import span_of
from node.han.models import Empty, RegisterValue
from node.han.query import Query
from node.han.signing import SIGNED_MAX
from node.han.threads import in_thread
from node.han.view import LOG_RECORDS_MAX, NotThere, View
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis

PATH: Final = "/cgi-bin/hanservice.cgi"
ROWS_MAX: Final = 1_000
_HTML: Final = "text/html; charset=utf-8"
_HEADERS: Final = (
    ("Content-Security-Policy", "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
)
_BINARY: Final = "application/octet-stream"
_FIELDS_MAX: Final = 32
_ANY: Final = Query()
_COUNTER: Final = "01005e318002"  # as the device writes it before the id of an electricity meter


@dataclass(frozen=True, slots=True)
class Call:
    """An action that is asked for, and by whom."""

    account: Account
    session: PpcSession
    form: Mapping[str, str]


class Ppc:
    """See the head of the file; `self_test` carries out the action of that name, `random(size)` draws octets."""

    name = "ppc"

    def __init__(self, view: View, self_test: Start, random: Callable[[int], bytes]) -> None:
        self._view = view
        self._self_test = self_test
        self.sessions = PpcSessions(random, trio.current_time)
        tariffs = TariffPages(view)
        self._actions: Mapping[str, Callable[[Call], HanAnswer]] = {
            "meterform": self._meters, "showMeterProfile": self._meter, "showMeterValuesForm": self._values_form,
            "showMeterValues": self._values, "exportMeterValues": self._export_values,
            "exportMeterProfile": self._export_meter, "exportLogData": self._export_log, "log": self._log,
            "swversions": self._versions,
            **{name: self._tariff_page(work) for name, work in tariffs.actions.items()},
        }  # fmt: skip

    def owns(self, path: str) -> bool:  # noqa: D102 - see Facade
        return path == PATH

    async def answer(self, request: HanRequest) -> HanAnswer:  # noqa: D102 - see Facade
        if request.headers.get("sec-fetch-site", "none") in {"cross-site", "same-site"}:
            return _failed(403, "Die Anfrage kommt von einer anderen Seite.")
        if request.method == "GET":
            return self._welcome(request.account)
        if request.method != "POST":
            return _failed(405, "Erwartet: GET oder POST.", ("Allow", "GET, POST"))
        session = self.sessions.find(request.account.user, request.headers.get("cookie", ""))
        if session is None:
            return _failed(403, "Keine Sitzung: rufen Sie zuerst die Startseite auf.")
        call = Call(request.account, session, _form(request.body))
        if call.form.get("tkn", session.token) != session.token:
            return _failed(403, "Das Formular gehört zu einer anderen Sitzung.")
        try:
            return await self._called(call)
        except NotThere:
            return _failed(404, "Nicht vorhanden.")
        except RemoteProtocolError as error:
            return _failed(400, error.detail)
        except LocalProtocolError:
            return _failed(503, "Das Gateway hat noch kein Zertifikat, mit dem es unterschreiben kann.")

    def _welcome(self, account: Account) -> HanAnswer:
        session = self.sessions.begin(account.user)
        content = [pages.tag("p", f"Willkommen, {account.user}.")]
        # SameSite: a page of another site cannot use the session, which is what the token alone would be for.
        cookie = f"session={session.cookie}; secure; HttpOnly; SameSite=Strict; Path={PATH}"
        found = self._page("Willkommen", session, content)
        headers = (*found.headers, ("Set-Cookie", cookie))
        return HanAnswer(found.status, found.content, found.content_type, headers)

    async def _called(self, call: Call) -> HanAnswer:
        action = call.form.get("action", "")
        if action == "logout":
            self.sessions.end(call.account.user, call.session)
            return _plain("Abgemeldet", "Sie sind abgemeldet.")
        if action == "selftest":
            result = await self._self_test(call.account, Empty())
            if isinstance(result, HanRefusal):
                return _failed(result.status, result.detail)
            return self._page("Selbsttest", call.session, [pages.tag("p", "Der Selbsttest wurde ausgeführt.")])
        work = self._actions.get(action)
        if work is None:
            return _failed(400, "Diese Aktion gibt es nicht.")
        return await in_thread(lambda: work(call))

    # --- pages -------------------------------------------------------------------------------------------------------

    def _meters(self, call: Call) -> HanAnswer:
        options = [(name, f"{_COUNTER}.{name}.sm") for name in self._view.meter_ids(call.account)]
        choice = pages.choice("mid", "meterform_select_meter", options)
        chosen = pages.form(call.session.token, "showMeterProfile", choice, _submit(), id="form_meterform")
        return self._page("Zähler", call.session, [chosen])

    def _meter(self, call: Call) -> HanAnswer:
        meter = self._view.meter(call.account, call.form.get("mid", ""), _ANY)
        values = energy_first(self._view.reading(call.account, meter.id, _ANY).values)
        groups = [(moment, list(part)) for moment, part in groupby(values, lambda each: each.measured_at)]
        about = {
            "Zähler-ID": f"{meter.id}.sm", "Name": meter.meter or meter.id,
            "Beschreibung": ", ".join(meter.metering_points), "Kommunikationstyp": "LMN",
            "Protokoll-Typ": meter.protocol, "Protokoll-Version": "1",
            "Ausleseintervall": str(meter.registration_period_s), "Abfrageversuche": "1", "Zähleradresse": meter.id,
            "Medium": "Elektrizität",
        }  # fmt: skip
        content = [
            pages.table((f"{_COUNTER}.{meter.id}.sm",), ()), pages.labelled(about),
            pages.meter_values(groups, self._signatures(meter.id, values)),
            pages.form(
                call.session.token, "showMeterValuesForm", pages.hidden_field("mid", meter.id), _submit("Zählerstände")
            ),
        ]  # fmt: skip
        return self._page("Zählerprofil", call.session, content)

    def _values_form(self, call: Call) -> HanAnswer:
        meter = self._view.meter(call.account, call.form.get("mid", ""), _ANY)
        fields = (
            pages.hidden_field("mid", meter.id), pages.tag("input", name="from"), pages.tag("input", name="to"),
            _submit("Anzeigen"),
        )  # fmt: skip
        chosen = pages.form(call.session.token, "showMeterValues", *fields, name="input_metervalues")
        return self._page("Zählerstände", call.session, [chosen])

    def _values(self, call: Call) -> HanAnswer:
        meter, columns = self._columns(call)
        rows = [each for values in columns.values() for each in values]
        order = list(columns)
        # The newest first; within a time active energy first, which is what clients take that look at one row.
        rows.sort(key=lambda each: order.index(Obis.parse(each.obis)))
        rows.sort(key=lambda each: each.registered_for or each.measured_at, reverse=True)
        first = min(number_of(call.form.get("page")) or 0, len(rows)) * ROWS_MAX
        shown = rows[first : first + ROWS_MAX]
        groups = [
            (moment, list(part))
            for moment, part in groupby(shown, lambda each: each.registered_for or each.measured_at)
        ]
        content = [pages.meter_values(groups, self._signatures(meter, shown))]
        if rows[first + ROWS_MAX :]:
            again = [pages.hidden_field(name, call.form[name]) for name in ("mid", "from", "to") if name in call.form]
            further = pages.tag("input", type="submit", id="table_metervalues_button_nextpage", value="Nächste Seite")
            number = str(first // ROWS_MAX + 1)
            content.append(
                pages.form(call.session.token, "showMeterValues", *again, pages.hidden_field("page", number), further)
            )
        return self._page("Zählerstände", call.session, content)

    def _log(self, call: Call) -> HanAnswer:
        from_s, to_s = span_of(call.form)
        query = Query(from_s, to_s, count=LOG_RECORDS_MAX)
        entries = self._view.consumer_log(call.account, call.account.user, query).records
        return self._page("Logbuch", call.session, [pages.log_lines(reversed(entries))])

    def _versions(self, call: Call) -> HanAnswer:
        device = self._view.device(call.account, self._view.gateway_id, _ANY)
        rows = (
            ("smgw-bootstream", pages.BOOT, device.software_sha256),
            ("smgw-services", pages.SERVICES, device.software_sha256),
            ("stromkreis", device.software_version, device.software_sha256),
        )
        lines = [pages.tag("tr", *(pages.tag("td", text) for text in row)) for row in rows]
        found = pages.table(("Komponente", "Version", "Prüfsumme"), lines, id="swversions")
        return self._page("Softwareversionen", call.session, [found])

    # --- exports ------------------------------------------------------------------------------------------------------

    def _export_values(self, call: Call) -> HanAnswer:
        meter, columns = self._columns(call)
        values = [each for column in columns.values() for each in column]
        if not values:
            raise NotThere
        return self._exported("values", meter, exports.meter_values(meter, columns, self._signatures(meter, values)))

    def _export_meter(self, call: Call) -> HanAnswer:
        meter = self._view.meter(call.account, call.form.get("mid", ""), _ANY)
        return self._exported("profile", meter.id, exports.meter_profile(meter))

    def _export_log(self, call: Call) -> HanAnswer:
        from_s, to_s = span_of(call.form)
        query = Query(from_s, to_s, count=LOG_RECORDS_MAX)
        entries = self._view.consumer_log(call.account, call.account.user, query).records
        if len(entries) >= LOG_RECORDS_MAX:
            return _failed(200, f"{len(entries)} Einträge oder mehr: erwartet werden weniger als {LOG_RECORDS_MAX}.")
        if not entries:
            raise NotThere
        return self._exported("log", self._view.gateway_id, exports.log_data(self._view.gateway_id, entries))

    def _exported(self, kind: str, name: str, document: Element) -> HanAnswer:
        message = exports.signed(document, self._view.facts.module.signature_key)
        disposition = "Content-Disposition", f'attachment; filename="{name}_{kind}.xml.cms"'
        return HanAnswer(200, message, _BINARY, (disposition,))

    # --- how it is found ----------------------------------------------------------------------------------------------

    def _columns(self, call: Call) -> tuple[str, dict[Obis, tuple[RegisterValue, ...]]]:
        meter = self._view.meter(call.account, call.form.get("mid", ""), _ANY)
        from_s, to_s = span_of(call.form)
        columns: dict[Obis, tuple[RegisterValue, ...]] = {}
        for obis in counters(meter.registers):
            columns[obis] = self._view.readings(call.account, meter.id, Query(from_s, to_s, obis=obis)).records
            if sum(map(len, columns.values())) > VALUES_MAX:
                raise RemoteProtocolError("bad_span", f"from, to: more than {VALUES_MAX} values lie between them")
        return meter.id, columns

    def _signatures(self, meter: str, values: Sequence[RegisterValue]) -> dict[int, str]:
        """Of each value, by its `id`; of none where there are too many, which the message's own signature covers."""
        if len(values) > SIGNED_MAX:
            return {}
        return {id(each): signature_of(self._view.signer, meter, each) for each in values}

    def _tariff_page(self, work: Callable[[Account, Mapping[str, str], str], list[Element]]) -> Callable[
        [Call], HanAnswer
    ]:  # fmt: skip
        def answer(call: Call) -> HanAnswer:
            content = work(call.account, call.form, call.session.token)
            return self._page("Auswertungsprofile", call.session, content)

        return answer

    def _page(self, title: str, session: PpcSession, content: Sequence[Element]) -> HanAnswer:
        now = datetime.fromtimestamp(self._view.facts.clock(), UTC)
        return HanAnswer(200, pages.page(title, session.token, now, content), _HTML, _HEADERS)


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX))
    except ValueError:
        raise RemoteProtocolError("bad_form", f"expected a form of at most {_FIELDS_MAX} fields") from None


def _submit(label: str = "Auswählen") -> Element:
    return pages.tag("input", type="submit", value=label)


def _plain(title: str, text: str) -> HanAnswer:
    return HanAnswer(200, pages.plain(title, text), _HTML)


def _failed(status: int, detail: str, *headers: tuple[str, str]) -> HanAnswer:
    return HanAnswer(status, pages.plain("Fehler", detail), _HTML, headers)
