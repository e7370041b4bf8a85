"""How a gateway sees through a coordinator that calls, cuts or shows a ring otherwise than it may."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import nacl.bindings
import pytest

from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.setup.beacon import ListEntry, beacon, commit, list_digest
from protocol.dcnet.setup.crowd import part_of
from protocol.dcnet.setup.epoch import (
    READING_SHARE,
    Policy,
    call_digest,
    check_call,
    check_epoch_list,
    check_spot_checks,
    entries_of,
    head_text,
    join_text,
    list_text,
    make_view,
    ring_parameters,
    verify_layout,
)
from protocol.dcnet.setup.rings import cut_rings, ring_number
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, OWN_REGISTERS, VERIFIED_SCHEMA, Noise, Schema
from protocol.errors import RemoteProtocolError

AREA = [f"gateway-{i:02}" for i in range(20)]
POLICY = Policy()
SMALL = Policy(honest_floor=2)  # the rings of these tests
SUITE = StandardSuite()
CALL = wire.EpochCall(
    epoch=4, try_=0, area="north", split_bits=0, part=0, rejected=(), schema=DEFAULT_SCHEMA.to_bytes(), rounds=96,
    start_ms=1_000_000, period_ms=10_000, interval_start_s=900, interval_s=900, ring_size=10, corrupt_ppm=10_000,
    dropout_ppm=50_000, fuse_a=63, price_sheets=(),
)  # fmt: skip


def key(identity: str, purpose: str = "epoch") -> bytes:
    seed = hashlib.sha256(f"{purpose} {identity}".encode()).digest()
    if (identity, purpose) in OWN_KEYS:
        return OWN_KEYS[identity, purpose]
    return SUITE.public_key(seed) if purpose == "epoch" else SUITE.verify_key(seed)


def signature(identity: str, text: bytes) -> bytes:
    """Stands for a signature by the certified key: only `verify_member` below accepts it, only for that gateway."""
    return hashlib.sha256(b"signed by " + identity.encode() + text).digest()


def verify_member(
    identity: str, text: bytes, signed: bytes, certificate: bytes, intermediates: Sequence[bytes]
) -> None:
    if (signed, certificate, list(intermediates)) != (signature(identity, text), identity.encode(), [b"sub-ca"]):
        raise RemoteProtocolError("bad_signature", "not signed by that gateway")


OWN_KEYS: dict[tuple[str, str], bytes] = {}  # keys that a gateway chose otherwise than honest ones do


def nonce_of(identity: str) -> bytes:
    return hashlib.sha256(identity.encode()).digest()[:16]


def commitment_of(identity: str, call: wire.EpochCall = CALL) -> bytes:
    return commit(identity, call.epoch, call.try_, key(identity, "value"))


def text_of(identity: str, call: wire.EpochCall = CALL) -> bytes:
    keys = key(identity), key(identity, "curve"), key(identity, "signing")
    return join_text(call_digest(call), identity, *keys, nonce_of(identity), commitment_of(identity, call))


def listed(area: Sequence[str], call: wire.EpochCall = CALL) -> list[ListEntry]:
    return [ListEntry(each, commitment_of(each, call), text_of(each, call)) for each in area]


def member(identity: str, call: wire.EpochCall = CALL) -> tuple[str, bytes, bytes, bytes, bytes, bytes, bytes]:
    public, curve, verify = key(identity), key(identity, "curve"), key(identity, "signing")
    signed = signature(identity, text_of(identity, call))
    return identity, public, curve, verify, nonce_of(identity), signed, identity.encode()


def laid_out(
    area: Sequence[str] = AREA, index: int = 0, call: wire.EpochCall = CALL
) -> tuple[wire.EpochLayout, list[str]]:
    """What an honest coordinator shows the members of a ring, and who they are."""
    values = tuple(key(identity, "value") for identity in area)
    drawn = beacon(list_digest(call_digest(call), listed(area, call)), values)
    ring = cut_rings(drawn, list(area), call.ring_size)[index]
    members = tuple(member(identity, call) for identity in ring)
    number = ring_number(index, call.split_bits, call.part)
    return wire.EpochLayout(call.epoch, call.try_, values, number, members, (b"sub-ca",), bytes(32)), ring


LAYOUT, RING = laid_out()


def refuses(layout: wire.EpochLayout, reason: str, *, us: str = RING[0], policy: Policy = POLICY,
            call: wire.EpochCall = CALL, entries: Sequence[ListEntry] | None = None) -> None:  # fmt: skip
    with pytest.raises(RemoteProtocolError) as caught:
        verify_layout(call, entries or listed(AREA, call), layout, us, key(us), policy, verify_member)
    assert caught.value.reason == reason


# --- what holds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ring", [0, 1])
def test_every_member_of_a_ring_sees_the_same_ring_and_its_own_place(ring: int) -> None:
    layout, identities = laid_out(index=ring)
    views = set()
    for position, identity in enumerate(identities):
        view, own = verify_layout(CALL, listed(AREA), layout, identity, key(identity), SMALL, verify_member)
        assert own == position
        assert [each.identity for each in view.members] == identities
        views.add(view.digest)
    assert len(views) == 1


def test_who_is_shown_another_key_of_the_coordinator_has_another_digest() -> None:
    shown = [LAYOUT, replace(LAYOUT, result_key=b"\1" * 32)]
    views = [verify_layout(CALL, listed(AREA), each, RING[0], key(RING[0]), SMALL, verify_member)[0] for each in shown]
    assert len({view.digest for view in views}) == 2
    assert [view.result_key for view in views] == [each.result_key for each in shown]


def test_the_numbers_are_the_gateways_own_choice() -> None:
    view, _ = verify_layout(CALL, listed(AREA), LAYOUT, RING[0], key(RING[0]), SMALL, verify_member)
    numbers = ring_parameters(10, 20, 10_000, 50_000)
    assert (view.k, view.t, view.t_c, view.k_min, view.n_min) == (
        numbers.k, numbers.t, numbers.t_c, numbers.k_min, numbers.n_min
    )  # fmt: skip
    assert (view.rounds, view.word_count, view.committed) == (96, 4, ())
    assert (view.timing.first_open_s, view.timing.period_s) == (1000.0 + READING_SHARE * 10.0, 10.0)


def test_whatever_the_call_says_is_in_the_digest() -> None:
    """Except for what only the driver needs, two calls that differ give rings that share no key."""
    seats = [each[:5] for each in LAYOUT.members]
    digests = {make_view(CALL, 0, seats, 20, bytes(32), bytes(32)).digest}
    changes = [
        {"epoch": 5}, {"area": "south"}, {"try_": 1}, {"split_bits": 1}, {"part": 1}, {"rejected": ("a",)},
        {"rounds": 95}, {"start_ms": 2_000_000},
        {"period_ms": 20_000}, {"interval_start_s": 1800}, {"interval_s": 60}, {"ring_size": 12},
        {"corrupt_ppm": 20_000}, {"dropout_ppm": 60_000}, {"fuse_a": 80}, {"price_sheets": (bytes(32),)},
        {"schema": Schema(DEFAULT_SCHEMA.slots[:2]).to_bytes()},
    ]  # fmt: skip
    for change in changes:
        digests.add(make_view(replace(CALL, **change), 0, seats, 20, bytes(32), bytes(32)).digest)  # type: ignore[arg-type]
    digests.add(make_view(CALL, 0, seats, 20, b"l" * 32, bytes(32)).digest)
    assert len(digests) == 2 + len(changes), "another list is another ring, too"


def test_what_is_signed_says_everything() -> None:
    digest, keys = call_digest(CALL), (b"1" * 32, b"2" * 32, b"3" * 32)
    texts = {
        join_text(digest, "a", *keys, b"n" * 16, b"4" * 32),
        join_text(call_digest(replace(CALL, rounds=1)), "a", *keys, b"n" * 16, b"4" * 32),
        join_text(digest, "b", *keys, b"n" * 16, b"4" * 32),
        join_text(digest, "a", b"2" * 32, b"1" * 32, b"3" * 32, b"n" * 16, b"4" * 32),
        join_text(digest, "a", b"1" * 32, b"3" * 32, b"2" * 32, b"n" * 16, b"4" * 32),
        join_text(digest, "a", *keys, b"m" * 16, b"4" * 32),
        join_text(digest, "a", *keys, b"n" * 16, b"5" * 32),
    }
    assert len(texts) == 7
    view = make_view(CALL, 0, [each[:5] for each in LAYOUT.members], 20, bytes(32), bytes(32))
    other = replace(view, ring=1)
    heads = {head_text(view, 0, "tcp://a:1"), head_text(view, 1, "tcp://a:1"), head_text(view, 0, "tcp://b:1"),
             head_text(other, 0, "tcp://a:1")}  # fmt: skip
    assert len(heads) == 4


# --- what does not --------------------------------------------------------------------------------------------------


def test_values_that_were_not_committed_to() -> None:
    """The coordinator saw the keys and then looks for values that put us among its friends."""
    refuses(replace(LAYOUT, values=(bytes(32), *LAYOUT.values[1:])), "wrong_values")
    refuses(replace(LAYOUT, values=LAYOUT.values[:-1]), "wrong_values")
    refuses(replace(LAYOUT, values=LAYOUT.values[::-1]), "wrong_values")


def test_a_layout_of_another_try_or_another_list() -> None:
    refuses(replace(LAYOUT, try_=1), "bad_layout")
    other = [*listed(AREA)[:-1], replace(listed(AREA)[-1], join_digest=bytes(32))]
    with pytest.raises(RemoteProtocolError, match=r"wrong_placement|bad_layout"):
        verify_layout(CALL, other, LAYOUT, RING[0], key(RING[0]), SMALL, verify_member)


def test_our_own_key_swapped() -> None:
    identity, _, curve, verify, nonce, signed, certificate = LAYOUT.members[0]
    bad = identity, bytes(32), curve, verify, nonce, signed, certificate
    refuses(replace(LAYOUT, members=(bad, *LAYOUT.members[1:])), "bad_layout")


def test_a_member_with_another_key_than_it_joined_with() -> None:
    identity, _, curve, verify, nonce, signed, certificate = LAYOUT.members[3]
    bad = (identity, bytes(32), curve, verify, nonce, signed, certificate)
    refuses(replace(LAYOUT, members=(*LAYOUT.members[:3], bad, *LAYOUT.members[4:])), "bad_layout")


@pytest.mark.parametrize(
    "bend",
    [
        lambda m: m[::-1],
        lambda m: m[:-1],
        lambda m: (*m, member("gateway-99")),
        lambda m: (*m[:-1], member("gateway-99")),
        lambda m: (*m, m[0]),
        lambda _: (),
    ],
    ids=["order", "one less", "one more", "a stranger", "one twice", "nobody"],
)
def test_a_ring_that_does_not_follow_from_the_beacon(bend: object) -> None:
    refuses(replace(LAYOUT, members=bend(LAYOUT.members)), "wrong_placement")  # type: ignore[operator]


@pytest.mark.parametrize("ring", [1, 2, 2**32])
def test_another_ring_than_ours(ring: int) -> None:
    refuses(replace(LAYOUT, ring=ring), "wrong_placement")
    other, _ = laid_out(index=1)
    refuses(other, "wrong_placement")


@pytest.mark.parametrize("part", ["signature", "certificate", "curve", "verify", "nonce"])
@pytest.mark.parametrize("index", [0, 4, 9])
def test_a_member_that_does_not_verify(part: str, index: int) -> None:
    identity, public, curve, verify, nonce, signed, certificate = LAYOUT.members[index]
    bad = {
        "signature": (identity, public, curve, verify, nonce, bytes(32), certificate),
        "certificate": (identity, public, curve, verify, nonce, signed, b"somebody else"),
        "curve": (identity, public, bytes(32), verify, nonce, signed, certificate),
        "verify": (identity, public, curve, key("another", "signing"), nonce, signed, certificate),
        "nonce": (identity, public, curve, verify, bytes(16), signed, certificate),
    }[part]
    members = (*LAYOUT.members[:index], bad, *LAYOUT.members[index + 1 :])
    refuses(replace(LAYOUT, members=members), "bad_layout" if part in {"curve", "verify", "nonce"} else "bad_signature")


TWIST = (2).to_bytes(32, "little")


def mixed_order(public: bytes) -> bytes:
    """The Ed25519 key plus the point of order 2."""
    return bytes(nacl.bindings.crypto_core_ed25519_add(public, ((1 << 255) - 20).to_bytes(32, "little")))


@pytest.mark.parametrize(
    ("purpose", "bad", "reason"),
    [
        ("epoch", TWIST, "key_not_liftable"),
        ("epoch", ((1 << 255) - 20).to_bytes(32, "little"), "key_not_liftable"),  # u = -1
        ("epoch", ((1 << 255) + 9).to_bytes(32, "little"), "key_not_liftable"),  # 9 with the top bit set
        ("signing", bytes(32), "bad_verify_key"),
        ("signing", mixed_order(SUITE.verify_key(bytes(32))), "bad_verify_key"),
    ],
    ids=["twist", "u=-1", "top bit", "no point", "mixed order"],
)
def test_a_ring_with_a_key_that_proves_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, purpose: str, bad: bytes, reason: str
) -> None:
    """D9: its owner signed it, X25519 agrees on a secret with it, and no opening of its pairs could be proved."""
    liar = next(each for each in AREA if each != AREA[0])
    monkeypatch.setitem(OWN_KEYS, (liar, purpose), bad)
    index = next(index for index in range(2) if liar in laid_out(index=index)[1])
    layout, ring = laid_out(index=index)
    us = next(each for each in ring if each != liar)
    refuses(layout, reason, us=us)


def test_another_intermediate() -> None:
    refuses(replace(LAYOUT, intermediates=()), "bad_signature")


def test_a_signature_for_another_call() -> None:
    layout, ring = laid_out(call=replace(CALL, corrupt_ppm=20_000))
    refuses(layout, "wrong_placement")
    foreign = replace(LAYOUT, members=tuple(member(each, replace(CALL, rounds=95)) for each in RING))
    refuses(foreign, "bad_signature")
    assert set(ring) != set(RING)


def test_a_ring_that_is_too_small() -> None:
    call = replace(CALL, ring_size=4)
    layout, ring = laid_out(call=call)
    assert len(ring) == 4
    refuses(layout, "ring_too_small", us=ring[0], call=call)
    refuses(LAYOUT, "ring_too_small", policy=replace(SMALL, ring_size_min=11))
    assert verify_layout(
        CALL, listed(AREA), LAYOUT, RING[0], key(RING[0]), replace(SMALL, ring_size_min=10), verify_member
    )


def test_a_ring_with_too_few_honest_members_in_its_totals() -> None:
    """D1: 10 members, where the default policy asks for 30 honest ones."""
    refuses(LAYOUT, "below_honest_floor", policy=POLICY)


def test_rates_that_no_parameters_reach() -> None:
    call = replace(CALL, corrupt_ppm=450_000, dropout_ppm=300_000)
    layout, ring = laid_out(call=call)
    refuses(layout, "weak_epoch", us=ring[0], call=call)


# --- the call -------------------------------------------------------------------------------------------------------


def test_a_call_that_is_weaker_than_our_policy() -> None:
    assert check_call(CALL, POLICY) == DEFAULT_SCHEMA
    assert check_call(CALL, Policy(corrupt_ppm=10_000)) == DEFAULT_SCHEMA
    for policy, reason in [
        (Policy(corrupt_ppm=10_001), "weak_epoch"),
        (Policy(registers=OWN_REGISTERS - {"1-0:2.8.0*255"}), "register_not_allowed"),
    ]:
        with pytest.raises(RemoteProtocolError) as caught:
            check_call(CALL, policy)
        assert caught.value.reason == reason


@pytest.mark.parametrize("register", ["1-0:3.8.0*255", "1-0:5.8.0*255", "1-0:9.8.0*255"])
def test_a_register_that_hardly_any_meter_has_is_not_summed(register: str) -> None:
    """Who signs the profiles, too, could name it for everybody: its total would be the one household's that has it."""
    slot = replace(DEFAULT_SCHEMA.slots[1], name="rare", obis=register)
    call = replace(CALL, schema=Schema((*DEFAULT_SCHEMA.slots, slot)).to_bytes())
    with pytest.raises(RemoteProtocolError) as caught:
        check_call(call, Policy())
    assert caught.value.reason == "register_not_allowed"
    check_call(call, Policy(registers=OWN_REGISTERS | {register}))


