"""
Keys on a PKCS#11 token: signature and decryption keys, and one AES key that seals what has to be a file.

The token's keys are made on it, are sensitive and cannot be extracted; `TokenKey` is a private key for `cryptography`
that asks the token for each signature (CKM_ECDSA) and each shared point (CKM_ECDH1_DERIVE, without a derivation of the
token's own).  What is sealed is AES-256-GCM under the token's key, with its label as additional data.

One session serves the process, one call at a time; where it breaks (a daemon that was restarted, a token that was
plugged out and in) it is opened anew once before the error is raised.  Shown with SoftHSM 2.6 on all four curves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import pkcs11
from asn1crypto.core import ObjectIdentifier, OctetString
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from pkcs11 import KDF, Attribute, GCMParams, KeyType, Mechanism, ObjectClass
from pkcs11.exceptions import NoSuchKey, PinIncorrect, PinLocked, PKCS11Error, UserAlreadyLoggedIn

from protocol.cms.suites import CURVE_OIDS, CURVES
from protocol.errors import LocalProtocolError, StromkreisError

_T = TypeVar("_T")
_PREFIX: Final = "pkcs11:"
_STORE_KEY_LABEL: Final = "stromkreis store"
_ID_SIZE, _IV_SIZE, _TAG_BITS = 16, 12, 128
_PRIVATE: Final = {
    Attribute.SIGN: True, Attribute.DERIVE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False,
    Attribute.PRIVATE: True,
}  # fmt: skip


class TokenBackend:
    """
    A `KeyBackend` on one token; close it in the end.

    `may_make_store_key` is for a directory without anything sealed: a token without the store key is otherwise the
    wrong one.  Raises StromkreisError for a library, token or PIN that is not right.
    """

    def __init__(self, library: Path, label: str, pin: str, *, may_make_store_key: bool) -> None:
        self._library, self._label, self._pin = library, label, pin
        self._lock = threading.RLock()
        self._session = self._open()
        self._call(lambda session: self._require_store_key(session, may_make=may_make_store_key))

    def close(self) -> None:
        """Log out."""
        with self._lock:
            self._session.close()

    def make_key(self, curve: ec.EllipticCurve, owner: str) -> str:
        """A key pair on the token, under a random id and labelled `stromkreis <owner>`."""
        identifier = self.random(_ID_SIZE)
        parameters = {Attribute.EC_PARAMS: ObjectIdentifier(CURVE_OIDS[type(curve)]).dump()}

        def make(session: pkcs11.Session) -> None:
            domain = session.create_domain_parameters(KeyType.EC, parameters, local=True)
            domain.generate_keypair(store=True, label=f"stromkreis {owner}", id=identifier, private_template=_PRIVATE)

        self._call(make)
        return f"{_PREFIX}{identifier.hex()}"

    def load_key(self, name: str) -> TokenKey:
        """The key of a name that `make_key` gave."""
        if not name.startswith(_PREFIX):
            raise StromkreisError(
                "the keys are in files, and the configuration names a token (node.security.library): enrol anew under"
                " another id, or leave the token out"
            )
        identifier = bytes.fromhex(name.removeprefix(_PREFIX))
        try:
            return TokenKey(self, identifier, self._call(lambda session: _public_key(session, identifier)))
        except NoSuchKey as error:
            raise StromkreisError(
                f"token {self._label}: key {identifier.hex()} is not on it; plug in the token that it was made on"
            ) from error

    def delete_key(self, name: str) -> None:
        """Destroy both objects of the pair."""
        identifier = bytes.fromhex(name.removeprefix(_PREFIX))

        def delete(session: pkcs11.Session) -> None:
            for found in list(session.get_objects({Attribute.ID: identifier})):
                found.destroy()

        self._call(delete)

    def seal(self, label: str, data: bytes) -> bytes:
        """IV, then AES-256-GCM with `label` as additional data."""
        iv = self.random(_IV_SIZE)
        mechanism: dict[str, Any] = {"mechanism": Mechanism.AES_GCM, "mechanism_param": _gcm(iv, label)}
        return iv + bytes(self._call(lambda session: _store_key(session).encrypt(data, **mechanism)))

    def unseal(self, label: str, sealed: bytes) -> bytes:
        """Inverse of `seal`."""
        mechanism: dict[str, Any] = {
            "mechanism": Mechanism.AES_GCM, "mechanism_param": _gcm(sealed[:_IV_SIZE], label),
        }  # fmt: skip
        try:
            return bytes(self._call(lambda session: _store_key(session).decrypt(sealed[_IV_SIZE:], **mechanism)))
        except StromkreisError as error:
            raise StromkreisError(
                f"token {self._label}: what is sealed as {label} does not open with its key: it is another token's, or"
                " was changed"
            ) from error

    def random(self, size: int) -> bytes:
        """The token's generator."""
        return bytes(self._call(lambda session: session.generate_random(8 * size)))

    def sign(self, identifier: bytes, digest: bytes) -> bytes:
        """ECDSA over a digest: r and s, one after the other."""
        return bytes(self._call(lambda s: _private_key(s, identifier).sign(digest, mechanism=Mechanism.ECDSA)))

    def agree(self, identifier: bytes, point: bytes, field_size: int) -> bytes:
        """The x coordinate of the shared point, as long as the field."""
        template = {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True, Attribute.TOKEN: False}

        def derive(session: pkcs11.Session) -> bytes:
            secret = _private_key(session, identifier).derive_key(
                KeyType.GENERIC_SECRET, 8 * field_size, mechanism_param=(KDF.NULL, None, point), template=template
            )
            try:
                return bytes(secret[Attribute.VALUE]).rjust(field_size, b"\0")
            finally:
                secret.destroy()

        return self._call(derive)

    def _open(self) -> pkcs11.Session:
        try:
            token = pkcs11.lib(str(self._library)).get_token(token_label=self._label)
            try:
                return token.open(rw=True, user_pin=self._pin)
            except UserAlreadyLoggedIn:  # a log-in is the process's: another session of it still stands
                return token.open(rw=True)
        except (PinIncorrect, PinLocked) as error:
            raise StromkreisError(
                f"token {self._label}: the PIN of node.security is not right; do not try again often, a token locks"
            ) from error
        except (PKCS11Error, RuntimeError) as error:  # the latter where the library cannot be loaded
            raise StromkreisError(
                f"{self._library}: token {self._label} cannot be used ({type(error).__name__}); expected a PKCS#11"
                " library and an initialised token (softhsm2-util --show-slots lists SoftHSM's)"
            ) from error

    def _call(self, work: Callable[[pkcs11.Session], _T]) -> _T:
        with self._lock:
            try:
                return work(self._session)
            except NoSuchKey:
                raise
            except PKCS11Error:
                self._session = self._open()
            try:
                return work(self._session)
            except NoSuchKey:
                raise
            except PKCS11Error as error:
                raise StromkreisError(f"token {self._label} refuses ({type(error).__name__})") from error

    def _require_store_key(self, session: pkcs11.Session, *, may_make: bool) -> None:
        try:
            _store_key(session)
        except NoSuchKey as error:
            if not may_make:
                raise StromkreisError(
                    f"token {self._label} has no store key, and there are sealed files: plug in the token they were"
                    " sealed with"
                ) from error
            secret = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True}
            session.generate_key(KeyType.AES, 256, store=True, label=_STORE_KEY_LABEL, template=secret)


