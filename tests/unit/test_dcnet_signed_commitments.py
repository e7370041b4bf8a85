"""Commitments that only their members can have made: what a head invents, swaps or replays is never verified."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, ledger_secrets
from protocol import wire
from protocol.dcnet.crypto.commitments import Pedersen, encode_blinding_vector
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import Ended, Persist, RoundEnded
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.machines.masks import Words
from protocol.dcnet.setup.ledger_keys import LedgerSecrets
from protocol.dcnet.setup.rings import bitmap
from protocol.dcnet.setup.statements import (
    AttemptContext,
    blame_half,
    commitment_half,
    confirm_text,
    deal_text,
    input_text,
    inquiry_text,
    words_text,
)
from protocol.errors import RemoteProtocolError

SUITE = StandardSuite()
SIZE = RingSize(n=6, k=5, t=3, t_c=3, k_min=3, n_min=4, rounds=8, committed=(1, 3))
SEED = bytes(32)

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
    return replace(swapped(report), attestations=attestations[128:256] + attestations[:128] + attestations[256:])


def missing(report: wire.RingTotal) -> wire.RingTotal:
    return replace(report, attestations=bytes(128) + report.attestations[128:])


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
    assert len({ring.reports[0].attestations[i : i + 128] for i in range(0, 768, 128)}) == 6


def test_round_after_round_is_verified(ring: Ring) -> None:
    assert [ring.play(round_).verified for round_ in range(3)] == [True] * 3


def test_with_a_member_missing_each_attestation_stays_with_its_member(ring: Ring) -> None:
    ended = ring.play(vanish=lambda position, message: position == 2 and isinstance(message, wire.MaskedInput))
    assert (ended.roster, ended.verified) == (bitmap([0, 1, 3, 4, 5]), True)
    assert len(ring.reports[0].attestations) == 5 * 128


def test_another_attempt_is_attested_anew(ring: Ring) -> None:
    losses = {(3, wire.MaskedInput): 0, (5, wire.Confirm): 0}
    ended = ring.play(
        vanish=lambda position, message: losses.get((position, type(message))) == getattr(message, "attempt", None)
    )
    assert (ended.attempt, ended.verified) == (1, True)


@pytest.mark.parametrize("bend", [invented, swapped, swapped_with_attestations, missing, last_one_wrong])
def test_commitments_a_lying_head_invents_open_unverified(ring: Ring, bend: Bend) -> None:
    ring.bend = bend
    ended = ring.play()
    assert (ended.outcome, ended.verified) == (wire.Outcome.OPENED, False)
    record = recorded(new_book(ring), bend(ring.reports[0]))
    assert (record.ended.verified, record.commitments) == (False, b"")


def attested(ring: Ring, report: wire.RingTotal, *signers: int) -> bytes:
    """Signatures under the commitments of a report, of each member or of the ones that sign for all."""
    out = []
    for i in range(6):
        own, secrets = report.commitments[64 * i : 64 * (i + 1)], ring.secrets[signers[0] if signers else i]
        half = commitment_half(ring.view, i, 0, 0, own, bytes(32))
        out.append(bytes(64) + secrets.sign(input_text(bytes(32), half)))
    return b"".join(out)


def test_what_it_invents_and_swaps_fits_but_for_the_signatures(ring: Ring) -> None:
    """So these are what stops it, and nothing else."""
    ring.play()
    for bend in (invented, swapped):
        report = bend(ring.reports[0])
        assert recorded(new_book(ring), replace(report, attestations=attested(ring, report))).ended.verified


def test_a_head_signs_for_nobody_but_itself(ring: Ring) -> None:
    ring.play()
    report = invented(ring.reports[0])
    assert not recorded(new_book(ring), replace(report, attestations=attested(ring, report, 0))).ended.verified


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


def test_the_texts_say_everything(ring: Ring) -> None:
    view, base = ring.view, (0, 0, 0, bytes(64), bytes(32))
    texts = {commitment_half(view, *base)}
    texts |= {commitment_half(view, *each, *base[3:]) for each in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    texts |= {
        commitment_half(view, 0, 0, 0, bytes(63) + b"\1", bytes(32)),
        commitment_half(view, *base[:4], b"\1" * 32),
    }
    texts |= {commitment_half(each, *base) for each in (replace(view, ring=1), replace(view, epoch=2))}
    assert len(texts) == 8
    context = AttemptContext(0, 0, 0, 63, bytes(32))
    others = [replace(context, round=1), replace(context, attempt=1), replace(context, term=1)]
    others.append(replace(context, expected=1))
    contexts = [context, *others, replace(context, terms=b"\1" * 32)]
    said = (bytes(8), bytes(32), bytes(32))
    halves = {blame_half(view, 0, each, *said) for each in contexts} | {blame_half(view, 1, context, *said)}
    for index, value in enumerate(said):
        changed = [*said]
        changed[index] = value[:-1] + b"\1"
        halves.add(blame_half(view, 0, context, *changed))
    assert len(halves) == 10
    confirms = {confirm_text(view, 0, each, 63, bytes(8), bytes(32)) for each in contexts}
    confirms |= {confirm_text(view, 1, context, 63, bytes(8), bytes(32)), confirm_text(view, 0, context, 31, *said[:2])}
    confirms |= {confirm_text(view, 0, context, 63, b"", bytes(32)), confirm_text(view, 0, context, 63, bytes(8), b"")}
    assert len(confirms) == 10
    words = {words_text(view, 0, each, bytes(40)) for each in contexts} | {words_text(view, 1, context, bytes(40))}
    assert len(words) == 7
    shares = [(1, b"a"), (2, b"b")]
    deals = {deal_text(view, *each) for each in [(0, [b"c"], shares), (1, [b"c"], shares), (0, [b"d"], shares)]}
    deals |= {deal_text(view, 0, [b"c"], each) for each in ([(1, b"a"), (3, b"b")], [(1, b"a"), (2, b"c")], shares[:1])}
    assert len(deals) == 6
    asked = {inquiry_text(view, each, 63) for each in contexts} | {inquiry_text(view, context, 31)}
    assert len(asked) == 7
    assert len(texts | halves | confirms | words | deals | asked) == 8 + 10 + 10 + 7 + 6 + 7


def test_the_ledger_goes_on_signing_after_a_restart(ring: Ring) -> None:
    again = ledger_secrets(SUITE, SEED)
    assert again.result_key == ring.view.result_key
    assert again.sign(b"text") == ledger_secrets(SUITE, SEED).sign(b"text")
    assert LedgerSecrets(SUITE, b"\1" * 32).result_key != again.result_key


def test_without_committed_slots_the_ledger_gets_no_signatures() -> None:
    plain = Ring(replace(SIZE, committed=()))
    vectors: list[Words] = [np.array([1, i, 0, 0], dtype=np.uint64) for i in range(6)]
    assert plain.round(0, vectors).outcome is wire.Outcome.OPENED
    assert plain.reports[0].attestations == b""


@pytest.mark.parametrize("attestations", [b"", bytes(128), bytes(128 * 7)])
def test_a_report_without_an_attestation_for_each_member_is_refused(ring: Ring, attestations: bytes) -> None:
    ring.play()
    with pytest.raises(RemoteProtocolError, match="bad_total"):
        new_book(ring).receive(0, replace(ring.reports[0], attestations=attestations), 40.0)
