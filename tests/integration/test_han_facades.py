"""
Interfaces of gateways in the field, asked as their clients ask and taken apart as those take them apart.

What each client sends and parses was read from its source; py-ppc-smgw and theben-conexa-smgw run themselves in
tests/interop.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from lxml import html

from node.taf.use_cases import UseCases
from protocol import cms
from protocol.cms.structures import DATA
from protocol.logs.events import Event
from protocol.profiles.calendar import LEGAL_TIME
from tests.integration.han_home import ANNA, BEN, GATEWAY, METERS, NOW_S, POINT, QUARTER_S, Home, consumer
from tests.integration.han_profiles import profile_document

CGI, M2M, JSON = "/cgi-bin/hanservice.cgi", "/smgw/m2m", "/json/metering"
NEWEST = NOW_S // QUARTER_S * QUARTER_S
IMPORTED, EXPORTED = 1_004_800, 143_542  # of the first meter now, in tenths of Wh
NAMESPACES = {"p": "urn:k461-dke-de:profile_generic-1", "e": "urn:k461-dke-de:extension-1"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    anna = replace(consumer(*ANNA, 0), facades=frozenset({"ppc", "theben", "emh"}))
    made = Home(tmp_path, (anna, consumer(*BEN, 1)))
    with trio.fail_after(300):
        async with made.serving(days=1):
            yield made
    made.keys.close()


@pytest.fixture
async def contracted(tmp_path: Path) -> AsyncIterator[Home]:
    """Under profiles: Anna with the PPC and EMH interfaces, Ben with Theben's."""
    document = profile_document()
    document["han"][0]["facades"], document["han"][1]["facades"] = ["ppc", "emh"], ["theben"]
    made = Home(tmp_path, (), profiles_document=document)
    with trio.fail_after(300):
        async with made.serving(days=1):
            yield made
    made.keys.close()


def local(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, LEGAL_TIME).strftime("%Y-%m-%d %H:%M:%S")


async def test_interfaces_are_off_until_a_profile_names_them(home: Home) -> None:
    async with home.client(BEN) as client:
        for path in (CGI, M2M, f"{M2M}/ben.sm/json", f"{JSON}/origin/", f"{JSON}/derived"):
            answer = await client.get(path)
            assert (path, answer.status_code, answer.json()["reason"]) == (path, 404, "not_there")
    async with home.client(None) as client:
        assert (await client.get(f"{JSON}/origin/")).status_code == 401


async def test_profiles_switch_interfaces_on_by_account(contracted: Home) -> None:
    wanted = {ANNA: {CGI: 200, M2M: 404, f"{JSON}/origin": 200}, BEN: {CGI: 404, M2M: 307, f"{JSON}/origin": 404}}
    for login, paths in wanted.items():
        async with contracted.client(login) as client:
            assert {path: (await client.get(path)).status_code for path in paths} == paths


# --- PPC ------------------------------------------------------------------------------------------------------------


