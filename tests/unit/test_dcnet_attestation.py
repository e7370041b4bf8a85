"""Commitments that only their members can have made: what a head invents, swaps or replays is never verified."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, ledger_secrets
from protocol import wire
from protocol.dcnet.crypto.commitments import Pedersen, encode_blinding_vector
from protocol.dcnet.crypto.suite import StandardSuite, derive
from protocol.dcnet.machines.effects import Ended, Persist, RoundEnded
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.machines.masks import Words
from protocol.dcnet.setup.attestation import LedgerSecrets, attestation_key, attestation_text
from protocol.dcnet.setup.rings import bitmap
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.errors import LocalProtocolError, RemoteProtocolError

SUITE = StandardSuite()
SIZE = RingSize(n=6, k=5, t=3, t_c=3, k_min=3, n_min=4, rounds=8, committed=(1, 3))
SEED = bytes(32)
LOW_ORDER = [bytes(32), b"\1" + bytes(31)]

Bend = Callable[[wire.RingTotal], wire.RingTotal]


class Ring(LocalRing):
    """A ring of real machines whose head reports to the ledger what `bend` makes of its report."""

    def __init__(self, size: RingSize = SIZE, seed: bytes = SEED) -> None:
        super().__init__(SUITE, size, seed)
        self.bend: Bend = lambda report: report
        self.reports: list[wire.RingTotal] = []

    def _deliver(self, target: str, index: int, message: wire.Message) -> None:
        if isinstance(message, wire.RingTotal):
            self.reports.append(message)
            message = self.bend(message)
        super()._deliver(target, index, message)

    def play(self, round_: int = 0, vanish: Callable[[int, wire.Message], bool] | None = None) -> Ended:
        vectors = [np.array([1, 10 + i, 7, 2**64 - 1 - i], dtype=np.uint64) for i in range(SIZE.n)]
        return self.round(round_, vectors, vanish, [(100 + i, 200 + i) for i in range(SIZE.n)])


@pytest.fixture
def ring() -> Ring:
    return Ring()


def invented(report: wire.RingTotal) -> wire.RingTotal:
    """Another total, and commitments that fit it: each member's to 1000 and 2000."""
    pedersen, count = Pedersen(SUITE.group), len(report.commitments) // 64
    words = np.array([count, 1000 * count, 0, 2000 * count], dtype=np.uint64)
    row = pedersen.commit(1000, 5) + pedersen.commit(2000, 6)
    blinding_vector = encode_blinding_vector(SUITE.group, (5 * count, 6 * count))
    return replace(report, total=words.tobytes(), commitments=row * count, blinding=blinding_vector)


def swapped(report: wire.RingTotal) -> wire.RingTotal:
    """Two members' commitments the other way round; the sum is the same."""
    rows = report.commitments
    return replace(report, commitments=rows[64:128] + rows[:64] + rows[128:])


def swapped_with_attestations(report: wire.RingTotal) -> wire.RingTotal:
    attestations = report.attestations
    return replace(swapped(report), attestations=attestations[16:32] + attestations[:16] + attestations[32:])


def missing(report: wire.RingTotal) -> wire.RingTotal:
    return replace(report, attestations=bytes(16) + report.attestations[16:])


def last_one_wrong(report: wire.RingTotal) -> wire.RingTotal:
    return replace(report, attestations=report.attestations[:-1] + bytes([report.attestations[-1] ^ 1]))


def recorded(ledger: RoundLedger, report: wire.RingTotal) -> RoundEnded:
    """What the ledger makes durable of a report of its first head."""
    return next(each.record for each in ledger.receive(0, report, 40.0) if isinstance(each, Persist))


def new_book(ring: Ring, secrets: LedgerSecrets | None = None) -> RoundLedger:
    """The ledger of the ring as after a restart, all that ended forgotten."""
    return RoundLedger(SUITE, ring.view, secrets or ledger_secrets(SUITE, SEED), 0.0)


