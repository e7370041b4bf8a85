"""
One player for each kind of machine: builds the machine in an invented ring and makes what it was given.

Where the oldest events of a log are gone, a player begins with the first whole round, from what the later events say.
"""

from __future__ import annotations

from typing import Any

from loadtest.lying_head import LyingHead
from loadtest.ring import ledger_secrets, make_ring
from loadtest.signing import sign_confirm, sign_input, sign_nonce
from loadtest.simulator.event_log_file import Log, ReplayError, Row
from loadtest.simulator.replay_start import first_whole_round, had_served, term_at
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto import prf
from protocol.dcnet.crypto.suite import MAC_SIZE
from protocol.dcnet.discipline.returns import Attendance, EpochAttendance
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.history import History
from protocol.dcnet.machines.incarnations import Incarnation, nonces_digest
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.machines.masks import MaskSchedule, seed_commitment, self_mask
from protocol.dcnet.machines.member import Member
from protocol.dcnet.machines.member_attempt import Resume
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of
from protocol.dcnet.setup.secrets import mask_label
from protocol.dcnet.setup.statements import ATTESTATION_SIZE, AttemptContext, blame_half, confirm_text, input_text
from protocol.dcnet.setup.terms import mask_terms, terms_digest

_SEED = bytes(32)


def _sent(row: Row, effect: str) -> Row | None:
    return next((each for each in row.get("effects", ()) if each["effect"] == effect), None)


def _nonces(row: Row) -> list[bytes]:
    """Those of an OPEN, by rising position."""
    data, size = bytes.fromhex(row["nonces"]), wire.NONCE_SIZE
    return [data[start : start + size] for start in range(0, len(data), size)]


def _bits(view: RingView, members: list[int]) -> bytes:
    return view.to_wire(bitmap(members))


def _attendance(start: dict[str, Any] | None) -> EpochAttendance | None:
    return None if start is None else EpochAttendance(**{**start, "attendance": Attendance(**start["attendance"])})


def _fill(history: History, view: RingView, log: Log, settled: int) -> None:
    """Give a history its first ends: those the log begins with, then those it still tells of, the others as void."""
    told = {row["round"]: row for row in log.events if row["event"] == "Result"}
    for round_ in range(settled):
        outcome, roster = int(wire.Outcome.VOID), view.to_wire(0)
        if round_ < len(log.start["history"]):
            outcome, roster = log.start["history"][round_][0], bytes.fromhex(log.start["history"][round_][1])
        elif round_ in told:
            outcome, roster = told[round_]["outcome"], _bits(view, told[round_]["roster"])
        history.add(wire.Result(view.epoch, view.ring, round_, outcome, roster, bytes(64)))


