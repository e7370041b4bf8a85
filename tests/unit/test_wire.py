"""
Every message there and back, every bound of every field, and any bytes: a message or the peer's fault.

`GOLDEN` holds one message of each kind as bytes: whoever writes another gateway can test against it.  After a change of
the format that is meant, renew it by `python -m pytest tests/unit/test_wire.py --renew-golden`.
"""

import json
import tracemalloc
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import wire
from protocol.errors import InvariantError, RemoteProtocolError
from protocol.link import LinkLimits

GOLDEN = Path(__file__).parents[1] / "golden" / "wire.json"
EVERYTHING = frozenset(wire.TABLE.values())
KEY, OTHER, LONG, N = bytes(range(32)), bytes(range(100, 132)), bytes(64), bytes(range(50, 66))

SIGNED_WITH_SEED = (bytes(8), KEY, OTHER, KEY, LONG, OTHER, bytes(8), KEY, LONG)
_EMPTY = (b"", b"", b"")

EXAMPLES: list[wire.Message] = [
    wire.Hello(1, -1, 6),
    wire.EpochCall(7, 2, "north", 3, 5, ("g3",), b"[]", 96, 1_700_000_000_000, 900_000, 1_700_000_000, 900, 64, 10_000,
                   50_000, 63, (KEY, OTHER)),
    wire.Join(7, 2, OTHER, KEY, OTHER, N, bytes(70)),
    wire.EpochList(7, 2, (("g1", KEY, OTHER), ("g2", OTHER, KEY)), LONG),
    wire.BeaconReveal(7, 2, KEY, OTHER),
    wire.SpotCheck(7, 2, ("g1", "g2")),
    wire.SpotCheckAnswer(7, 2, (("g1", KEY, OTHER, KEY, N, bytes(70), b"certificate"),)),
    wire.EpochLayout(7, 2, (KEY, OTHER), 3, (("g1", KEY, OTHER, KEY, N, bytes(70), b"certificate"),),
                     (b"intermediate",), OTHER),
    wire.Deal(7, (KEY, OTHER), ((1, b"sealed"), (2, b"sealed too")), LONG),
    wire.Deals(7, ((5, (KEY, OTHER), b"sealed"),)),
    wire.Appoint(7, 3, 2),
    wire.HeadAt(7, 3, 2, "tcp://192.0.2.1:5000", bytes(70)),
    wire.HeadSilent(7, 3, 2, 95),
    wire.RingTotal(7, 3, 95, 1, 2, b"\x7f", b"\x3f", bytes(32), KEY + OTHER, KEY, bytes(128)),
    wire.HistoryRequest(7, 3, 95),
    wire.TwoResults(7, 3, 95, (1, b"\x7f", LONG), (2, b"\x00", LONG)),
    wire.RingVoid(7, 3, 95, 2, "too few members", b"\x7f"),
    wire.RoundStatusRequest(7, 3, 95),
    wire.LastContributionRequest(7, 95, 1_700_000_000_000),
    wire.LogRequest(7, 1_000_000, 6, 3),
    wire.LogProof(7, 1_000_001, KEY, 1_699_999_200_000, LONG, (OTHER,), ((5, 1_699_999_100_000, (KEY, OTHER)),),
                  ((6, 1_699_999_100_000, OTHER, (KEY,)),)),
    wire.LastContribution(7, 95, 1, 7, 3, 95, 1_699_999_200, b"\x3f", LONG, LONG),
    wire.Result(7, 3, 95, 1, b"\x3f", LONG),
    wire.Relay(7, 3, 4, bytes(28)),
    wire.Refused(7, "the area is too small"),
    wire.Expelled(7, 3, b"\x24"),
    wire.Ready(7, 3, 2, 95, 1, N, LONG, 95, KEY, 0, 1),
    wire.Open(7, 3, 2, 95, 1, b"\x7f", b"\x05", OTHER, LONG * 2, 95, b"\x03"),
    wire.MaskedInput(7, 3, 95, 1, bytes(32), OTHER, bytes(16), KEY, OTHER, LONG),
    wire.Roster(7, 3, 95, 1, b"\x3f"),
    wire.Confirm(7, 3, 95, 1, bytes(64), bytes(32), KEY, LONG),
    wire.Confirmed(7, 3, 95, 1, b"\x36", bytes(64)),
    wire.Reveal(7, 3, 95, 1, KEY),
    wire.Recover(7, 3, 95, 1, b"\x04"),
    wire.Partial(7, 3, 95, 1, 2, KEY, LONG),
    wire.BadDeal(7, 3, 2),
    wire.LeftOut(7, 3, b"\x24"),
    wire.RangeRequest(7, 3, 95, 4, KEY, 1_700_000_000, 900, 63),
    wire.RangeProof(7, 3, 95, 4, (bytes(2048), bytes(2048))),
    wire.CorruptSum(7, 3, 95, 1, 2, b"\x7f", b"\x3f", 7 * N, OTHER, (SIGNED_WITH_SEED,)),
    wire.Inquiry(7, 3, 95, 1, 2, b"\x7f", b"\x3f", 7 * N, OTHER, LONG),
    wire.MaskWords(7, 3, 95, 1, bytes(48), LONG),
    wire.DisputedPair(7, 3, 95, 1, 4, bytes(48), LONG),
    wire.DisputedDeal(7, 3, 2, (KEY, OTHER), ((1, b"sealed"),), LONG),
    wire.PairOpening(7, 3, 2, bytes(96)),
    wire.WrongCommitment(7, 3, 95, 1, 2, b"\x7f", 7 * N, OTHER, 4, SIGNED_WITH_SEED[:5], ((1, KEY, LONG),)),
    wire.PresenceRequest(7, 3, 95),
    wire.Presence(7, 3, 95),
    wire.BillRequest(b"{}", bytes(70), b"certificate", (b"intermediate",), b"\x7f"),
    wire.Bill(KEY, (bytes(16), bytes(16)), (KEY, OTHER), bytes(16), bytes(2048), 32, (7, 100)),
    wire.BillDeclined(KEY, "intervals_left_out", b"\xff\x01", 3),
]  # fmt: skip


