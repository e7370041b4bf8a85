"""
What a member keeps secret for one epoch, all of it grown from one 32-byte seed.

The seed is the only thing to store and the only thing to delete: from it come the X25519 private half and, with the
ring's digest, the scalar K of the self-mask PRF and the polynomial that shares K.  So a gateway that was restarted
deals the very same shares again, one that is shown another layout deals shares of an unrelated K (or t neighbours
spread over two layouts could put one K together), and one that forgot the seed has forgotten everything (forward
secrecy).  A security module holds this object; the member machine only asks it to evaluate.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache

from protocol import wire
from protocol.dcnet.crypto import prf, shamir
from protocol.dcnet.crypto.pair_opening import PairContext
from protocol.dcnet.crypto.suite import Suite, derive, derive_for, digest, info_of
from protocol.dcnet.setup.rings import RingView, positions_of
from protocol.dcnet.setup.statements import deal_text
from protocol.errors import LocalProtocolError, RemoteProtocolError


@lru_cache(maxsize=4096)
def _pair_info(purpose: str, low: int, high: int) -> bytes:
    """It is public, and the same in every ring of a process that serves many gateways."""
    return info_of(purpose, struct.pack("<QQ", low, high))


class PairKeys:
    """
    The keys of one pair, 32 bytes for each purpose.

    Only `confirm` is wanted in every round: the others are derived when they are asked for, and not kept.  A gateway
    has a dozen pairs or more, and a process thousands of gateways.
    """

    __slots__ = ("_high", "_low", "_secret", "confirm")

    def __init__(self, secret: bytes, low: int, high: int) -> None:
        """Of the members at two positions, from what they agreed on (`Suite.agree`)."""
        self._secret, self._low, self._high = secret, low, high
        self.confirm = self._derive("pair-confirm")

    def _derive(self, purpose: str) -> bytes:
        return derive_for(self._secret, _pair_info(purpose, self._low, self._high))

    @property
    def mask(self) -> bytes:
        """For the pair's masks."""
        return self._derive("pair-mask")

    @property
    def blinding(self) -> bytes:
        """For the masks of committed slots' blindings."""
        return self._derive("pair-blinding")

    @property
    def transport(self) -> bytes:
        """For the shares that they deal each other."""
        return self._derive("pair-transport")

    @property
    def relay(self) -> bytes:
        """For ring messages that the coordinator relays."""
        return self._derive("pair-relay")


@dataclass(frozen=True, slots=True)
class _ReceivedDeal:
    commitments: tuple[bytes, ...]
    share: int = field(repr=False)


def pair_keys(secret: bytes, position: int, other: int) -> PairKeys:
    """The keys of a pair of members from what both agreed on (`Suite.agree`), whose order does not matter."""
    return PairKeys(secret, *sorted((position, other)))


def mask_label(view: RingView, round_: int, attempt: int, nonce: bytes, terms: bytes) -> bytes:
    """The PRF's input for an attempt: epoch, ring, round, attempt, the mask owner's nonce, `RoundTerms.of_masks`."""
    return digest("self-mask", view.digest, struct.pack("<QQQ", view.ring, round_, attempt), nonce, terms)


def _deal_context(view: RingView, dealer: int, commitments: tuple[bytes, ...]) -> bytes:
    return digest("deal", view.digest, struct.pack("<Q", dealer), *commitments)


def unseal_share(
    suite: Suite, view: RingView, keys: PairKeys, dealer: int, commitments: tuple[bytes, ...], sealed: bytes
) -> int:
    """The dealt share under the keys of the dealer and its holder.  Raises RemoteProtocolError where it is none."""
    if len(commitments) != view.t:
        raise RemoteProtocolError("bad_deal", f"expected {view.t} commitments")
    plain = suite.unseal(keys.transport, dealer, sealed, _deal_context(view, dealer, commitments))
    share = int.from_bytes(plain, "little")
    if len(plain) != 32 or share >= suite.group.order:
        raise RemoteProtocolError("bad_deal", "a dealt share is no scalar")
    return share


