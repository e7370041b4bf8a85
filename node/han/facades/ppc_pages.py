"""
Pages of the PPC interface, as its clients take them apart: by the ids of elements, which repeat in each row.

There is no white space between elements, since one client takes the first node of a list of options for an option.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from xml.etree.ElementTree import Element, tostring

from node.han.facades.facade import decimal_of, is_valid
from node.han.models import LogEntry, RegisterValue
from protocol.metering.obis import Obis
from protocol.profiles.calendar import LEGAL_TIME

BOOT: Final = "31416"
SERVICES: Final = "34900"
"""The releases of the device whose pages these are like: clients choose how to read them by it."""
_LEVELS: Final = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "FATAL"}
_MENU: Final = (
    ("button_menu_zaehler", "meterform", "Zähler"), ("button_menu_tarif", "tariffform", "Auswertungsprofile"),
    ("button_menu_log", "log", "Logbuch"), ("button_menu_version", "swversions", "Softwareversionen"),
    ("button_menu_selbsttest", "selftest", "Selbsttest"), ("button_menu_logout", "logout", "Abmelden"),
)  # fmt: skip
_NAMES: Final = {"1.8.0": "Wirkarbeit Bezug", "2.8.0": "Wirkarbeit Lieferung", "16.7.0": "Wirkleistung"}


def tag(name: str, /, *children: Element | str, **attributes: str) -> Element:
    """An element; `class_` is the attribute `class`."""
    made = Element(name, {key.rstrip("_"): value for key, value in attributes.items()})
    for each in children:
        if isinstance(each, str):
            made.text = each
        else:
            made.append(each)
    return made


def page(title: str, token: str, synced: datetime, content: Sequence[Element] = ()) -> bytes:
    """A page with its menu; the first input of it is the token."""
    body = tag(
        "body",
        tag("div", *(_menu_form(token, *each) for each in _MENU), class_="menu"),
        tag("div", tag("h1", title), *content, class_="content"),
        tag("p", f"{BOOT}-{SERVICES}", id="div_fwversion"),
        tag("p", f"(Letzte Synchronisation: {moment_text(synced)})", id="div_timestamp"),
    )  # fmt: skip
    head = tag("head", tag("meta", charset="utf-8"), tag("title", title))
    return _document(tag("html", head, body, lang="de"))


def plain(title: str, text: str) -> bytes:
    """A page without menu: what went wrong, or that the session is over."""
    body = tag("body", tag("div", tag("h1", title), tag("p", text), class_="content"))
    return _document(tag("html", tag("head", tag("meta", charset="utf-8"), tag("title", title)), body, lang="de"))


def form(token: str, action: str, *fields: Element, **attributes: str) -> Element:
    """A form that posts an action with the token."""
    hidden = (tag("input", type="hidden", name="tkn", value=token), hidden_field("action", action))
    return tag("form", *hidden, *fields, method="post", **attributes)


def hidden_field(name: str, value: str) -> Element:
    """A field of a form that is not shown."""
    return tag("input", type="hidden", name=name, value=value)


def choice(name: str, identity: str, options: Iterable[tuple[str, str]]) -> Element:
    """A list to choose from: pairs of value and text."""
    return tag("select", *(tag("option", text, value=value) for value, text in options), id=identity, name=name)


def labelled(rows: Mapping[str, str]) -> Element:
    """A table of labels and values."""
    return tag("table", *(tag("tr", tag("td", label), tag("td", value)) for label, value in rows.items()))


def table(heads: Sequence[str], rows: Iterable[Element], **attributes: str) -> Element:
    """A table with heads."""
    return tag("table", tag("tr", *(tag("th", each) for each in heads)), *rows, **attributes)


def cells(prefix: str, values: Mapping[str, str], identity: str) -> Element:
    """A row whose cells have ids of a prefix."""
    return tag("tr", *(tag("td", text, id=f"{prefix}_{name}") for name, text in values.items()), id=identity)


def meter_values(groups: Iterable[tuple[datetime, Sequence[RegisterValue]]], signatures: Mapping[int, str]) -> Element:
    """Values, those of one time together; only the first of them shows it.  `signatures` by `id` of the value."""
    rows = []
    for moment, values in groups:
        for number, each in enumerate(values):
            wert, einheit = decimal_of(each)
            shown = {
                "wert": wert, "einheit": einheit, "timestamp": "" if number else moment_text(moment),
                "istvalide": "1" if is_valid(each) else "2", "name": _NAMES.get(short(each.obis)[4:], ""),
                "obis": short(each.obis), "sign": signatures.get(id(each), ""),
            }  # fmt: skip
            if number:
                del shown["timestamp"]
            rows.append(cells("table_metervalues_col", shown, f"table_metervalues_line{number + 1}"))
    heads = ("Wert", "Einheit", "Zeitstempel", "Gültig", "Name", "OBIS", "Signatur")
    return table(heads, rows, id="metervalue")


def log_lines(entries: Iterable[LogEntry]) -> Element:
    """Entries of the consumer's log."""
    rows = [
        cells(
            "table_logs_col",
            {
                "logid": str(each.number), "zeit": moment_text(each.at), "loglevel": _LEVELS[each.level],
                "msgtext": each.german, "outcome": outcome(each),
            },
            "table_logs_line",
        )
        for each in entries
    ]  # fmt: skip
    return table(("Nummer", "Zeit", "Stufe", "Text", "Ergebnis"), rows, id="logs")


def level(entry: LogEntry) -> str:
    """The level of an entry, written out."""
    return _LEVELS[entry.level]


def outcome(entry: LogEntry) -> str:
    """What an entry tells of."""
    return "SUCCESS" if entry.level == "I" else "FAILURE"


def moment_text(moment: datetime) -> str:
    """A time as the device shows it: German legal time, without its offset."""
    return moment.astimezone(LEGAL_TIME).strftime("%Y-%m-%d %H:%M:%S")


def short(obis: str) -> str:
    """A-B:C.D.E, without the group that is always 255."""
    return str(Obis.parse(obis)).partition("*")[0]


def _menu_form(token: str, identity: str, action: str, label: str) -> Element:
    return form(token, action, tag("input", type="submit", id=identity, value=label))


def _document(root: Element) -> bytes:
    return b"<!DOCTYPE html>" + bytes(tostring(root, encoding="utf-8", method="html"))
