r"""
Which process of each gateway a ring's masks are made with.

A gateway draws a nonce of 16 random bytes for each process and epoch and keeps it in memory only (docs/explanation/
protocol.md, section 4).  Every mask key hangs on the nonces of both ends, and every self mask on its owner's: so a
process that was started anew, or a second copy of a store, has other masks than the one before it, whatever its disk
says, and two shares of one round and attempt can never be subtracted from each other.

The nonces of the joins are the first table: they are in LAYOUT and in the epoch digest.  READY brings a replacement,
and OPEN says which of E are replaced, as a difference to LAYOUT, which everybody who shares a key with us has.  Its
member signs it: a head that invented one would have everybody refuse the true one for the rest of the epoch.  A nonce
that was replaced never comes back, and a position has `NONCES_MAX` of them: a head that shows every member another
choice among many copies of a gateway would otherwise get pieces of one reading under many masks.
"""

from __future__ import annotations

from protocol import wire
from protocol.dcnet.crypto.suite import Suite, digest
from protocol.dcnet.machines.history import History
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of
from protocol.dcnet.setup.statements import SIGNATURE_SIZE, nonce_text
from protocol.errors import RemoteProtocolError

NONCES_MAX = 8


def nonces_digest(view: RingView, expected: int, nonces: bytes) -> bytes:
    """32 bytes over the nonces of E, a bitmap, joined in the order of positions."""
    return digest("nonces", view.to_wire(expected), nonces)


class NonceTable:
    """The nonces of a ring's members as one party knows them: the newest of each position, and those before it."""

    def __init__(self, suite: Suite, view: RingView) -> None:
        self._suite = suite
        self._view = view
        self.newest = [member.nonce for member in view.members]
        self.signatures: dict[int, bytes] = {}  # of those that are not LAYOUT's
        self._replaced: dict[int, list[bytes]] = {}
        self._digest: tuple[int, bytes] = (0, b"")

    def copy(self) -> NonceTable:
        """One of its own for another party that begins with the same knowledge."""
        other = NonceTable(self._suite, self._view)
        other.newest, other.signatures = self.newest.copy(), self.signatures.copy()
        other._replaced = {position: each.copy() for position, each in self._replaced.items()}
        return other

    @property
    def replacements(self) -> list[tuple[int, str]]:
        """The positions whose nonce is not LAYOUT's any more, with the newest in hex."""
        members = enumerate(self._view.members)
        return [(i, self.newest[i].hex()) for i, member in members if self.newest[i] != member.nonce]

    def check(self, position: int, nonce: bytes, signature: bytes) -> None:
        """
        Raise RemoteProtocolError for a nonce that was replaced, or is one too many of its position, or that its member
        did not sign.
        """
        if nonce == self.newest[position]:
            return
        replaced = self._replaced.get(position, ())
        if nonce in replaced:
            raise RemoteProtocolError("replaced_nonce", f"the nonce of member {position} was replaced in this epoch")
        if len(replaced) + 1 >= NONCES_MAX:
            raise RemoteProtocolError("too_many_nonces", f"member {position} has had {NONCES_MAX} nonces in this epoch")
        text, key = nonce_text(self._view, position, nonce), self._view.members[position].verify_key
        if not self._suite.verify(key, text, signature):
            raise RemoteProtocolError("bad_signature", "a nonce that its member did not sign")

    def take(self, position: int, nonce: bytes, signature: bytes) -> bool:
        """Know a nonce from now on; whether it replaces another one.  Raises as `check` does."""
        self.check(position, nonce, signature)
        return self._take(position, nonce, signature)

    def _take(self, position: int, nonce: bytes, signature: bytes) -> bool:
        if nonce == self.newest[position]:
            return False
        self._replaced.setdefault(position, []).append(self.newest[position])
        self.newest[position] = nonce
        self.signatures[position] = signature
        self._digest = 0, b""
        return True

    def digest(self, expected: int) -> bytes:
        """32 bytes over the nonces of E, a bitmap, in the order of positions."""
        if self._digest[0] != expected:
            nonces = b"".join(self.newest[position] for position in positions_of(expected))
            self._digest = expected, nonces_digest(self._view, expected, nonces)
        return self._digest[1]

    def difference(self, expected: int) -> tuple[bytes, bytes, bytes]:
        """What OPEN says of E: the positions whose nonce is not LAYOUT's, their nonces in order, and the signatures."""
        members = self._view.members
        changed = [position for position in positions_of(expected) if self.newest[position] != members[position].nonce]
        nonces = b"".join(self.newest[position] for position in changed)
        return self._view.to_wire(bitmap(changed)), nonces, b"".join(self.signatures[position] for position in changed)

    def read(self, message: wire.Open) -> dict[int, tuple[bytes, bytes]]:
        """
        The nonces of E as an OPEN says them, each with its signature, by position.

        Raises RemoteProtocolError for another form.

        They are not taken: see `check` and `take`.
        """
        view = self._view
        expected, changed = view.from_wire(message.expected), view.from_wire(message.changed)
        size, count = wire.NONCE_SIZE, changed.bit_count()
        if (
            changed & ~expected
            or len(message.nonces) != size * count
            or len(message.signatures) != SIGNATURE_SIZE * count
        ):
            raise RemoteProtocolError(
                "bad_nonces", "expected a signed nonce for each member of E that is said to have changed"
            )
        nonces = {position: (view.members[position].nonce, b"") for position in positions_of(expected)}
        for index, position in enumerate(positions_of(changed)):
            signature = message.signatures[SIGNATURE_SIZE * index : SIGNATURE_SIZE * (index + 1)]
            nonces[position] = message.nonces[size * index : size * (index + 1)], signature
        return nonces


