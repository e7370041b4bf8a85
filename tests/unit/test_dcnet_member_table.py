"""
The member's table of transitions: what it does not name changes nothing.

The member sits at position 0 of a ring of six; its neighbours are 1, 2, 4 and 5, and 3 is none.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from loadtest.lying_head import LyingHead, refuses, snapshot
from loadtest.ring import ready
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.machines.effects import Note
from protocol.dcnet.machines.member_states import TRANSITIONS, State
from protocol.errors import InvariantError, RemoteProtocolError

SUITE = CheapSuite()


@pytest.fixture
def liar() -> LyingHead:
    return LyingHead(SUITE)


LEADS: dict[State, Callable[[LyingHead], object]] = {
    State.WAITING: lambda liar: liar.offer(),
    State.SHARED: lambda liar: liar.share(),
    State.CONFIRMED: lambda liar: liar.confirm(),
    State.SERVED: lambda liar: liar.serve(),
}
SAYINGS: dict[type[wire.Message], Callable[[LyingHead], wire.RingMessage]] = {
    wire.Open: lambda liar: liar.open(1),
    wire.Roster: lambda liar: liar.roster(),
    wire.Confirmed: lambda liar: liar.confirmed(),
    wire.Recover: lambda liar: liar.recover({1}),
    wire.Result: lambda liar: liar.result(),
}


@pytest.mark.parametrize(
    ("state", "kind"), [pair for pair in product(State, SAYINGS) if pair not in TRANSITIONS], ids=str
)
def test_what_the_table_does_not_name_changes_nothing(liar: LyingHead, state: State, kind: type[wire.Message]) -> None:
    LEADS[state](liar)
    before = snapshot(liar.member)
    assert liar.member.receive(SAYINGS[kind](liar), 1.0) == [Note("member_stale_message")]
    assert snapshot(liar.member) == before


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize(
    "message",
    [
        ready(LyingHead(SUITE).view, 0),
        wire.MaskedInput(1, 0, 0, 0, bytes(32), bytes(32), bytes(16), b"", b"", bytes(64)),
        wire.Confirm(1, 0, 0, 0, b"", b"", b"", bytes(64)),
        wire.Reveal(1, 0, 0, 0, bytes(32)),
        wire.Partial(1, 0, 0, 0, 1, bytes(32), bytes(64)),
        wire.BadDeal(1, 0, 1),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_members_say_is_not_for_members(liar: LyingHead, state: State, message: wire.RingMessage) -> None:
    LEADS[state](liar)
    refuses(liar, message, "message_not_allowed")


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("change", [{"epoch": 2}, {"ring": 1}], ids=str)
def test_another_epochs_or_rings_message(liar: LyingHead, state: State, change: dict[str, int]) -> None:
    LEADS[state](liar)
    for make in SAYINGS.values():
        message: Any = make(liar)
        refuses(liar, replace(message, **change), "wrong_ring")


@pytest.mark.parametrize("other", [{"round_": 1}, {"attempt": 1}], ids=str)
def test_what_is_about_another_attempt_is_stale(liar: LyingHead, other: dict[str, Any]) -> None:
    liar.share()
    assert liar.say(liar.roster(**other)) == []
    liar.say(liar.roster())
    assert liar.say(liar.confirmed(**other)) == []
    liar.say(liar.confirmed())
    assert liar.say(liar.recover({1}, **other)) == []
    assert liar.notes == ["member_stale_message"] * 3


def test_the_table_is_enforced(liar: LyingHead, monkeypatch: pytest.MonkeyPatch) -> None:
    opening: tuple[State, type[wire.RingMessage]] = (State.WAITING, wire.Open)
    monkeypatch.setitem(TRANSITIONS, opening, (State.WAITING,))
    liar.offer()
    with pytest.raises(InvariantError, match="Open led to shared") as caught:
        liar.say(liar.open())
    (note,) = caught.value.__notes__
    document = json.loads(note.partition(": ")[2])
    assert (document["machine"], document["position"], document["ring"]["n"]) == ("member", 0, 6)
    assert document["events"][-1]["after"] == "shared"


def test_every_transition_of_the_table_happens() -> None:
    """The diagram in the documentation is drawn from the table: it may not promise what never comes."""
    seen: set[tuple[State, type[wire.Message], State]] = set()

    def step(liar: LyingHead, message: wire.RingMessage) -> None:
        before = liar.member.state
        with suppress(RemoteProtocolError):
            liar.say(message)
        seen.add((before, type(message), liar.member.state))

    makes: list[Callable[[LyingHead], wire.RingMessage]] = [
        *SAYINGS.values(),
        lambda liar: liar.open(round_=1),
        lambda liar: liar.roster(round_=1),
        lambda liar: liar.confirmed(round_=1),
        lambda liar: liar.result(5),
    ]
    for state in State:
        for make in makes:
            liar = LyingHead(SUITE)
            LEADS[state](liar)
            step(liar, make(liar))
    liar = LyingHead(SUITE)
    step(liar, liar.open())
    liar = LyingHead(SUITE)
    liar.offer(1)
    liar.say(liar.open(round_=1, settled=1))
    step(liar, liar.result())
    table = {
        (state, kind, after)
        for (state, kind), afters in TRANSITIONS.items()
        for after in afters
        if isinstance(kind, type)
    }
    assert {each for each in seen if each[0] is not each[2]} <= table
    assert table <= seen