class NodeRed:
    """The digest of node-red-contrib-smgw: MD5 whatever is offered first, one nonce, `qop` in quotes, no `opaque`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.count = 1
        self.challenge: dict[str, str] = {}
        self.cookie = ""

    async def begin(self) -> None:
        answer = await self.client.get(CGI)
        assert answer.status_code == 401
        header = ", ".join(answer.headers.get_list("www-authenticate"))  # as Node.js joins them
        assert header.startswith("Digest")
        for item in header.split(","):
            for name in ("realm", "nonce", "qop"):
                if f"{name}=" in item:
                    self.challenge[name] = item.split('="')[-1][:-1]

    async def request(self, method: str, body: str | None = None) -> httpx.Response:
        def md5(text: str) -> str:
            return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

        (user, password), nonce, count = ANNA, self.challenge["nonce"], f"{self.count:08d}"
        first, second = md5(f"{user}:{self.challenge['realm']}:{password}"), md5(f"{method}:{CGI}")
        response = md5(f"{first}:{nonce}:{count}:cn:auth:{second}")
        headers = {
            "Authorization": f'Digest username="{user}",realm="{self.challenge["realm"]}",nonce="{nonce}",uri="{CGI}",'
            f'cnonce="cn",nc={count},algorithm=MD5,response="{response}",qop="auth"'
        }
        headers |= {"Cookie": self.cookie} if self.cookie else {}
        self.count += 1
        return await self.client.request(method, CGI, content=body, headers=headers | (FORM if body else {}))


async def test_a_client_that_knows_md5_and_one_nonce_reads_on_one(home: Home) -> None:
    async with home.client(None) as http:
        client = NodeRed(http)
        await client.begin()
        welcome = await client.request("GET")
        assert "Willkommen" in welcome.text
        assert "Fehler" not in welcome.text
        client.cookie = welcome.headers.get_list("set-cookie")[0].split(";")[0]
        page = html.fromstring(welcome.content)
        assert page.xpath("//input")[0].get("name") == "tkn"
        inputs = fields(page.get_element_by_id("button_menu_zaehler").getparent())
        meters = parsed(await client.request("POST", f"tkn={inputs['tkn']}&action={inputs['action']}"))
        options = list(meters.get_element_by_id("meterform_select_meter"))
        assert meters.get_element_by_id("meterform_select_meter").text is None  # no white space before the first
        mid = next(each.get("value") for each in options if METERS[0] in each.text)
        token = meters.get_element_by_id("form_meterform").xpath(".//input[@name='tkn']")[0].get("value")
        shown = await client.request("POST", f"tkn={token}&action=showMeterProfile&mid={mid}")
        cells = first_cells(shown.content)
    assert cells == {
        "wert": "100.4800", "einheit": "kWh", "timestamp": local(NEWEST), "istvalide": "1", "name": "Wirkarbeit Bezug",
        "obis": "1-0:1.8.0",
    }  # fmt: skip


def parsed(answer: httpx.Response) -> Any:
    return html.fromstring(answer.content)


def fields(form: Any) -> dict[str, str]:
    """The inputs of a form that have a name."""
    return {each.get("name"): each.get("value") for each in form.xpath(".//input[@name]")}


def first_cells(content: bytes) -> dict[str, str]:
    """The first of each kind, by ids that repeat."""
    page = html.fromstring(content)
    names = ("wert", "einheit", "timestamp", "istvalide", "name", "obis")
    return {name: page.xpath(f"//*[@id='table_metervalues_col_{name}']")[0].text for name in names}


async def test_a_client_that_posts_plain_text_and_cookies_twice_reads(home: Home) -> None:
    """The openHAB binding: Jetty's content type, the whole Set-Cookie as a cookie beside the store's, a date alone."""
    async with home.client(cookies=None) as client:
        welcome = await client.get(CGI)
        echoed, kept = welcome.headers["set-cookie"], welcome.headers["set-cookie"].partition(";")[0]
        client.cookies.clear()
        plain = [("Content-Type", "text/plain;charset=UTF-8"), ("Cookie", echoed), ("Cookie", kept)]
        token = html.fromstring(welcome.content).xpath("//input[@name='tkn']")[0].get("value")
        meters = await client.post(CGI, content=f"tkn={token}&action=meterform", headers=plain)
        page = html.fromstring(meters.content)
        mid = page.xpath("//select[@name='mid']/option")[0].get("value")
        token = page.xpath("//input[@name='tkn']")[0].get("value")
        today = datetime.fromtimestamp(NOW_S, LEGAL_TIME).date().isoformat()
        body = f"tkn={token}&mid={mid}&action=showMeterValues&from={today}&to={today}"
        shown = await client.post(CGI, content=body, headers=plain)
    cells = first_cells(shown.content)
    assert (cells["wert"], cells["einheit"]) == ("100.4800", "kWh")
    assert datetime.fromisoformat(cells["timestamp"].replace(" ", "T")) == datetime.fromisoformat(local(NEWEST))


async def with_new_digest(client: httpx.AsyncClient, **form: str) -> httpx.Response:
    """As clients do that answer a new challenge with each request."""
    return await client.post(CGI, data=form, auth=httpx.DigestAuth(*ANNA))


async def test_a_client_with_a_challenge_for_each_request_reads_a_day(tmp_path: Path) -> None:
    """TRON4R's: the form's own mid, yesterday up to 00:15, values within minutes of midnight."""
    home = Home(tmp_path, (replace(consumer(*ANNA, 0), facades=frozenset({"ppc"})),))
    async with home.serving(days=2), home.client(None) as client:
        welcome = await client.get(CGI, auth=httpx.DigestAuth(*ANNA))
        token = html.fromstring(welcome.content).xpath("//input[@name='tkn']")[0].get("value")
        form = parsed(await with_new_digest(client, tkn=token, action="showMeterValuesForm", mid=METERS[0]))
        (mid,) = form.xpath("//form[@name='input_metervalues']//input[@name='mid'][@type='hidden']")
        span = {"from": "2026-11-29 00:00:00", "to": "2026-11-30 00:15:00"}
        shown = await with_new_digest(client, tkn=token, action="showMeterValues", mid=mid.get("value"), **span)
    home.keys.close()
    values: dict[tuple[str, str], Decimal] = {}
    moment = ""
    for row in html.fromstring(shown.content).xpath("//tr[starts-with(@id,'table_metervalues_line')]"):
        cells = {each.get("id").removeprefix("table_metervalues_col_"): each.text for each in row}
        moment = cells.get("timestamp") or moment
        values[moment, cells["obis"]] = Decimal(cells["wert"])
    moments = [moment for moment, obis in values if obis == "1-0:1.8.0"]
    assert moments == sorted(moments, reverse=True)
    assert (len(moments), moments[0], moments[-1]) == (98, "2026-11-30 00:15:00", "2026-11-29 00:00:00")
    used = values["2026-11-30 00:00:00", "1-0:1.8.0"] - values["2026-11-29 00:00:00", "1-0:1.8.0"]
    assert used == Decimal("0.48")
    assert ("2026-11-29 05:00:00", "1-0:2.8.0") in values


async def test_a_signed_export_is_cut_out_without_asn1_and_its_signatures_hold(home: Home) -> None:
    async with home.client() as client:
        await client.get(CGI)
        span = {"from": "2026-11-30 00:00:00", "to": "2026-11-30 01:00:00"}
        answer = await client.post(CGI, data={"action": "exportMeterValues", "mid": METERS[0]} | span)
        long_ago = {"action": "exportMeterValues", "mid": METERS[0], "from": "2020-01-01", "to": "2020-01-01"}
        nothing = await client.post(CGI, data=long_ago)
    assert nothing.status_code == 404
    assert answer.headers["content-disposition"].endswith('.xml.cms"')
    raw = answer.content
    text = raw[raw.index(b"<?xml") : raw.rindex(b"</ns1:object>") + len(b"</ns1:object>")]
    certificate = x509.load_der_x509_certificate(home.module.certificates[0])
    content, _ = cms.verify(raw, DATA, [certificate], cms.Limits())
    assert content == text
    root = ElementTree.fromstring(text)
    columns = {each.get("id"): each.findtext("e:logical_name", "", NAMESPACES)
               for each in root.iterfind("p:attributes/p:capture_objects/p:capture_object", NAMESPACES)}  # fmt: skip
    assert columns["1"] == f"0100010800ff.{METERS[0]}.sm"
    entries = root.findall("p:attributes/p:buffer/p:simple_data/p:column[@id='1']/p:entry_gateway_signed", NAMESPACES)
    assert entries[0].findtext("e:capture_time", "", NAMESPACES) == "2026-11-29T23:00:00Z"
    assert len(entries) == 5
    first = entries[0]
    value, scaler = (first.findtext(name, "", NAMESPACES) for name in ("e:value/e:long64", "e:scaler"))
    signed = ";".join((
        "stromkreis register value 1", columns["1"], "2026-11-29T23:00:00.040+00:00", "2026-11-29T23:00:00.000+00:00",
        value, scaler, "Wh", "valid", "0000000000000008",
    ))  # fmt: skip
    public_key = certificate.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    signature = bytes.fromhex(first.findtext("e:smgw_signature", "", NAMESPACES))
    public_key.verify(signature, signed.encode(), ec.ECDSA(hashes.SHA256()))


async def test_a_long_table_goes_on_page_by_page(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.han.facades.ppc.ROWS_MAX", 90)
    async with home.client() as client:
        await client.get(CGI)
        form = {"action": "showMeterValues", "mid": METERS[0], "from": "2026-11-20", "to": "2026-12-01"}
        pages, moments = [], list[str]()
        while form:
            page = parsed(await client.post(CGI, data=form))
            pages.append(len(page.xpath("//tr[starts-with(@id,'table_metervalues_line')]")))
            moments += [each.text for each in page.xpath("//td[@id='table_metervalues_col_timestamp']")]
            further = page.xpath("//input[@id='table_metervalues_button_nextpage']")
            form = fields(further[0].getparent()) if further else {}
    assert pages == [90, 90, 14]
    assert len(set(moments)) == 97  # each once, none between two pages lost
    assert moments == sorted(moments, reverse=True)


async def test_too_long_spans_are_refused_by_a_page(contracted: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ppc", "ppc_tariffs"):
        monkeypatch.setattr(f"node.han.facades.{module}.VALUES_MAX", 96)
    async with contracted.client() as client:
        await client.get(CGI)
        for form in (
            {"action": "showMeterValues", "mid": METERS[0]}, {"action": "exportMeterValues", "mid": METERS[0]},
            {"action": "showTarification", "tid": "p0-direct"},
        ):  # fmt: skip
            answer = await client.post(CGI, data=form | {"from": "2026-11-28"})
            assert (answer.status_code, "more than 96 values" in answer.text) == (400, True)


async def test_a_client_of_regular_expressions_finds_profile_pages(contracted: Home) -> None:
    """Lutarym's and TRON4R's: labels of tables, a load profile's values by the ids of its table."""
    async with contracted.client() as client:
        welcome = (await client.get(CGI)).text
        found = re.search(r"id=[\"']div_fwversion[\"'][^>]*>([^<]*)<", welcome)
        assert found is not None
        assert re.fullmatch(r"\d{5}-\d{5}", found[1])

        async def page(**form: str) -> str:
            return (await client.post(CGI, data=form)).text

        select = re.search(r"id=[\"']tarifform_select_profile[\"'][\s\S]*?</select>", await page(action="tariffform"))
        assert select is not None
        options = re.findall(r"<option\b[^>]*\bvalue=[\"']([^\"']*)[\"'][^>]*>([^<]*)<", select[0])
        assert [name for _, name in options] == [
            "p0-direct (TAF-7)", "p0-pseudonymous (TAF-1)", "p0-aggregated (TAF-7)",
        ]  # fmt: skip
        tid = options[0][0]
        profile = await page(action="showTariffProfile", tid=tid)
        labels = dict(re.findall(r"<tr>\s*<td\b[^>]*>([^<]*)</td>\s*<td\b[^>]*>([^<]*)</td>\s*</tr>", profile))
        assert labels["TAF-Typ"] == "TAF-7"
        assert labels["Registerperiode (sek.)"] == "900"
        assert labels["Zählpunktbezeichnung"] == POINT
        assert labels["Ende Validierungsperiode"] == "unbegrenzt"
        parsed = html.fromstring(profile.encode())
        assert parsed.get_element_by_id("table_tafvalues_col_domain").text == f"{METERS[0]}.sm"
        hidden = html.fromstring((await page(action="showTarificationForm", tid=tid)).encode())
        inner = hidden.xpath("//form[@name='input_tarification']//input[@name='tid'][@type='hidden']")[0].get("value")
        span = {"from": "2026-11-30", "to": "2026-11-30"}
        rows = html.fromstring((await page(action="showTarification", tid=inner, **span)).encode()).xpath(
            "//tr[@id='table_tafregister_line']"
        )
    last = {each.get("id").removeprefix("table_tafregister_col_"): each.text for each in rows[-1]}
    assert (last["zeitstempel"], last["obis"], last["einheit"]) == (local(NEWEST), "1-0:1.8.0", "kWh")
    assert (len(rows), last["kostenstufe"], last["qualitaet"]) == (53, "0", "valide")