class MemberPlayer:
    """A member, given what its head, its driver and the coordinator said."""

    def __init__(self, log: Log) -> None:
        self._liar = liar = LyingHead(CheapSuite(), log.size, log.position, _SEED, log.timing, log.nonces)
        past = {name: value for name, value in log.start.items() if name in Resume.__dataclass_fields__}
        self.first, liar.durable = 0, Resume(**past)
        own, first_round = bytes.fromhex(log.start["nonce"]), log.start["first_round"]
        liar.masks = MaskSchedule(liar.suite, liar.view, liar.secrets[log.position], nonce=own)
        liar.nonces.newest[log.position] = own
        term, settled = None, len(log.start["history"])
        if log.dropped:
            self.first = first_whole_round(log.events)
            settled = log.events[self.first]["round"]
            liar.durable = Resume(log.events[self.first]["round"] - 1, 0, settled=True)
            term = term_at(log.events[self.first :])
        _fill(liar.masks.incarnation.history, liar.view, log, settled)
        self.machine: Member = Member(
            liar.suite, liar.view, liar.secrets[log.position], liar.masks, liar.durable, first_round,
            _attendance(log.start["attendance"]),
        )  # fmt: skip
        liar.member = self.machine
        if log.dropped and had_served(log.events[self.first :]):
            returns = self.machine._returns
            returns.served_round, returns.is_another_process = log.events[self.first]["round"] - 1, False
        if term is not None:
            liar.term = term
            self.machine.appointed(term, log.events[self.first]["at_s"])
        if log.dropped:  # when its wait had begun is gone; when it ended may not be
            following = next((row for row in log.events[self.first :] if row["event"] != "OFFERED"), {})
            if following.get("event") == "DEADLINE":
                self.machine._deadline_s = following["at_s"]

    def tell(self, row: Row) -> None:
        """Tell the machine an event.  Raises what the machine raises, and ReplayError for one that it cannot get."""
        machine, liar, now_s = self.machine, self._liar, row["at_s"]
        match row["event"]:
            case "APPOINTED":
                machine.appointed(row["term"], now_s)
                liar.term = machine.term
            case "OFFERED":
                blindings = range(1, 1 + liar.view.committed_count)
                machine.offer(row["round"], liar.vector(row["round"]), now_s, blindings)
            case "DEADLINE":
                machine.on_timer(now_s)
            case "EXPELLED":
                machine.expelled(bitmap(row["members"]), now_s)
            case _:
                machine.receive(self._message(row), now_s)

    def _message(self, row: Row) -> wire.RingMessage:
        liar, view, machine, current = self._liar, self._liar.view, self.machine, self.machine.current
        at = {"round_": row["round"], "attempt": row.get("attempt", 0)}
        match row["event"]:
            case "Open":
                for position, own in zip(row["changed"], _nonces(row), strict=True):
                    liar.nonces.newest[position] = own
                given = {"settled": row["settled"], "served": row["served"]}
                return liar.open(expected=row["expected"], term=row["term"], **given, **at)
            case "Roster":
                return liar.roster(row["roster"], **at)
            case "Recover":
                return liar.recover(row["silent"], **at)
            case "Confirmed" if row.get("refused") in {"too_few_confirmations", "bad_confirmations"}:
                count = len(row["makers"]) if row["refused"] == "too_few_confirmations" else 0
                macs = bytes(MAC_SIZE * count)
                return wire.Confirmed(
                    view.epoch, view.ring, row["round"], row["attempt"], _bits(view, row["makers"]), macs
                )
            case "Confirmed":
                liar.nonces.newest = machine.incarnation.newest.copy()
                liar.served = view.from_wire(current.terms.served)  # an OPEN that was refused may have said another V
                roster, expected = positions_of(current.roster), positions_of(current.expected)
                return liar.confirmed(row["makers"], roster, expected, term=current.term, **at)
            case "Result":
                genuine = liar.result(row["round"], wire.Outcome(row["outcome"]), row["roster"])
                if row.get("refused") != "forged_result":
                    return genuine
                return wire.Result(
                    view.epoch, view.ring, row["round"], row["outcome"], _bits(view, row["roster"]), bytes(64)
                )
            case other:
                raise ReplayError(f"a member is told no {other}")