def test_an_honest_report_is_verified_with_its_commitments(ring: Ring) -> None:
    assert ring.play().verified
    record = recorded(new_book(ring), ring.reports[0])
    assert record.ended.verified
    assert record.commitments == ring.reports[0].commitments
    assert len({ring.reports[0].attestations[i : i + 16] for i in range(0, 96, 16)}) == 6


def test_round_after_round_is_verified(ring: Ring) -> None:
    assert [ring.play(round_).verified for round_ in range(3)] == [True] * 3


def test_with_a_member_missing_each_attestation_stays_with_its_member(ring: Ring) -> None:
    ended = ring.play(vanish=lambda position, message: position == 2 and isinstance(message, wire.MaskedInput))
    assert (ended.roster, ended.verified) == (bitmap([0, 1, 3, 4, 5]), True)
    assert len(ring.reports[0].attestations) == 5 * 16


def test_another_attempt_is_attested_anew(ring: Ring) -> None:
    losses = {(3, wire.MaskedInput): 0, (5, wire.Confirm): 0}
    ended = ring.play(
        vanish=lambda position, message: losses.get((position, type(message))) == getattr(message, "attempt", None)
    )
    assert (ended.attempt, ended.verified) == (1, True)


@pytest.mark.parametrize("bend", [invented, swapped, swapped_with_attestations, missing, last_one_wrong])
def test_what_a_lying_head_makes_of_its_members_commitments_is_opened_but_not_verified(ring: Ring, bend: Bend) -> None:
    ring.bend = bend
    ended = ring.play()
    assert (ended.outcome, ended.verified) == (wire.Outcome.OPENED, False)
    record = recorded(new_book(ring), bend(ring.reports[0]))
    assert (record.ended.verified, record.commitments) == (False, b"")


def test_what_it_invents_and_swaps_fits_but_for_the_attestations(ring: Ring) -> None:
    """So these are what stops it, and nothing else."""
    ring.play()
    for bend in (invented, swapped):
        report = bend(ring.reports[0])
        attested = b"".join(
            secrets.attest(attestation_text(ring.view, 0, 0, i, report.commitments[64 * i : 64 * (i + 1)]))
            for i, secrets in enumerate(ring.secrets)
        )
        assert recorded(new_book(ring), replace(report, attestations=attested)).ended.verified


def test_a_head_attests_for_nobody_but_itself(ring: Ring) -> None:
    ring.play()
    report = invented(ring.reports[0])
    own = b"".join(
        ring.secrets[0].attest(attestation_text(ring.view, 0, 0, i, report.commitments[64 * i : 64 * (i + 1)]))
        for i in range(6)
    )
    assert not recorded(new_book(ring), replace(report, attestations=own)).ended.verified


def test_an_attestation_of_another_round_or_attempt_is_worth_nothing(ring: Ring) -> None:
    """The commitments of a round and its total, reported as those of the next round or attempt."""
    ring.play()
    honest = ring.reports[0]
    for replayed in (replace(honest, round=1), replace(honest, attempt=1)):
        assert not recorded(new_book(ring), replayed).ended.verified


def test_an_attestation_of_another_epoch_is_worth_nothing(ring: Ring) -> None:
    ring.play()
    others = [
        replace(ring.view, epoch=2),
        replace(ring.view, schema_digest=b"\1" * 32),
    ]
    for view in others:
        ledger = RoundLedger(SUITE, view, ledger_secrets(SUITE, SEED), 0.0)
        assert not recorded(ledger, replace(ring.reports[0], epoch=view.epoch)).ended.verified