async def test_a_running_period_is_no_closed_one_to_a_facade(tmp_path: Path) -> None:
    """The interfaces have no word for a period that is not over: its registers would pass for those of a bill."""
    document = profile_document()
    document["han"][0]["facades"] = ["ppc"]
    for each in document["processing"]:
        each["billing_period"] = {"begins": "2026-11-01T00:00:00+01:00", "days": 1}
    home = Home(tmp_path, (), profiles_document=document)
    async with home.serving(days=3), home.client() as client:
        assert home.facts is not None
        assert home.metering is not None
        profiles: Any = home.facts.profiles
        use_cases = UseCases(
            home.metering, profiles, home.use_cases, home.module, lambda: NEWEST, lambda: NOW_S, lambda: None
        )
        await use_cases.close_due()
        await client.get(CGI)
        shown = (await client.get("/smgw/con/v1/rts/Registers/p0-pseudonymous")).json()["periods"]
        page = (await client.post(CGI, data={"action": "showTarification", "tid": "p0-pseudonymous"})).content
    assert [each["is_running"] for each in shown][-2:] == [False, True]
    begins = html.fromstring(page).xpath("//td[@id='table_tarification_col_periodbegin']/text()")
    begun = [local(datetime.fromisoformat(each["start"]).timestamp()) for each in shown]
    assert begins == begun[:-1]
    home.keys.close()