class TokenKey(ec.EllipticCurvePrivateKey):
    """A private key on the token, as `cryptography` and `protocol.cms` use one; there are no bytes of it."""

    def __init__(self, backend: TokenBackend, identifier: bytes, public_key: ec.EllipticCurvePublicKey) -> None:
        self._backend = backend
        self._identifier = identifier
        self._public_key = public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve that it lies on."""
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        """Bits of the curve's order."""
        return self._public_key.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public key."""
        return self._public_key

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """ECDSA over `data` (X9.62, DER); the nonce is the token's, whatever the algorithm asks for."""
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, Prehashed):
            digest = bytes(data)
        else:
            hasher = hashes.Hash(algorithm)
            hasher.update(data)
            digest = hasher.finalize()
        raw = self._backend.sign(self._identifier, digest[: self._size()])
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:  # noqa: ARG002
        """The x coordinate of the shared point.  Raises LocalProtocolError for a key of another curve."""
        if type(peer_public_key.curve) is not type(self.curve):
            raise LocalProtocolError("a shared point needs two keys of one curve")
        numbers, size = peer_public_key.public_numbers(), self._size()
        point = b"\x04" + numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")
        return self._backend.agree(self._identifier, point, size)

    def private_numbers(self) -> NoReturn:
        """Raises UnsupportedAlgorithm."""
        raise UnsupportedAlgorithm("the private key never leaves the token")

    def private_bytes(self, *_arguments: object, **_options: object) -> NoReturn:
        """Raises UnsupportedAlgorithm."""
        raise UnsupportedAlgorithm("the private key never leaves the token")

    def __copy__(self) -> TokenKey:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TokenKey:
        return copy(self)

    def _size(self) -> int:
        return (self.key_size + 7) // 8


def _gcm(iv: bytes, label: str) -> GCMParams:
    return GCMParams(iv, label.encode(), _TAG_BITS)


def _store_key(session: pkcs11.Session) -> Any:
    return session.get_key(object_class=ObjectClass.SECRET_KEY, label=_STORE_KEY_LABEL)


def _private_key(session: pkcs11.Session, identifier: bytes) -> Any:
    return session.get_key(object_class=ObjectClass.PRIVATE_KEY, id=identifier)


def _public_key(session: pkcs11.Session, identifier: bytes) -> ec.EllipticCurvePublicKey:
    _private_key(session, identifier)
    found = session.get_key(object_class=ObjectClass.PUBLIC_KEY, id=identifier)
    curve = CURVES[ObjectIdentifier.load(found[Attribute.EC_PARAMS]).dotted]()
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, OctetString.load(found[Attribute.EC_POINT]).native)