def test_the_text_says_everything(ring: Ring) -> None:
    view, base = ring.view, (0, 0, 0, bytes(64))
    texts = {attestation_text(view, *base)}
    texts |= {attestation_text(view, *each) for each in [(1, 0, 0, bytes(64)), (0, 1, 0, bytes(64))]}
    texts |= {attestation_text(view, *each) for each in [(0, 0, 1, bytes(64)), (0, 0, 0, bytes(63) + b"\1")]}
    texts |= {attestation_text(each, *base) for each in (replace(view, ring=1), replace(view, epoch=2))}
    assert len(texts) == 7


def test_a_book_of_another_seed_verifies_nothing_and_that_of_the_same_goes_on_after_a_restart(ring: Ring) -> None:
    ring.play()
    other = LedgerSecrets(SUITE, b"\1" * 32)
    assert not recorded(new_book(ring, other), ring.reports[0]).ended.verified
    again = ledger_secrets(SUITE, SEED)
    assert (again.result_key, again.attest_key) == (ring.view.result_key, ring.view.attest_key)
    assert recorded(new_book(ring, again), ring.reports[0]).ended.verified


def test_both_ends_agree_on_a_key_for_each_member_that_is_no_other_key(ring: Ring) -> None:
    ledger = ledger_secrets(SUITE, SEED)
    keys = {ledger.member_key(ring.view, position) for position in range(6)}
    assert keys == {secrets._attest_key for secrets in ring.secrets}
    assert len(keys) == 6
    told_otherwise = replace(ring.view, attest_key=SUITE.public_key(b"\2" * 32))
    assert told_otherwise.digest != ring.view.digest
    secrets = EpochSecrets(SUITE, derive(SEED, "member", bytes(4)))
    secrets.bind(told_otherwise, 0)
    assert secrets._attest_key not in keys
    assert secrets.pair(1) != ring.secrets[0].pair(1)


def test_a_book_that_shows_a_members_own_key_learns_no_key_of_that_pair(ring: Ring) -> None:
    """The shared secret is then that of two members; what is made of it is for this purpose alone."""
    view = replace(ring.view, attest_key=ring.view.members[1].public_key)
    secrets = EpochSecrets(SUITE, derive(SEED, "member", bytes(4)))
    secrets.bind(view, 0)
    pair = secrets.pair(1)
    assert secrets._attest_key not in {pair.mask, pair.blinding, pair.transport, pair.confirm, pair.relay}


@pytest.mark.parametrize("key", LOW_ORDER)
def test_a_key_of_low_order_is_refused_at_either_end(ring: Ring, key: bytes) -> None:
    secrets = EpochSecrets(SUITE, derive(SEED, "member", bytes(4)))
    with pytest.raises(RemoteProtocolError, match="low_order_key"):
        secrets.bind(replace(ring.view, attest_key=key), 0)
    bad = replace(ring.view.members[3], public_key=key)
    view = replace(ring.view, members=(*ring.view.members[:3], bad, *ring.view.members[4:]))
    with pytest.raises(RemoteProtocolError, match="low_order_key"):
        ledger_secrets(SUITE, SEED).member_key(view, 3)
    with pytest.raises(RemoteProtocolError, match="low_order_key"):
        attestation_key(SUITE, bytes(32), key, ring.view, 0)


def test_without_committed_slots_nothing_is_attested() -> None:
    plain = Ring(replace(SIZE, committed=()))
    with pytest.raises(LocalProtocolError, match="without committed slots"):
        plain.secrets[0].attest(bytes(32))
    vectors: list[Words] = [np.array([1, i, 0, 0], dtype=np.uint64) for i in range(6)]
    assert plain.round(0, vectors).outcome is wire.Outcome.OPENED
    assert plain.reports[0].attestations == b""


@pytest.mark.parametrize("attestations", [b"", bytes(16), bytes(16 * 7)])
def test_a_report_without_an_attestation_for_each_member_is_refused(ring: Ring, attestations: bytes) -> None:
    ring.play()
    with pytest.raises(RemoteProtocolError, match="bad_total"):
        new_book(ring).receive(0, replace(ring.reports[0], attestations=attestations), 40.0)
