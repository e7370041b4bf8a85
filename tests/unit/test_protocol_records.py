"""Records behave as frozen dataclasses do, but for what the type checker forbids."""

from dataclasses import fields, replace

import pytest

from protocol.dcnet.machines.effects import Note, ToMember
from protocol.wire import Reveal

SEED = bytes(range(32))


def test_records_of_equal_fields_are_one_in_a_set() -> None:
    assert {Note("retry"), Note("retry", 0.0), Note("retry", 1.0)} == {Note("retry"), Note("retry", 1.0)}
    assert ToMember(1, Reveal(1, 0, 2, 0, SEED)) == ToMember(1, Reveal(1, 0, 2, 0, SEED))
    assert ToMember(1, Reveal(1, 0, 2, 0, SEED)) != ToMember(2, Reveal(1, 0, 2, 0, SEED))


def test_a_record_is_changed_by_making_another_one() -> None:
    first = Reveal(1, 0, 2, 0, SEED)
    assert replace(first, attempt=1) == Reveal(1, 0, 2, 1, SEED)
    assert first.attempt == 0
    assert [each.name for each in fields(Reveal)] == ["epoch", "ring", "round", "attempt", "seed"]


def test_a_record_has_no_other_fields() -> None:
    with pytest.raises(AttributeError):
        Note("retry").other = 1  # type: ignore[attr-defined]


def test_only_the_type_checker_forbids_to_assign_to_a_field() -> None:
    """`make lint` fails where the ignored error is none any more."""
    made = Note("retry")
    made.seconds = 1.0  # type: ignore[misc]
    assert made == Note("retry", 1.0)