def is_good_share(
    suite: Suite, view: RingView, keys: PairKeys, dealer: int, holder: int, deal: wire.Deal | wire.DisputedDeal
) -> bool:
    """Whether what a signed deal has for a holder can be unsealed and fits its commitments: t group operations."""
    sealed = dict(deal.sealed).get(holder, b"")
    try:
        share = unseal_share(suite, view, keys, dealer, deal.commitments, sealed)
    except RemoteProtocolError:
        return False
    return shamir.verify_share(suite.group, deal.commitments, holder + 1, share)


class EpochSecrets:
    """One member's secrets of one epoch; `bind` tells it the ring once the layout is known and verified."""

    def __init__(self, suite: Suite, seed: bytes, process_secret: bytes) -> None:
        """
        Grow everything from `seed`, but for salts: those from `process_secret`, 32 random bytes of this process.

        They are nowhere on disk, so that who finds the seed cannot tell what was signed with a salt.
        """
        if len(seed) != 32 or len(process_secret) != 32:
            raise LocalProtocolError("an epoch seed and a process secret have 32 bytes")
        self._suite = suite
        self._seed = seed
        self._process_secret = process_secret
        self._private = derive(seed, "epoch-x25519")
        self._prf_key = 0
        self.public_key = suite.public_key(self._private)
        signing_seed = derive(seed, "epoch-ed25519")
        self._signing_key = suite.signing_key(signing_seed)
        self.verify_key = suite.verify_key(signing_seed)
        self._view: RingView | None = None
        self.position = -1
        self._pairs: dict[int, PairKeys] = {}
        self._received: dict[int, _ReceivedDeal] = {}

    def bind(self, view: RingView, position: int) -> None:
        """Agree with every neighbour.  Raises RemoteProtocolError where a key of theirs is no good."""
        seat = view.members[position]
        if (seat.public_key, seat.verify_key) != (self.public_key, self.verify_key):
            raise LocalProtocolError("this layout has other epoch keys at our position")
        self._view, self.position = view, position
        self._prf_key = self._scalar("epoch-prf", 0)
        self._pairs = {other: self._agree(other) for other in positions_of(view.neighbourhoods[position])}

    def _scalar(self, purpose: str, index: int) -> int:
        """A uniform scalar other than 0 (the bias of 64 bytes modulo the order is below 2^-250)."""
        wide = derive(self._seed, purpose, self._ring().digest, struct.pack("<Q", index), size=64)
        return int.from_bytes(wide, "little") % (self._suite.group.order - 1) + 1

    def _ring(self) -> RingView:
        if self._view is None:
            raise LocalProtocolError("the ring is not known yet")
        return self._view

    def _agree(self, other: int) -> PairKeys:
        view = self._ring()
        secret = self._suite.agree(self._private, view.members[other].public_key, view.digest)
        return pair_keys(secret, self.position, other)

    def pair(self, other: int) -> PairKeys:
        """The keys shared with a member; those with non-neighbours (a head, for the relay) are made when asked."""
        if other not in self._pairs:
            self._pairs[other] = self._agree(other)
        return self._pairs[other]

    def sign(self, text: bytes) -> bytes:
        """The signature of the member in this epoch, 64 bytes; the text says what for (`statements`)."""
        return self._suite.sign(self._signing_key, text)

    def salt(self, round_: int, attempt: int) -> bytes:
        """16 bytes that nobody can guess, for the digest of a masked vector."""
        return derive(self._process_secret, "input-salt", struct.pack("<QQ", round_, attempt))[:16]

    def open_pair(self, other: int) -> bytes:
        """The secret shared with a member, with a proof for everybody: only where `answers` allows it."""
        view = self._ring()
        context = PairContext(view.digest, view.ring, self.position, other)
        return self._suite.open_pair(self._private, self.public_key, view.members[other].public_key, context)

    def deal(self) -> wire.Deal:
        """Share K t-of-k: the Feldman commitments, and for each neighbour its share sealed to it, signed."""
        view, group = self._ring(), self._suite.group
        neighbours = positions_of(view.neighbourhoods[self.position])
        coefficients = [self._scalar("epoch-polynomial", power) for power in range(1, view.t)]
        dealt = shamir.deal(group, self._prf_key, view.t, [other + 1 for other in neighbours], coefficients)
        context = _deal_context(view, self.position, dealt.commitments)
        sealed = tuple(
            (
                other,
                self._suite.seal(
                    self.pair(other).transport, self.position, dealt.shares[other + 1].to_bytes(32, "little"), context
                ),
            )
            for other in neighbours
        )
        signature = self.sign(deal_text(view, self.position, dealt.commitments, sealed))
        return wire.Deal(view.epoch, dealt.commitments, sealed, signature)

    def accept(self, dealer: int, commitments: tuple[bytes, ...], sealed: bytes) -> None:
        """
        Take a neighbour's deal.  Raises RemoteProtocolError where it is not for us or not well formed.

        Whether the share fits the commitments is checked on suspicion (`is_good_deal`): a bad deal can only cost its
        own dealer's recovery, never anybody's privacy, and checking all of them takes k·t group operations.
        """
        view = self._ring()
        if not view.neighbourhoods[self.position] >> dealer & 1:
            raise RemoteProtocolError("not_a_neighbour", "a deal from somebody who is no neighbour")
        share = unseal_share(self._suite, view, self.pair(dealer), dealer, commitments, sealed)
        self._received[dealer] = _ReceivedDeal(commitments, share)

    @property
    def dealers(self) -> frozenset[int]:
        """Whose deals we hold."""
        return frozenset(self._received)

    def commitments_of(self, dealer: int) -> tuple[bytes, ...] | None:
        """A dealer's Feldman commitments, if we hold its deal."""
        received = self._received.get(dealer)
        return None if received is None else received.commitments

    def evaluate(self, label: bytes) -> bytes:
        """F(K, label), our own self mask's root."""
        return prf.evaluate(self._suite.group, self._prf_key, label)

    def partial(self, dealer: int, label: bytes) -> tuple[bytes, bytes] | None:
        """Our part of F(K_dealer, label) and the proof that it fits what we were dealt; None where we hold no deal."""
        received = self._received.get(dealer)
        if received is None or received.share == 0:
            return None
        group = self._suite.group
        return prf.partial(group, received.share, label), prf.prove_partial(group, received.share, label)

    def is_good_deal(self, dealer: int) -> bool:
        """Whether what a neighbour dealt us fits its commitments; costs t group operations."""
        received = self._received.get(dealer)
        if received is None:
            return False
        return shamir.verify_share(self._suite.group, received.commitments, self.position + 1, received.share)

    def seal_relay(self, other: int, data: bytes, nonce: bytes) -> bytes:
        """Seal a ring message for a member behind the coordinator's relay; `nonce` is 12 fresh random bytes."""
        context = self._relay_context(self.position, other)
        key = self.pair(other).relay
        return nonce + self._suite.seal(key, int.from_bytes(nonce, "big"), data, context)

    def unseal_relay(self, other: int, sealed: bytes) -> bytes:
        """Open what `seal_relay` of the member `other` made for us.  Raises RemoteProtocolError where it is not."""
        if other >= self._ring().size or other == self.position:
            raise RemoteProtocolError("no_such_member", "a relayed message from a position that does not exist")
        nonce, rest = sealed[:12], sealed[12:]
        context = self._relay_context(other, self.position)
        return self._suite.unseal(self.pair(other).relay, int.from_bytes(nonce, "big"), rest, context)

    def _relay_context(self, source: int, target: int) -> bytes:
        return digest("relay", self._ring().digest, struct.pack("<QQ", source, target))
