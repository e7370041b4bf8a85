"""
Golden transcripts: whole rounds of real machines with the real primitives, every message to the byte.

`tests/golden/round_*.json` hold, for a ring of six grown from one seed, who is told what in which order, readable and
as the SHA-256 of the message's bytes.  They catch every unmeant change of the protocol, and another implementation can
follow them.  After a change that is meant: `python -m pytest tests/unit/test_dcnet_transcripts.py --renew-golden`.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize
from loadtest.signing import sign_again
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import HeadEffect, MemberEffect, ToHead, ToMember
from protocol.dcnet.setup.rings import positions_of

GOLDEN = Path(__file__).parents[1] / "golden"
SIZE = RingSize(n=6, k=5, t=3, t_c=3, k_min=3, n_min=4, words=3, rounds=8, committed=(1,))
BITMAPS = {"expected", "changed", "roster", "makers", "silent", "members"}

Twist = Callable[[str, int, wire.Message], list[wire.Message]]


class Transcribed(LocalRing):
    """Writes down what everybody is told; `twist` may change what the head or the member at a position says."""

    def __init__(self, twist: Twist | None = None) -> None:
        self.twisting: Twist = twist or (lambda _who, _position, message: [message])
        self.lines: list[dict[str, Any]] = []
        super().__init__(StandardSuite(), SIZE, hashlib.sha256(b"golden transcripts").digest())
        self.trace = self._write

    def _write(self, to: str, position: str, message: wire.Message) -> None:
        told = {
            "member": f"head {self.view.head_of(self.head.term)} to member {position}",
            "head": f"member {position} to head {self.view.head_of(self.head.term)}",
            "ledger": f"gateway {position} to coordinator",
            "gateway": f"coordinator to gateway {position}",
        }
        self.lines.append(
            {
                "at_s": round(self.now_s, 3),
                "way": told[to],
                "kind": type(message).__name__,
                **{field.name: self._readable(message, field.name) for field in fields(message)},
                "sha256": hashlib.sha256(wire.encode(message)).hexdigest(),
            }
        )

    def _readable(self, message: wire.Message, name: str) -> Any:
        value = getattr(message, name)
        if isinstance(value, bytes):
            if name in BITMAPS:
                return positions_of(self.view.from_wire(value))
            return value.hex() if len(value) <= 32 else f"{len(value)} octets"
        return f"{len(value)} records" if isinstance(value, tuple) else value

    def from_member(self, index: int, instructions: Sequence[MemberEffect]) -> None:
        out: list[MemberEffect] = []
        for each in instructions:
            if isinstance(each, ToHead):
                said = self.twisting("member", index, each.message)
                if said != [each.message]:
                    said = [sign_again(m, self.members[index], self.secrets[index]) for m in said]  # type: ignore[arg-type]
                out += [ToHead(m) for m in said]  # type: ignore[arg-type]
            else:
                out.append(each)
        super().from_member(index, out)

    def from_head(self, position: int, effects: Sequence[HeadEffect]) -> None:
        out: list[HeadEffect] = []
        for each in effects:
            if isinstance(each, ToMember):
                said = self.twisting("head", each.position, each.message)
                out += [ToMember(each.position, m) for m in said]  # type: ignore[arg-type]
            else:
                out.append(each)
        super().from_head(position, out)


def loses(*losses: tuple[int, type[wire.Message], int]) -> Callable[[int, wire.Message], bool]:
    def vanish(position: int, message: wire.Message) -> bool:
        return (position, type(message), getattr(message, "attempt", -1)) in losses

    return vanish


def lying_partial(who: str, position: int, message: wire.Message) -> list[wire.Message]:
    """Member 1 helps with a wrong point."""
    if (who, position) == ("member", 1) and isinstance(message, wire.Partial):
        return [replace(message, element=StandardSuite().group.multiply_base(5))]
    return [message]


def wrong_seed(who: str, position: int, message: wire.Message) -> list[wire.Message]:
    """Member 2 reveals another seed than the one that its share is bound to."""
    if (who, position) == ("member", 2) and isinstance(message, wire.Reveal):
        return [replace(message, seed=bytes(32))]
    return [message]


def wrong_share(who: str, position: int, message: wire.Message) -> list[wire.Message]:
    """Member 5 shares words that are no masked vector, in every round."""
    if (who, position) == ("member", 5) and isinstance(message, wire.MaskedInput):
        return [replace(message, vector=hashlib.sha256(message.vector).digest()[:24])]
    return [message]


def second_roster(who: str, position: int, message: wire.Message) -> list[wire.Message]:
    """The head shows member 2 a second roster, without 4, to get the mask words towards it."""
    if (who, position) == ("head", 2) and isinstance(message, wire.Roster):
        return [message, replace(message, roster=b"\x2f")]
    return [message]


def two_rosters(who: str, position: int, message: wire.Message) -> list[wire.Message]:
    """The head shows members 3 to 5 another roster than the rest: the confirmations do not fit."""
    if who == "head" and position >= 3 and isinstance(message, wire.Roster):
        return [replace(message, roster=b"\x3d")]
    return [message]


def pollution(who: str, position: int, message: wire.Message) -> list[wire.Message]:
    """Member 2 shares more than it committed to."""
    if (who, position) == ("member", 2) and isinstance(message, wire.MaskedInput):
        words = np.frombuffer(message.vector, dtype="<u8").copy()
        words[1] += np.uint64(10_000)
        return [replace(message, vector=words.tobytes())]
    return [message]


NOBODY = loses()
ROUNDS: dict[str, tuple[Callable[[int, wire.Message], bool], Twist | None]] = {
    "good": (NOBODY, None),
    "silent_before_share": (loses((3, wire.MaskedInput, 0)), None),
    "silent_before_confirm": (loses((3, wire.Confirm, 0)), None),
    "silent_before_share_and_confirm": (loses((4, wire.MaskedInput, 0), (3, wire.Confirm, 0)), None),
    "silent_before_reveal": (loses((3, wire.Reveal, 0)), None),
    "silent_head": (loses((0, wire.Confirm, 0)), None),
    "lying_partial": (loses((3, wire.Reveal, 0)), lying_partial),
    "lying_head_second_roster": (NOBODY, second_roster),
    "lying_head_two_rosters": (NOBODY, two_rosters),
    "pollution": (NOBODY, pollution),
    "wrong_seed": (NOBODY, wrong_seed),
    "lie_caught": (NOBODY, wrong_share),
}
COUNTS = {"lie_caught": 2}  # rounds, where it is not one
ENDS = {  # outcome, attempt, members in the sum, whether it is what they committed to
    "good": (1, 0, 6, True),
    "silent_before_share": (1, 0, 5, True),
    "silent_before_confirm": (1, 0, 6, True),
    "silent_before_share_and_confirm": (1, 1, 4, True),
    "silent_before_reveal": (1, 0, 6, True),
    "silent_head": (1, 1, 5, True),
    "lying_partial": (1, 0, 6, True),
    "lying_head_second_roster": (1, 0, 6, True),
    "lying_head_two_rosters": (2, 0, 0, False),
    "pollution": (1, 0, 6, False),
    "wrong_seed": (1, 0, 6, True),
    "lie_caught": (1, 0, 5, True),
}


@pytest.mark.parametrize("name", ROUNDS)
def test_the_round_is_the_golden_one(name: str, request: pytest.FixtureRequest) -> None:
    vanish, twist = ROUNDS[name]
    ring = Transcribed(twist)
    for round_ in range(COUNTS.get(name, 1)):
        vectors = [np.array([1, 1000 + i + round_, 2 * i], dtype=np.uint64) for i in range(SIZE.n)]
        ended = ring.round(round_, vectors, vanish, [(77 + i,) for i in range(SIZE.n)])
    assert (ended.outcome, ended.attempt, ended.roster.bit_count(), ended.verified) == ENDS[name]
    transcript = {
        "ring": {"n": SIZE.n, "k": SIZE.k, "t": SIZE.t, "t_c": SIZE.t_c, "digest": ring.view.digest.hex()},
        "messages": ring.lines,
        "durable": [f"member {position}: {record}" for position, record in ring.persisted],
        "refused": ring.refused,
        "ended": {
            "outcome": ended.outcome.name, "reason": ended.reason, "roster": positions_of(ended.roster),
            "total": list(ended.total), "verified": ended.verified,
        },
    }  # fmt: skip
    path = GOLDEN / f"round_{name}.json"
    written = _lines(transcript)
    if request.config.getoption("--renew-golden"):
        path.write_text(written)
    assert path.read_text() == written


def _lines(transcript: dict[str, Any]) -> str:
    """One line a message, so that a difference shows as the messages that differ."""
    parts = []
    for name, value in transcript.items():
        rows = ",\n".join(json.dumps(row) for row in value) if isinstance(value, list) else json.dumps(value)
        parts.append(f'"{name}": [\n{rows}\n]' if isinstance(value, list) else f'"{name}": {rows}')
    return "{\n" + ",\n".join(parts) + "\n}\n"
