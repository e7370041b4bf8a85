"""Which nonces a member contributes with, which it refuses, and what a head makes of a gateway that starts anew."""

from dataclasses import replace

import numpy as np
import pytest

from loadtest.lying_head import LyingHead, kinds, refuses
from loadtest.ring import LocalRing, RingSize, nonce, opening, random_vectors, ready
from loadtest.signing import SignedNonces, sign_input, sign_nonce, sign_ready
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.machines.effects import Note, ToMember
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.head_states import State
from protocol.dcnet.machines.incarnations import NONCES_MAX, Incarnation, NonceTable
from protocol.errors import RemoteProtocolError

SUITE = CheapSuite()
SEVEN = RingSize(n=7, k=6, t=4, t_c=4, k_min=4, n_min=5, rounds=8)
OPENED, VOID = wire.Outcome.OPENED, wire.Outcome.VOID


@pytest.fixture
def liar() -> LyingHead:
    return LyingHead(SUITE)


def other(position: int, process: int = 1) -> bytes:
    return nonce(bytes(32), position, process)


# --- the member ------------------------------------------------------------------------------------------------------


def test_an_opening_with_another_process_of_ours_is_refused(liar: LyingHead) -> None:
    liar.offer()
    liar.nonces.newest[0] = other(0)
    refuses(liar, liar.open(), "not_our_nonce")


def test_a_restarted_member_refuses_the_nonce_of_its_join(liar: LyingHead) -> None:
    liar.boot()
    liar.offer()
    refuses(liar, opening(liar.view), "not_our_nonce")
    assert kinds(liar.say(liar.open())) == [wire.MaskedInput]


def test_ready_says_the_nonce_of_the_process(liar: LyingHead) -> None:
    said = [each.nonce for each in liar.sent if isinstance(each, wire.Ready)]
    liar.boot()
    said += [each.nonce for each in liar.sent[1:] if isinstance(each, wire.Ready)]
    assert said == [liar.view.members[0].nonce, other(0)]


def test_a_nonce_that_was_replaced_never_comes_back(liar: LyingHead) -> None:
    liar.nonces.newest[3] = other(3)
    liar.serve()
    liar.say(liar.result())
    liar.offer(1)
    liar.nonces = SignedNonces(SUITE, liar.view, liar.secrets)
    refuses(liar, liar.open(round_=1), "replaced_nonce")
    liar.nonces.newest[3] = other(3, 2)
    assert kinds(liar.say(liar.open(round_=1))) == [wire.MaskedInput]


@pytest.mark.parametrize("position", [1, 3], ids=["a neighbour", "no neighbour"])
def test_no_nonce_changes_between_attempts_of_a_round(liar: LyingHead, position: int) -> None:
    liar.share()
    liar.nonces.newest[position] = other(position)
    refuses(liar, liar.open(1), "nonce_changed")
    without = liar.everybody(position)
    assert kinds(liar.say(liar.open(1, without))) == [wire.MaskedInput]
    refuses(liar, liar.open(2), "nonce_changed")


def test_who_was_not_in_e_before_may_come_with_a_new_nonce(liar: LyingHead) -> None:
    liar.share(expected=liar.everybody(3))
    liar.nonces.newest[3] = other(3)
    assert kinds(liar.say(liar.open(1))) == [wire.MaskedInput]


def test_no_nonce_changes_between_attempts_after_a_failed_write_either(liar: LyingHead) -> None:
    liar.share()
    liar.make()
    liar.offer()
    liar.nonces.newest[3] = other(3)
    refuses(liar, liar.open(1), "nonce_changed")


def test_a_position_has_so_many_nonces_and_no_more() -> None:
    liar = LyingHead(SUITE)
    table, secrets = NonceTable(SUITE, liar.view), liar.secrets[2]
    for process in range(1, NONCES_MAX):
        signature = sign_nonce(liar.view, secrets, other(2, process))
        assert table.take(2, other(2, process), signature)
        assert not table.take(2, other(2, process), signature)
    with pytest.raises(RemoteProtocolError, match="has had 8 nonces"):
        table.take(2, other(2, NONCES_MAX), sign_nonce(liar.view, secrets, other(2, NONCES_MAX)))
    assert table.newest[2] == other(2, NONCES_MAX - 1)


def test_an_opening_that_was_not_shared_in_uses_no_nonce_up(liar: LyingHead) -> None:
    """A head could otherwise say so many invented nonces in one round that nobody is heard any more."""
    for process in range(1, 2 * NONCES_MAX):
        liar.nonces.newest[3] = other(3, process)
        liar.say(liar.open())
    liar.nonces = SignedNonces(SUITE, liar.view, liar.secrets)
    liar.say(liar.open())
    assert kinds(liar.offer()) == [wire.MaskedInput]


