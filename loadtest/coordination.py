"""
Drawing the rings of an area's epoch without a network: everybody joins, is shown the list and shows its value.

For tests of what comes after, and for those that leave a step out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from coordinator.epoch_config import EpochConfig
from coordinator.events import Joined, To
from coordinator.rings.areas import Areas
from coordinator.rings.epochs import AreaEpoch
from coordinator.rings.numbers import EpochNumbers
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.setup.beacon import commit
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, Schema

LIST_SECRET = b"l" * 32
MakeJoin = Callable[[wire.EpochCall, str], Joined]


def make_areas(
    config: EpochConfig, names: Sequence[str] = ("north",), intermediates: Sequence[bytes] = (),
    schema: Schema = DEFAULT_SCHEMA,
) -> Areas:  # fmt: skip
    """Areas whose first epoch has number 0; every secret is zeros, `LIST_SECRET` excepted."""
    suite = StandardSuite()
    sign = partial(suite.sign, suite.signing_key(LIST_SECRET))
    return Areas(suite, config, lambda _: schema, intermediates, names, bytes, EpochNumbers(), sign)


def value_of(identity: str) -> bytes:
    """The part of the beacon that a gateway commits to here, 32 bytes."""
    return hashlib.sha256(b"value of " + identity.encode()).digest()


def commitment_of(call: wire.EpochCall, identity: str) -> bytes:
    """Its commitment in a try."""
    return commit(identity, call.epoch, call.try_, value_of(identity))


def bare_join(certificate_size: int = 700) -> MakeJoin:
    """Joins without keys and signatures: for a coordinator's rings that no member has to believe."""

    def join(call: wire.EpochCall, identity: str) -> Joined:
        keys, nonce = (bytes(32), bytes(32), bytes(32)), bytes(wire.NONCE_SIZE)
        commitment = commitment_of(call, identity)
        return Joined(call.try_, commitment, bytes(32), *keys, nonce, bytes(70), bytes(certificate_size))

    return join


def join_all(epoch: AreaEpoch, names: Iterable[str], now_s: float, join: MakeJoin | None = None) -> list[To]:
    """Everybody joins; what that brings: the lists, where everybody was waited for."""
    make = bare_join() if join is None else join
    return [to for name in names for to in epoch.join(name, make(epoch.part_for(name).call, name), now_s)]


def reveal_all(epoch: AreaEpoch, names: Iterable[str], now_s: float) -> list[To]:
    """Everybody shows its value for the list of its part; what that brings: the layouts."""
    out = []
    for name in names:
        part = epoch.part_for(name)
        reveal = wire.BeaconReveal(part.call.epoch, part.call.try_, part.list_digest, value_of(name))
        out += epoch.reveal(name, reveal, now_s)
    return out


def lay_out(epoch: AreaEpoch, names: Iterable[str], now_s: float, join: MakeJoin | None = None) -> list[To]:
    """All of it; what that brings last: the layouts, or why there are none."""
    everybody = list(names)
    joined = join_all(epoch, everybody, now_s, join)
    return reveal_all(epoch, everybody, now_s) or joined
