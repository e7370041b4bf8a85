"""The calibration log's chain: whatever was done to an exported log is found and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.logs.chain import ENTRY_SIZE_MAX, FIRST, ChainedEntry, Head, verify
from protocol.logs.events import BY_NUMBER, Event, Language, text_of


def signature(text: bytes) -> bytes:
    """Stands for the gateway's: what is tested here is the chain."""
    return sha256(b"key" + text).digest()


def is_signed(found: bytes, text: bytes) -> bool:
    return found == signature(text)


def chain(count: int, *, unsigned: frozenset[int] = frozenset(), at_ms: int = 1_000) -> list[ChainedEntry]:
    entries: list[ChainedEntry] = []
    previous = FIRST
    for number in range(1, count + 1):
        entry = ChainedEntry("g1", number, at_ms + number, 1001, {"version": f"1.{number}"}, previous)
        if number not in unsigned:
            entry = replace(entry, signature=signature(entry.signed_text))
        entries.append(entry)
        previous = entry.hash
    return entries


def test_whole_log_has_no_findings_and_names_its_head() -> None:
    entries = chain(5, unsigned=frozenset({1, 2}))
    found = verify(entries, is_signed)
    assert (found.count, found.findings, found.head) == (5, (), Head(5, entries[-1].hash))
    assert verify(entries, is_signed, Head(3, entries[2].hash)).findings == ()
    assert verify([], is_signed).head is None


def changed(entries: list[ChainedEntry]) -> list[ChainedEntry]:
    entries[2] = replace(entries[2], parameters={"version": "9"})
    return entries


def changed_and_signed_anew(entries: list[ChainedEntry]) -> list[ChainedEntry]:
    entry = replace(entries[2], parameters={"version": "9"})
    entries[2] = replace(entry, signature=signature(entry.signed_text))
    return entries


def renumbered(entries: list[ChainedEntry]) -> list[ChainedEntry]:
    return [*entries[:2], *(replace(each, number=each.number - 1) for each in entries[3:])]


@pytest.mark.parametrize(
    ("forge", "reasons"),
    [
        (changed, ["entry 3 is not what the gateway signed", "entry 4 does not follow the entry before it"]),
        (changed_and_signed_anew, ["entry 4 does not follow the entry before it"]),
        (lambda entries: [*entries[:2], *entries[3:]], ["entry 4 follows where entry 3 is expected"]),
        (lambda entries: entries[1:], ["entry 2 follows where entry 1 is expected"]),
        (lambda entries: [entries[1], entries[0], *entries[2:]], ["entry 2 follows where entry 1 is expected"]),
        (lambda entries: [*entries[:3], entries[2], *entries[3:]], ["entry 3 follows where entry 4 is expected"]),
        (renumbered, ["entry 3 is not what the gateway signed"]),
        (lambda entries: [*entries[:3], replace(entries[3], gateway="g2"), *entries[4:]], ["of gateway g2"]),
        (lambda entries: [*entries[:-1], replace(entries[-1], signature=b"")], ["entries after 5 have no signature"]),
    ],
    ids=[
        "changed", "changed and signed anew", "taken out", "first one taken out", "exchanged", "twice", "renumbered",
        "of another gateway", "unsigned end",
    ],
)  # fmt: skip
def test_log_that_was_touched_is_found_and_the_entry_named(
    forge: Callable[[list[ChainedEntry]], list[ChainedEntry]], reasons: list[str]
) -> None:
    findings = " / ".join(verify(forge(chain(6)), is_signed).findings)
    for reason in reasons:
        assert reason in findings


def test_end_that_was_cut_off_is_found_by_the_noted_head_alone() -> None:
    entries = chain(6)
    head = Head(6, entries[-1].hash)
    assert verify(entries[:4], is_signed).findings == ()
    assert "entry 6 was there" in verify(entries[:4], is_signed, head).findings[0]
    regrown = [*entries[:4], *chain(6, at_ms=2_000)[4:]]
    assert "entry 6 is not the one" in " ".join(verify(regrown, is_signed, head).findings)


parameters = st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers(-(2**53), 2**53), max_size=4)


@given(parameters=parameters, number=st.integers(1, 2**40), at_ms=st.integers(0, 2**50), signed=st.binary(max_size=80))
def test_entry_comes_back_from_its_line(
    parameters: dict[str, str | int], number: int, at_ms: int, signed: bytes
) -> None:
    entry = ChainedEntry("g1", number, at_ms, 1001, parameters, bytes(32), signed)
    again = ChainedEntry.from_json(entry.to_json())
    assert again == entry
    assert again.hash == entry.hash


@pytest.mark.parametrize(
    "line",
    [
        "", "[]", "{}", "nothing", "x" * (ENTRY_SIZE_MAX + 1), "[" * 2_000,
        chain(1)[0].to_json().replace('"number": 1', '"number": true'),
        chain(1)[0].to_json().replace('"number": 1', '"number": 1.0'),
        chain(1)[0].to_json().replace('"version": "1.1"', '"version": [1]'),
        chain(1)[0].to_json().replace('"gateway": "g1"', '"gateway": 1'),
        chain(1)[0].to_json().replace('"previous": "', '"previous": "g'),
    ],
    ids=range(11),
)  # fmt: skip
def test_line_that_is_no_entry_is_refused(line: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        ChainedEntry.from_json(line)
    assert refused.value.reason == "bad_log_entry"


@pytest.mark.parametrize("event", list(Event), ids=lambda event: event.name)
def test_both_languages_name_the_same_parameters(event: Event) -> None:
    values: dict[str, str | int] = {name: f"<{name}>" for name in event.value.parameters}
    for language in Language:
        text = text_of(event.value.number, values, language)
        assert all(f"<{name}>" in text for name in values)
    assert BY_NUMBER[event.value.number] is event.value


def test_event_of_a_later_release_is_shown_by_its_number() -> None:
    assert text_of(999_999, {"b": 2, "a": "x"}, Language.GERMAN) == "999999: a=x b=2"
    assert text_of(Event.STARTED.value.number, {}, Language.ENGLISH) == "1001:"