@pytest.mark.parametrize(
    ("changed", "nonces", "reason"),
    [
        (b"\x00", bytes(16), "bad_nonces"),
        (b"\x02", b"", "bad_nonces"),
        (b"\x02", bytes(32), "bad_nonces"),
        (b"\x40", bytes(16), "bad_bitmap"),
    ],
    ids=["more than said", "fewer", "two for one", "no member"],
)
def test_nonces_of_another_form_are_refused(liar: LyingHead, changed: bytes, nonces: bytes, reason: str) -> None:
    liar.offer()
    signatures = bytes(4 * len(nonces))
    refuses(liar, replace(opening(liar.view), changed=changed, nonces=nonces, signatures=signatures), reason)


def test_a_nonce_without_its_signature_is_of_another_form(liar: LyingHead) -> None:
    liar.offer()
    liar.nonces.newest[3] = other(3)
    refuses(liar, replace(liar.open(), signatures=b""), "bad_nonces")


@pytest.mark.parametrize("signer", [0, 2], ids=["us", "another member"])
def test_a_nonce_that_its_member_did_not_sign_is_refused_and_spoils_none(signer: int, liar: LyingHead) -> None:
    """A head could otherwise invent one, and the true one, a replaced one then, would be refused for the epoch."""
    liar.offer()
    liar.nonces.newest[3] = other(3)
    forged = sign_nonce(liar.view, liar.secrets[signer], other(3))
    refuses(liar, replace(liar.open(), signatures=forged), "bad_signature")
    liar.nonces.newest[3] = liar.view.members[3].nonce
    assert kinds(liar.say(liar.open())) == [wire.MaskedInput]


def test_a_nonce_is_signed_for_its_ring_and_position(liar: LyingHead) -> None:
    liar.offer()
    liar.nonces.newest[3] = other(3)
    elsewhere = replace(liar.view, ring=liar.view.ring + 1)
    refuses(liar, replace(liar.open(), signatures=sign_nonce(elsewhere, liar.secrets[3], other(3))), "bad_signature")


def test_nonces_of_members_outside_e_are_refused(liar: LyingHead) -> None:
    liar.offer()
    expected = liar.view.everybody & ~(1 << 3)
    plain = opening(liar.view, expected=expected)
    refuses(liar, replace(plain, changed=b"\x08", nonces=other(3), signatures=bytes(64)), "bad_nonces")


def test_a_process_contributes_to_no_round_before_its_first(liar: LyingHead) -> None:
    liar.boot(first_round=2)
    (said,) = [each for each in liar.sent if isinstance(each, wire.Ready)][1:]
    assert (said.round, said.attempt) == (2, 0)
    liar.offer(1)
    refuses(liar, liar.open(round_=1), "before_our_start")
    liar.offer(2)
    assert kinds(liar.say(liar.open(round_=2))) == [wire.MaskedInput]


def test_a_restarted_member_is_ready_for_the_round_after_its_last_share(liar: LyingHead) -> None:
    liar.share()
    liar.boot()
    assert liar.sent[-1] == sign_ready(liar.view, liar.secrets[0], ready(liar.view, 0, round_=1), other(0))


def test_confirmations_under_another_table_do_not_count(liar: LyingHead) -> None:
    """The round digest binds the nonces: who was told another process of somebody does not confirm us."""
    liar.confirm()
    liar.nonces.newest[3] = other(3)
    refuses(liar, liar.confirmed(), "too_few_confirmations")


# --- the head --------------------------------------------------------------------------------------------------------


def ring_of_seven() -> LocalRing:
    return LocalRing(SUITE, SEVEN)


def play(ring: LocalRing, round_: int, **how: object) -> object:
    return ring.round(round_, random_vectors(np.random.default_rng(round_), 7, 4), **how)  # type: ignore[arg-type]


def test_a_restarted_member_is_in_the_next_round_with_its_new_nonce() -> None:
    ring = ring_of_seven()
    said: list[wire.Open] = []
    ring.trace = lambda _to, _who, message: said.append(message) if isinstance(message, wire.Open) else None
    play(ring, 0)
    ring.restart(3)
    ring.restart(5)
    play(ring, 1)
    assert [each.outcome for each in ring.ended] == [OPENED, OPENED]
    assert ring.ended[1].roster == ring.view.everybody
    assert (said[-1].changed, said[-1].nonces) == (b"\x28", other(3) + other(5))
    assert ring.refused == []


def test_restarted_within_a_round_a_member_sits_out_its_attempts() -> None:
    """Member 8 is missing and 3 does not confirm, so there is another attempt; 2 has been started anew meanwhile."""
    ring = LocalRing(SUITE, RingSize(n=9, k=8, t=5, t_c=5, k_min=5, n_min=6, rounds=8))

    def vanish(position: int, message: wire.Message) -> bool:
        if position == 2 and isinstance(message, wire.Confirm) and ring.processes[2] == 1:
            ring._queue.append(("head", 2, message))
            ring.restart(2)
            return True
        return (position, type(message)) in {(8, wire.MaskedInput), (3, wire.Confirm)}

    vectors = random_vectors(np.random.default_rng(0), 9, 4)
    ended = ring.round(0, vectors, vanish)
    assert (ended.outcome, ended.attempt, ended.roster) == (OPENED, 1, ring.view.everybody & ~0b100001100)
    assert "nonce_changed" not in ring.refused


