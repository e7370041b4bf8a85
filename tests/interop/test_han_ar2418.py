"""
Files after VDE AR 2418-6 of each use case: accepted by the schema and by the rules of PTB's display software.

Billing periods are closed by the use cases themselves, over readings of three days; signatures are checked with what
stands in the file and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from node.taf.use_cases import LATE_S, UseCases
from protocol.logs.events import Event
from protocol.profiles.calendar import LEGAL_TIME
from tests.integration.han_home import ANNA, BEN, GATEWAY, METERS, NOW_S, POINT, QUARTER_S, Home, consumer
from tests.integration.han_profiles import profile_document
from tests.interop.trudi_rules import broken_rules, schema_errors

pytestmark = pytest.mark.beside_repository  # the schema is not ours to copy

PATH = "/smgw/con/v1/exp/ArFile"
DAY = {"id": "d", "switches": [{"at": "00:00", "stage": 1}, {"at": "06:00", "stage": 2}, {"at": "22:00", "stage": 1}]}
CASES: dict[str, dict[str, Any]] = {
    "t1": {"taf": 1},
    "t2": {"taf": 2, "calendar": {"day_profiles": [DAY], "seasons": [{"begins": "01-01", "weekdays": ["d"] * 7}]}},
    "t6": {"taf": 6, "days": 10}, "t7": {"taf": 7}, "t9": {"taf": 9},
    "t10": {"taf": 10, "period_s": 900}, "t14": {"taf": 14, "period_s": 10},
}  # fmt: skip
NAMES = {"a": "http://vde.de/AR_2418-6.xsd", "e": "http://naesb.org/espi"}
MIDNIGHT = int(datetime(2026, 11, 30, tzinfo=LEGAL_TIME).timestamp())
DAY_S, DAYS = 86_400, 3
FIRST = 1_000_000  # of the first meter, DAYS before the newest quarter hour, in tenths of Wh


def register_at(at_s: int) -> int:
    """What the meter said at a quarter hour, in tenths of Wh."""
    return FIRST + 50 * ((at_s - (NOW_S // QUARTER_S * QUARTER_S - DAYS * DAY_S)) // QUARTER_S)


def document() -> dict[str, Any]:
    made = profile_document(issued_at="2026-11-28T12:00:00Z")
    template = made["processing"][0] | {
        "scaler": -1, "billing_period": {"begins": "2026-11-01T00:00:00+01:00", "days": 1},
        "recipients": [{"participant": "Stadtwerke", "communication": "w1", "delivery": "direct"}],
    }  # fmt: skip
    other = next(each for each in made["processing"] if each["metering_point"] != POINT)
    made["processing"] = [template | {"id": name, "use_case": case} for name, case in CASES.items()] + [other]
    return made


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path, (), profiles_document=document())
    with trio.fail_after(300):
        async with made.serving(days=DAYS):
            assert made.facts is not None
            assert made.metering is not None
            assert made.log is not None
            profiles: Any = made.facts.profiles
            await UseCases(
                made.metering, profiles, made.use_cases, made.module, lambda: MIDNIGHT + LATE_S, lambda: NOW_S,
                lambda: None,
            ).close_due()  # fmt: skip
            made.log.note(Event.PASSWORD_SET, user="anna")
            yield made
    made.keys.close()


async def exported(home: Home, name: str, query: str = "") -> bytes:
    async with home.client(headers={"Accept": "application/xml"}) as client:
        answer = await client.get(f"{PATH}/{name}{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/xml"), answer.text
    return answer.content


def lists(content: bytes) -> dict[str, list[int]]:
    """Values by logical name."""
    found: dict[str, list[int]] = {}
    for each in etree.fromstring(content).iterfind("a:UsagePoint/a:MeterReading", NAMES):
        name = each.findtext("a:ReadingType/a:qualifiedLogicalName", "", NAMES)
        assert each.findtext("a:ReadingType/a:scaler", "", NAMES) == "-1"
        assert each.findtext("a:ReadingType/e:uom", "", NAMES) == "72"
        found[name] = [int(value.text) for value in each.iterfind("a:IntervalBlock/a:IntervalReading/e:value", NAMES)]
    return found


async def test_every_use_case_passes_the_schema_and_the_rules(home: Home) -> None:
    for name, case in CASES.items():
        content = await exported(home, name)
        assert (name, schema_errors(content)) == (name, [])
        assert (name, broken_rules(content, case["taf"], is_closed=True)) == (name, [])
    own = await exported(home, METERS[0])
    assert (schema_errors(own), broken_rules(own, 7, is_closed=False)) == ([], [])


async def test_values_are_the_meters_and_registers_add_up(home: Home) -> None:
    original = f"0100010800ff.{METERS[0]}.sm"
    start, end = register_at(MIDNIGHT - DAY_S), register_at(MIDNIGHT)
    one = lists(await exported(home, "t1"))
    assert one == {"0100010800ff.taf1-t1.sm": [end - start], original: [start, end]}
    two = lists(await exported(home, "t2"))
    assert two[original] == [start + 50 * index for index in range(97)]
    stages = {name[8:10]: values for name, values in two.items() if name != original}
    assert stages == {"00": [end - start], "01": [32 * 50], "02": [64 * 50], "3f": [0]}
    six = lists(await exported(home, "t6"))
    assert six == {original: [register_at(MIDNIGHT - days * DAY_S) for days in (2, 1, 0)]}
    assert lists(await exported(home, "t7"))[original] == two[original]
    newest = register_at(NOW_S // QUARTER_S * QUARTER_S)
    for name in ("t9", "t14", "t10"):
        assert lists(await exported(home, name)) == {original: [newest]}
    span = "?q.fromtime=2026-11-30&q.totime=2026-11-30T02:00:01%2B01:00"
    assert lists(await exported(home, "t7", span))[original] == [end + 50 * index for index in range(9)]


async def test_each_value_is_signed_by_the_certificate_in_the_file(home: Home) -> None:
    for name in CASES:
        root = etree.fromstring(await exported(home, name))
        texts = [signed(root, reading, each) for reading in root.iterfind("a:UsagePoint/a:MeterReading", NAMES)
                 for each in reading.iterfind("a:IntervalBlock/a:IntervalReading", NAMES)]  # fmt: skip
        assert texts
        for text, signature, key in texts:
            key.verify(signature, text.encode(), ec.ECDSA(hashes.SHA256()))
        text, signature, key = texts[0]
        with pytest.raises(InvalidSignature):
            key.verify(signature, text.replace(";-1;", ";0;").encode(), ec.ECDSA(hashes.SHA256()))


def signed(root: Any, reading: Any, value: Any) -> tuple[str, bytes, ec.EllipticCurvePublicKey]:
    """What is signed, put together from the file, its signature, and the key that the file names."""

    def text(parent: Any, path: str) -> str:
        return str(parent.findtext(path, "", NAMES))

    def moment(at: str) -> str:
        return datetime.fromisoformat(at).isoformat(timespec="milliseconds")

    kind = reading.find("a:ReadingType", NAMES)
    start, number = text(value, "a:timePeriod/a:start"), text(value, "e:value")
    name, scaler, words = text(kind, "a:qualifiedLogicalName"), text(kind, "a:scaler"), text(value, "a:statusVendor")
    if words in {"complete", "incomplete"}:
        end = datetime.fromisoformat(start) + timedelta(seconds=int(text(value, "a:timePeriod/a:duration")))
        fields = ["stromkreis derived register 1", name, moment(start), moment(end.isoformat())]
    else:
        target = text(value, "a:targetTime")
        fields = ["stromkreis register value 1", name, moment(start), moment(target) if target else ""]
    ders = {text(each, "a:certId"): text(each, "a:certContent") for each in root.iterfind(".//a:Certificate", NAMES)}
    key = x509.load_der_x509_certificate(bytes.fromhex(ders[text(value, "a:certId")])).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return ";".join([*fields, number, scaler, "Wh", words]), bytes.fromhex(text(value, "a:signature")), key


async def test_a_file_names_contract_gateway_and_log(home: Home) -> None:
    content = await exported(home, METERS[0])
    with trio.fail_after(60):
        while b"<LogEntry>" not in content:  # the log is written beside
            await trio.sleep(0.1)
            content = await exported(home, METERS[0])
    assert (schema_errors(content), broken_rules(content, 7, is_closed=False)) == ([], [])
    root = etree.fromstring(content)
    entry = root.find("a:UsagePoint/a:LogEntry/a:LogEvent", NAMES)
    assert [entry.findtext(f"a:{name}", "", NAMES) for name in ("level", "text", "outcome")] == [
        "1", "Passwort von anna geändert", "0",
    ]  # fmt: skip
    root = etree.fromstring(await exported(home, "t7"))
    found = [root.findtext(f"a:UsagePoint/{path}", "", NAMES) for path in (
        "a:usagePointId", "a:tariffName", "a:Customer/a:customerId", "a:InvoicingParty/a:invoicingPartyId",
        "a:SMGW/a:smgwId", "e:ServiceCategory/e:kind",
    )]  # fmt: skip
    assert found == [POINT, "t7", "anna", "Stadtwerke", GATEWAY, "0"]


async def test_files_are_their_consumers_and_too_long_spans_named(home: Home) -> None:
    async with home.client(BEN) as client:
        listed = [each.rpartition("/")[2] for each in (await client.get(f"{PATH}/")).json()]
        assert listed == ["p1-direct", METERS[1]]
        assert (await client.get(f"{PATH}/t7")).status_code == 404
        assert (await client.get(f"{PATH}/{METERS[0]}")).status_code == 404
    async with home.client() as client:
        early = await client.get(f"{PATH}/t2?q.totime=2026-11-20")
        assert (early.status_code, early.json()["reason"]) == (400, "no_period")
        assert (await client.get(f"{PATH}/t7", headers={"Accept": "text/csv"})).status_code == 406
        signed_whole = await client.get(f"{PATH}/t1?q.signed=CMS_ECDSA_SHA256_Detached")
        assert signed_whole.json()["signature"]["value"]
        data = json.loads(signed_whole.content)["data"]
    assert data["name"] == f"{POINT}_t1_2026-11-30.xml"
    assert schema_errors(data["document"].encode()) == []


async def test_a_month_of_values_is_one_file_and_more_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.han.ar2418.export.SIGNED_MAX", 96)
    async with home.client() as client:
        answer = await client.get(f"{PATH}/t7")
        assert (answer.status_code, answer.json()["reason"]) == (400, "bad_query")
        assert "97 values" in answer.json()["detail"]


async def test_before_profiles_a_meter_is_exported_and_no_contract(tmp_path: Path) -> None:
    home = Home(tmp_path, (consumer(*ANNA, 0),))
    async with home.serving(days=1), home.client() as client:
        listed = (await client.get(f"{PATH}/")).json()
        content = (await client.get(listed[0], headers={"Accept": "application/xml"})).content
    home.keys.close()
    assert [each.rpartition("/")[2] for each in listed] == [METERS[0]]
    assert (schema_errors(content), broken_rules(content, 7, is_closed=False)) == ([], [])
    assert {name: len(values) for name, values in lists(content).items()} == {
        f"0100010800ff.{METERS[0]}.sm": 96, f"0100020800ff.{METERS[0]}.sm": 96,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("a:usagePointId", None, "usagePointId is missing"),
        ("a:tariffName", "  ", "tariffName is missing"),
        ("a:InvoicingParty", None, "InvoicingParty"),
        ("a:Customer", None, "Customer"),
        ("e:ServiceCategory", None, "ServiceCategory"),
        ("a:SMGW/a:certId", None, "ids of the gateway's certificates"),
        ("a:Certificate/a:certContent", "00ff", "a certificate that is none"),
        ("a:Certificate/a:certType", "9", "a certificate's type"),
        ("a:MeterReading/a:meterReadingId", None, "meterReadingId is missing"),
        ("a:MeterReading/a:Meter/a:meterId", "1emh0000000000", "no list of original values"),
        ("a:MeterReading/a:ReadingType/a:obisCode", "1-0:1.8.0", "obisCode"),
        ("a:MeterReading/a:ReadingType/e:powerOfTenMultiplier", "-1", "powerOfTenMultiplier"),
        ("a:MeterReading/a:ReadingType/e:uom", None, "uom"),
        ("a:MeterReading/a:IntervalBlock/a:interval/a:duration", "60", "outside its block"),
        ("a:MeterReading/a:IntervalBlock/a:interval/a:start", None, "interval has no start"),
        ("a:MeterReading/a:IntervalBlock/a:IntervalReading/e:value", None, "without value"),
        ("a:MeterReading/a:IntervalBlock/a:IntervalReading/a:statusPTB", "7", "without a valid status"),
        ("a:MeterReading/a:IntervalBlock/a:IntervalReading/a:timePeriod", None, "timePeriod"),
    ],
)
def test_the_rules_notice_what_breaks_them(path: str, change: str | None, said: str) -> None:
    root = etree.fromstring(SMALL)
    found = root.find(f"a:UsagePoint/{path}", NAMES)
    if change is None:
        found.getparent().remove(found)
    else:
        found.text = change
    assert broken_rules(SMALL, 7, is_closed=True) == []
    assert any(said in each for each in broken_rules(etree.tostring(root), 7, is_closed=True))


def small() -> bytes:
    """A file of nobody's exporter, as small as the rules let it be."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "estk0100000001.smgw")])
    now = datetime.fromtimestamp(NOW_S, LEGAL_TIME)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    return f"""<UsagePoints xmlns="{NAMES["a"]}" xmlns:e="{NAMES["e"]}"><UsagePoint>
      <e:ServiceCategory><e:kind>0</e:kind></e:ServiceCategory><usagePointId>{POINT}</usagePointId>
      <Customer><customerId>c</customerId></Customer>
      <InvoicingParty><invoicingPartyId>i</invoicingPartyId></InvoicingParty>
      <SMGW><certId>1</certId><smgwId>ESTK0100000001</smgwId></SMGW>
      <Certificate><certId>1</certId><certType>1</certType>
        <certContent>{certificate.public_bytes(Encoding.DER).hex()}</certContent></Certificate>
      <tariffName>t</tariffName>
      <MeterReading><Meter><meterId>1emh0012345678</meterId></Meter><meterReadingId>r</meterReadingId>
        <ReadingType><e:powerOfTenMultiplier>0</e:powerOfTenMultiplier><e:uom>72</e:uom>
          <obisCode>0100010800ff</obisCode><qualifiedLogicalName>0100010800ff.1emh0012345678.sm</qualifiedLogicalName>
        </ReadingType>
        <IntervalBlock><interval><duration>900</duration><start>2026-11-30T00:00:00Z</start></interval>
          <IntervalReading><e:value>1</e:value>
            <timePeriod><duration>0</duration><start>2026-11-30T00:15:00Z</start></timePeriod>
            <statusPTB>0</statusPTB></IntervalReading></IntervalBlock></MeterReading></UsagePoint></UsagePoints>""".encode()