def noisy(**changes: Noise | None) -> wire.EpochCall:
    """A call whose slots have noise: ε = 1 for 24 kW and 6 kWh, unless said otherwise by the slot's name."""
    noise = {
        "energy_import": Noise(1_000_000, 60_000), "energy_export": Noise(1_000_000, 60_000),
        "active_power": Noise(1_000_000, 24_000),
    } | changes  # fmt: skip
    slots = tuple(replace(slot, noise=noise.get(slot.name)) for slot in DEFAULT_SCHEMA.slots)
    return replace(CALL, schema=Schema(slots).to_bytes())


def test_a_call_that_is_less_noisy_than_our_policy() -> None:
    policy = Policy(epsilon_ppm_max=1_000_000)
    assert check_call(noisy(), policy).noise[2] == (3, Noise(1_000_000, 24_000))
    assert check_call(noisy(active_power=Noise(1, 10**6)), policy)
    assert check_call(noisy(), POLICY).noise  # who asks for nothing takes noise too
    verified = Schema(tuple(
        replace(slot, noise=Noise(1, 10**6)) if slot.name == "active_power" else slot for slot in VERIFIED_SCHEMA.slots
    ))  # fmt: skip
    for call in [
        CALL,
        noisy(active_power=None),
        noisy(energy_export=None),
        noisy(active_power=Noise(1_000_001, 24_000)),
        noisy(active_power=Noise(1_000_000, 23_999)),
        noisy(energy_import=Noise(1_000_000, 59_999)),
        replace(CALL, schema=verified.to_bytes()),  # a committed total is a bare one
    ]:
        with pytest.raises(RemoteProtocolError) as caught:
            check_call(call, policy)
        assert caught.value.reason == "weak_noise"
    assert check_call(noisy(energy_import=Noise(1_000_000, 59_999)), replace(policy, energy_wh=5_999))


