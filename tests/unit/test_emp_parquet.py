"""Delivered values as Parquet: read back by pyarrow they are the CSV's, to the last digit."""

from __future__ import annotations

import builtins
import csv
import stat
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from coordinator.emp.inbox import COLUMNS, _lines, _rows
from protocol.cosem.delivery import Delivery, Detail, PeriodResult, Row
from protocol.errors import StromkreisError
from protocol.metering.obis import Obis
from stromkreis import emp
from stromkreis import parquet as written
from stromkreis.__main__ import build
from stromkreis.parquet import lines_of, write_parquet

IMPORT = Obis(1, 0, 1, 8, 0, 255)
OCTOBER_S = 1_790_805_600


def delivery(number: int, scaler: int, values: list[int]) -> Delivery:
    rows = tuple(Row(OCTOBER_S + 900 * at, value, at % 3 > 0, at or None) for at, value in enumerate(values))
    details = (Detail("high", "event", IMPORT, -2, 35, 1_790_805_600_123, 1_790_805_600_456, -2_531),)
    result = PeriodResult(
        "profile, \"quoted\"", 7, "DE0001234567890123456789012345678", IMPORT, scaler, 30, 900, OCTOBER_S,
        OCTOBER_S + 86_400, is_complete=True, is_billable=False, registers=((IMPORT, values[-1]),), rows=rows,
        details=details,
    )  # fmt: skip
    return Delivery(f"{number:032x}", "estk0100000001.sm", result)


def export(*deliveries: Delivery) -> str:
    return b"".join([_lines([COLUMNS]), *(_lines(_rows(each)) for each in deliveries)]).decode()


def as_csv_has_it(row: dict[str, Any]) -> dict[str, str]:
    """A row of the file in the form of the CSV."""

    def moment(name: str) -> str:
        at = row[name]
        if at is None:
            return ""
        precision = "milliseconds" if row["kind"] not in {"register", "value"} else "seconds"
        return f"{at.replace(tzinfo=None).isoformat(timespec=precision)}Z"

    value = f"{Decimal(row['value_mantissa']).scaleb(row['value_scaler']):f}"
    told = row | {"time": moment("time"), "until": moment("until"), "value": value}
    told |= {name: int(row[name]) for name in ("billable", "valid")}
    return {name: "" if told[name] is None else str(told[name]) for name in COLUMNS}


def test_every_row_read_back_is_the_one_of_the_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "ROWS_AT_ONCE", 7)  # several groups of rows
    values = [0, 1, 9_007_199_254_740_993, 2**63 - 1, -(2**63) + 1, 12_340]  # what a float would not hold
    text = export(*(delivery(number, scaler, values) for number, scaler in enumerate((-4, -1, 0, 3))))
    assert write_parquet(lines_of([text[:100], text[100:]]), tmp_path / "x.parquet") == 4 * 8
    found = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert list(map(as_csv_has_it, found)) == list(csv.DictReader(text.splitlines()))


def test_numbers_are_integers_and_times_have_a_zone(tmp_path: Path) -> None:
    write_parquet(lines_of([export(delivery(1, -1, [1, 2]))]), tmp_path / "x.parquet")
    types = {field.name: str(field.type) for field in parquet.read_schema(tmp_path / "x.parquet")}
    assert types["value_mantissa"] == "int64"
    assert types["time"] == types["until"] == "timestamp[ms, tz=UTC]"
    assert not {name for name, kind in types.items() if "double" in kind or "float" in kind}


def test_a_value_that_no_register_has_costs_itself_only(tmp_path: Path) -> None:
    text = export(delivery(1, 0, [2**64 - 1, 5]), delivery(2, 60, [7]))
    write_parquet(lines_of([text]), tmp_path / "x.parquet")
    rows = parquet.read_table(tmp_path / "x.parquet", columns=["value_mantissa", "value_scaler", "kind"]).to_pylist()
    found = [(each["value_mantissa"], each["value_scaler"]) for each in rows if each["kind"] == "value"]
    assert found[:2] == [(None, None), (5, 0)]
    assert found[2][0] * 10 ** found[2][1] == 7 * 10**60


def test_an_export_without_values_is_a_file_without_rows(tmp_path: Path) -> None:
    assert write_parquet(lines_of([export()]), tmp_path / "x.parquet") == 0
    assert parquet.read_table(tmp_path / "x.parquet").num_rows == 0


def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Callable[[], httpx.Response], name: str) -> Any:
    """`emp export` against a server that answers so."""
    client = httpx.Client(transport=httpx.MockTransport(lambda _: answer()), base_url="https://coordinator")
    monkeypatch.setattr(emp, "operator_client", lambda _: client)
    span = ["--from", "2026-10-01", "--to", "2026-11-01"]
    return CliRunner().invoke(build(["emp"]), ["emp", "export", str(tmp_path / name), *span])


@pytest.mark.parametrize("name", ["x.parquet", "x.csv"])
def test_the_name_of_the_file_decides_its_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    text = export(delivery(1, -1, [1, 2]))
    done = command(monkeypatch, tmp_path, lambda: httpx.Response(200, text=text), name)
    assert (done.exit_code, f"4 values in {tmp_path / name}" in done.output) == (0, True), done.output
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    if name == "x.csv":
        assert (tmp_path / name).read_text() == text
    else:
        assert parquet.read_table(tmp_path / name).num_rows == 4


@pytest.mark.parametrize("name", ["x.parquet", "x.csv"])
def test_an_export_that_fails_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    done = command(monkeypatch, tmp_path, lambda: httpx.Response(403), name)
    assert done.exit_code == 1
    assert "status 403" in str(done.exception)
    assert not (tmp_path / name).exists()


def test_without_pyarrow_the_command_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name == "pyarrow":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(StromkreisError, match=r"pip install 'stromkreis\[parquet\]'"):
        write_parquet([], tmp_path / "x.parquet")
