"""
What one household can add to a slot: the range [0, 2^k) of a committed value, from the fuse at its connection.

A commitment binds a member to a number and does not bound it.  What bounds it is physics: no household draws or feeds
in more than its connection carries.  So each committed slot has a k, the bits of `RELEASE_FACTOR` times what the fuse
lets through in an interval: once for the interval itself, twice for energy that was carried and is released slowly.
The call names the fuse, k follows, and both are in the epoch digest; a proof of the range (crypto.range_proof) is then
about the same k for everybody.  All is integer arithmetic, rounded up.

Sources: EN 50160, clause 4.2.2 (230 V, up to 10 % more); IEC 60364-4-43, clause 433.1 (a protective device acts within
its conventional time at 1.45 times the current that the line is made for; a quarter hour is shorter).
"""

from __future__ import annotations

from protocol.dcnet.setup.schema import Kind, Schema, Slot
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis

FUSE_A = 63
"""A usual main fuse of a house."""

FUSE_A_MIN, FUSE_A_MAX = 16, 10_000
COMMITTED_MAX = 16
BITS_MAX = 52
"""2^52 a member, 1024 members: a total is far from the end of a signed word."""

RELEASE_FACTOR = 3
_PHASES, _VOLT = 3, 253
_OVERLOAD_PERCENT = 145
_ELECTRICITY = 1
_ENERGY_UNITS = frozenset({"Wh", "varh", "VAh"})
_POWER_UNITS = frozenset({"W", "var", "VA"})


def connection_w(fuse_a: int) -> int:
    """The power in W (or VA, var) that a three-phase connection behind fuses of `fuse_a` A carries at most."""
    return -(-_PHASES * _VOLT * _OVERLOAD_PERCENT * fuse_a // 100)


def slot_limit(slot: Slot, fuse_a: int, duration_s: int) -> int | None:
    """
    The most that a slot's register moves by in `duration_s` seconds, or that a power reaches; at the slot's scaler.

    None where the fuse says nothing of it: gas, water, heat, voltages, the count.
    """
    if slot.obis is None or Obis.parse(slot.obis).a != _ELECTRICITY:
        return None
    if slot.kind is Kind.ENERGY and slot.unit in _ENERGY_UNITS:
        return _at_scaler(connection_w(fuse_a) * duration_s, 3600, slot.scaler)
    if slot.kind is Kind.POWER and slot.unit in _POWER_UNITS:
        return _at_scaler(connection_w(fuse_a), 1, slot.scaler)
    return None


def value_bits(slot: Slot, fuse_a: int, interval_s: int) -> int:
    """
    Give k of a committed slot: a member puts a value of [0, 2^k) into it.

    Raises LocalProtocolError for a slot that the fuse does not bound, or where k would be over `BITS_MAX`.
    """
    limit = slot_limit(slot, fuse_a, interval_s) if slot.kind is Kind.ENERGY else None
    if limit is None:
        raise LocalProtocolError(f"slot {slot.name}: only energy of electricity can be committed to")
    bits = (RELEASE_FACTOR * limit).bit_length()
    if bits > BITS_MAX:
        raise LocalProtocolError(f"slot {slot.name}: a range of {bits} bits, expected at most {BITS_MAX}")
    return bits


def committed_bits(schema: Schema, fuse_a: int, interval_s: int) -> tuple[int, ...]:
    """Give k of each committed slot, in their order.  Raises LocalProtocolError as `value_bits`."""
    return tuple(value_bits(schema.slots[index], fuse_a, interval_s) for index in schema.committed)


def contribution_limit(bits: int) -> int:
    """The greatest value that a member puts into a committed slot of k = `bits`."""
    return (1 << bits) - 1


def check_ranges(schema: Schema, call_fuse_a: int, interval_s: int, own_fuse_a: int) -> None:
    """
    Raise RemoteProtocolError unless the ranges of a call suit a gateway behind fuses of `own_fuse_a` A.

    A fuse smaller than our own would leave energy behind, and a proof for a small k would tell what we used.
    Reasons: `narrow_range`, `register_not_committed`, `too_many_committed`.
    """
    if not schema.committed:
        return
    if call_fuse_a < own_fuse_a:
        raise RemoteProtocolError("narrow_range", f"ranges for {call_fuse_a} A, our connection has {own_fuse_a} A")
    if len(schema.committed) > COMMITTED_MAX:
        raise RemoteProtocolError(
            "too_many_committed", f"{len(schema.committed)} committed slots, of at most {COMMITTED_MAX}"
        )
    try:
        committed_bits(schema, call_fuse_a, interval_s)
    except LocalProtocolError as error:
        raise RemoteProtocolError("register_not_committed", str(error)) from error


def _at_scaler(numerator: int, denominator: int, scaler: int) -> int:
    if scaler < 0:
        numerator *= 10**-scaler
    else:
        denominator *= 10**scaler
    return -(-numerator // denominator)