class HeadPlayer:
    """A head, given what its members and the coordinator said."""

    def __init__(self, log: Log) -> None:
        self._suite = CheapSuite()
        self._view, self._secrets = make_ring(self._suite, log.size, _SEED, log.timing, log.nonces)
        position_nonce = self._view.members[log.position].nonce
        self._known = Incarnation(self._suite, self._view, log.position, position_nonce)
        for position, own in log.start["nonces"]:
            self._know(position, bytes.fromhex(own))
        self._spoilt = {
            (row["round"], row["attempt"])
            for row in log.events
            if row["event"] in {"Reveal", "Partial"} and _sent(row, "CorruptSum") is not None
        }
        self.first, start = 0, log.start
        opening: Row | None = None
        if log.dropped:
            self.first, opening = self._first_opening(log.events)
            now_s = log.events[self.first]["at_s"] - self._view.timing.gather_s
            for position, own in zip(opening["changed"], _nonces(opening), strict=True):
                self._know(position, own)
            start = {"term": opening["term"], "now_s": now_s, **{k: opening[k] for k in ("round", "attempt")}}
        settled = len(log.start["history"]) if opening is None else opening["settled"]
        _fill(self._known.history, self._view, log, settled)
        commitments = {
            dealer: known
            for dealer in self._secrets[log.position].dealers
            if (known := self._secrets[log.position].commitments_of(dealer)) is not None
        }
        self.machine = Head(
            self._suite, self._view, start["term"], start["now_s"], commitments, start["round"], start["attempt"],
            self._known,
        )  # fmt: skip
        last = None if opening is None else _last_result(log.events, self.first)
        if last is not None:
            self.machine.result(self._result(last), start["now_s"])
        if opening is not None:  # who had served in the rounds that are gone
            self.machine.presence.served = bitmap(opening["served"])
        for position in [] if opening is None else opening["expected"]:
            own = self._known.newest[position]
            ready = self._ready(position, start["term"], start["round"], 0, own, settled)
            self.machine.receive(position, ready, start["now_s"])

    def _know(self, position: int, nonce: bytes) -> None:
        self._known.newest[position] = nonce
        self._known.signatures[position] = sign_nonce(self._view, self._secrets[position], nonce)

    def _ready(
        self, position: int, term: int, round_: int, attempt: int, nonce: bytes, settled: int, is_waiting: int = 0,
        has_served: int = 0,
    ) -> wire.Ready:  # fmt: skip
        """READY of a member whose history is the head's, as far as it reaches."""
        history = self.machine.presence.catch_up.history
        digest = history.hash(min(settled, history.settled))
        known = settled, digest, is_waiting, has_served
        view = self._view
        is_new = nonce != view.members[position].nonce
        signature = sign_nonce(view, self._secrets[position], nonce) if is_new else b""
        return wire.Ready(view.epoch, view.ring, term, round_, attempt, nonce, signature, *known)

    def _first_opening(self, events: tuple[Row, ...]) -> tuple[int, Row]:
        for index, row in enumerate(events):
            opening = _sent(row, "Open")
            tells_ends = opening is not None and row["effects"][0] != opening
            if opening is not None and row["before"] == "idle" and not tells_ends:
                return index, opening
        raise ReplayError("the log holds no opening of a round; expected one that begins before its round does")

    def tell(self, row: Row) -> None:
        """Tell the machine an event.  Raises what the machine raises, and ReplayError for one that it cannot get."""
        now_s = row["at_s"]
        match row["event"]:
            case "DEADLINE":
                self.machine.on_timer(now_s)
            case "LOST":
                self.machine.lost(row["from"], now_s)
            case "LEFT_OUT":
                self.machine.leave_out(bitmap(row["members"]), now_s)
            case "Result":
                self.machine.result(self._result(row), now_s)
            case event:
                self.machine.receive(row["from"], self._message(event, row), now_s)

    def _result(self, row: Row) -> wire.Result:
        view = self._view
        return wire.Result(view.epoch, view.ring, row["round"], row["outcome"], _bits(view, row["roster"]), bytes(64))

    def _message(self, event: str, row: Row) -> wire.RingMessage:
        view, position = self._view, row["from"]
        if event == "Ready":
            of_process = bytes.fromhex(row["nonce"])
            said = row["is_waiting"], row["has_served"]
            return self._ready(position, row["term"], row["round"], row["attempt"], of_process, row["settled"], *said)
        at = (view.epoch, view.ring, row["round"], row["attempt"])
        count, is_broken = view.committed_count, "refused" in row
        opened, own = self.machine.current, self._secrets[position]
        owner = row["silent"] if event == "Partial" else position
        nonce = opened.nonces[owner] if opened.nonces else bytes(wire.NONCE_SIZE)
        label = mask_label(view, row["round"], row["attempt"], nonce, opened.terms.of_masks)
        match event:
            case "MaskedInput":
                seed = prf.mask_seed(self._secrets[position].evaluate(label), label)
                vector = self_mask(self._suite, seed, view.word_count)
                vector[0] += (1 + (at[2:] in self._spoilt and position == min(self._everybody(row)))) % 2**64
                share = wire.MaskedInput(
                    *at, b"" if is_broken else vector.tobytes(), seed_commitment(seed), bytes(16),
                    self._suite.group.multiply_base(1) * count, bytes(32 * count), b"",
                )  # fmt: skip
                return sign_input(view, own, opened.context, share)
            case "Confirm":
                neighbours, attempt = view.neighbourhoods[position], self.machine.current
                gone = bool(neighbours & attempt.gone)
                macs = bytes(MAC_SIZE * ((neighbours & attempt.roster).bit_count() + is_broken))
                confirm = wire.Confirm(*at, macs, bytes(8 * view.word_count * gone), bytes(32 * count * gone), b"")
                return sign_confirm(view, own, opened.context, opened.roster, confirm)
            case "Reveal":
                seed = prf.mask_seed(self._secrets[position].evaluate(label), label)
                return wire.Reveal(*at, seed)
            case "Partial":
                part = self._secrets[position].partial(row["silent"], label)
                element, proof = (bytes(32), bytes(64)) if part is None or is_broken else part
                return wire.Partial(*at, row["silent"], element, proof)
            case other:
                raise ReplayError(f"a head is told no {other}")

    def _everybody(self, row: Row) -> list[int]:
        attempt = self.machine.current
        return positions_of(attempt.expected) or [row["from"]]


def _last_result(events: tuple[Row, ...], first: int) -> Row | None:
    """The result that a head had heard last when the event at `first` came, from before it or from what it repeats."""
    for row in reversed(events[:first]):
        if row["event"] == "Result":
            return row
    for row in events[first:]:
        if row["event"] == "Result":
            break
        repeated = _sent(row, "Result")
        if repeated is not None:
            return repeated
    return None


