"""
A querier on one interface and one IP version (RFC 6762, section 5; TA.mDNS.Querying of chapter 12.3).

It asks a moment after it is told to, and again after 1, 2, 4 seconds and so on while nobody has answered; never what
another one has just asked, and with the answers that it knows already.  Answers are multicast: the gateway's responder
has the same port, and a unicast answer would find one of the two.  Events in, datagrams out; time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from protocol.mdns.cache import Cache
from protocol.mdns.messages import Message, Name, Question, lower
from protocol.mdns.responder import PORT, Budget

QUESTIONS_MAX: Final = 32
_DELAY_S: Final = (0.02, 0.12)  # section 5.2
_FIRST_S: Final = 1.0
_LONGEST_S: Final = 3_600.0
_NEVER: Final = float("inf")


class Querier:
    """
    `uniform` draws a number between two; `budget` is shared with whoever else multicasts for the device
    (REQ.TA.mDNS.BuildQuery.30), `cache` with the querier of the other IP version; `own` are the device's addresses,
    whose questions come back from the group and are no other's.
    """

    def __init__(
        self, uniform: Callable[[float, float], float], budget: Budget, cache: Cache, own: Collection[str] = ()
    ) -> None:  # fmt: skip
        self.cache = cache
        self._own = own
        self._uniform = uniform
        self._budget = budget
        self._due: dict[tuple[Name, int], tuple[float, float]] = {}

    @property
    def next_s(self) -> float:
        """When `advance` has something to do."""
        due_s = min((due_s for due_s, _ in self._due.values()), default=_NEVER)
        return due_s if due_s == _NEVER else max(due_s, self._budget.free_s())

    def ask(self, name: Name, kind: int, now_s: float) -> None:
        """Ask until `forget`; a question too many is left out, as if nobody had answered."""
        key = (lower(name), kind)
        if key not in self._due and len(self._due) < QUESTIONS_MAX:
            self._due[key] = (now_s + self._uniform(*_DELAY_S), _FIRST_S)

    def forget(self, name: Name, kind: int) -> None:
        """Ask no more."""
        self._due.pop((lower(name), kind), None)

    def advance(self, now_s: float) -> list[bytes]:
        """The message that is due: all questions of this moment in one, with the answers that are known."""
        due = [key for key, (due_s, _) in self._due.items() if due_s <= now_s]
        if not due or not self._budget.spend(now_s):
            return []
        for key in due:
            self._put_off(key, now_s)
        questions = tuple(Question(name, kind) for name, kind in due)
        known = tuple(each for name, kind in due for each in self.cache.known_answers(name, kind, now_s))
        return [Message(questions=questions, answers=known).to_bytes()]

    def receive(self, message: Message, source: tuple[str, int], now_s: float) -> None:
        """Take a message that came from the link."""
        if source[1] != PORT:  # section 11: who answers from elsewhere is no responder
            return
        if message.is_response:
            self.cache.take(message, now_s)
            return
        if message.is_truncated or source[0] in self._own:
            return
        theirs = {each.key for each in message.answers}
        for question in message.questions:
            key = (lower(question.name), question.type)
            if key in self._due and not question.is_unicast:
                ours = {each.key for each in self.cache.known_answers(*key, now_s)}
                if theirs <= ours and self._due[key][0] - now_s < _FIRST_S:  # asked for us (section 7.3)
                    self._put_off(key, now_s)

    def _put_off(self, key: tuple[Name, int], now_s: float) -> None:
        _, pause_s = self._due[key]
        self._due[key] = (now_s + pause_s, min(2 * pause_s, _LONGEST_S))
