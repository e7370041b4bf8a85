"""
HTTP digest authentication (RFC 7616; detailed specification 2.0, chapter 7), without I/O.

The gateway never sees a password: it knows HA1, the digest of user name, realm and password.  Both SHA-256 and MD5 are
offered, SHA-256 first, since clients in the field know only one or the other (REQ.BenutzerAuth.Allgemein.10 to .30).

A nonce carries its time and a MAC, so that whoever asks for challenges without end costs no memory.  It becomes a
session with the first right answer to it, and the session counts: an answer whose `nc` was there before is refused.
Sessions that make room for newer ones leave their time behind as a floor, below which no nonce of that user begins a
session again; so a nonce that was used once is never new.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from protocol.errors import RemoteProtocolError

FIRST_USE_S: Final = 300.0
"""For so long a challenge may wait for its first answer: somebody may have to type the password."""
IDLE_S: Final = 600.0
SESSION_S: Final = 48 * 3600.0
SESSIONS_MAX: Final = 16
"""Of one user at once.  Clients that make a session for each request push out their own oldest one."""
HEADER_SIZE_MAX: Final = 2048
_WINDOW: Final = 128  # counts below the highest one that may still come: browsers send requests side by side
_COUNT_MAX: Final = 0xFFFFFFFF
_MOVED_MAX: Final = 64
_PARAMETER = re.compile(r'\s*([A-Za-z0-9*_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*(?:,|$)')
_NEEDED: Final = ("username", "realm", "nonce", "uri", "response", "qop", "nc", "cnonce")


class Algorithm(Enum):
    """The two hashes, in the order in which they are offered."""

    SHA256 = "SHA-256"
    MD5 = "MD5"

    def hash(self, text: str) -> str:
        """The digest of a text in hexadecimal."""
        name = "sha256" if self is Algorithm.SHA256 else "md5"
        return hashlib.new(name, text.encode(), usedforsecurity=self is Algorithm.SHA256).hexdigest()


Verifier = Mapping[Algorithm, str]
"""HA1 of one account, by algorithm."""


def make_verifier(user: str, realm: str, password: str) -> dict[Algorithm, str]:
    """HA1 for both algorithms (RFC 7616, 3.4.2)."""
    return {each: each.hash(f"{user}:{realm}:{password}") for each in Algorithm}


@dataclass(frozen=True, slots=True)
class Answer:
    """The `Authorization` header of a request."""

    user: str
    realm: str
    nonce: str
    uri: str
    response: str = field(repr=False)
    algorithm: Algorithm
    count: int
    count_text: str
    client_nonce: str
    opaque: str


def parse_answer(header: str) -> Answer:
    """Raises RemoteProtocolError `bad_authorization` for what is no complete digest answer with qop `auth`."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "digest" or len(header) > HEADER_SIZE_MAX:
        raise RemoteProtocolError("bad_authorization", "expected Authorization: Digest")
    found: dict[str, str] = {}
    position = 0
    while position < len(rest):
        match = _PARAMETER.match(rest, position)
        if match is None or match[1].lower() in found:
            raise RemoteProtocolError("bad_authorization", "the parameters cannot be read")
        quoted = match[2]
        found[match[1].lower()] = match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        position = match.end()
    names = {each.value.upper(): each for each in Algorithm}
    algorithm = names.get(found.get("algorithm", "MD5").upper())
    if any(each not in found for each in _NEEDED) or algorithm is None or found["qop"].lower() != "auth":
        raise RemoteProtocolError("bad_authorization", "expected qop auth, SHA-256 or MD5, and all its parameters")
    if not re.fullmatch(r"[0-9A-Fa-f]{8}", found["nc"]):
        raise RemoteProtocolError("bad_authorization", "nc: expected eight hexadecimal digits")
    return Answer(
        found["username"], found["realm"], found["nonce"], found["uri"], found["response"].lower(), algorithm,
        int(found["nc"], 16), found["nc"], found["cnonce"], found.get("opaque", ""),
    )  # fmt: skip


class Verdict(Enum):
    """What an answer is worth; a stale one has the right password and needs a new nonce."""

    RIGHT = "right"
    STALE = "stale"
    WRONG = "wrong"


@dataclass(slots=True)
class _Session:
    issued_ms: int
    used_s: float
    highest: int = 0
    seen: int = 0  # bit i: count `highest - i` was there

    def take(self, count: int) -> bool:
        """Count a request; no where that count was there, or is too old to tell."""
        if count < 1:
            return False
        if count > self.highest:
            shift = count - self.highest
            self.seen = 1 if shift >= _WINDOW else (self.seen << shift | 1) & ((1 << _WINDOW) - 1)
            self.highest = count
            return True
        bit = 1 << (self.highest - count)
        if self.highest - count >= _WINDOW or self.seen & bit:
            return False
        self.seen |= bit
        return True


