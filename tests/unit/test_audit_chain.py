"""The audit log's chain: a changed, a removed and a cut-off entry are found."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from protocol.audit import FIRST, AuditEntry, check_chain
from protocol.errors import RemoteProtocolError

Kept = list[tuple[AuditEntry, bytes]]


def chain(count: int) -> Kept:
    made: Kept = []
    for number in range(1, count + 1):
        previous = made[-1][0].digest if made else FIRST
        entry = AuditEntry(number, 1000 + number, "alice", "operator", "wake_up", f"s{number}", "::1", previous)
        made.append((entry, entry.digest))
    return made


def test_a_chain_has_the_head_of_its_last_entry() -> None:
    entries = chain(3)
    assert check_chain(entries) == (3, entries[-1][1])
    assert check_chain([]) == (0, FIRST)


@pytest.mark.parametrize("name", [each.name for each in fields(AuditEntry) if each.name != "number"])
def test_a_change_of_any_field_is_found(name: str) -> None:
    entries = chain(3)
    value = getattr(entries[1][0], name)
    other: Any = bytes(32) if isinstance(value, bytes) else value + (1 if isinstance(value, int) else "x")
    changed = replace(entries[1][0], **{name: other})
    for digest in (entries[1][1], changed.digest):  # the one who changes it may or may not write its digest anew
        with pytest.raises(RemoteProtocolError, match="audit_changed"):
            check_chain([entries[0], (changed, digest), entries[2]])


def test_a_gap_a_cut_tail_and_another_history_are_found() -> None:
    entries = chain(4)
    head = 4, entries[-1][1]
    with pytest.raises(RemoteProtocolError, match="audit_gap"):
        check_chain([entries[0], *entries[2:]])
    with pytest.raises(RemoteProtocolError, match="audit_cut"):
        check_chain(entries[:3], head)
    with pytest.raises(RemoteProtocolError, match="audit_cut"):
        check_chain(chain(5), (4, bytes(32)))
    assert check_chain(chain(6), head)[0] == 6
