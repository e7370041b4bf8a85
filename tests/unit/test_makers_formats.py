"""Makers' own formats by tables: each shipped one has a telegram, none is billed, a user's own goes before them."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from node.lmn.mbus.compact import signature_of
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.keys import KeyStore
from node.lmn.mbus.makers.diehl import named_address
from node.lmn.mbus.makers.reader import shipped_book
from node.lmn.mbus.makers.table import find_format, shipped_formats
from node.lmn.wmbus.driver import OwnMeterFilter
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import LocalProtocolError
from protocol.metering.reading import Quality
from stromkreis.decode import decode

app = typer.Typer()
app.command()(decode)
FOLDER = Path(__file__).parents[1] / "data/meters"
ROWS = {
    row["id"]: row
    for row in map(json.loads, (FOLDER / "wmbus.jsonl").read_text(encoding="utf-8").splitlines())
    if row["kind"] == "makers-format"
}
OWN_TABLE = """
title = "A meter of ours"
source = "its manual"
certainty = "document"
where = "ci"
meters = ["TCH 69 *"]
ci = ["A0"]
values = [{ at = 1, record = "0213" }]
"""


def octets_of(name: str) -> bytes:
    return bytes.fromhex(ROWS[name].get("hex") or ROWS[name]["text"])


@pytest.mark.parametrize("name", [each.name for each in shipped_formats()])
def test_a_shipped_format_has_an_own_telegram_source_and_certainty(name: str) -> None:
    table = find_format(name)
    assert any(row.startswith(name) for row in ROWS)
    assert len(table.source) > 10
    assert table.title


@pytest.mark.parametrize("name", [name for name in ROWS if not name.startswith("kamstrup")])
def test_a_value_of_a_makers_format_is_never_for_billing(name: str) -> None:
    readings = Receiver().decode(octets_of(name))
    tabled = [each for each in readings if "format" in each.record]
    assert all(each.quality is Quality.NOT_FOR_BILLING for each in tabled)
    assert tabled or name.endswith(("own-key", "unknown-unit"))


@pytest.mark.parametrize("name", [name for name in ROWS if not name.startswith(("kamstrup", "apator-162", "qundis"))])
def test_a_makers_telegram_of_a_meter_with_a_key_gives_octets_alone(name: str) -> None:
    device = ROWS[name]["readings"][0][0]
    readings = Receiver(KeyStore({device: bytes(16)})).decode(octets_of(name))
    assert [type(each.value) for each in readings] == [bytes]


@pytest.mark.parametrize("name", ["diehl-prios", "diehl-prios-sappel", "diehl-real-data"])
def test_a_diehl_meter_is_known_by_the_number_that_is_printed_on_it(name: str) -> None:
    device, datagram = ROWS[name]["readings"][0][0], octets_of(name)
    assert OwnMeterFilter(lambda address: str(address) == device).sent(datagram)
    assert not OwnMeterFilter(lambda address: str(address) == "8DME7800000000").sent(datagram)


def test_an_open_standard_telegram_of_a_diehl_meter_keeps_its_address() -> None:
    address = DeviceAddress.from_text("8DME7870000119", 7)
    assert named_address(address, bytes.fromhex("7a01000000")) == address


def test_headers_of_known_compact_frames_have_the_signatures_meters_send() -> None:
    sent = {0xA8ED, 0xC412, 0x61EB, 0xD2F7, 0xDD34, 0x7C0E, 0x0905, 0x36D4, 0xA9F3}
    assert set(shipped_book().compact) == sent
    assert all(signature_of(layout) == each for each, layout in shipped_book().compact.items())


def test_flags_and_months_are_named_in_the_record() -> None:
    readings = Receiver().decode(octets_of("diehl-prios"))
    assert [each.record["flags"] for each in readings if "flags" in each.record] == [["leakage", "underflow"]]
    readings = Receiver().decode(octets_of("qundis-walk-by-water"))
    months = [(each.record["month"], each.decimal()) for each in readings if "month" in each.record]
    assert [month for month, _ in months] == ["2025-12", "2026-01", "2026-02"]


def test_a_table_of_the_user_goes_before_the_shipped_one(tmp_path: Path) -> None:
    table = tmp_path / "ours.toml"
    table.write_text(OWN_TABLE, encoding="utf-8")
    arguments = ["wmbus", "--layout", str(table), "-"]
    done = CliRunner().invoke(app, arguments, input=ROWS["techem-hca-69"]["text"])
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["record"].get("format") for each in found] == ["ours", None]
    assert found[0]["unit"] == "m³"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (('record = "0213"', 'record = "02"'), "record_truncated"),
        (('record = "0213"', 'record = "0DFF5F"'), "fixed size"),
        (('record = "0213"', 'record = "02zz"'), "hexadecimal"),
        (('"TCH 69 *"', '"Techem"'), "maker, version and type"),
        (('record = "0213"', 'record = "02??"'), "unit_at"),
        (('where = "ci"', 'where = "headers"'), "headers"),
        (("values = [{ at", "values = [{ from"), "values.0"),
        (('record = "0213"', 'record = "0213", coding = "day-of-year"'), "day of the year"),
        (('meters = ["TCH 69 *"]', ""), "whose meters"),
        (('record = "0213"', 'record = "02931E"'), "one value"),
        (('ci = ["A0"]', 'ci = ["A0A1"]'), "CI fields"),
        (('ci = ["A0"]', ""), "CI fields"),
        (('where = "ci"', 'where = "record"'), "CI fields"),
        (('record = "0213"', 'record = "0213", months_back = 1'), "set_day_at"),
        (("certainty", "registers = { ZZ = { size = 1 } }\ncertainty"), "one of them"),
    ],
)
def test_a_table_that_is_none_is_refused_with_what_was_expected(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    table = tmp_path / "ours.toml"
    table.write_text(OWN_TABLE.replace(*change), encoding="utf-8")
    with pytest.raises(LocalProtocolError, match=expected):
        find_format(str(table))


def test_an_unknown_table_names_the_shipped_ones() -> None:
    with pytest.raises(LocalProtocolError, match="diehl-prios"):
        find_format("nobody")


def test_the_reference_lists_every_format_with_its_certainty() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/lmn.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("| ")]
    listed = {row[1]: row[5] for row in rows if len(row) == 8}
    assert {each.name: each.certainty.value for each in shipped_formats()}.items() <= listed.items()


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            'registers = { "0A" = { size = 1, value = { record = "0213" } } }\nwhere = "data"\nmeters = ["TCH 69 80"]',
            "2 oct",
        ),
        ('headers = ["0413", "02"]\nwhere = "headers"', "breaks off"),
        ('headers = ["xy"]\nwhere = "headers"', "headers|hexadecimal"),
    ],
)
def test_registers_and_headers_that_are_none_are_refused(tmp_path: Path, part: str, expected: str) -> None:
    table = tmp_path / "ours.toml"
    table.write_text(f'title = "x"\nsource = "y"\ncertainty = "seen"\n{part}\n', encoding="utf-8")
    with pytest.raises(LocalProtocolError, match=expected):
        find_format(str(table))