async def test_a_log_export_carries_record_numbers_and_texts(home: Home) -> None:
    assert home.log is not None
    home.log.note(Event.PASSWORD_SET, user="anna")
    home.log.note(Event.PASSWORD_SET, user="ben")
    await trio.sleep(0)
    async with home.client() as client:
        await client.get(CGI)
        with trio.fail_after(30):
            while (answer := await client.post(CGI, data={"action": "exportLogData"})).status_code == 404:
                await trio.sleep(0.05)
        shown = html.fromstring((await client.post(CGI, data={"action": "log"})).content)
    raw = answer.content
    root = ElementTree.fromstring(raw[raw.index(b"<?xml") : raw.rindex(b"</ns1:object>") + len(b"</ns1:object>")])
    entries = root.findall("p:attributes/p:buffer/p:logbook/p:entry", NAMESPACES)
    assert [
        (each.findtext("e:event/e:level", "", NAMESPACES), each.findtext("e:event/e:outcome", "", NAMESPACES),
         each.findtext("e:event/e:message_extensions/e:message_extension", "", NAMESPACES))
        for each in entries
    ] == [("INFO", "SUCCESS", "Passwort von anna geändert")]  # fmt: skip
    assert entries[0].findtext("e:record_number", "", NAMESPACES) == "1"
    assert shown.get_element_by_id("table_logs_col_msgtext").text == "Passwort von anna geändert"


