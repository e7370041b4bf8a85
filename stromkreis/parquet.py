"""
Delivered values as a Parquet file: the CSV of `stromkreis emp export`, column by column, and exact.

A value is an integer and a power of ten (`value_mantissa`·10^`value_scaler`), as meters and profiles have it: a decimal
column would have one scale for all registers, and a single value that does not fit it would cost the whole file.  Rows
are written in groups, so that a month of many gateways needs the memory of one group.

pyarrow is an extra (`stromkreis[parquet]`): it is as large as all else that a coordinator needs together.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from protocol.errors import StromkreisError

if TYPE_CHECKING:
    import pyarrow

ROWS_AT_ONCE: Final = 65_536
_INT64_MAX: Final = 2**63


def write_parquet(lines: Iterable[str], target: Path) -> int:
    """
    Write the rows of a CSV (`coordinator.emp.inbox.COLUMNS`) to a file; how many there were.

    Raises StromkreisError where pyarrow is not installed, or a value has more than 63 bits.
    """
    try:
        from pyarrow import RecordBatch, parquet  # noqa: PLC0415 - an extra
    except ImportError:
        raise StromkreisError(
            "Parquet needs pyarrow, which is not installed: pip install 'stromkreis[parquet]', or export to a .csv file"
        ) from None
    schema, rows, count = _schema(), csv.DictReader(lines), 0
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        while part := [_row(each) for each in islice(rows, ROWS_AT_ONCE)]:
            writer.write_batch(RecordBatch.from_pylist(part, schema=schema))
            count += len(part)
    return count


def _schema() -> pyarrow.Schema:
    import pyarrow as pa  # noqa: PLC0415

    name, moment = pa.dictionary(pa.int32(), pa.string()), pa.timestamp("ms", tz="UTC")
    return pa.schema([
        ("delivery", name), ("sender", name), ("metering_point", name), ("profile", name), ("taf", pa.int8()),
        ("billable", pa.bool_()), ("kind", name), ("obis", name), ("time", moment), ("value_mantissa", pa.int64()),
        ("value_scaler", pa.int16()), ("unit", name), ("valid", pa.bool_()), ("status", pa.string()), ("until", moment),
        ("subject", name),
    ])  # fmt: skip


def _row(row: Mapping[str, str]) -> dict[str, Any]:
    mantissa, scaler = _number(row["value"])
    return {
        **{name: row[name] for name in ("delivery", "sender", "metering_point", "profile", "kind", "obis", "unit")},
        "taf": int(row["taf"]), "billable": row["billable"] == "1", "time": _time(row["time"]),
        "value_mantissa": mantissa, "value_scaler": scaler, "valid": row["valid"] == "1",
        "status": row["status"] or None, "until": _time(row["until"]), "subject": row["subject"] or None,
    }  # fmt: skip


def _number(text: str) -> tuple[int | None, int | None]:
    """Mantissa and scaler of a decimal number; none for one of over 63 bits, which no register has."""
    sign, digits, exponent = Decimal(text).as_tuple()
    mantissa, scaler = int("".join(map(str, digits))), int(exponent)
    while mantissa >= _INT64_MAX and mantissa % 10 == 0:
        mantissa, scaler = mantissa // 10, scaler + 1
    return (None, None) if mantissa >= _INT64_MAX else (-mantissa if sign else mantissa, scaler)


def _time(text: str) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def lines_of(parts: Iterable[str]) -> Iterator[str]:
    """Lines, each with its end, of a text that comes in parts; only a line feed ends one."""
    rest = ""
    for part in parts:
        *lines, rest = (rest + part).split("\n")
        yield from (f"{line}\n" for line in lines)
    if rest:
        yield rest