def test_noise_and_the_corrupt_are_in_the_ring_that_follows_from_the_call() -> None:
    seats = [(identity, bytes([n]) * 32, bytes(32), bytes(32), bytes(16)) for n, identity in enumerate(AREA)]
    bare, view = (make_view(call, 0, seats, len(seats), bytes(32), bytes(32)) for call in (CALL, noisy()))
    numbers = ring_parameters(len(seats), len(seats), CALL.corrupt_ppm, CALL.dropout_ppm)
    assert view.noise == check_call(noisy(), POLICY).noise
    assert view.honest_min == numbers.n_min - numbers.corrupt >= 3
    assert bare.noise == ()
    assert bare.digest != view.digest


def test_a_call_with_a_schema_that_is_none() -> None:
    with pytest.raises(RemoteProtocolError, match="bad_schema"):
        check_call(replace(CALL, schema=b"[]"), POLICY)


# --- parts of an area ----------------------------------------------------------------------------------------------


def test_a_ring_of_a_part_has_a_number_of_its_own() -> None:
    mine = [each for each in AREA if part_of("north", each, 1) == 1]
    call = replace(CALL, split_bits=1, part=1, ring_size=6)
    layout, ring = laid_out(mine, call=call)
    view, _ = verify_layout(call, listed(mine, call), layout, ring[0], key(ring[0]), SMALL, verify_member)
    assert (view.ring, layout.ring) == (1, 1)
    assert view.n_min == ring_parameters(len(ring), 2 * len(mine), 10_000, 50_000).n_min, "the area is twice the part"
    for number in (0, 2, 99):
        refuses(replace(layout, ring=number), "wrong_placement", us=ring[0], call=call, entries=listed(mine, call))