def number(low: int, high: int) -> tuple[list[Any], list[Any]]:
    return [low, high], [low - 1, high + 1, True, None, float(low), "1", b"1"]


def octets(low: int, high: int, step: int = 1) -> tuple[list[Any], list[Any]]:
    bad: list[Any] = [bytes(high + step), "x" * low, None, 0]
    bad += [bytes(low - 1)] if low else []
    bad += [bytes(low + 1)] if step > 1 else []
    return [bytes(low), bytes(high)], bad


def text(high: int) -> tuple[list[Any], list[Any]]:
    return ["x", "ä" * high], ["", "x" * (high + 1), "a\nb", "a\0", b"x", None]


POSITION = number(0, 1023)
END: tuple[list[Any], list[Any]] = (
    [(1, b"x", LONG), (2, bytes(128), LONG)],
    [(0, b"x", LONG), (3, b"x", LONG), (1, b"", LONG), (1, bytes(129), LONG), (1, b"x", KEY), (1, b"x"), None],
)
# What each kind of field may be, at its limits, and what it may not be, just beyond them.
LIMITS: dict[Any, tuple[list[Any], list[Any]]] = {
    wire.Counter: number(0, 2**63 - 1),
    wire.Epoch: number(0, 2**40),
    wire.Ring: number(0, 2**32),
    wire.Round: number(0, 2**20 - 1),
    wire.Attempt: number(0, 2),
    wire.Term: number(0, 2**32),
    wire.Position: POSITION,
    wire.Identity: text(64),
    wire.Key: octets(32, 32),
    wire.Digest: octets(32, 32),
    wire.Signature: octets(8, 160),
    wire.Bitmap: octets(1, 128),
    wire.Vector: octets(0, 8 * 4096, 8),
    wire.Elements: octets(0, 32 * 4096, 32),
    wire.Macs: octets(0, 16 * 1024, 16),
    wire.SeedCommitment: octets(32, 32),
    wire.Salt: octets(16, 16),
    wire.Nonce: octets(16, 16),
    wire.Nonces: octets(0, 16 * 1024, 16),
    wire.MemberSignature: octets(64, 64),
    wire.Attestations: octets(0, 128 * 1024, 128),
    wire.Reason: text(200),
    wire.Try: number(0, 63),
    wire.Fraction: number(0, 1_000_000),
    wire.FuseRating: number(16, 10_000),
    (wire.Hello, "version"): number(0, 255),
    (wire.Hello, "known_epoch"): number(-1, 2**40),
    (wire.Hello, "bound_epoch"): number(-1, 2**40),
    (wire.Ready, "round"): number(0, 2**20),
    (wire.Ready, "is_waiting"): number(0, 1),
    (wire.Ready, "has_served"): number(0, 1),
    (wire.Ready, "settled"): number(0, 2**20),
    (wire.Open, "settled"): number(0, 2**20),
    (wire.LogRequest, "known_size"): number(0, 2**40),
    (wire.LogRequest, "past_epoch"): number(-1, 2**40),
    (wire.LogProof, "history"): (
        [(), ((2**40, 2**63 - 1, KEY, (KEY,) * 64),)],
        [((0, 0, KEY, ()),) * 2, ((0, 0, b"", ()),), ((0, 0, KEY),), None],
    ),
    (wire.LogProof, "size"): number(0, 2**40),
    (wire.LogProof, "signature"): octets(64, 64),
    (wire.LogProof, "consistency"): ([(), (KEY,) * 64], [(KEY,) * 65, (KEY[1:],), KEY, None]),
    (wire.LogProof, "members"): (
        [(), ((0, 0, ()),) * 1024, ((2**40, 2**63 - 1, (KEY,) * 64),)],
        [
            ((0, 0, ()),) * 1025, ((-1, 0, ()),), ((2**40 + 1, 0, ()),), ((0, -1, ()),), ((0, 0, (KEY,) * 65),),
            ((0, 0, (KEY[1:],)),), ((0, 0),), None,
        ],
    ),
    (wire.TwoResults, "first"): END,
    (wire.TwoResults, "second"): END,
    (wire.EpochCall, "schema"): octets(1, 65_536),
    (wire.EpochCall, "rounds"): number(1, 2**20),
    (wire.EpochCall, "period_ms"): number(1, 2**40),
    (wire.EpochCall, "interval_s"): number(1, 2**30),
    (wire.EpochCall, "price_sheets"): ([(), (KEY,) * 64], [(KEY,) * 65, (KEY[1:],), KEY, None]),
    (wire.EpochCall, "ring_size"): number(3, 1024),
    (wire.EpochCall, "split_bits"): number(0, 16),
    (wire.EpochCall, "part"): number(0, 2**16 - 1),
    (wire.EpochCall, "rejected"): ([(), ("g",) * 1024], [("g",) * 1025, ("",), (b"g",), "g", None]),
    (wire.EpochList, "entries"): (
        [(), (("g", KEY, KEY),) * 1024],
        [
            (("g", KEY, KEY),) * 1025, (("g", KEY),), (("g", KEY, KEY, KEY),), (("", KEY, KEY),),
            (("g", KEY[1:], KEY),), (("g", KEY, KEY[1:]),), ("g",), "g", None,
        ],
    ),
    (wire.EpochList, "signature"): octets(64, 64),
    (wire.BeaconReveal, "value"): octets(32, 32),
    (wire.SpotCheck, "members"): ([(), ("g",) * 66], [("g",) * 67, ("",), (b"g",), "g", None]),
    (wire.SpotCheckAnswer, "members"): (
        [(), (("g", KEY, KEY, KEY, N, bytes(8), b"c"),) * 66],
        [(("g", KEY, KEY, KEY, N, bytes(8), b"c"),) * 67, (("g", KEY, KEY, KEY, N, bytes(8)),), ("g",), None],
    ),
    (wire.EpochLayout, "values"): ([(), (KEY,) * 1024], [(KEY,) * 1025, (KEY[1:],), KEY, None]),
    (wire.EpochLayout, "members"): (
        [(), (("g", KEY, KEY, KEY, N, bytes(8), b"c"),) * 1024, (("g", *[KEY] * 3, N, bytes(160), bytes(4096)),)],
        [
            (("g", KEY, KEY, KEY, N, bytes(8), b"c"),) * 1025, (("g", KEY, KEY, KEY, N, bytes(7), b"c"),),
            (("g", KEY, KEY, KEY, N, bytes(8), b""),), (("g", KEY, KEY, KEY, N, bytes(8), bytes(4097)),),
            (("g", KEY, KEY, KEY, N, bytes(8)),), (("g", KEY, KEY, bytes(31), N, bytes(8), b"c"),),
            (("g", KEY, KEY, KEY, KEY, bytes(8), b"c"),),
        ],
    ),
    (wire.EpochLayout, "intermediates"): ([(), (bytes(4096),) * 4], [(b"x",) * 5, (b"",), (bytes(4097),), b"x"]),
    (wire.Deal, "commitments"): ([(), (KEY,) * 1024], [(KEY,) * 1025, (KEY[1:],), KEY]),
    (wire.Deal, "sealed"): (
        [(), ((0, b"x"),) * 1024, ((1023, bytes(128)),)],
        [((0, b"x"),) * 1025, ((1024, b"x"),), ((0, b""),), ((0, bytes(129)),), ((0,),), ((-1, b"x"),)],
    ),
    (wire.Deals, "deals"): (
        [(), ((0, (), b"x"),) * 1024, ((1023, (KEY,) * 1024, bytes(128)),)],
        [((0, (), b"x"),) * 1025, ((0, (KEY,) * 1025, b"x"),), ((0, (), b""),), ((0, ()),)],
    ),
    (wire.Result, "outcome"): number(1, 2),
    (wire.LastContributionRequest, "epoch"): number(-1, 2**40),
    (wire.LastContributionRequest, "round"): number(-1, 2**20 - 1),
    (wire.LastContribution, "asked_epoch"): number(-1, 2**40),
    (wire.LastContribution, "asked_round"): number(-1, 2**20 - 1),
    (wire.LastContribution, "is_known"): number(0, 1),
    (wire.LastContribution, "epoch"): number(-1, 2**40),
    (wire.LastContribution, "round"): number(-1, 2**20 - 1),
    (wire.LastContribution, "roster"): octets(0, 128),
    (wire.LastContribution, "signature"): octets(0, 64, 64),
    (wire.LastContribution, "statement"): octets(64, 64),
    (wire.RingTotal, "blinding"): octets(0, 32 * 4096, 32),
    (wire.MaskedInput, "blinding"): octets(0, 32 * 4096, 32),
    (wire.Confirm, "dropped_blinding"): octets(0, 32 * 4096, 32),
    (wire.CorruptSum, "evidence"): (
        [(), (SIGNED_WITH_SEED,) * 1024, ((*SIGNED_WITH_SEED[:6], *_EMPTY),)],
        [
            (SIGNED_WITH_SEED,) * 1025, (SIGNED_WITH_SEED[:8],), ((*SIGNED_WITH_SEED[:8], bytes(63)),),
            ((bytes(7), *SIGNED_WITH_SEED[1:]),), ((*SIGNED_WITH_SEED[:6], bytes(9), KEY, LONG),), None,
        ],
    ),
    (wire.DisputedDeal, "commitments"): ([(), (KEY,) * 1024], [(KEY,) * 1025, (KEY[1:],), KEY]),
    (wire.DisputedDeal, "sealed"): (
        [(), ((0, b"x"),) * 1024], [((0, b"x"),) * 1025, ((1024, b"x"),), ((0, b""),), ((0, bytes(129)),), ((0,),)],
    ),
    (wire.PairOpening, "opening"): octets(96, 96),
    (wire.WrongCommitment, "evidence"): (
        [SIGNED_WITH_SEED[:5]], [SIGNED_WITH_SEED[:4], SIGNED_WITH_SEED[:6], (bytes(9), *SIGNED_WITH_SEED[1:5]), None],
    ),
    (wire.WrongCommitment, "parts"): (
        [(), ((0, KEY, LONG),) * 1024],
        [((0, KEY, LONG),) * 1025, ((1024, KEY, LONG),), ((0, KEY[1:], LONG),), ((0, KEY, LONG[1:]),), ((0, KEY),)],
    ),
    (wire.HeadAt, "endpoint"): text(200),
    (wire.Result, "signature"): octets(64, 64),
    (wire.Relay, "sealed"): octets(17, 1 << 20),
    (wire.Partial, "proof"): octets(64, 64),
    (wire.RangeRequest, "interval_s"): number(1, 2**30),
    (wire.RangeProof, "proofs"): (
        [(), (bytes(8192),) * 16], [(b"x",) * 17, (b"",), (bytes(8193),), b"x", None],
    ),
    (wire.Ready, "signature"): octets(0, 64, 64),
    (wire.Open, "signatures"): octets(0, 64 * 1024, 64),
    (wire.BillRequest, "tariff"): octets(1, 384 << 10),
    (wire.BillRequest, "certificate"): octets(1, 4096),
    (wire.BillRequest, "intermediates"): ([(), (bytes(4096),) * 4], [(b"x",) * 5, (b"",), (bytes(4097),), b"x"]),
    (wire.BillRequest, "intervals"): octets(1, 35_136 // 8),
    (wire.BillDeclined, "intervals"): octets(0, 35_136 // 8),
    (wire.BillDeclined, "earlier_count"): number(0, 1 << 20),
    (wire.Bill, "sums"): ([(), (bytes(16),) * 20], [(bytes(16),) * 21, (bytes(15),), (bytes(17),), bytes(16), None]),
    (wire.Bill, "blindings"): ([(), (KEY,) * 20], [(KEY,) * 21, (KEY[1:],), KEY, None]),
    (wire.Bill, "quotient"): octets(16, 16),
    (wire.Bill, "proof"): octets(0, 8192),
    (wire.Bill, "block_length"): number(0, 96),
    (wire.Bill, "block_starts"): ([(), (35_135,) * 8], [(0,) * 9, (-1,), (35_136,), (True,), 0, None]),
}  # fmt: skip


def limits_of(kind: type[wire.Message], name: str) -> tuple[list[Any], list[Any]]:
    hint = get_type_hints(kind, include_extras=True)[name]
    found = LIMITS.get((kind, name))
    return LIMITS[hint] if found is None else found


FIELDS = [(message, field.name) for message in EXAMPLES for field in fields(message)]


def label(value: object) -> str:
    return value if isinstance(value, str) else type(value).__name__


def refuses(data: bytes, reason: str, allowed: frozenset[type[wire.Message]] = EVERYTHING) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        wire.decode(data, allowed)
    assert caught.value.reason == reason


def test_there_is_an_example_of_every_message() -> None:
    assert {type(message) for message in EXAMPLES} == EVERYTHING
    assert len(EXAMPLES) == len(wire.TABLE)


@pytest.mark.parametrize("message", EXAMPLES, ids=label)
def test_every_message_there_and_back(message: wire.Message) -> None:
    assert wire.decode(wire.encode(message), frozenset({type(message)})) == message


@pytest.mark.parametrize(("message", "name"), FIELDS, ids=label)
def test_every_field_at_its_limits(message: wire.Message, name: str) -> None:
    for value in limits_of(type(message), name)[0]:
        changed = replace(message, **{name: value})
        assert wire.decode(wire.encode(changed), EVERYTHING) == changed


@pytest.mark.parametrize(("message", "name"), FIELDS, ids=label)
def test_every_field_beyond_its_limits(message: wire.Message, name: str) -> None:
    for value in limits_of(type(message), name)[1]:
        changed = replace(message, **{name: value})
        refuses(wire.encode(changed), "malformed_message")


@pytest.mark.parametrize("message", EXAMPLES, ids=label)
def test_no_field_more_and_none_less(message: wire.Message) -> None:
    parts = msgpack.unpackb(wire.encode(message), use_list=False)
    refuses(msgpack.packb(parts[:-1]), "malformed_message")
    refuses(msgpack.packb((*parts, 0)), "malformed_message")
    refuses(wire.encode(message)[:-1], "malformed_message")
    refuses(wire.encode(message) + b"\0", "malformed_message")


# Who may say what; HEAD_AT and RELAY go both ways, BAD_DEAL to head and coordinator alike.
DIRECTIONS = {
    "gateway": (wire.FROM_GATEWAY, "Hello Join BeaconReveal SpotCheck Deal HeadAt HeadSilent RingTotal RingVoid"
                                   " CorruptSum MaskWords PairOpening WrongCommitment Presence RoundStatusRequest"
                                   " HistoryRequest TwoResults LogRequest"
                                   " LastContributionRequest Relay BadDeal Bill BillDeclined RangeProof"),
    "coordinator": (wire.FROM_COORDINATOR, "EpochCall EpochList EpochLayout SpotCheckAnswer Deals Appoint HeadAt"
                                           " LastContribution Result Relay Refused Expelled BillRequest LeftOut"
                                           " RangeRequest Inquiry"
                                           " DisputedPair DisputedDeal PresenceRequest LogProof"),
    "member": (wire.FROM_MEMBER, "Ready MaskedInput Confirm Reveal Partial"),
    "head": (wire.FROM_HEAD, "Open Roster Confirmed Recover Result"),
}  # fmt: skip


@pytest.mark.parametrize("side", DIRECTIONS)
def test_each_side_may_say_its_own(side: str) -> None:
    allowed, names = DIRECTIONS[side]
    for message in EXAMPLES:
        if type(message).__name__ in names.split():
            assert wire.decode(wire.encode(message), allowed) == message
        else:
            refuses(wire.encode(message), "message_not_allowed", allowed)


def test_everything_is_said_by_somebody() -> None:
    assert frozenset.union(*(allowed for allowed, _ in DIRECTIONS.values())) == EVERYTHING


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed_message"),
        (b"\xc0", "malformed_message"),
        (b"\x90", "malformed_message"),
        (msgpack.packb([None]), "malformed_message"),
        (msgpack.packb([True, 7]), "malformed_message"),
        (msgpack.packb(["Ask", 7]), "malformed_message"),
        (msgpack.packb([0]), "unknown_message"),
        (msgpack.packb([-1]), "unknown_message"),
        (msgpack.packb([2**64 - 1]), "unknown_message"),
        (msgpack.packb({0: 1}), "malformed_message"),
        (msgpack.packb([13, {}, 3, 95]), "malformed_message"),
        (b"\x94\x0d\xc1\x03\x5f", "malformed_message"),
        (b"\x94\x0d\xc7\x00\x05\x03\x5f", "malformed_message"),
        (b"\x91" * 5000, "malformed_message"),
        (b"\x94\x0d\xa1\xff\x03\x5f", "malformed_message"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else value,
)
def test_what_is_no_message(data: bytes, reason: str) -> None:
    refuses(data, reason)


def test_a_frame_has_a_greatest_size() -> None:
    refuses(bytes(wire.MAX_FRAME_SIZE + 1), "oversized_message")
    refuses(bytes(wire.MAX_FRAME_SIZE), "malformed_message")


def test_the_largest_area_fits() -> None:
    """Ids of DIN 43863-5, signatures and certificates as they are; and the link carries what the table allows."""
    member = ("ESTK0000000000", KEY, KEY, KEY, N, bytes(72), bytes(800))
    layout = wire.EpochLayout(7, 0, (KEY,) * wire.MAX_LIST, 0, (member,) * 200, (bytes(800),), KEY)
    assert len(wire.encode(layout)) < LinkLimits().message_bytes_max < wire.MAX_FRAME_SIZE
    assert wire.decode(wire.encode(layout), wire.FROM_COORDINATOR) == layout


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\x00\x7f\xff\xff\x0d" + bytes(wire.MAX_FRAME_SIZE - 6),
        b"\xdd\x00\x00\xff\xff" * 1000 + bytes(70_000),
        b"\xdd\xff\xff\xff\xff" * 1000,
        b"\x93\x0d\xdf\xff\xff\xff\xff" + bytes(100_000),
        b"\x94\x0d\xc6\xff\xff\xff\xff",
    ],
    ids=["long array", "nested arrays", "promised arrays", "promised map", "promised octets"],
)
def test_no_message_takes_much_more_memory_than_its_bytes(data: bytes) -> None:
    tracemalloc.start()
    try:
        refuses(data, "malformed_message")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(data) + 1_000_000


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_message_or_the_peers_fault(data: bytes) -> None:
    try:
        message = wire.decode(data, EVERYTHING)
    except RemoteProtocolError as error:
        assert error.reason in {"malformed_message", "unknown_message"}  # noqa: PT017 - nothing else may come
    else:
        assert wire.decode(wire.encode(message), EVERYTHING) == message


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)  # fmt: skip