async def test_posts_need_a_session_of_their_own_account(home: Home) -> None:
    async with home.client() as client:
        form = {"action": "meterform"}
        assert (await client.post(CGI, data=form)).status_code == 403
        welcome = await client.get(CGI)
        session = welcome.headers["set-cookie"].partition(";")[0]
        assert "SameSite=Strict" in welcome.headers["set-cookie"]
        assert (await client.post(CGI, data=form)).status_code == 200
        assert (await client.post(CGI, data=form | {"tkn": "0" * 32})).status_code == 403
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert (await client.post(CGI, data=form, headers=foreign)).status_code == 403
        assert (await client.post(CGI, data={"action": "showMeterProfile", "mid": METERS[1]})).status_code == 404
        assert (await client.post(CGI, data={"action": "reboot"})).status_code == 400
        assert (
            await client.post(CGI, data={"action": "showMeterValues", "mid": METERS[0], "from": "x"})
        ).status_code == 400
        assert (await client.post(CGI, content=b"\xff\xfe", headers=FORM)).status_code == 400
        client.cookies.clear()
        old = {"Cookie": f"Cookie={session.removeprefix('session=')}"}  # what an older client calls it
        assert (await client.post(CGI, data=form, headers=old)).status_code == 200
        assert (await client.post(CGI, data={"action": "logout"}, headers=old)).status_code == 200
        assert (await client.post(CGI, data=form, headers=old)).status_code == 403