SMALL = small()


def test_the_smallest_file_fits_the_schema() -> None:
    assert schema_errors(SMALL) == []


async def run(home: Home, *arguments: str, password: str = ANNA[1]) -> tuple[int, str]:
    """`stromkreis han export` as a process: exit status and what it says."""
    command = [sys.executable, "-m", "stromkreis", "han", "export", home.address, *arguments]
    environment = os.environ | {"STROMKREIS_HAN_PASSWORD": password, "COLUMNS": "400"}
    done = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, env=environment, cwd=home.path
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).decode()


async def test_the_command_writes_a_file_from_the_gateway_it_knows(home: Home) -> None:
    async with home.client() as client:
        digest = (await client.get("/smgw/con/v1/rts/Certificate/han")).json()["sha256"]
    known = ("--gateway-sha256", digest)
    assert await run(home, "anna", *known) == (0, "\n".join([*CASES, METERS[0]]) + "\n")
    assert (await run(home, "anna", "t1", *known))[0] == 0
    written = home.path / f"{POINT}_t1_2026-11-30.xml"
    assert written.read_bytes() == await exported(home, "t1")
    assert written.stat().st_mode & 0o077 == 0
    status, said = await run(home, "anna", "t1", *known)
    assert (status, "exists" in said) == (1, True)
    status, said = await run(home, "anna", "t7", "--from", "2026-11-30", "--to", "2026-12-01", "-o", "day.xml", *known)
    assert status == 0
    assert len(next(iter(lists((home.path / "day.xml").read_bytes()).values()))) == 53


async def test_the_command_says_what_is_wrong_and_sends_no_password_to_strangers(home: Home) -> None:
    status, said = await run(home, "anna", "t1")
    (shown,) = re.findall(r"[0-9a-f]{64}", said)
    assert (status, "compare it with the letter" in said) == (1, True)
    status, said = await run(home, "anna", "t1", "--gateway-sha256", "0" * 64)
    assert (status, shown in said) == (1, True)
    status, said = await run(home, "anna", "t1", "--gateway-sha256", shown, password="wrong")
    assert (status, "401" in said, "wrong" in said) == (1, True, True)
    status, said = await run(home, "anna", "t99", "--gateway-sha256", shown)
    assert (status, "404" in said) == (1, True)
    status, said = await run(home, "anna", "t7", "--from", "x", "--gateway-sha256", shown)
    assert (status, "q.fromtime" in said) == (1, True)
    assert "Traceback" not in said