def shown(area: Sequence[str], call: wire.EpochCall, signed_for: wire.EpochCall | None = None) -> wire.EpochList:
    entries = listed(area, call)
    text = list_text(list_digest(call_digest(signed_for or call), entries))
    rows = tuple((each.identity, each.commitment, each.join_digest) for each in entries)
    return wire.EpochList(call.epoch, call.try_, rows, signature("list", text) * 2)


def verify_list(text: bytes, signed: bytes) -> bool:
    return signed == signature("list", text) * 2


def test_a_list_holds_by_the_pinned_key_for_its_call_alone() -> None:
    message = shown(AREA, CALL)
    assert check_epoch_list(CALL, message, verify_list) == list_digest(call_digest(CALL), listed(AREA))
    assert list(entries_of(message)) == listed(AREA)
    for bad, call, reason in [
        (replace(message, signature=bytes(64)), CALL, "bad_signature"),
        (message, replace(CALL, rounds=95), "bad_signature"),
        (replace(message, try_=1), CALL, "bad_signature"),
        (replace(message, entries=message.entries[1:]), CALL, "bad_signature"),
        (shown(AREA[::-1], CALL), CALL, "bad_list"),
        (shown(AREA, replace(CALL, rejected=(AREA[3],))), replace(CALL, rejected=(AREA[3],)), "rejected_member"),
        (shown(AREA, replace(CALL, split_bits=1)), replace(CALL, split_bits=1), "foreign_part"),
    ]:
        with pytest.raises(RemoteProtocolError) as caught:
            check_epoch_list(call, bad, verify_list)
        assert caught.value.reason == reason


