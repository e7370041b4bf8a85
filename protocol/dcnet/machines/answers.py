"""
A member's answers to the round ledger's inquiries: what it says of its own masks, and when it opens a pair.

Privacy does not rest on the ledger here:

- only first mask words are ever answered.  Slot 0 carries no data, so they say nothing of a reading;
- a pair is opened only against words that the other end has signed for the same attempt, E and terms, and that differ
  from our own.  An honest neighbour signs the word that we compute, so a pair of two honest members is never opened,
  whatever ledger and head say;
- a pair is opened for a deal only where the dealer signed one for us that is bad.

What a process answers follows from the keys of the epoch and the nonces in the inquiry, so one that was started anew
answers as the one before it.
"""

from __future__ import annotations

import struct

from protocol import wire
from protocol.dcnet.machines.blame import context_of, nonces_of
from protocol.dcnet.machines.effects import MemberEffect, Note, ToCoordinator
from protocol.dcnet.machines.masks import first_mask_word
from protocol.dcnet.machines.member_attempt import Place
from protocol.dcnet.setup.rings import positions_of
from protocol.dcnet.setup.secrets import is_good_share
from protocol.dcnet.setup.statements import AttemptContext, deal_text, inquiry_text, words_text
from protocol.errors import RemoteProtocolError

_INQUIRIES_MAX = 8  # that are remembered; the ledger says them again with what it wants to know


class Answers:
    """What one member answers; `place` is its place in the ring."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._inquiries: dict[tuple[int, int], tuple[AttemptContext, int, list[int], bytes]] = {}

    def asked(self, message: wire.Message, last: tuple[int, int]) -> list[MemberEffect]:
        """
        What the round ledger asks over its own link; `last` is our last attempt.

        Raises RemoteProtocolError where it may not.
        """
        match message:
            case wire.Inquiry():
                return self.on_inquiry(message, last)
            case wire.DisputedPair():
                return self.on_disputed_pair(message)
            case wire.DisputedDeal():
                return self.on_disputed_deal(message)
            case wire.PresenceRequest():
                view = self._place.view
                return [ToCoordinator(wire.Presence(view.epoch, view.ring, message.round))]
        raise RemoteProtocolError("message_not_allowed", f"{type(message).__name__} is no question to a member")

    def on_inquiry(self, message: wire.Inquiry, last: tuple[int, int]) -> list[MemberEffect]:
        """
        Our words of an attempt, none after `last`, that the ledger says was void.

        Raises RemoteProtocolError for one that the ledger did not sign or that is without us.
        """
        place, view = self._place, self._place.view
        context, roster = context_of(view, message), view.from_wire(message.roster)
        if not place.suite.verify(view.result_key, inquiry_text(view, context, roster), message.signature):
            raise RemoteProtocolError("forged_inquiry", "an inquiry that the round ledger did not sign")
        position = place.secrets.position
        if roster & ~context.expected or not roster >> position & 1 or (context.round, context.attempt) > last:
            raise RemoteProtocolError("bad_inquiry", "an inquiry about an attempt that this member was not in")
        neighbours, nonces = positions_of(place.neighbours & context.expected), nonces_of(view, message)
        words = b"".join(struct.pack("<Q", self._word(context, other, nonces)) for other in neighbours)
        while len(self._inquiries) >= _INQUIRIES_MAX:
            del self._inquiries[min(self._inquiries)]
        self._inquiries[context.round, context.attempt] = context, roster, neighbours, words
        signature = place.secrets.sign(words_text(view, position, context, words))
        answer = wire.MaskWords(view.epoch, view.ring, context.round, context.attempt, words, signature)
        return [ToCoordinator(answer)]

    def _word(self, context: AttemptContext, other: int, nonces: dict[int, bytes]) -> int:
        place = self._place
        low, high = sorted((place.secrets.position, other))
        key, pair = place.secrets.pair(other).mask, (nonces[low], nonces[high])
        return first_mask_word(place.suite, place.view, key, pair, context.round, context.attempt)

    def on_disputed_pair(self, message: wire.DisputedPair) -> list[MemberEffect]:
        """Open the pair, if the other signed another word than ours.  Raises RemoteProtocolError where it did not."""
        place, view, other = self._place, self._place.view, message.position
        known = self._inquiries.get((message.round, message.attempt))
        if known is None:
            return [Note("member_stale_message")]
        context, roster, neighbours, words = known
        if not roster & place.neighbours & (1 << other):
            raise RemoteProtocolError("not_a_neighbour", "a dispute with somebody who is no neighbour in the roster")
        text = words_text(view, other, context, message.words)
        if not place.suite.verify(view.members[other].verify_key, text, message.signature):
            raise RemoteProtocolError("bad_signature", "mask words that their member did not sign")
        theirs = positions_of(view.neighbourhoods[other] & context.expected)
        if len(message.words) != 8 * len(theirs):
            raise RemoteProtocolError("bad_answer", "expected a word for each neighbour in E")
        index = theirs.index(place.secrets.position)
        own = neighbours.index(other)
        if message.words[8 * index : 8 * index + 8] == words[8 * own : 8 * own + 8]:
            raise RemoteProtocolError("no_dispute", "a pair is opened only where the words differ")
        return self._open(other)

    def on_disputed_deal(self, message: wire.DisputedDeal) -> list[MemberEffect]:
        """Open the pair, if the dealer signed a bad share for us.  Raises RemoteProtocolError where it did not."""
        place, view, dealer = self._place, self._place.view, message.dealer
        if not place.neighbours >> dealer & 1:
            raise RemoteProtocolError("not_a_neighbour", "a deal of somebody who is no neighbour")
        text = deal_text(view, dealer, message.commitments, message.sealed)
        if not place.suite.verify(view.members[dealer].verify_key, text, message.signature):
            raise RemoteProtocolError("bad_signature", "a deal that its dealer did not sign")
        keys, holder = place.secrets.pair(dealer), place.secrets.position
        if is_good_share(place.suite, view, keys, dealer, holder, message):
            raise RemoteProtocolError("no_dispute", "a pair is opened only where the share is bad")
        return self._open(dealer)

    def _open(self, other: int) -> list[MemberEffect]:
        view = self._place.view
        return [
            Note("pair_opened"),
            ToCoordinator(wire.PairOpening(view.epoch, view.ring, other, self._place.secrets.open_pair(other))),
        ]
