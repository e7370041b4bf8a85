"""The machines' event log: what it keeps, what it may never keep, and that it is bounded."""

import json
from collections.abc import Iterator
from dataclasses import fields
from hashlib import sha256

import numpy as np
import pytest

from loadtest.lying_head import LyingHead
from loadtest.ring import LocalRing, RingSize, random_vectors
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines import event_log
from protocol.dcnet.machines.event_log import EventLog, Local
from protocol.dcnet.machines.machine import Machine
from protocol.dcnet.machines.member_states import State
from protocol.errors import RemoteProtocolError

SIZE = RingSize(n=6, k=5, t=3, t_c=3, k_min=3, n_min=4, words=3, rounds=8, committed=(1,))


def played(vanish: type[wire.Message] | None = None) -> tuple[LocalRing, list[wire.Message]]:
    """A round in which member 2 falls silent before it sends a message of this kind."""
    ring = LocalRing(StandardSuite(), SIZE)
    said: list[wire.Message] = []
    ring.trace = lambda _to, _index, message: said.append(message)
    blindings = [[int.from_bytes(sha256(b"%d" % i).digest()[:31])] for i in range(SIZE.n)]
    ring.round(
        0,
        random_vectors(np.random.default_rng(8), SIZE.n, SIZE.words),
        lambda position, message: position == 2 and vanish is not None and isinstance(message, vanish),
        blindings,
    )
    return ring, said


def machines(ring: LocalRing) -> Iterator[Machine]:  # type: ignore[type-arg]
    yield from ring.members
    yield ring.head
    yield ring.ledger


def test_a_members_round_is_kept_in_order() -> None:
    ring, _ = played()
    rows = ring.members[1].events.rows()
    assert [row["event"] for row in rows] == ["APPOINTED", "Open", "OFFERED", "Roster", "Confirmed", "Result"]
    everybody = list(range(6))
    assert rows[1] == {
        "at_s": 0.0, "event": "Open", "term": 0, "round": 0, "attempt": 0, "expected": everybody,
        "changed": [], "nonces": "", "settled": 0, "served": [], "before": "waiting", "after": "waiting",
    }  # fmt: skip
    assert rows[2] == {
        "at_s": 0.0, "event": "OFFERED", "round": 0, "settled": 0, "before": "waiting", "after": "shared",
        "effects": [{"effect": "SHARED"}, {"effect": "MaskedInput", "round": 0, "attempt": 0}],
    }  # fmt: skip
    assert [each["effect"] for each in rows[4]["effects"]] == ["SERVED", "Reveal"]
    assert rows[5]["effects"] == [{"effect": "SETTLED"}]
    json.dumps(rows)


def test_what_a_head_sends_to_many_is_kept_once() -> None:
    ring, _ = played()
    opening = next(row for row in ring.head.events.rows() if row["after"] == "collecting")
    assert [each["effect"] for each in opening["effects"]] == ["Open"]
    ended = [row for row in ring.ledger.events.rows() if row["event"] == "RingTotal"]
    assert [row["from"] for row in ended] == [0]
    assert [each["effect"] for each in ended[0]["effects"]] == ["ROUND_ENDED", "Result"]


@pytest.mark.parametrize("vanish", [None, wire.MaskedInput, wire.Reveal])
def test_no_secret_is_in_any_log(vanish: type[wire.Message] | None) -> None:
    ring, said = played(vanish)
    packed = b"".join(each for machine in machines(ring) for each in machine.events._kept)
    assert len(packed) > 1000
    secrets = 0
    for message in said:
        for field in fields(message):
            value = getattr(message, field.name)
            if isinstance(value, bytes):
                words = [value[i : i + 8] for i in range(0, len(value) - 7, 8)]
                words = [each for each in words if each[1:] != bytes(7)]  # the count in slot 0 is public
                secrets += len(words)
                assert not any(each in packed for each in words), field.name
    assert secrets > 40
    assert {wire.Reveal, wire.MaskedInput, wire.RingTotal} <= {type(each) for each in said}


def test_only_numbers_and_sets_are_kept_of_a_message() -> None:
    kept = {name for names in event_log._FIELDS.values() for name in names}
    assert kept == {
        "term", "round", "attempt", "dealer", "position", "outcome", "is_waiting",
        "has_served", "expected", "served", "changed", "roster", "makers", "silent", "members", "nonce",
        "nonces", "settled",
    }  # fmt: skip


def test_a_refusal_is_kept_with_its_reason() -> None:
    liar = LyingHead(CheapSuite())
    with pytest.raises(RemoteProtocolError):
        liar.say(liar.open(term=9))
    row = liar.member.events.rows()[-1]
    assert (row["event"], row["refused"], row["after"]) == ("Open", "head_out_of_turn", "waiting")


def test_a_full_log_drops_the_oldest_and_counts_them() -> None:
    log = EventLog(0, {}, events_max=3)
    for round_ in range(5):
        log.add(float(round_), Local.OFFERED, (round_, 0), -1, State.WAITING, State.WAITING, ())
    assert [row["round"] for row in log.rows()] == [2, 3, 4]
    assert log.added == 5


def test_a_members_log_stays_below_four_kilobytes() -> None:
    ring = LocalRing(CheapSuite(), RingSize(n=64, k=14, t=10, t_c=10, k_min=10, n_min=42, words=4, rounds=96))
    for round_ in range(20):
        ring.round(round_, random_vectors(np.random.default_rng(round_), 64, 4))
    sizes = [sum(map(len, each.events._kept)) for each in ring.members]
    assert max(sizes) < 4000
    assert ring.members[3].bug_report()["dropped"] > 0


def test_a_lost_link_and_a_revocation_are_kept() -> None:
    ring, _ = played()
    ring.head.lost(4, 1.0)
    ring.ledger.expel(0b1, 2.0)
    assert ring.head.events.rows()[-1]["from"] == 4
    row = ring.ledger.events.rows()[-1]
    assert (row["event"], row["members"]) == ("EXPELLED", [0])
    assert [each["effect"] for each in row["effects"]] == ["Appoint"]


def test_shares_that_only_come_in_are_kept_with_their_attempt() -> None:
    ring, _ = played()
    rows = [row for row in ring.head.events.rows() if row["event"] == "MaskedInput"]
    assert [(row["round"], row["attempt"], row["from"]) for row in rows] == [(0, 0, i) for i in range(6)]
    assert [row["after"] for row in rows] == ["collecting"] * 5 + ["confirming"]


def test_arrivals_whose_attempt_is_forgotten_are_counted_as_dropped() -> None:
    ring, _ = played()
    ring.head.events = EventLog(0, {}, events_max=3)
    for position in range(4):
        ring.head.events.add_arrival(1.0, wire.MaskedInput, position)
    assert ring.head.events.rows() == []
    assert ring.head.bug_report()["dropped"] == 4
