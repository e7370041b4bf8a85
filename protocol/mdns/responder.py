"""
A responder on one interface and one IP version (RFC 6762, sections 6 to 10; REQ.TA.mDNS.Responder.10).

First it asks three times whether somebody has the unique names; whoever does keeps them, and the responder ends, since
a gateway has no other name (chapter 12.2.1).  Then it announces them twice, answers, defends them, and says goodbye.
Events in, datagrams out; time is an argument, and `next_s` says when to come back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from protocol.mdns.messages import ANY, NSEC, Message, Name, Question, Record, lower, nsec_data, with_ttl
from protocol.mdns.records import HOST_TTL_S, additionals_of

PORT: Final = 5353
MULTICASTS_A_MINUTE_MAX: Final = 30
"""REQ.TA.mDNS.BuildResponse.30."""
_MINUTE_S: Final = 60.0
_PROBES: Final = 3
_PROBE_S: Final = 0.25
_ANNOUNCEMENTS: Final = 2
_ANNOUNCE_S: Final = 1.0
_LOST_S: Final = 1.0  # until the next try, after a lost tie (section 8.2)
_SHARED_DELAY_S: Final = (0.02, 0.12)  # section 6
_TRUNCATED_DELAY_S: Final = (0.4, 0.5)  # section 7.2
_REPEAT_S: Final = 1.0  # between two multicasts of one record
_DEFEND_S: Final = 0.25
_LEGACY_TTL_S: Final = 10
_UNICASTS_A_SECOND_MAX: Final = 20


class State(Enum):
    """What it does."""

    PROBING = auto()
    ANNOUNCING = auto()
    RUNNING = auto()
    CONFLICT = auto()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to an address and port, or to everybody."""

    content: bytes
    to: tuple[str, int] | None = None


class Budget:
    """So many events in so many seconds, for all who share it."""

    def __init__(self, count: int = MULTICASTS_A_MINUTE_MAX, period_s: float = _MINUTE_S) -> None:
        self._period_s = period_s
        self._times_s: deque[float] = deque([float("-inf")] * count, maxlen=count)

    def free_s(self) -> float:
        """When the next may be."""
        return self._times_s[0] + self._period_s

    def spend(self, now_s: float) -> bool:
        """Whether one may be now, which counts it."""
        if now_s < self.free_s():
            return False
        self._times_s.append(now_s)
        return True


