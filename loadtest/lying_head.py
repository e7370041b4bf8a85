"""
One real member, and everything around it in the hands of a liar: head, coordinator and the power plug.

The liar holds every other member's secrets, so whatever it says is well formed and carries genuine MACs and results;
only the member's own rules stand in its way.  What the member gives away is kept in `sent`, what it made durable in
`durable`, and the plug may be pulled between any two effects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from loadtest.harness import MemberHarness, resume_after
from loadtest.ring import RingSize, ledger_secrets, make_ring, nonce, opening
from loadtest.signing import SignedNonces
from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.effects import Attempted, EpochRefused, MemberEffect, Settled
from protocol.dcnet.machines.masks import MaskSchedule, Words
from protocol.dcnet.machines.member import Member
from protocol.dcnet.machines.member_attempt import Resume
from protocol.dcnet.setup.rings import Timing, bitmap, positions_of, result_text, round_digest
from protocol.dcnet.setup.secrets import mask_label
from protocol.dcnet.setup.terms import NO_TERMS, RoundTerms
from protocol.errors import RemoteProtocolError

SMALL = RingSize(n=6, k=4, t=3, t_c=3, k_min=3, n_min=4, rounds=8)


class LyingHead(MemberHarness):
    """
    Surrounds the member at `position`; all sets of members are collections of positions.

    The messages it makes are about attempt `attempt` of round `round_` by default, E and U are everybody.
    """

    def __init__(
        self, suite: Suite, size: RingSize = SMALL, position: int = 0, seed: bytes = bytes(32),
        timing: Timing | None = None, nonces: Sequence[bytes] = (),
    ) -> None:  # fmt: skip
        self.suite = suite
        self.view, self.secrets = make_ring(suite, size, seed, timing, nonces)
        self.position = position
        self.seed = seed
        self.processes = 0
        self.served = 0  # V of the last OPEN
        self.durable = Resume()
        self.records: list[Attempted | Settled | EpochRefused] = []
        self.sent: list[wire.Message] = []
        self.notes: list[str] = []
        self.term = 0
        self.ledger_secrets = ledger_secrets(suite, seed)
        self.member = self.boot()

    # --- the member's surroundings -----------------------------------------------------------------------------------

    def boot(self, first_round: int = 0) -> Member:
        """Start the member's process, or a new one from what is durable, and appoint the head of this term."""
        secrets = self.secrets[self.position]
        is_first = self.processes == 0
        own = self.view.members[self.position].nonce if is_first else nonce(self.seed, self.position, self.processes)
        self.processes += 1
        self.masks = MaskSchedule(self.suite, self.view, secrets, nonce=own)
        self.nonces = SignedNonces(self.suite, self.view, self.secrets)
        self.nonces.newest[self.position] = own
        return self.make(first_round)

    def make(self, first_round: int = 0) -> Member:
        """Make the member's machine, in the same process, from what is durable."""
        secrets = self.secrets[self.position]
        self.member = Member(self.suite, self.view, secrets, self.masks, self.durable, first_round)
        self.carry_out(self.member.appointed(self.term, 0.0))
        return self.member

    def carry_out(self, effects: Sequence[MemberEffect], stop_before: int | None = None) -> list[wire.Message]:
        """Do what the member asks, or only the first `stop_before` effects; what left the gateway meanwhile."""
        before = len(self.sent)
        self.from_member(self.position, effects[:stop_before])
        return self.sent[before:]

    def persist(self, position: int, record: Attempted | Settled | EpochRefused) -> None:  # noqa: ARG002
        """The disk."""
        self.records.append(record)
        self.durable = resume_after(self.durable, record)

    def to_head(self, position: int, message: wire.RingMessage) -> None:  # noqa: ARG002
        """What the liar sees."""
        self.sent.append(message)

    def to_coordinator(self, position: int, message: wire.Message) -> None:  # noqa: ARG002
        """The liar sees that as well."""
        self.sent.append(message)

    def noted(self, name: str) -> None:
        """Keep the names."""
        self.notes.append(name)

    def vector(self, round_: int = 0) -> Words:
        """The member's contribution to a round."""
        words = np.arange(self.view.word_count, dtype=np.uint64) + np.uint64(1000 * round_)
        words[0] = 1
        return words

    def offer(self, round_: int = 0, blindings: Sequence[int] = ()) -> list[wire.Message]:
        """The member's driver offers its contribution."""
        return self.carry_out(self.member.offer(round_, self.vector(round_), 0.0, blindings))

    def say(self, *messages: wire.RingMessage, now_s: float = 0.0) -> list[wire.Message]:
        """Tell the member; what it answers."""
        return [each for m in messages for each in self.carry_out(self.member.receive(m, now_s))]

    # --- what a head can say -----------------------------------------------------------------------------------------

    def everybody(self, *without: int) -> list[int]:
        """All positions but some."""
        return [i for i in range(self.view.size) if i not in without]

    def _bits(self, members: Collection[int] | None) -> bytes:
        return self.view.to_wire(self.view.everybody if members is None else bitmap(list(members)))

    def open(
        self, attempt: int = 0, expected: Collection[int] | None = None, *, round_: int = 0, term: int | None = None,
        served: Collection[int] | None = None, settled: int | None = None,
    ) -> wire.Open:  # fmt: skip
        """
        OPEN; V names everybody where the member served since the last opened round, else nobody.

        It counts the ends of all rounds that the member knows of, unless it says otherwise.
        """
        if served is None:
            self.served = self.view.everybody if self.member.has_served else 0
        else:
            self.served = bitmap(list(served))
        q = min(self.member.history.settled, round_) if settled is None else settled
        bits = self.view.from_wire(self._bits(expected))
        head_term = self.term if term is None else term
        return opening(self.view, head_term, round_, attempt, bits, nonces=self.nonces, settled=q, served=self.served)

    def terms(self, expected: Collection[int] | None = None, round_: int = 0) -> RoundTerms:
        """Those that the member has, if it was told what `open` says."""
        digest = self.nonces.copy().digest(self.view.from_wire(self._bits(expected)))
        current, served = self.member.current, self.view.to_wire(self.served)
        if current.round == round_ and current.terms is not NO_TERMS:
            return RoundTerms(digest, current.terms.settled, current.terms.history, served)
        settled = min(self.member.history.settled, round_)
        return RoundTerms(digest, settled, self.member.history.hash(settled), served)

    def label(self, position: int | None = None, attempt: int = 0, round_: int = 0) -> bytes:
        """The label of the self mask of the member, or of the one at `position`."""
        owner = self.position if position is None else position
        terms = self.terms(round_=round_).of_masks
        return mask_label(self.view, round_, attempt, self.nonces.newest[owner], terms)

    def roster(self, roster: Collection[int] | None = None, attempt: int = 0, round_: int = 0) -> wire.Roster:
        """ROSTER."""
        return wire.Roster(self.view.epoch, self.view.ring, round_, attempt, self._bits(roster))

    def mac(
        self, maker: int, *, roster: Collection[int] | None = None, expected: Collection[int] | None = None,
        attempt: int = 0, round_: int = 0, term: int | None = None, named: int | None = None,
    ) -> bytes:  # fmt: skip
        """What `maker` would send the member, had it been shown this; `named` is who the text says made it."""
        view = self.view
        e, u = (view.everybody if members is None else bitmap(list(members)) for members in (expected, roster))
        head_term = self.term if term is None else term
        digest = round_digest(view, round_, attempt, head_term, e, u, self.terms(expected, round_))
        key = self.secrets[maker].pair(self.position).confirm
        return self.suite.mac(key, (maker if named is None else named).to_bytes(8, "little") + digest)

    def confirmed(
        self, makers: Iterable[int] | None = None, roster: Collection[int] | None = None,
        expected: Collection[int] | None = None, *, attempt: int = 0, round_: int = 0, term: int | None = None,
        macs: dict[int, bytes] | None = None,
    ) -> wire.Confirmed:  # fmt: skip
        """CONFIRMED with genuine MACs of `makers` (default: all neighbours in U), but for those given in `macs`."""
        view = self.view
        inside = view.everybody if roster is None else bitmap(list(roster))
        who = sorted(positions_of(view.neighbourhoods[self.position] & inside) if makers is None else makers)
        other = macs or {}
        each = [
            other[i] if i in other
            else self.mac(i, roster=roster, expected=expected, attempt=attempt, round_=round_, term=term)
            for i in who
        ]  # fmt: skip
        return wire.Confirmed(view.epoch, view.ring, round_, attempt, self._bits(who), b"".join(each))

    def recover(self, silent: Collection[int], attempt: int = 0, round_: int = 0) -> wire.Recover:
        """RECOVER."""
        return wire.Recover(self.view.epoch, self.view.ring, round_, attempt, self._bits(silent))

    def result(
        self, round_: int = 0, outcome: wire.Outcome = wire.Outcome.OPENED, roster: Collection[int] | None = None
    ) -> wire.Result:
        """RESULT as the round ledger signs it."""
        bits = self._bits(roster if outcome is wire.Outcome.OPENED else ())
        text = result_text(self.view, round_, outcome, self.view.from_wire(bits))
        signature = self.ledger_secrets.sign(text)
        return wire.Result(self.view.epoch, self.view.ring, round_, int(outcome), bits, signature)

    # --- shortcuts ---------------------------------------------------------------------------------------------------

    def share(self, attempt: int = 0, expected: Collection[int] | None = None) -> None:
        """Lead the member to SHARED."""
        self.offer()
        self.say(self.open(attempt, expected))

    def confirm(self, roster: Collection[int] | None = None, expected: Collection[int] | None = None) -> None:
        """Lead the member to CONFIRMED in attempt 0."""
        self.share(expected=expected)
        self.say(self.roster(roster))

    def serve(self, roster: Collection[int] | None = None, expected: Collection[int] | None = None) -> None:
        """Lead the member to SERVED in attempt 0."""
        self.confirm(roster, expected)
        self.say(self.confirmed(roster=roster, expected=expected))


def refuses(liar: LyingHead, message: wire.RingMessage, reason: str) -> None:
    """Raise AssertionError unless the member answers with the peer's fault and stays as it was."""
    before = snapshot(liar.member)
    found = "nothing refused"
    try:
        liar.say(message)
    except RemoteProtocolError as error:
        found = error.reason
    if found != reason or snapshot(liar.member) != before:
        raise AssertionError(f"expected {reason} and no change, found {found}")


def snapshot(machine: Member) -> dict[str, str]:
    """All that the machine remembers but for its event log, as plain text."""
    return {name: repr(value) for name, value in vars(machine).items() if name != "events"}


def kinds(messages: list[wire.Message]) -> list[type[wire.Message]]:
    """What kinds of messages there are, in order."""
    return [type(each) for each in messages]
