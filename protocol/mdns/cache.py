"""
What multicast DNS has said, for as long as it holds (RFC 6762, section 10).

A record lives for its TTL; a goodbye, or unique data that others contradict, ends it a second later, so that what
belongs together may come in several messages.  The number of records is bounded: whoever is asked last stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.mdns.messages import ANY, Message, Name, Record, lower

RECORDS_MAX: Final = 512
TTL_S_MAX: Final = 4_500
"""75 minutes: what RFC 6762 recommends for anything but hosts; longer ones are not believed for longer."""
_GRACE_S: Final = 1.0


@dataclass(slots=True)
class _Held:
    record: Record
    heard_s: float
    ends_s: float


class Cache:
    """Of one interface; times are the caller's."""

    def __init__(self) -> None:
        self._held: dict[tuple[Name, int, bytes], _Held] = {}

    def take(self, message: Message, now_s: float) -> None:
        """Keep what a response says."""
        records = (*message.answers, *message.additionals)
        for each in records:
            if each.is_unique:
                self._contradict(each, now_s)
        for each in records:
            if each.ttl_s == 0:
                held = self._held.get(each.key)
                if held is not None:
                    held.ends_s = min(held.ends_s, now_s + _GRACE_S)
                continue
            self._held.pop(each.key, None)
            self._held[each.key] = _Held(each, now_s, now_s + min(each.ttl_s, TTL_S_MAX))
        for key in [key for key, held in self._held.items() if held.ends_s <= now_s]:
            del self._held[key]
        while len(self._held) > RECORDS_MAX:
            del self._held[next(iter(self._held))]

    def find(self, name: Name, kind: int, now_s: float) -> list[Record]:
        """The records of a name and type that hold, the newest first."""
        wanted = lower(name)
        found = [
            each for each in self._held.values()
            if each.ends_s > now_s and lower(each.record.name) == wanted and kind in {each.record.type, ANY}
        ]  # fmt: skip
        return [each.record for each in reversed(found)]

    def known_answers(self, name: Name, kind: int, now_s: float) -> list[Record]:
        """Those with more than half of their time before them, which nobody need say again (section 7.1)."""
        wanted = lower(name)
        return [
            Record(each.record.name, each.record.type, each.record.data, int(each.ends_s - now_s))
            for each in self._held.values()
            if lower(each.record.name) == wanted and each.record.type == kind
            and each.ends_s - now_s > (each.ends_s - each.heard_s) / 2
        ]  # fmt: skip

    def _contradict(self, record: Record, now_s: float) -> None:
        """Unique data replaces all older ones of its name and type (section 10.2)."""
        name = lower(record.name)
        for held in self._held.values():
            is_same = lower(held.record.name) == name and held.record.type == record.type
            if is_same and held.record.data != record.data and now_s - held.heard_s > _GRACE_S:
                held.ends_s = min(held.ends_s, now_s + _GRACE_S)
