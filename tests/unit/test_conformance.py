"""
docs/reference/conformance.md: every requirement of its chapters is there, every test that it names, and the sample.

That the sample's tests fail once a requirement is broken takes minutes: `make broken-requirements`.
"""

import csv
import re

import pytest

from tools.conformance import PAGE, ROOT, Requirement, breakages, chapters, renewed, requirements, sample

TABLE = PAGE.read_text(encoding="utf-8")
LIST = ROOT / "../shared/reference/requirements.csv"
CHAPTERS = (
    "REQ.WakeUp.",
    "REQ.Zertifikate",
    "REQ.CMS.",
    "REQ.Webservice.HttpClient.",
    "REQ.TA.TLS.",
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
ROWS = requirements()
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(\w+|\*)`", TABLE)))


def test_each_requirement_is_there_once_with_a_test_or_a_reason() -> None:
    assert len(ROWS) == len({row.id for row in ROWS})
    assert [row.id for row in ROWS if not row.tests and not row.note] == []


@pytest.mark.beside_repository
def test_no_requirement_of_the_chapters_is_missing() -> None:
    with LIST.open(encoding="utf-8") as file:
        wanted = {row["id"] for row in csv.DictReader(file) if row["id"].startswith(CHAPTERS)}
    assert wanted == {row.id for row in ROWS}
    assert len(wanted) == 234


def test_each_named_test_exists() -> None:
    assert len(NAMED) > 40
    missing = []
    for file, name in NAMED:
        # Two files of one name in different kinds of tests: the test must be in one of them.
        texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob(f"*/{file}")]
        if not any(name == "*" or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE) for text in texts):
            missing.append(f"{file}::{name}")
    assert missing == []


def test_requirements_of_the_sample_are_broken_in_one_place_each() -> None:
    for each in breakages():
        assert (ROOT / each.file).read_text(encoding="utf-8").count(each.old) == 1, each.requirement
        assert each.new != each.old
        assert each.file.endswith(".py")
        assert not each.file.startswith("tests/")


def test_a_broken_requirement_names_a_test_of_its_row() -> None:
    rows = {row.id: row for row in ROWS}
    for each in breakages():
        path, _, name = each.test.partition("::")
        assert rows[each.requirement].is_shown_by(path.rpartition("/")[2], name), each.requirement
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), each.test


def test_all_that_is_drawn_for_the_sample_is_broken() -> None:
    drawn = {row.id for row in sample(ROWS)}
    assert len(drawn) > 20
    assert drawn - {each.requirement for each in breakages()} == set()
    assert {row.chapter for row in sample(ROWS)} == set(chapters(ROWS))


def test_what_is_drawn_does_not_depend_on_the_other_rows() -> None:
    rows = [Requirement(f"REQ.X.{number}", 2, (("test_x.py", "*"),), "") for number in range(80)]
    assert len(sample(rows)) == 10
    for row in rows:
        if row not in sample(rows):
            assert sample([each for each in rows if each is not row]) == sample(rows)
    assert sample(rows) != sample(rows, seed=12)


def test_counts_and_sample_stand_in_the_page() -> None:
    assert renewed(TABLE) == TABLE, "run `make docs`"