# --- spot checks ----------------------------------------------------------------------------------------------------


def spot_checked(members: Sequence[wire.MemberRow], chosen: Sequence[ListEntry] | None = None) -> str | None:
    others = [each for each in listed(AREA) if each.identity not in RING]
    try:
        check_spot_checks(CALL, others if chosen is None else chosen, members, (b"sub-ca",), verify_member)
    except RemoteProtocolError as error:
        return error.reason
    return None


def test_an_invented_member_of_another_ring_does_not_pass() -> None:
    """D8 (b): 15 ids that nobody certified, in rings whose members were the only ones to check them."""
    good = [member(each) for each in AREA if each not in RING]
    assert spot_checked(good) is None
    assert spot_checked((), ()) is None
    identity, public, curve, verify, nonce, signed, certificate = good[3]
    other = key("somebody else")
    for bad, reason in [
        ((identity, public, curve, verify, nonce, bytes(32), certificate), "bad_signature"),
        ((identity, public, curve, verify, nonce, signed, b"nobody"), "bad_signature"),
        ((identity, other, curve, verify, nonce, signed, certificate), "bad_layout"),
        ((identity, public, curve, verify, bytes(16), signed, certificate), "bad_layout"),
    ]:
        assert spot_checked([*good[:3], bad, *good[4:]]) == reason
    assert spot_checked(good[:-1]) == "spot_check_unanswered"
    assert spot_checked(good[::-1]) == "spot_check_unanswered"
    assert spot_checked([*good[:-1], member(RING[0])]) == "spot_check_unanswered"