class Responder:
    """
    `records` are those of one interface; `own` all addresses of the device, which are no conflict with itself.

    `uniform` draws a number between two, `budget` is shared with the responders of other interfaces.
    """

    def __init__(
        self,
        records: Sequence[Record],
        uniform: Callable[[float, float], float],
        budget: Budget,
        now_s: float,
        own: Collection[bytes] = (),
    ) -> None:
        self.state = State.PROBING
        self._records = list(records)
        self._unique = {lower(each.name) for each in records if each.is_unique}
        self._keys = {each.key for each in records}
        self._own = own
        self._uniform = uniform
        self._budget = budget
        self._unicasts = Budget(_UNICASTS_A_SECOND_MAX, 1.0)
        self._steps = 0
        self._step_s = now_s + uniform(0, _PROBE_S)
        self._pending: dict[tuple[Name, int, bytes], tuple[float, Record]] = {}
        self._sent_s: dict[tuple[Name, int, bytes], float] = {}

    @property
    def next_s(self) -> float:
        """When `advance` has something to do."""
        due_s = min((each for each, _ in self._pending.values()), default=float("inf"))
        if self.state in {State.PROBING, State.ANNOUNCING}:
            due_s = min(due_s, self._step_s)
        return due_s if due_s == float("inf") else max(due_s, self._budget.free_s())

    def advance(self, now_s: float) -> list[Outgoing]:
        """What is due."""
        out: list[Outgoing] = []
        if self.state in {State.PROBING, State.ANNOUNCING} and now_s >= self._step_s and self._budget.spend(now_s):
            out.append(self._step(now_s))
        due = [record for due_s, record in self._pending.values() if due_s <= now_s]
        if due and self._budget.spend(now_s):
            for each in due:
                del self._pending[each.key]
            out.append(Outgoing(self._response(due, now_s).to_bytes()))
        return out

    def goodbye(self, now_s: float) -> list[Outgoing]:
        """Say that nothing of it counts any more (section 10.1)."""
        if self.state not in {State.ANNOUNCING, State.RUNNING} or not self._budget.spend(now_s):
            return []
        answers = tuple(with_ttl(each, 0) for each in self._records)
        return [Outgoing(Message(is_response=True, answers=answers).to_bytes())]

    def receive(self, message: Message, source: tuple[str, int], now_s: float) -> list[Outgoing]:
        """Take a message that came from the link; what must leave at once."""
        if self.state is State.CONFLICT:
            return []
        if message.is_response:
            if source[1] == PORT:  # section 11
                self._heard(message, now_s)
            return []
        return self._asked(message, source, now_s)

    # --- names --------------------------------------------------------------------------------------------------------

    def _step(self, now_s: float) -> Outgoing:
        self._steps += 1
        if self.state is State.PROBING:
            self._step_s = now_s + _PROBE_S
            if self._steps > _PROBES:
                self.state, self._steps = State.ANNOUNCING, 1
            else:
                unique = tuple(each for each in self._records if each.is_unique)
                names = dict.fromkeys(each.name for each in unique)
                questions = tuple(Question(each, ANY, is_unicast=True) for each in names)
                plain = tuple(replace(each, is_unique=False) for each in unique)  # section 8.2: no cache-flush bit
                return Outgoing(Message(questions=questions, authorities=plain).to_bytes())
        self._step_s = now_s + _ANNOUNCE_S
        if self._steps >= _ANNOUNCEMENTS:
            self.state = State.RUNNING
        return Outgoing(self._response(self._records, now_s).to_bytes())

    def _heard(self, message: Message, now_s: float) -> None:
        for each in (*message.answers, *message.additionals):
            held = self._pending.get(each.key)
            if held is not None and each.ttl_s >= held[1].ttl_s // 2:
                del self._pending[each.key]  # another one has said it (section 7.4)
            if self._is_conflict(each):
                if self.state is State.PROBING:
                    self.state = State.CONFLICT
                else:  # section 9: whoever has it now shows the next probe
                    self.state, self._steps, self._step_s = State.PROBING, 0, now_s
                self._pending.clear()
                return

    def _is_conflict(self, record: Record) -> bool:
        if lower(record.name) not in self._unique or record.key in self._keys or record.data in self._own:
            return False
        if record.type == NSEC or record.ttl_s == 0:
            return False
        same_type = any(each.type == record.type for each in self._records if lower(each.name) == lower(record.name))
        return same_type or self.state is State.PROBING

    def _is_tie_lost(self, probe: Message) -> bool:
        """Section 8.2.1: the lexicographically later data wins."""
        for name in self._unique:
            theirs = sorted((each.type, each.data) for each in probe.authorities if lower(each.name) == name)
            ours = sorted((each.type, each.data) for each in self._records if lower(each.name) == name)
            if theirs and theirs != ours and not {data for _, data in theirs} <= set(self._own) and theirs > ours:
                return True
        return False

    # --- answers ------------------------------------------------------------------------------------------------------

    def _asked(self, message: Message, source: tuple[str, int], now_s: float) -> list[Outgoing]:
        if self.state is State.PROBING:
            if message.authorities and self._is_tie_lost(message):
                self._steps, self._step_s = 0, now_s + _LOST_S
            return []
        known = {each.key: each.ttl_s for each in message.answers}
        for key, ttl_s in known.items():
            held = self._pending.get(key)
            if held is not None and ttl_s >= held[1].ttl_s // 2:
                del self._pending[key]
        is_legacy = source[1] != PORT
        alone: list[Record] = []
        for question in message.questions:
            answers = [each for each in self._answers(question) if known.get(each.key, 0) < each.ttl_s / 2]
            if is_legacy or (question.is_unicast and not message.authorities):
                alone += answers
            else:
                self._plan(answers, message, now_s)
        if not alone or not self._unicasts.spend(now_s):
            return []
        return [Outgoing(self._unicast(message, alone, is_legacy).to_bytes(), source)]

    def _answers(self, question: Question) -> list[Record]:
        name = lower(question.name)
        named = [each for each in self._records if lower(each.name) == name]
        found = [each for each in named if question.type in {each.type, ANY}]
        if not found and name in self._unique:  # there are no others, which is worth knowing (section 6.1)
            data = nsec_data(named[0].name, {each.type for each in named})
            found = [Record(named[0].name, NSEC, data, HOST_TTL_S, is_unique=True)]
        return found

    def _plan(self, answers: Iterable[Record], message: Message, now_s: float) -> None:
        repeat_s = _DEFEND_S if message.authorities else _REPEAT_S
        for each in answers:
            delay_s = 0.0 if each.is_unique else self._uniform(*_SHARED_DELAY_S)
            if message.is_truncated:
                delay_s = self._uniform(*_TRUNCATED_DELAY_S)
            if each.key not in self._pending and now_s - self._sent_s.get(each.key, float("-inf")) >= repeat_s:
                self._pending[each.key] = (now_s + delay_s, each)

    def _response(self, answers: Sequence[Record], now_s: float) -> Message:
        self._sent_s |= dict.fromkeys((each.key for each in answers), now_s)
        additionals = additionals_of(answers, self._records)
        return Message(is_response=True, answers=tuple(answers), additionals=tuple(additionals))

    def _unicast(self, message: Message, answers: Sequence[Record], is_legacy: bool) -> Message:
        answers = list({each.key: each for each in answers}.values())
        additionals = additionals_of(answers, self._records)
        if not is_legacy:
            return Message(is_response=True, answers=tuple(answers), additionals=tuple(additionals))
        plain = [
            replace(each, ttl_s=min(each.ttl_s, _LEGACY_TTL_S), is_unique=False) for each in (*answers, *additionals)
        ]
        return Message(
            id=message.id, is_response=True, questions=message.questions, answers=tuple(plain[: len(answers)]),
            additionals=tuple(plain[len(answers) :]),
        )  # fmt: skip
