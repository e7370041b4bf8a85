"""Messages between gateway and coordinator: a bill from commitments (protocol.dcnet.billing.bill)."""

from __future__ import annotations

from typing import Annotated

from protocol.wire.fields import Digest, Reason, Signature, integer, many, octets
from protocol.wire.ranges import MAX_RANGE_PROOF
from protocol.wire.registry import Message, Sender, message

MAX_TARIFF_SIZE = (
    384 << 10
)  # bytes of a tariff document: prices of a year of quarter hours, and a link's message has room
MAX_PRICES = 35_136  # quarter hours of a leap year
MAX_STAGES = 20
MAX_WAITING = 1 << 20  # intervals of a register that wait for their bill


@message(20, Sender.COORDINATOR)
class BillRequest(Message):
    """
    The EMP asks what a gateway owes for some of a tariff's intervals.

    `tariff` is the published document itself (protocol.dcnet.billing.tariff), `signature` the one of the key that
    `certificate` names, `intervals` a bitmap over the tariff's prices: interval i is bit i%8 of byte i//8.
    """

    tariff: Annotated[bytes, octets(1, MAX_TARIFF_SIZE)]
    signature: Signature
    certificate: Annotated[bytes, octets(1, 4096)]
    intermediates: Annotated[tuple[bytes, ...], many(octets(1, 4096), 4)]
    intervals: Annotated[bytes, octets(1, MAX_PRICES // 8)]


@message(21, Sender.GATEWAY)
class Bill(Message):
    """
    The gateway's answer to the request of this digest (protocol.dcnet.billing.answers).

    `sums` (16 bytes each, signed, little-endian) and `blindings` are those of the stages by rising price.  With a
    `proof` they are those of all intervals, and `quotient` is the rounded amount, over prices that are averaged in
    blocks of `block_length` intervals of the request from each of `block_starts`.
    """

    request: Digest
    sums: Annotated[tuple[bytes, ...], many(octets(16), MAX_STAGES)]
    blindings: Annotated[tuple[bytes, ...], many(octets(32), MAX_STAGES)]
    quotient: Annotated[bytes, octets(16)]
    proof: Annotated[bytes, octets(0, MAX_RANGE_PROOF)]
    block_length: Annotated[int, integer(0, 96)]
    block_starts: Annotated[tuple[int, ...], many(integer(0, MAX_PRICES - 1), 8)]


@message(22, Sender.GATEWAY)
class BillDeclined(Message):
    """
    The gateway does not answer a request: which of its rules stands against it.

    With `intervals_left_out`, `intervals` is a bitmap as in BillRequest: those of the tariff that the gateway can be
    billed for up to the request's end; `earlier_count` is how many more wait that the tariff has no price for.
    """

    request: Digest
    reason: Reason
    intervals: Annotated[bytes, octets(0, MAX_PRICES // 8)] = b""
    earlier_count: Annotated[int, integer(0, MAX_WAITING)] = 0
