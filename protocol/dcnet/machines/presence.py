"""
Who of a ring is there for its head, and who of those may be in the next attempt.

A member is there from its READY until its link is gone or it keeps a message back that was due.  It is in no attempt
with us while it has another history than ours, waits for a token, was caught, or is left out by the coordinator.
"""

from __future__ import annotations

from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.catch_up import CatchUp
from protocol.dcnet.machines.effects import HeadEffect, Note
from protocol.dcnet.machines.history import History
from protocol.dcnet.machines.incarnations import Incarnation, NonceTable
from protocol.dcnet.setup.rings import RingView, bitmap
from protocol.dcnet.setup.terms import RoundTerms
from protocol.errors import RemoteProtocolError


class Presence:
    """
    That of one ring's members for one term of a head; sets of positions are bitmaps.

    `left_out` are those that the coordinator says to leave out, `caught` those that revealed a wrong seed (nobody can
    prove it, and this head leaves them out for its term), `waiting` those that have no token for a return (they hear
    RESULTs, and are in no E), `served` is V: who served since the last opened round.
    """

    def __init__(self, suite: Suite, view: RingView, known: Incarnation | None) -> None:
        self.nonces = NonceTable(suite, view) if known is None else known.copy()
        self.catch_up = CatchUp(History(view) if known is None else known.history.copy())
        self.present = 0
        self.left_out = 0
        self.caught = 0
        self.waiting = 0
        self.served = 0
        self._served_round = -1  # the last round in which somebody was sent CONFIRMED
        self._view = view
        self._claims: dict[int, tuple[int, int]] = {}  # what members said they can still take part in
        self._not_before: dict[int, int] = {}  # the first round that each can take part in

    @property
    def history(self) -> History:
        """The head's own."""
        return self.catch_up.history

    def ready(self, position: int, message: wire.Ready) -> list[HeadEffect] | None:
        """
        Take what a member says of itself: None, or what follows where no attempt with it would open.

        Raises RemoteProtocolError (`bad_signature`) for a nonce that it did not sign.
        """
        try:
            self.nonces.take(position, message.nonce, message.signature)
        except RemoteProtocolError as error:  # an older process of that gateway, or one too many: the others refuse it
            if error.reason == "bad_signature":
                raise
            if error.reason == "too_many_nonces":  # the one before it is gone
                self.leave(1 << position)
            return [Note(error.reason)]
        lacks = self.catch_up.ready(position, message)
        if lacks is not None:
            self.leave(1 << position)
            return [Note("foreign_history"), *lacks]
        self.present |= 1 << position
        self._not_before[position] = message.round
        self.waiting = self.waiting & ~(1 << position) | message.is_waiting << position
        self.served |= message.has_served << position
        return None

    def leave(self, members: int) -> None:
        """These are gone, or owe us a message: out until they say READY."""
        self.present &= ~members

    def eligible(self, round_: int) -> int:
        """Who is there, can take part in a round and owes no answer."""
        late = [position for position, first in self._not_before.items() if first > round_]
        return self.present & ~bitmap(late) & ~self.left_out & ~self.waiting & ~self.caught

    def claim(self, position: int, round_: int, attempt: int) -> None:
        """A member says to a new head what it can still take part in."""
        self._claims[position] = round_, attempt

    def first_attempt(self, round_: int, least: int) -> int:
        """
        The attempt that a new head opens a round with: one that it never saw may have been opened by the last head.

        Of what the members say the second highest counts, so that one alone, liar or straggler, uses up no attempts.
        The claims are heard once.
        """
        claims = sorted((attempt for of, attempt in self._claims.values() if of == round_), reverse=True)
        self._claims.clear()
        return max([least, *claims[1:2]])

    def terms(self, round_: int, expected: int) -> RoundTerms:
        """What an attempt with these members fixes beside E."""
        settled = min(self.history.settled, round_)
        served = self._view.to_wire(self.served)
        return RoundTerms(self.nonces.digest(expected), settled, self.history.hash(settled), served)

    def confirmed(self, round_: int, members: int) -> None:
        """These are sent CONFIRMED, so they may serve."""
        self.served, self._served_round = self.served | members, round_

    def result(self, message: wire.Result) -> bool:
        """
        A round has ended, and all who are there are sent the message; False for another end than we have.

        Who served before it is not in V any more once a round was opened.  Raises RemoteProtocolError.
        """
        if not self.catch_up.result(message, self.present):
            return False
        if message.outcome == wire.Outcome.OPENED and message.round >= self._served_round:
            self.served = 0
        return True
