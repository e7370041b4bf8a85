"""
Totals for the market participants that they are for.

A participant is known by its TLS certificate, which `[[coordinator.recipients]]` names.  What it is shown follows from
what gateways were told when they contributed: of each epoch the totals that the call named it for, and nothing of
epochs whose call did not (`protocol.dcnet.setup.schema.Slot`).  Methods block, and any thread may call them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from coordinator.recipients import TotalsRecipient
from coordinator.storage.store import Store
from coordinator.storage.totals import AreaTotal
from protocol import pki
from protocol.errors import RemoteProtocolError


@dataclass(frozen=True, slots=True)
class TotalsOfArea:
    """A page of totals, how many rings of each interval (Unix, s) owe range proofs, and where the next page begins."""

    totals: list[AreaTotal]
    unranged: dict[int, int]
    next_s: int | None


class ParticipantTotals:
    """
    Those of one coordinator's database.

    `root` and `sub_ca` are the SM-PKI's, `lists` the revocation lists that count at a moment, None where this process
    has none.
    """

    def __init__(
        self, store: Store, recipients: Sequence[TotalsRecipient], root: x509.Certificate, sub_ca: x509.Certificate,
        lists: Callable[[datetime], pki.RevocationLists] | None, clock: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._store = store
        self._by_certificate = {each: one.participant for one in recipients for each in one.certificates}
        self._root = root
        self._sub_ca = sub_ca
        self._lists = lists
        self._clock = clock

    def participant(self, pem: str) -> str:
        """
        The name of the participant that shows this TLS certificate.

        Raises RemoteProtocolError: what `pki.verify_chain` raises, `not_a_recipient` for one that is not configured.
        """
        certificate, now = x509.load_pem_x509_certificate(pem.encode()), self._clock()
        lists = None if self._lists is None else self._lists(now)
        pki.verify_chain(certificate, [self._sub_ca], self._root, now, role=pki.Role.PARTICIPANT_TLS, revocations=lists)
        known = self._by_certificate.get(certificate.fingerprint(hashes.SHA256()).hex())
        if known is None:
            raise RemoteProtocolError("not_a_recipient", "no [[coordinator.recipients]] names this certificate")
        return known

    def registers(self, participant: str) -> dict[str, tuple[str, ...]]:
        """By area: the registers of whose totals some are for this participant."""
        return self._store.totals.registers_for(participant)

    def totals(self, participant: str, area: str, from_s: int, to_s: int, limit: int) -> TotalsOfArea:
        """
        Its totals of an area, of at most `limit` intervals that start in [from_s, to_s) (Unix, s), oldest first.

        Raises RemoteProtocolError `not_a_recipient` for an area of which nothing is for it, or that there is not.
        """
        if area not in self._store.totals.registers_for(participant, area):
            raise RemoteProtocolError("not_a_recipient", f"no totals of area {area} are for {participant}")
        found = self._store.totals.totals(from_s, to_s, area=area, limit=limit + 1, participant=participant)
        starts = list(dict.fromkeys(total.interval_start_s for total in found))
        next_s = starts[limit] if len(starts) > limit else None
        page = [total for total in found if next_s is None or total.interval_start_s < next_s]
        return TotalsOfArea(page, self._store.range_checks.unranged_rings(from_s, to_s, area=area), next_s)