@given(code=st.sampled_from(sorted(wire.TABLE)), parts=st.lists(values, max_size=13))
@settings(max_examples=200, deadline=None)
def test_any_values_are_a_message_or_the_peers_fault(code: int, parts: list[Any]) -> None:
    try:
        message = wire.decode(msgpack.packb([code, *parts]), EVERYTHING)
    except RemoteProtocolError as error:
        assert error.reason == "malformed_message"  # noqa: PT017 - nothing else may come
    else:
        assert type(message) is wire.TABLE[code]


@given(message=st.sampled_from(EXAMPLES), data=st.data())
@settings(max_examples=200, deadline=None)
def test_one_octet_changed_is_a_message_or_the_peers_fault(message: wire.Message, data: st.DataObject) -> None:
    octets_ = bytearray(wire.encode(message))
    index = data.draw(st.integers(0, len(octets_) - 1))
    octets_[index] = data.draw(st.integers(0, 255))
    try:
        wire.decode(bytes(octets_), EVERYTHING)
    except RemoteProtocolError as error:
        assert "\\x" not in str(error)  # noqa: PT017 - a peer's octets are in no log


def test_the_bytes_are_those_of_the_golden_file(request: pytest.FixtureRequest) -> None:
    now = {type(message).__name__: wire.encode(message).hex() for message in EXAMPLES}
    if request.config.getoption("--renew-golden"):
        GOLDEN.write_text(json.dumps(now, indent=1) + "\n")
    assert json.loads(GOLDEN.read_text()) == now


def test_a_message_code_that_is_taken_is_refused() -> None:
    with pytest.raises(InvariantError, match="message code 33 is that of Open"):

        @wire.message(33, wire.Sender.HEAD)
        class Other(wire.RingMessage):
            epoch: wire.Epoch
            ring: wire.Ring


def test_each_side_may_send_what_names_it_as_a_sender() -> None:
    assert wire.Result in wire.FROM_COORDINATOR & wire.FROM_HEAD
    assert wire.Result not in wire.FROM_GATEWAY | wire.FROM_MEMBER
    assert wire.FROM_GATEWAY | wire.FROM_COORDINATOR | wire.FROM_MEMBER | wire.FROM_HEAD == EVERYTHING