class LedgerPlayer:
    """A round ledger, given what heads and members reported."""

    def __init__(self, log: Log) -> None:
        suite = CheapSuite()
        self._view, self._secrets = make_ring(suite, log.size, _SEED, log.timing, log.nonces)
        self.first, start = 0, log.start
        if log.dropped:
            self.first, row = self._first_total(log.events)
            start = {"term": row["term"], "now_s": row["at_s"], "ended": range(row["round"])}
        said = {
            each["round"]: each for row in log.events for each in row.get("effects", ()) if each["effect"] == "Result"
        }
        ended = {round_: self._ended(round_, said.get(round_)) for round_ in start["ended"]}
        secrets = ledger_secrets(suite, _SEED)
        self.machine = RoundLedger(suite, self._view, secrets, start["now_s"], ended, start["term"])

    def _ended(self, round_: int, result: Row | None) -> Ended:
        """A round that ended before the log begins, as the log repeats it; what it does not repeat is void."""
        view = self._view
        outcome = wire.Outcome.VOID if result is None else wire.Outcome(result["outcome"])
        roster = 0 if result is None else bitmap(result["roster"])
        return Ended(view.epoch, view.ring, round_, outcome, 0, 0, roster, roster, (), False, "", 0.0, 0.0)

    def _first_total(self, events: tuple[Row, ...]) -> tuple[int, Row]:
        for index, row in enumerate(events):
            if row["event"] == "RingTotal" and _sent(row, "ROUND_ENDED") is not None:
                return index, row
        raise ReplayError("the log holds no round that opened; expected one that does")

    def tell(self, row: Row) -> None:
        """Tell the machine an event.  Raises what the machine raises, and ReplayError for one that it cannot get."""
        now_s = row["at_s"]
        match row["event"]:
            case "DEADLINE":
                self.machine.on_timer(now_s)
            case "EXPELLED":
                self.machine.expel(bitmap(row["members"]), now_s)
            case event:
                self.machine.receive(row["from"], self._message(event, row), now_s)

    def _corrupt_sum(self, row: Row) -> wire.CorruptSum:
        """Evidence that holds, unless the head was replaced for it."""
        view, seed = self._view, bytes(32)
        expected, terms = bitmap(row["expected"]), mask_terms(0, bytes(32), b"")
        nonces = bytes(wire.NONCE_SIZE * len(row["expected"]))
        digest = terms_digest(nonces_digest(view, expected, nonces), terms)
        context = AttemptContext(row["round"], row["attempt"], row["term"], expected, digest)
        roster, evidence = bitmap(row["roster"]), []
        for position in row["roster"] if _sent(row, "Appoint") is None else ():
            own = self._secrets[position]
            said = bytes(8), bytes(32), seed_commitment(seed)
            signature = own.sign(input_text(blame_half(view, position, context, *said), bytes(32)))
            net = bytes(8 * bool(view.neighbourhoods[position] & context.expected & ~roster))
            confirmed = own.sign(confirm_text(view, position, context, roster, net, bytes(32)))
            evidence.append((*said, bytes(32), signature, seed, net, bytes(32), confirmed))
        return wire.CorruptSum(
            view.epoch, view.ring, row["round"], row["attempt"], row["term"], _bits(view, row["expected"]),
            _bits(view, row["roster"]), nonces, terms, tuple(evidence),
        )  # fmt: skip

    def _message(self, event: str, row: Row) -> wire.Message:
        view, at = self._view, (self._view.epoch, self._view.ring)
        count = view.committed_count
        match event:
            case "RingTotal":
                members = len(row["roster"])
                total = (members + (row.get("refused") == "bad_total")).to_bytes(8, "little") + bytes(
                    8 * (view.word_count - 1)
                )
                return wire.RingTotal(
                    *at, row["round"], row["attempt"], row["term"], _bits(view, row["expected"]),
                    _bits(view, row["roster"]), total, CheapSuite().group.multiply_base(0) * (count * members),
                    bytes(32 * count), bytes(ATTESTATION_SIZE * members * bool(count)),
                )  # fmt: skip
            case "RingVoid":
                return wire.RingVoid(*at, row["round"], row["term"], "replayed", _bits(view, row["silent"]))
            case "CorruptSum":
                return self._corrupt_sum(row)
            case "HeadSilent":
                return wire.HeadSilent(*at, row["term"], row["round"])
            case "RoundStatusRequest":
                return wire.RoundStatusRequest(*at, row["round"])
            case "HistoryRequest":
                return wire.HistoryRequest(*at, row["round"])
            case other:
                raise ReplayError(f"a round ledger is told no {other}")
