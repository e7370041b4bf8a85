"""What one seed holds for one epoch: keys by purpose, deals, seals; and that another layout gives unrelated ones."""

from dataclasses import replace
from itertools import combinations

import pytest

from loadtest.ring import RingSize, make_ring
from protocol.dcnet.crypto import prf, shamir
from protocol.dcnet.crypto.suite import StandardSuite, derive
from protocol.dcnet.setup.rings import Member
from protocol.dcnet.setup.secrets import EpochSecrets, PairKeys, _deal_context, mask_label
from protocol.errors import LocalProtocolError, RemoteProtocolError

SUITE = StandardSuite()
GROUP = SUITE.group
SIZE = RingSize(n=6, k=4, t=3, t_c=3, k_min=3, n_min=4)
VIEW, SECRETS = make_ring(SUITE, SIZE, bytes(32))
SEED_OF_0 = derive(bytes(32), "member", bytes(4))
LABEL = mask_label(VIEW, 0, 0, bytes(16), bytes(32))


def fresh(view: object = None) -> EpochSecrets:
    """The member at position 0 once more, as after a restart, bound to this or another layout."""
    again = EpochSecrets(SUITE, SEED_OF_0, bytes(32))
    again.bind(VIEW if view is None else view, 0)  # type: ignore[arg-type]
    return again


def by_purpose(keys: PairKeys) -> tuple[bytes, ...]:
    return keys.mask, keys.blinding, keys.transport, keys.confirm, keys.relay


# --- keys ----------------------------------------------------------------------------------------------------------


def test_both_ends_of_a_pair_hold_the_same_keys_and_nobody_else() -> None:
    seen: set[bytes] = set()
    for i, j in combinations(range(6), 2):
        keys = SECRETS[i].pair(j)
        assert by_purpose(keys) == by_purpose(SECRETS[j].pair(i))
        seen |= set(by_purpose(keys))
    assert len(seen) == 15 * 5


def test_keys_do_not_show_in_a_log() -> None:
    keys = SECRETS[0].pair(1)
    assert not any(each.hex() in repr(keys) or repr(each) in repr(keys) for each in by_purpose(keys))
    assert str(SECRETS[0]._received[1].share) not in repr(SECRETS[0]._received[1])


OTHER_VIEWS = {
    "epoch": replace(VIEW, epoch=2),
    "ring": replace(VIEW, ring=1),
    "schema": replace(VIEW, schema_digest=b"\1" * 32),
    "a member elsewhere": replace(VIEW, members=(*VIEW.members[:5], Member("x", *VIEW.members[5].keys))),
    "a lower threshold": replace(VIEW, t_c=2),
}


@pytest.mark.parametrize("view", OTHER_VIEWS.values(), ids=OTHER_VIEWS)
def test_who_was_told_otherwise_shares_no_key(view: object) -> None:
    told_otherwise = fresh(view)
    assert set(by_purpose(told_otherwise.pair(1))).isdisjoint(by_purpose(SECRETS[0].pair(1)))


@pytest.mark.parametrize("view", OTHER_VIEWS.values(), ids=OTHER_VIEWS)
def test_another_layout_deals_shares_of_an_unrelated_k(view: object) -> None:
    """Or t neighbours spread over two layouts could put one K together."""
    told_otherwise = fresh(view)
    assert told_otherwise.evaluate(LABEL) != SECRETS[0].evaluate(LABEL)
    assert set(told_otherwise.deal().commitments).isdisjoint(SECRETS[0].deal().commitments)


def test_a_restarted_member_deals_the_same_again() -> None:
    assert fresh().deal() == SECRETS[0].deal()
    assert fresh().evaluate(LABEL) == SECRETS[0].evaluate(LABEL)


# Points of small order on Curve25519: the field elements 0, 1, p - 1, p, p + 1 and the two of order 8.
LOW_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


@pytest.mark.parametrize("key", LOW_ORDER)
def test_keys_of_low_order_are_refused(key: bytes) -> None:
    bad = replace(VIEW.members[1], public_key=key)
    with pytest.raises(RemoteProtocolError) as caught:
        fresh(replace(VIEW, members=(VIEW.members[0], bad, *VIEW.members[2:])))
    assert caught.value.reason == "low_order_key"


def test_the_driver_keeps_to_its_contract() -> None:
    with pytest.raises(LocalProtocolError, match="32 bytes"):
        EpochSecrets(SUITE, bytes(31), bytes(32))
    with pytest.raises(LocalProtocolError, match="32 bytes"):
        EpochSecrets(SUITE, bytes(32), b"")
    unbound = EpochSecrets(SUITE, SEED_OF_0, bytes(32))
    for act in (unbound.deal, lambda: unbound.pair(1)):
        with pytest.raises(LocalProtocolError, match="not known yet"):
            act()
    with pytest.raises(LocalProtocolError, match="other epoch keys"):
        unbound.bind(VIEW, 1)


