"""
How an epoch comes about: call, joins, layout, and what a gateway checks before it believes any of it.

The coordinator calls; gateways join with fresh keys and a commitment, signed by their certified keys; the coordinator
lists all joins, gateways show what they committed to, and the coordinator shows every gateway all values and its own
ring.  The gateway recomputes the cut, checks every member's certificate and signature, and chooses the ring's numbers
itself from the ring's size and the announced rates: a coordinator can call an epoch, but not weaken one.  Whatever does
not hold fails closed: no key is agreed, nothing is shared.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from protocol import wire
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.crypto.pair_opening import lift
from protocol.dcnet.crypto.suite import digest
from protocol.dcnet.parameters.choice import Parameters, choose
from protocol.dcnet.setup.beacon import ListEntry, beacon, check_list, check_values, list_digest
from protocol.dcnet.setup.crowd import check_part
from protocol.dcnet.setup.ranges import FUSE_A, check_ranges, committed_bits
from protocol.dcnet.setup.registers import check_registers
from protocol.dcnet.setup.rings import Member, RingView, Timing, cut_rings, ring_number
from protocol.dcnet.setup.schema import OWN_REGISTERS, Kind, Schema, Slot
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.interval import RegistrationGrid

HONEST_FLOOR = 30
"""Honest members that a total has at least: the best linear attacker then learns hardly more than a blind one."""

READING_SHARE = 0.15  # of the period: meters are read before the ring opens

_GROUP = Edwards25519()

VerifyMember = Callable[[str, bytes, bytes, bytes, Sequence[bytes]], None]


@dataclass(frozen=True, slots=True)
class Policy:
    """
    What a gateway insists on, whatever the coordinator announces; rates are parts in a million.

    Raising `corrupt_ppm` demands larger neighbourhoods; raising `ring_size_min` refuses small areas.  `honest_floor` is
    how many honest members each total has at least; where it is below `HONEST_FLOOR` calls with power are refused,
    since power is what a small total gives away at once.
    `registers` are the OBIS codes that may be summed: the total of one that a single meter of the ring shows is that
    household's.  With `epsilon_ppm_max` every total must be noisy: ε at most that, for households that change it by up
    to `power_w` or `energy_wh`; None takes totals as they are.
    """

    corrupt_ppm: int = 10_000
    ring_size_min: int = 5
    honest_floor: int = HONEST_FLOOR
    registers: frozenset[str] = OWN_REGISTERS
    epsilon_ppm_max: int | None = None
    power_w: int = 24_000
    energy_wh: int = 6_000

    def admits_noise(self, slot: Slot) -> bool:
        """Whether a slot's total is noisy enough; one that is committed to cannot be, and is not."""
        if self.epsilon_ppm_max is None or slot.kind is Kind.COUNT:
            return True
        if slot.noise is None or slot.noise.epsilon_ppm > self.epsilon_ppm_max:
            return False
        least, unit = (self.power_w, "W") if slot.kind is Kind.POWER else (self.energy_wh, "Wh")
        return slot.unit == unit and slot.noise.sensitivity * Fraction(10) ** slot.scaler >= least


def join_text(
    call_digest: bytes, identity: str, public_key: bytes, curve_key: bytes, verify_key: bytes, nonce: bytes,
    commitment: bytes,
) -> bytes:  # fmt: skip
    """
    What a gateway signs when it joins, and the join's digest in the list.

    It is the call it answers, who it is, its epoch key, CURVE key and signing key, the nonce of its process, and its
    commitment to a part of the beacon.
    """
    return digest("join", call_digest, identity.encode(), public_key, curve_key, verify_key, nonce, commitment)


@lru_cache(maxsize=4096)  # the members of one process check the same keys; refusals are not kept
def check_epoch_keys(public_key: bytes, verify_key: bytes) -> None:
    """
    Return if every pair of this X25519 key can be opened with a proof, and if everybody judges its signatures alike.

    X25519 takes keys of the twist and of mixed order, which prove nothing, and signatures under an Ed25519 key of mixed
    order hold for some verifiers only.  Raises RemoteProtocolError `key_not_liftable`, `bad_verify_key`.
    """
    lift(public_key)
    if not _GROUP.is_element(verify_key):
        raise RemoteProtocolError("bad_verify_key", "expected an Ed25519 key of prime order in canonical form")


def call_digest(call: wire.EpochCall) -> bytes:
    """32 bytes over everything the coordinator announced."""
    return digest("call", wire.encode(call))


