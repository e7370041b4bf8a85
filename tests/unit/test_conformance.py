"""docs/reference/conformance.md: every requirement of its chapters is there, and every test that it names."""

import csv
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs/reference/conformance.md").read_text(encoding="utf-8")
LIST = ROOT / "../shared/reference/requirements.csv"
CHAPTERS = (
    "REQ.WakeUp.",
    "REQ.Zertifikate",
    "REQ.CMS.",
    "REQ.Webservice.HttpClient.",
    "REQ.TA.TLS.Close.",
    "REQ.TA.TLS.OpenWanSessionAsClient.",
    "REQ.Webservice.HttpServer.",
    "REQ.HTTP.",
    "REQ.BenutzerAuth.",
    "REQ.TLSHDLC.",
    "REQ.TA.SOCKSTLS.",
    "REQ.TA.mDNS.",
    "REQ.SYMHDLC.",
    "REQ.SML.",
    "REQ.WMBUS.",
    "REQ.TA.NTP.",
)
ROWS = re.findall(r"^\| (REQ\.\S+) \| (.*) \| (.*)\|$", TABLE, re.MULTILINE)
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(\w+|\*)`", TABLE)))


def test_each_requirement_is_there_once_with_a_test_or_a_reason() -> None:
    assert len(ROWS) == len({name for name, _, _ in ROWS})
    assert [name for name, shown, reason in ROWS if "::" not in shown and not reason.strip()] == []


@pytest.mark.beside_repository
def test_no_requirement_of_the_chapters_is_missing() -> None:
    with LIST.open(encoding="utf-8") as file:
        wanted = {row["id"] for row in csv.DictReader(file) if row["id"].startswith(CHAPTERS)}
    assert wanted == {name for name, _, _ in ROWS}
    assert len(wanted) == 199


def test_each_named_test_exists() -> None:
    assert len(NAMED) > 40
    missing = []
    for file, name in NAMED:
        # Two files of one name in different kinds of tests: the test must be in one of them.
        texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob(f"*/{file}")]
        if not any(name == "*" or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE) for text in texts):
            missing.append(f"{file}::{name}")
    assert missing == []
