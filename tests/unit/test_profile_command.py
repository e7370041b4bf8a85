"""`stromkreis profile`: checks and evaluates as a gateway does, and says in one line what is wrong."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from protocol.errors import StromkreisError
from protocol.profiles.calendar import LEGAL_TIME
from stromkreis.profile import app
from tests.unit.test_profiles import document

BEGIN = datetime(2026, 10, 1, tzinfo=LEGAL_TIME)


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """A profile set in a file, its one use case TAF 7."""
    file = tmp_path / "profiles.json"
    file.write_text(json.dumps(document()))
    return file


def run(*arguments: object) -> str:
    """The output of a command that must end well."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def values(tmp_path: Path, lines: list[str]) -> Path:
    file = tmp_path / "values.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def rows() -> list[str]:
    return [f"{(BEGIN + timedelta(minutes=15 * index)).isoformat()},{1000 + 5 * index}" for index in range(5)]


def test_check_names_what_each_profile_delivers(profiles: Path) -> None:
    output = run("check", profiles)
    assert "version 3 for ESTR0000000001" in output
    assert "emp (pseudonymous)" in output


def test_evaluate_gives_what_the_use_case_derives(profiles: Path, tmp_path: Path) -> None:
    changed: dict[str, Any] = document()
    changed["processing"][0]["use_case"] = {"taf": 8, "count": 1}
    profiles.write_text(json.dumps(changed))
    output = json.loads(run("evaluate", profiles, "p1", values(tmp_path, ["time,value", *rows()])))
    assert output["from"] == "2026-10-01T00:00:00+02:00"
    assert output["to"] == "2026-11-01T00:00:00+01:00"
    assert output["complete"] is False
    assert output["largest"] == [{"from": "2026-10-01T00:00:00+02:00", "energy": "5"}]


def test_evaluate_marks_values_that_the_file_says_are_not_valid(profiles: Path, tmp_path: Path) -> None:
    file = values(tmp_path, ["time,value,valid", *(f"{row},{index % 2}" for index, row in enumerate(rows()))])
    output = json.loads(run("evaluate", profiles, "p1", file, "--at", "2026-10-15"))
    assert [row["valid"] for row in output["rows"]] == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["when,what", *rows()], "columns time and value"),
        (["time,value", "2026-10-01T00:00:00,5"], "line 2: expected a time with zone"),
        (["time,value", *rows(), "2026-10-01T00:00:00+02:00,Infinity"], "line 7"),
        (["time,value", "2026-10-01T00:00:00+02:00"], "line 2"),
        (["time,value"], "no values"),
        (["time,value", "2020-10-01T00:00:00+02:00,5"], "first billing period begins 2026-01-01"),
    ],
)
def test_values_that_cannot_be_read_end_in_a_sentence(
    profiles: Path, tmp_path: Path, lines: list[str], reason: str
) -> None:
    with pytest.raises(StromkreisError, match=reason):
        run("evaluate", profiles, "p1", values(tmp_path, lines))


def test_profile_that_is_not_there_is_named_beside_those_that_are(profiles: Path, tmp_path: Path) -> None:
    with pytest.raises(StromkreisError, match="no processing profile 'p9'; it has p1"):
        run("evaluate", profiles, "p9", values(tmp_path, ["time,value"]))


def test_set_that_no_gateway_takes_is_refused_with_the_reason(profiles: Path) -> None:
    changed = document()
    changed["meters"] = []
    profiles.write_text(json.dumps(changed))
    with pytest.raises(StromkreisError, match="no meter profile m1"):
        run("check", profiles)


def test_schema_is_json() -> None:
    assert json.loads(run("schema"))["title"] == "ProfileSet"