def entries_of(message: wire.EpochList) -> tuple[ListEntry, ...]:
    """The lines of a LIST."""
    return tuple(ListEntry(*each) for each in message.entries)


def list_text(digest_: bytes) -> bytes:
    """What the coordinator signs with its list key."""
    return digest("list-signature", digest_)


def head_text(view: RingView, term: int, endpoint: str) -> bytes:
    """What an appointed head signs when it says where it listens."""
    return digest("head", view.digest, struct.pack("<Q", term), endpoint.encode())


@lru_cache(maxsize=256)
def ring_parameters(size: int, population: int, corrupt_ppm: int, dropout_ppm: int) -> Parameters:
    """
    The numbers of a ring of `size` in an area of `population`, for rates in parts per million.

    The rates hold for the area, so a ring may get more than its share of the corrupt; and no ring can be cut in two
    (docs/explanation/thresholds.md).  Cached, since a network has few sizes.  Raises LocalProtocolError where nothing
    reaches it.
    """
    rates = corrupt_ppm / 1_000_000, dropout_ppm / 1_000_000
    return choose(size, *rates, model="unsplittable", population=population)


def registration_grid(call: wire.EpochCall) -> RegistrationGrid:
    """The registration periods of an epoch: period r is that of round r."""
    return RegistrationGrid(call.start_ms, call.period_ms, call.interval_start_s, call.interval_s)


def ring_timing(call: wire.EpochCall) -> Timing:
    """The ring's waits: the opening comes after the time in which meters are read."""
    grid = registration_grid(call)
    return Timing.spread(grid.time_s(0) + READING_SHARE * grid.period_s, grid.period_s)


def make_view(
    call: wire.EpochCall, ring: int, members: Sequence[tuple[str, bytes, bytes, bytes, bytes]], population: int,
    list_: bytes, result_key: bytes,
) -> RingView:  # fmt: skip
    """
    The ring that follows from a call and its members, in position order.

    Of each member: identity, epoch key, CURVE key, signing key, nonce.

    `population` is how many gateways the area has: those of the list times the parts; `list_` is the list's digest.
    Raises LocalProtocolError where no parameters reach the announced security for this size, or where a committed slot
    has no range.
    """
    schema = Schema.from_bytes(call.schema)
    numbers = ring_parameters(len(members), population, call.corrupt_ppm, call.dropout_ppm)
    return RingView(
        epoch=call.epoch, ring=ring, members=tuple(Member(*member) for member in members),
        schema_digest=digest("agreed", schema.digest(), call_digest(call), list_), word_count=len(schema.slots),
        committed=schema.committed, rounds=call.rounds, k=numbers.k, t=numbers.t, t_c=numbers.t_c,
        k_min=numbers.k_min, n_min=numbers.n_min, result_key=result_key,
        timing=ring_timing(call), corrupt=numbers.corrupt, noise=schema.noise,
        bits=committed_bits(schema, call.fuse_a, call.interval_s),
    )  # fmt: skip


def check_call(call: wire.EpochCall, policy: Policy, fuse_a: int = FUSE_A) -> Schema:
    """
    Whether we take part at all, behind fuses of `fuse_a` A.

    Raises RemoteProtocolError where the call is weaker than our policy.
    """
    schema = Schema.from_bytes(call.schema)
    if call.corrupt_ppm < policy.corrupt_ppm:
        raise RemoteProtocolError("weak_epoch", f"corrupt rate below our {policy.corrupt_ppm} parts in a million")
    if not all(map(policy.admits_noise, schema.slots)):
        raise RemoteProtocolError("weak_noise", "a total that is less noisy than our policy asks for")
    check_registers(schema)
    if unwanted := [slot.obis for slot in schema.slots[1:] if slot.obis not in policy.registers]:
        raise RemoteProtocolError("register_not_allowed", f"{unwanted[0]} is none of [node.policy] registers")
    if policy.honest_floor < HONEST_FLOOR and any(slot.kind is Kind.POWER for slot in schema.slots):
        raise RemoteProtocolError(
            "power_below_floor",
            f"a total of power, and our honest_floor is {policy.honest_floor}; below {HONEST_FLOOR} energy alone is"
            " expected (power = false in [coordinator.epoch])",
        )
    check_ranges(schema, call.fuse_a, call.interval_s, fuse_a)
    return schema


