"""
Renewal: a gateway's next triple, asked for with the present signature key.

The new keys are new: none that was ever certified is certified again.  An answer can be lost on its way, so the package
of the present triple is answered again, also under the signature of the key before it.  The old certificates are not
revoked; they run out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.enrolment import IssuedTriple, key_digest, triple_records
from coordinator.storage.certificates import CertificateRecord, CertificateRepository
from coordinator.storage.gateways import GatewayRepository, GatewayStatus
from protocol import cms, pki
from protocol.errors import RemoteProtocolError

# Between two triples of one gateway; an endless renewal would fill the table.
PAUSE_MIN: Final = timedelta(days=1)


class Renewal:
    """Answers renewal requests."""

    def __init__(
        self,
        gateways: GatewayRepository,
        certificates: CertificateRepository,
        authority: CertificateAuthority,
        issued: Callable[[], None] = lambda: None,
    ) -> None:
        self._gateways = gateways
        self._certificates = certificates
        self._authority = authority
        self._issued = issued

    def renew(self, gateway_id: str, package: bytes, endorsement: bytes, now: datetime) -> IssuedTriple:
        """
        Issue the next triple, or say why not.

        Raises RemoteProtocolError: `gateway_unknown`, `gateway_revoked`, `certificate_expired`, `renewal_early`,
        `gateway_id_mismatch`, `duplicate_key`, what `cms.verify_detached` and `pki.check_package` raise.
        """
        gateway = self._gateways.some([gateway_id]).get(gateway_id)
        if gateway is None:
            raise RemoteProtocolError("gateway_unknown", "no gateway of this id is enrolled")
        if gateway.status is not GatewayStatus.ACTIVE:
            raise RemoteProtocolError("gateway_revoked", "this gateway was revoked")
        signers = self._certificates.signers(gateway_id, gateway.enrolled_ms)
        loaded = [pki.load_certificate(each.certificate) for each in signers]
        signer = loaded.index(cms.verify_detached(endorsement, package, loaded, cms.Limits()))
        asked = pki.check_package(package)
        if asked[0].gateway_id != gateway_id:
            raise RemoteProtocolError("gateway_id_mismatch", "the package is another gateway's")
        if now > loaded[signer].not_valid_after_utc:
            detail = "the signature key's certificate has run out: enrol the gateway anew, under another id"
            raise RemoteProtocolError("certificate_expired", detail)
        digests = [key_digest(each.public_key) for each in asked]
        with self._certificates.renewal() as transaction:
            present = transaction.of_gateway(gateway_id)
            newest = [each for each in present if each.sequence == present[0].sequence]
            if [each.key_digest for each in newest] == digests:
                return self._again(newest)
            if signer != 0 or newest[0].certificate != signers[0].certificate:
                raise RemoteProtocolError("cms_signer", "signed by a key that was renewed already (5.2.1)")
            # A gateway of an earlier version has a signature certificate alone, and may complete its triple at once.
            if len(newest) == len(digests) and newest[0].issued_ms > _ms(now - PAUSE_MIN):
                raise RemoteProtocolError("renewal_early", "the present certificates were issued less than a day ago")
            sequence = newest[0].sequence + 1
            triple = self._authority.issue_triple(asked, now, sequence=sequence)
            if not transaction.replace(triple_records(gateway_id, triple, now, sequence=sequence)):
                raise RemoteProtocolError("duplicate_key", "a key of this package has a certificate already")
        self._issued()
        return IssuedTriple.of(triple, self._authority)

    def _again(self, triple: list[CertificateRecord]) -> IssuedTriple:
        return IssuedTriple.of([pki.load_certificate(each.certificate) for each in triple], self._authority)


def _ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)