# --- Theben ---------------------------------------------------------------------------------------------------------


async def asked(
    home: Home, method: str, arguments: dict[str, Any] | None = None, *, login: Any = ANNA
) -> httpx.Response:
    async with home.client(login) as client:
        return await client.post(f"{M2M}/{login[0]}.sm/json", json={"method": method} | (arguments or {}))


async def test_a_client_that_repeats_its_header_after_the_redirection_reads(home: Home) -> None:
    """The Home Assistant integration of many gateways: httpx follows 307 with the same digest answer, MD5 only."""
    sent: list[httpx.Request] = []

    async def note(request: httpx.Request) -> None:
        sent.append(request)

    class Md5(httpx.DigestAuth):
        def _parse_challenge(self, request: httpx.Request, response: httpx.Response, auth_header: str) -> Any:
            return super()._parse_challenge(request, response, auth_header)._replace(algorithm="MD5")

    async with home.client(None, follow_redirects=True, event_hooks={"request": [note]}) as client:
        answer = await client.post(f"{M2M}/", json={"method": "user-info"}, auth=Md5(*ANNA))
        assert answer.status_code == 200
        points = answer.json()["user-info"]["usage-points"]
        assert [(each["taf-number"], each["taf-state"]) for each in points] == [("7", "running")]
        last = sent[-1]
        assert (last.url.path, last.headers["authorization"]) == (
            f"{M2M}/anna.sm/json", sent[-2].headers["authorization"],
        )  # fmt: skip
        again = await client.post(last.url, content=await last.aread(), headers=last.headers)
        assert again.status_code == 401  # once more and no further
        info = await client.post(f"{M2M}/", json={"method": "smgw-info"}, auth=Md5(*ANNA))
        firmware = info.json()["smgw-info"]["firmware-info"]
        assert (firmware["version"], len(firmware["hash"])) == ("1.2.3", 64)
    point = {"usage-point-id": points[0]["usage-point-id"], "last-reading": True, "database": "origin"}
    newest = await asked(home, "readings", point)
    channels = newest.json()["readings"]["channels"]
    assert {each["obis"]: [reading["value"] for reading in each["readings"]] for each in channels} == {
        "0100010800ff": [str(IMPORTED)], "0100020800ff": [str(EXPORTED)],
    }  # fmt: skip
    assert all(isinstance(value, str) for each in channels for value in each["readings"][0].values())