class DigestSessions:
    """
    The challenges of one realm and the sessions that came of them.

    `clock` is monotonic (s): a step of the gateway's clock ends no session.  `random(size)` draws octets.
    """

    def __init__(self, realm: str, random: Callable[[int], bytes], clock: Callable[[], float]) -> None:
        self.realm = realm
        self._random = random
        self._clock = clock
        self._key = random(32)
        self._opaque = random(16).hex()
        self._sessions: dict[str, OrderedDict[str, _Session]] = {}
        self._floor_ms: dict[str, int] = {}
        self._nobody = {each: random(32).hex() for each in Algorithm}
        self._moved: OrderedDict[tuple[str, str, int], tuple[str, str]] = OrderedDict()

    def challenges(self, *, is_stale: bool = False) -> list[str]:
        """The values of the `WWW-Authenticate` headers, SHA-256 first, with one new nonce."""
        nonce = self._make_nonce()
        stale = ", stale=true" if is_stale else ""
        return [
            f'Digest realm="{self.realm}", nonce="{nonce}", opaque="{self._opaque}", algorithm={each.value},'
            f' qop="auth"{stale}'
            for each in Algorithm
        ]

    def is_session(self, answer: Answer) -> bool:
        """Whether it goes on with a session of that user."""
        return answer.nonce in self._sessions.get(answer.user, {})

    def judge(self, answer: Answer, method: str, target: str, verifier: Verifier | None) -> Verdict:
        """
        Judge an answer to one of our challenges for a request; None is the verifier of a user who is not known.

        A session begins or goes on only where the verdict is RIGHT.
        """
        known = verifier is not None and answer.algorithm in verifier
        ha1 = (verifier or {}).get(answer.algorithm, self._nobody[answer.algorithm])  # takes as long as a known user
        ha2 = answer.algorithm.hash(f"{method}:{answer.uri}")
        expected = answer.algorithm.hash(f"{ha1}:{answer.nonce}:{answer.count_text}:{answer.client_nonce}:auth:{ha2}")
        is_right = hmac.compare_digest(expected.encode(), answer.response.encode())
        is_moved = self._moved.get((answer.user, answer.nonce, answer.count)) == (answer.uri, target)
        if not (is_right and known and answer.realm == self.realm and (answer.uri == target or is_moved)):
            return Verdict.WRONG
        session = self._session(answer)
        if is_moved and session is not None:
            del self._moved[answer.user, answer.nonce, answer.count]
            return Verdict.RIGHT
        if session is None or not session.take(answer.count):
            return Verdict.STALE
        session.used_s = self._clock()
        self._sessions[answer.user].move_to_end(answer.nonce)
        return Verdict.RIGHT

    def move(self, answer: Answer, target: str) -> None:
        """
        Let an answer that was right come once more, for the target that its request was redirected to.

        Clients that follow a redirection repeat the header as it was, with the first target and the count used there.
        """
        self._moved[answer.user, answer.nonce, answer.count] = answer.uri, target
        if len(self._moved) > _MOVED_MAX:
            self._moved.popitem(last=False)

    def forget(self, user: str) -> None:
        """End a user's sessions: the password has changed."""
        self._sessions.pop(user, None)
        self._floor_ms[user] = self._now_ms()

    @property
    def count(self) -> int:
        """Sessions that are kept."""
        return sum(map(len, self._sessions.values()))

    def _session(self, answer: Answer) -> _Session | None:
        mine = self._sessions.setdefault(answer.user, OrderedDict())
        known = mine.get(answer.nonce)
        now_s, now_ms = self._clock(), self._now_ms()
        if known is not None:
            if now_s - known.used_s > IDLE_S or now_ms - known.issued_ms > SESSION_S * 1000:
                self._retire(answer.user, answer.nonce)
                return None
            return known
        issued_ms = self._issued_ms(answer.nonce)
        if issued_ms is None or now_ms - issued_ms > FIRST_USE_S * 1000 or issued_ms <= self._floor_ms.get(
            answer.user, -1
        ):  # fmt: skip
            return None
        if len(mine) >= SESSIONS_MAX:
            self._retire(answer.user, next(iter(mine)))
        mine[answer.nonce] = _Session(issued_ms, now_s)
        return mine[answer.nonce]

    def _retire(self, user: str, nonce: str) -> None:
        session = self._sessions[user].pop(nonce)
        self._floor_ms[user] = max(session.issued_ms, self._floor_ms.get(user, -1))

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _make_nonce(self) -> str:
        content = self._now_ms().to_bytes(8, "big") + self._random(12)
        return base64.urlsafe_b64encode(content + self._mac(content)).decode().rstrip("=")

    def _issued_ms(self, nonce: str) -> int | None:
        """When a nonce was made, None for one that is not ours."""
        try:
            octets = base64.urlsafe_b64decode(nonce + "=" * (-len(nonce) % 4))
        except ValueError:
            return None
        content, mac = octets[:20], octets[20:]
        if not hmac.compare_digest(mac, self._mac(content)):
            return None
        return int.from_bytes(content[:8], "big")

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._key, b"stromkreis HAN nonce\0" + content, "sha256")[:16]
