"""Who asks for profile sets: an enrolled gateway that is not revoked, by its signature (`protocol.profiles.query`)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.storage.certificates import CertificateRepository
from coordinator.storage.gateways import GatewayRepository, GatewayStatus
from protocol import pki
from protocol.errors import RemoteProtocolError
from protocol.profiles.query import query_text, read_proof

_REMEMBERED: Final = 50_000  # signatures that hold, 100 bytes each: a gateway shows one for half an hour
_WRONG_MAX: Final = 8  # of one question, which anybody may ask: each costs up to two signature checks, 0.4 ms or more


class QueryProofs:
    """Checks proofs; any thread may."""

    def __init__(self, gateways: GatewayRepository, certificates: CertificateRepository) -> None:
        self._gateways = gateways
        self._certificates = certificates
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def check_all(self, proofs: Mapping[str, str], now_ms: int) -> dict[str, RemoteProtocolError]:
        """What is wrong with these proofs, by gateway; those that are right are not in it."""
        active = {
            name: each.enrolled_ms
            for name, each in self._gateways.some(list(proofs)).items() if each.status is GatewayStatus.ACTIVE
        }  # fmt: skip
        wrong: dict[str, RemoteProtocolError] = {}
        for gateway, proof in proofs.items():
            try:
                if gateway not in active:
                    raise RemoteProtocolError("gateway_unknown", "no gateway of this id is enrolled")
                if sum(each.reason == "bad_proof" for each in wrong.values()) >= _WRONG_MAX:
                    raise RemoteProtocolError("bad_proof", f"not looked at: {_WRONG_MAX} of the question were wrong")
                self._check(gateway, active[gateway], proof, now_ms)
            except RemoteProtocolError as error:
                wrong[gateway] = error
        return wrong

    def check(self, gateway: str, proof: str, now_ms: int) -> None:
        """Raises RemoteProtocolError: `gateway_unknown`, `bad_proof`, `old_proof`."""
        for error in self.check_all({gateway: proof}, now_ms).values():
            raise error

    def _check(self, gateway: str, enrolled_ms: int, text: str, now_ms: int) -> None:
        proof = read_proof(text, now_ms)
        for each in self._certificates.signers(gateway, enrolled_ms):
            seen = sha256(b"\0".join((each.certificate, gateway.encode(), text.encode()))).digest()
            with self._lock:
                is_known = seen in self._known
            if is_known or _holds(each.certificate, query_text(gateway, proof.at_ms), proof.signature):
                self._remember(seen)
                return
        raise RemoteProtocolError("bad_proof", "the gateway's key has not signed this")

    def _remember(self, seen: bytes) -> None:
        with self._lock:
            self._known[seen] = None
            self._known.move_to_end(seen)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


def _holds(certificate: bytes, text: bytes, signature: bytes) -> bool:
    key = pki.load_certificate(certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, text, ec.ECDSA(pki.signature_hash(key)))
    except InvalidSignature:
        return False
    return True