# --- deals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("helpers", list(combinations((1, 2, 4, 5), 3)))
def test_any_t_neighbours_recover_one_self_mask(helpers: tuple[int, ...]) -> None:
    parts = {}
    for helper in helpers:
        part = SECRETS[helper].partial(0, LABEL)
        assert part is not None
        element, proof = part
        commitments = SECRETS[helper].commitments_of(0)
        assert commitments is not None
        assert prf.verify_partial(GROUP, shamir.share_key(GROUP, commitments, helper + 1), LABEL, element, proof)
        parts[helper + 1] = element
    assert prf.combine(GROUP, parts) == SECRETS[0].evaluate(LABEL)
    assert prf.combine(GROUP, dict(list(parts.items())[:2])) != SECRETS[0].evaluate(LABEL)


def test_who_holds_whose_deal() -> None:
    assert SECRETS[0].dealers == {1, 2, 4, 5}
    assert SECRETS[0].commitments_of(3) is None
    assert SECRETS[0].partial(3, LABEL) is None
    assert not SECRETS[0].is_good_deal(3)
    assert SECRETS[0].is_good_deal(1)


def a_deal_to_0(dealer: int = 1) -> tuple[tuple[bytes, ...], bytes]:
    dealt = SECRETS[dealer].deal()
    return dealt.commitments, dict(dealt.sealed)[0]


def refuses_deal(dealer: int, commitments: tuple[bytes, ...], sealed: bytes, reason: str) -> None:
    member = fresh()
    with pytest.raises(RemoteProtocolError) as caught:
        member.accept(dealer, commitments, sealed)
    assert caught.value.reason == reason
    assert member.dealers == frozenset()


def test_deals_that_are_refused() -> None:
    commitments, sealed = a_deal_to_0()
    refuses_deal(3, commitments, sealed, "not_a_neighbour")
    refuses_deal(0, commitments, sealed, "not_a_neighbour")
    refuses_deal(2, commitments, sealed, "bad_seal")
    refuses_deal(1, commitments[:2], sealed, "bad_deal")
    refuses_deal(1, (*commitments, commitments[0]), sealed, "bad_deal")
    refuses_deal(1, commitments[::-1], sealed, "bad_seal")
    refuses_deal(1, commitments, sealed[:-1], "bad_seal")
    refuses_deal(1, commitments, b"\0", "bad_seal")
    refuses_deal(1, commitments, dict(SECRETS[1].deal().sealed)[2], "bad_seal")


@pytest.mark.parametrize("plain", [b"\xff" * 32, GROUP.order.to_bytes(32, "little"), bytes(31), bytes(33)])
def test_a_dealt_share_that_is_no_scalar(plain: bytes) -> None:
    commitments, _ = a_deal_to_0()
    context = _deal_context(VIEW, 1, commitments)
    sealed = SUITE.seal(SECRETS[1].pair(0).transport, 1, plain, context)
    refuses_deal(1, commitments, sealed, "bad_deal")


@pytest.mark.parametrize("share", [0, 7], ids=["nothing", "something else"])
def test_a_share_that_does_not_fit_is_noticed_when_it_is_used(share: int) -> None:
    commitments, _ = a_deal_to_0()
    sealed = SUITE.seal(
        SECRETS[1].pair(0).transport, 1, share.to_bytes(32, "little"), _deal_context(VIEW, 1, commitments)
    )
    member = fresh()
    member.accept(1, commitments, sealed)
    part = member.partial(1, LABEL)
    assert (part is None) == (share == 0)
    if part is not None:
        assert not prf.verify_partial(GROUP, shamir.share_key(GROUP, commitments, 1), LABEL, *part)
    assert not member.is_good_deal(1)
    member.accept(1, *a_deal_to_0())
    assert member.is_good_deal(1)


def test_commitments_that_are_no_elements_are_a_bad_deal() -> None:
    junk = (bytes(32),) * 3
    sealed = SUITE.seal(SECRETS[1].pair(0).transport, 1, bytes(32), _deal_context(VIEW, 1, junk))
    member = fresh()
    member.accept(1, junk, sealed)
    assert not member.is_good_deal(1)


# --- the relay -----------------------------------------------------------------------------------------------------

NONCE = bytes(range(12))


def test_what_is_relayed_arrives_at_neighbours_and_others_alike() -> None:
    for other in (1, 3):
        assert SECRETS[other].unseal_relay(0, SECRETS[0].seal_relay(other, b"open", NONCE)) == b"open"


def test_what_is_relayed_says_from_whom_to_whom() -> None:
    sealed = SECRETS[0].seal_relay(1, b"open", NONCE)
    for receiver, source in [(2, 0), (1, 2), (0, 1)]:
        with pytest.raises(RemoteProtocolError, match="bad_seal"):
            SECRETS[receiver].unseal_relay(source, sealed)
    for source in (1, 6, 1000):
        with pytest.raises(RemoteProtocolError, match="no_such_member"):
            SECRETS[1].unseal_relay(source, sealed)


@pytest.mark.parametrize("size", range(0, 32, 5))
def test_what_is_cut_short_or_changed_does_not_arrive(size: int) -> None:
    sealed = SECRETS[0].seal_relay(1, b"open", NONCE)
    with pytest.raises(RemoteProtocolError, match="bad_seal"):
        SECRETS[1].unseal_relay(0, sealed[:size])
    with pytest.raises(RemoteProtocolError, match="bad_seal"):
        SECRETS[1].unseal_relay(0, sealed[:size] + bytes([sealed[size] ^ 1]) + sealed[size + 1 :])