class Incarnation(NonceTable):
    """
    One process of the gateway at `position`, in one epoch: its own nonce, and what it knows of the others' and of how
    rounds ended.

    It lives as long as the process, longer than a machine that is made again from what is durable: that this process
    has used its masks for an attempt, or has taken a nonce for a round, is not forgotten with a failed write.
    """

    def __init__(self, suite: Suite, view: RingView, position: int, nonce: bytes, signature: bytes = b"") -> None:
        """`signature` is our own under a nonce that is not LAYOUT's (`nonce_text`)."""
        super().__init__(suite, view)
        self.nonce, self.signature = nonce, signature
        self.history = History(view)
        self.last = -1, -1  # the last (round, attempt) that masks were used for
        self._position = position
        self.least_settled = 0  # of how many rounds the ends must count in an OPEN of that round
        self._used: tuple[bytes, bytes, bytes] | None = None  # what the last OPEN said of E and its nonces
        self._in_round = 0  # whose nonces the attempts of that round had
        self.signatures[position] = signature
        self.newest[position] = nonce  # whoever had the place before us is gone: an OPEN with its nonce is refused

    def _is_used(self, message: wire.Open) -> bool:
        """Whether an OPEN says of E and its nonces what the last one said: nothing to check, nothing to take."""
        return (message.expected, message.changed, message.nonces) == self._used

    def check_open(self, message: wire.Open) -> None:
        """
        Raise RemoteProtocolError for an OPEN whose nonces we do not contribute with; nothing changes.

        That is: ours is not our own, one was replaced before, a position has had too many, or one differs from that
        of an earlier attempt of the same round.
        """
        if self._is_used(message):
            return
        nonces = self.read(message)
        if nonces.get(self._position, (b"", b""))[0] != self.nonce:
            raise RemoteProtocolError("not_our_nonce", "the attempt is opened with another process of this gateway")
        for position, (nonce, signature) in nonces.items():
            self.check(position, nonce, signature)
            is_in_round = message.round == self.last[0] and self._in_round >> position & 1
            if is_in_round and nonce != self.newest[position]:
                raise RemoteProtocolError(
                    "nonce_changed", f"member {position} has another nonce than before in the round"
                )

    def use(self, message: wire.Open) -> dict[int, bytes]:
        """Take the nonces of an OPEN that was checked, to share in its attempt; by position, if any may be new."""
        nonces = {} if self._is_used(message) else self.read(message)
        for position, each in nonces.items():
            self._take(position, *each)
        self._used = message.expected, message.changed, message.nonces
        expected = self._view.from_wire(message.expected)
        self._in_round = expected | (self._in_round if message.round == self.last[0] else 0)
        self.last = message.round, message.attempt
        return {position: nonce for position, (nonce, _) in nonces.items()}