def check_epoch_list(call: wire.EpochCall, message: wire.EpochList, verify: Callable[[bytes, bytes], bool]) -> bytes:
    """
    The digest of a list that holds; `verify(text, signature)` knows the list key that was pinned at enrolment.

    Raises RemoteProtocolError: `bad_signature`, `foreign_part`, and what `beacon.check_list` raises.
    """
    entries = entries_of(message)
    digest_ = list_digest(call_digest(call), entries)
    if message.try_ != call.try_ or not verify(list_text(digest_), message.signature):
        raise RemoteProtocolError("bad_signature", "a list that the pinned key has not signed for this call")
    check_list(entries, call.rejected)
    check_part(entries, call.area, call.split_bits, call.part)
    return digest_


def _check_join(
    called: bytes, entry: ListEntry, member: wire.MemberRow, intermediates: Sequence[bytes], verify: VerifyMember
) -> None:
    identity, key, curve_key, verify_key, nonce, signature, certificate = member
    text = join_text(called, identity, key, curve_key, verify_key, nonce, entry.commitment)
    if text != entry.join_digest:
        raise RemoteProtocolError("bad_layout", "a member that joined otherwise than the list says")
    check_epoch_keys(key, verify_key)
    verify(identity, text, signature, certificate, intermediates)


def check_spot_checks(
    call: wire.EpochCall, chosen: Sequence[ListEntry], members: Sequence[wire.MemberRow],
    intermediates: Sequence[bytes], verify_member: VerifyMember,
) -> None:  # fmt: skip
    """
    Return if the joins of the `chosen` members of other rings hold as those of our own do.

    Raises RemoteProtocolError: `spot_check_unanswered` where others come than were asked for, what `verify_layout`
    raises for a member.
    """
    if [member[0] for member in members] != [each.identity for each in chosen]:
        raise RemoteProtocolError("spot_check_unanswered", "other joins than those that were asked for")
    called = call_digest(call)
    for entry, member in zip(chosen, members, strict=True):
        _check_join(called, entry, member, intermediates, verify_member)


def verify_layout(
    call: wire.EpochCall,
    entries: Sequence[ListEntry],
    layout: wire.EpochLayout,
    identity: str,
    public_key: bytes,
    policy: Policy,
    verify_member: VerifyMember,
) -> tuple[RingView, int]:
    """
    The ring and our position in it, if everything the coordinator claims holds.

    `entries` are those of the list that we showed our value for.
    `verify_member(identity, text, signature, certificate, intermediates)` raises RemoteProtocolError unless the
    certificate leads to the SM-PKI root, belongs to that gateway and its key signed `text`.
    Raises RemoteProtocolError for: values that were not committed to, our own key missing or changed, a cut that does
    not follow from the beacon, a member that joined otherwise, does not verify or whose keys `check_epoch_keys`
    refuses, a ring that is too small.
    """
    if layout.try_ != call.try_:
        raise RemoteProtocolError("bad_layout", "a layout of another try")
    check_values(entries, call.epoch, call.try_, layout.values)
    called = call_digest(call)
    list_ = list_digest(called, entries)
    listed = {each.identity: each for each in entries}
    rings = cut_rings(beacon(list_, layout.values), list(listed), call.ring_size)
    index = layout.ring >> call.split_bits
    if index >= len(rings) or layout.ring != ring_number(index, call.split_bits, call.part):
        raise RemoteProtocolError("wrong_placement", "a ring that does not exist")
    ring = rings[index]
    if [member[0] for member in layout.members] != ring:
        raise RemoteProtocolError("wrong_placement", "the ring does not follow from the beacon")
    if identity not in ring:
        raise RemoteProtocolError("wrong_placement", "our place is in another ring")
    position = ring.index(identity)
    if layout.members[position][1] != public_key:
        raise RemoteProtocolError("bad_layout", "our own epoch key is not in our place")
    if len(ring) < policy.ring_size_min:
        raise RemoteProtocolError("ring_too_small", f"{len(ring)} members, our policy asks for {policy.ring_size_min}")
    for member in layout.members:
        _check_join(called, listed[member[0]], member, layout.intermediates, verify_member)
    try:
        seats = [member[:5] for member in layout.members]
        area_size = len(listed) << call.split_bits
        view = make_view(call, layout.ring, seats, area_size, list_, layout.result_key)
    except LocalProtocolError as error:
        raise RemoteProtocolError("weak_epoch", str(error)) from error
    if view.honest_min < policy.honest_floor:
        raise RemoteProtocolError(
            "below_honest_floor",
            f"a total of {len(ring)} members has {view.honest_min} honest ones at least, our policy asks for"
            f" {policy.honest_floor}; the area is too small, or the share of the corrupt too large",
        )
    return view, position
