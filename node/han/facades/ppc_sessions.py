"""
Sessions of the PPC interface: a cookie that the first page sets, and a token that its forms carry.

Both keep a page of another site from posting with a browser's log-in; who it is, is said by the digest of each request.
Clients in the field send the token or leave it out, so the cookie must be right, and the token where it comes.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from node.han.digest import IDLE_S, SESSIONS_MAX

_NAMES: Final = frozenset({"session", "Cookie"})  # the second is what an older client calls it
_USERS_MAX: Final = 256


@dataclass(slots=True)
class PpcSession:
    """One of an account's; `token` is the `tkn` of its forms."""

    cookie: str
    token: str
    used_s: float


class PpcSessions:
    """`random(size)` draws octets; `clock` is monotonic (s)."""

    def __init__(self, random: Callable[[int], bytes], clock: Callable[[], float]) -> None:
        self._random = random
        self._clock = clock
        self._by_user: OrderedDict[str, list[PpcSession]] = OrderedDict()

    def begin(self, user: str) -> PpcSession:
        """A new one; the oldest of too many goes."""
        made = PpcSession(self._random(16).hex(), self._random(16).hex(), self._clock())
        mine = self._by_user.setdefault(user, [])
        self._by_user[user] = [*mine, made][-SESSIONS_MAX:]
        self._by_user.move_to_end(user)
        if len(self._by_user) > _USERS_MAX:
            self._by_user.popitem(last=False)
        return made

    def find(self, user: str, header: str) -> PpcSession | None:
        """The one that a `Cookie` header names, None where it names none of this user's."""
        now_s = self._clock()
        offered = [value for name, _, value in (each.strip().partition("=") for each in header.split(";"))
                   if name in _NAMES]  # fmt: skip
        for each in self._by_user.get(user, ()):
            is_named = any(hmac.compare_digest(each.cookie.encode(), value.encode()) for value in offered)
            if is_named and now_s - each.used_s <= IDLE_S:
                each.used_s = now_s
                return each
        return None

    def end(self, user: str, session: PpcSession) -> None:
        """Log out."""
        self._by_user[user] = [each for each in self._by_user.get(user, ()) if each is not session]