async def test_windows_exclude_their_start_and_include_their_end(home: Home) -> None:
    def at(count: int) -> str:
        return datetime.fromtimestamp(NEWEST - count * QUARTER_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    window = {"usage-point-id": METERS[0], "channels": ["0100010800ff"], "fromtime": at(4), "totime": at(1)}
    found = await asked(home, "readings", window | {"database": "origin"})
    (channel,) = found.json()["readings"]["channels"]
    assert [each["target-time"] for each in channel["readings"]] == [at(3), at(2), at(1)]
    long = window | {"fromtime": "2026-10-01T00:00:00Z", "totime": "2026-11-15T00:00:00Z"}
    assert (await asked(home, "readings", long)).status_code == 400
    assert (await asked(home, "readings", window | {"fromtime": "soon"})).status_code == 400
    assert (await asked(home, "readings", window | {"usage-point-id": METERS[1]})).status_code == 404


async def test_a_usage_point_announces_each_channel_that_it_gives(contracted: Home) -> None:
    user = (await asked(contracted, "user-info", login=BEN)).json()["user-info"]["usage-points"]
    assert [each["taf-number"] for each in user] == ["7", "1"]
    for each in user:
        point = {"usage-point-id": each["usage-point-id"]}
        info = (await asked(contracted, "usage-point-info", point, login=BEN)).json()["usage-point-info"]
        announced = {channel["obis"]: channel for channel in info["databases"][0]["channels"]}
        assert info["databases"][0]["database"] == "origin"
        assert {(channel["scaler"], channel["unit"]) for channel in announced.values()} == {("-1", "30")}
        found = await asked(contracted, "readings", point | {"last-reading": "true"}, login=BEN)
        assert {channel["obis"] for channel in found.json()["readings"]["channels"]} == set(announced)
    assert set(user[0]["meter"][0].values()) == {METERS[1]}


async def test_the_log_is_never_refused_and_the_rest_says_what_was_wrong(home: Home) -> None:
    loose: list[dict[str, str]] = [
        {},
        {"fromtime": "x", "count": "-1"},
        {"fromindex": "a"},
        {"totime": "2026-11-30T12:00:00Z"},
    ]
    for arguments in loose:
        log = await asked(home, "log", arguments)
        assert (log.status_code, log.json()["log"]["records"]) == (200, "0")
    assert (await asked(home, "self-test")).status_code == 200
    assert (await asked(home, "self-test")).status_code == 403
    assert (await asked(home, "reboot")).status_code == 400
    async with home.client() as client:
        assert (await client.post(f"{M2M}/ben.sm/json", json={"method": "user-info"})).status_code == 403
        assert (await client.post(f"{M2M}/anna.sm/json", content=b"{}")).status_code == 415
        assert (await client.post(f"{M2M}/anna.sm/json", json=[])).status_code == 400
        assert (await client.get(f"{M2M}/anna.sm/json")).status_code == 405
        assert (await client.delete(M2M)).status_code == 405


# --- EMH ------------------------------------------------------------------------------------------------------------


async def test_clients_that_scale_and_clients_that_divide_read_the_same(home: Home) -> None:
    async with home.client() as client:
        assert (await client.get(f"{JSON}/origin/")).json() == [METERS[0]]
        assert (await client.get(f"{JSON}/origin")).json() == [METERS[0]]
        found = (await client.get(f"{JSON}/origin/{METERS[0]}/extended")).json()
        (contract,) = (await client.get(f"{JSON}/derived")).json()
        about = (await client.get(f"{JSON}/derived/{contract}")).json()
        assert (await client.get(f"{JSON}/origin/{METERS[1]}/extended")).status_code == 404
        assert (await client.get(f"{JSON}/other")).status_code == 404
        assert (await client.post(f"{JSON}/origin/", json={})).status_code == 405
    assert about["sensor_domains"] == [METERS[0]]
    assert about["taf_type"] == "TAF-1"  # what an IP-Symcon module looks for
    assert len(found["status"]) == 16
    scaled = {each["logical_name"].split(".")[0]: int(each["value"]) * Decimal(10) ** each["scaler"]
              for each in found["values"]}  # fmt: skip
    divided = {each["logical_name"].split(".")[0]: int(each["value"]) / Decimal(1_000_000) for each in found["values"]}
    assert scaled == {"0100010800ff": Decimal(IMPORTED) / 10, "0100020800ff": Decimal(EXPORTED) / 10}
    assert divided == {obis: value / 1000 for obis, value in scaled.items()}
    assert {each["unit"] for each in found["values"]} == {30}


async def test_contracts_of_profiles_are_found_by_their_use_case(contracted: Home) -> None:
    async with contracted.client() as client:
        contracts = [
            (await client.get(f"{JSON}/derived/{each}")).json() for each in (await client.get(f"{JSON}/derived")).json()
        ]
    assert [(each["taf_type"], each["metering_point_id"]) for each in contracts] == [("TAF-7", POINT), ("TAF-1", POINT)]
    assert {tuple(each["sensor_domains"]) for each in contracts} == {(METERS[0],)}
    assert {each["taf_state"] for each in contracts} == {"running"}
    assert GATEWAY not in str(contracts)