def gathering() -> tuple[Head, LocalRing]:
    ring = ring_of_seven()
    head = Head(SUITE, ring.view, 0, 0.0)
    for position in range(6):
        head.receive(position, ready(ring.view, position), 0.0)
    return head, ring


def with_nonce(ring: LocalRing, position: int, process: int, round_: int = 0) -> wire.Ready:
    said = ready(ring.view, position, round_=round_)
    return sign_ready(ring.view, ring.secrets[position], said, other(position, process)) if process else said


def test_a_head_hears_no_nonce_that_its_member_did_not_sign() -> None:
    head, ring = gathering()
    for forged in (b"", sign_nonce(ring.view, ring.secrets[3], other(2))):
        with pytest.raises(RemoteProtocolError, match="bad_signature"):
            head.receive(2, replace(with_nonce(ring, 2, 1), signature=forged), 0.1)
    assert head.receive(2, with_nonce(ring, 2, 1), 0.1) == []


def test_a_head_hears_no_older_process_of_a_gateway() -> None:
    head, ring = gathering()
    assert head.receive(2, with_nonce(ring, 2, 1), 0.1) == []
    assert head.receive(2, with_nonce(ring, 2, 0), 0.2) == [Note("replaced_nonce")]
    out = head.receive(6, ready(ring.view, 6), 0.3)
    message = out[0].message  # type: ignore[union-attr]
    assert (message.changed, message.nonces) == (b"\x04", other(2))  # type: ignore[union-attr]


def test_a_gateway_that_starts_too_often_is_left_out() -> None:
    head, ring = gathering()
    for process in range(1, NONCES_MAX):
        head.receive(2, with_nonce(ring, 2, process), 0.1)
    assert head.receive(2, with_nonce(ring, 2, NONCES_MAX), 0.2) == [Note("too_many_nonces")]
    assert not head.presence.present >> 2 & 1
    assert head.receive(6, ready(ring.view, 6), 0.3) == []
    out = head.on_timer(head.next_timer_s())
    message = out[0].message  # type: ignore[union-attr]
    assert message.expected == b"\x7b"  # type: ignore[union-attr]


def test_a_head_waits_hardly_for_the_share_of_a_process_that_is_gone() -> None:
    head, ring = gathering()
    head.receive(6, ready(ring.view, 6), 0.0)
    assert head.state is State.COLLECTING
    share = wire.MaskedInput(1, 0, 0, 0, bytes(32), bytes(32), bytes(16), b"", b"", bytes(64))
    for position in (0, 1, 3, 4, 5, 6):
        signed = sign_input(ring.view, ring.secrets[position], head.current.context, share)
        head.receive(position, signed, 0.1)
    before_s = head.next_timer_s()
    head.receive(2, with_nonce(ring, 2, 1, 1), 0.2)
    assert head.next_timer_s() < before_s
    assert head.current.restarted == 1 << 2


def test_a_head_waits_hardly_for_who_says_that_it_waits_for_a_token() -> None:
    head, ring = gathering()
    head.receive(6, ready(ring.view, 6), 0.0)
    share = wire.MaskedInput(1, 0, 0, 0, bytes(32), bytes(32), bytes(16), b"", b"", bytes(64))
    for position in (0, 1, 3, 4, 5, 6):
        head.receive(position, sign_input(ring.view, ring.secrets[position], head.current.context, share), 0.1)
    before_s = head.next_timer_s()
    head.receive(2, replace(ready(ring.view, 2), is_waiting=1), 0.2)
    assert head.next_timer_s() < before_s


def test_a_head_begins_with_what_its_member_knows() -> None:
    ring = ring_of_seven()
    incarnation = Incarnation(SUITE, ring.view, 1, ring.view.members[1].nonce)
    incarnation.take(2, other(2), sign_nonce(ring.view, ring.secrets[2], other(2)))
    deputy = Head(SUITE, ring.view, 1, 1.0, known=incarnation)
    assert deputy.events.start["nonces"] == [(2, other(2).hex())]
    assert deputy.receive(2, ready(ring.view, 2, 1), 1.1) == [Note("replaced_nonce")]


def test_who_cannot_take_part_yet_is_not_opened_with() -> None:
    ring = ring_of_seven()
    head = Head(SUITE, ring.view, 0, 0.0)
    for position in range(7):
        out = head.receive(position, with_nonce(ring, position, 0, round_=int(position == 4)), 0.0)
    assert [each.position for each in out if isinstance(each, ToMember)] == [0, 1, 2, 3, 5, 6]


def test_what_a_restarted_neighbour_needs_is_recovered_under_its_nonce() -> None:
    """A member that was started anew confirms and vanishes: its neighbours help under the nonce that they believe."""
    ring = ring_of_seven()
    play(ring, 0)
    ring.restart(3)
    ended = ring.round(
        1, random_vectors(np.random.default_rng(1), 7, 4),
        lambda position, message: position == 3 and isinstance(message, wire.Reveal),
    )  # fmt: skip
    assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody)
