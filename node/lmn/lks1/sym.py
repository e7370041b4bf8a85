"""
SYM: the first pairing of gateway and meter under the meter's pre-shared key (LKS1.PSK), and its undoing.

BSI TR-03109-1 Detailspezifikation, 8.3, fixes the purpose: with the device's own key MK0 exchange certificates
authentically, bring the meter the key pair that the gateway made for it confidentially, undo the pairing with
message types 6 and 7.  The change MK0 -> MK' is optional there and not offered here.  The messages themselves stand
in DIN VDE 0418-63-7 ("Initialer TLS-Zertifikatstausch, SYM-Messages"), the key derivation in TR-03109-3; neither is
at hand.  So this is OUR definition, and only both of our own ends speak it:

    message     version 1 | type 1 | counter 4 | ciphertext 16·n | tag 16
    types       1 hello request, 2 hello response (capabilities), 3 credentials, 4 installed, 5 refused,
                6 crypto reset request, 7 crypto reset done
    keys        CMAC-AES128(MK0, constant | counter | sensor id | padding), constants as the OMS key derivation has
                them: 00 encryption and 01 authentication from the meter, 10 and 11 from the gateway
    protection  AES-128-CBC with zero IV (the key is used once: it depends on the counter), then CMAC over all before

The counter rises with every exchange of the gateway and is written down before it is used; the meter takes none
twice, and answers under the counter of the question, so that an answer belongs to one question.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.cmac import CMAC

from protocol.errors import LocalProtocolError, RemoteProtocolError

VERSION: Final = 1
_HEADER_SIZE, _TAG_SIZE = 6, 16
_FROM_METER, _FROM_GATEWAY = 0x00, 0x10


class Type(IntEnum):
    """Message types; 6 and 7 are the standard's."""

    HELLO = 1
    CAPABILITIES = 2
    CREDENTIALS = 3
    INSTALLED = 4
    REFUSED = 5
    RESET = 6
    RESET_DONE = 7


@dataclass(frozen=True, slots=True)
class Message:
    """One SYM message in the clear."""

    type: Type
    counter: int
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the meter gets: the gateway's certificate, its own, and its private key, each DER."""

    gateway_certificate: bytes
    meter_certificate: bytes
    meter_key: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Three fields, each with two bytes of length."""
        parts = (self.gateway_certificate, self.meter_certificate, self.meter_key)
        return b"".join(len(part).to_bytes(2, "big") + part for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Credentials:
        """Raises RemoteProtocolError for anything but three whole fields."""
        parts = []
        at = 0
        for _ in range(3):
            size = int.from_bytes(data[at : at + 2], "big")
            parts.append(data[at + 2 : at + 2 + size])
            if len(parts[-1]) != size or not size:
                raise RemoteProtocolError("sym_credentials", "a field is cut off", offset=at)
            at += 2 + size
        if at != len(data):
            raise RemoteProtocolError("sym_credentials", "bytes are left over", offset=at)
        return cls(*parts)


def seal(message: Message, main_key: bytes, sensor_id: bytes, *, from_gateway: bool) -> bytes:
    """The protected form of a message."""
    direction = _FROM_GATEWAY if from_gateway else _FROM_METER
    padder = padding.PKCS7(128).padder()
    plain = padder.update(message.body) + padder.finalize()
    encryptor = Cipher(AES(_key(main_key, direction, message.counter, sensor_id)), CBC(bytes(16))).encryptor()
    head = bytes((VERSION, message.type)) + message.counter.to_bytes(4, "big")
    body = head + encryptor.update(plain) + encryptor.finalize()
    return body + _tag(_key(main_key, direction + 1, message.counter, sensor_id), body)


def unseal(data: bytes, main_key: bytes, sensor_id: bytes, *, from_gateway: bool) -> Message:
    """Raises RemoteProtocolError for a false tag (another key or meter, altered, from the wrong side) or format."""
    direction = _FROM_GATEWAY if from_gateway else _FROM_METER
    size = len(data) - _HEADER_SIZE - _TAG_SIZE
    if size < 16 or size % 16 or data[0] != VERSION:
        raise RemoteProtocolError("sym_format", "no SYM message of version 1", offset=0)
    counter = int.from_bytes(data[2:6], "big")
    expected = _tag(_key(main_key, direction + 1, counter, sensor_id), data[:-_TAG_SIZE])
    if not hmac.compare_digest(expected, data[-_TAG_SIZE:]):
        raise RemoteProtocolError("sym_authentication", "the tag is wrong")
    decryptor = Cipher(AES(_key(main_key, direction, counter, sensor_id)), CBC(bytes(16))).decryptor()
    plain = decryptor.update(data[_HEADER_SIZE:-_TAG_SIZE]) + decryptor.finalize()
    unpadder = padding.PKCS7(128).unpadder()
    try:
        return Message(Type(data[1]), counter, unpadder.update(plain) + unpadder.finalize())
    except ValueError:
        raise RemoteProtocolError("sym_format", "an unknown type or a false padding") from None


class PairingGateway:
    """
    The gateway's side: questions out, the meter's answers in.

    `counter` is the first that was not used before.  Raises RemoteProtocolError for answers that are none to the
    question under way, LocalProtocolError without a question.
    """

    def __init__(self, main_key: bytes, sensor_id: bytes, counter: int) -> None:
        self._main_key = main_key
        self._sensor_id = sensor_id
        self.next_counter = counter
        self._expected: tuple[Type, int] | None = None

    def hello(self) -> bytes:
        """Ask what the meter can do; the answer's body is its capabilities."""
        return self._ask(Type.HELLO, Type.CAPABILITIES)

    def credentials(self, credentials: Credentials) -> bytes:
        """Bring the meter its key and both certificates."""
        return self._ask(Type.CREDENTIALS, Type.INSTALLED, credentials.to_bytes())

    def reset(self) -> bytes:
        """Undo the pairing (crypto reset)."""
        return self._ask(Type.RESET, Type.RESET_DONE)

    def receive(self, data: bytes) -> bytes:
        """The body of the answer that was waited for."""
        if self._expected is None:
            raise LocalProtocolError("no question is under way")
        message = unseal(data, self._main_key, self._sensor_id, from_gateway=False)
        kind, counter = self._expected
        if message.counter != counter:
            raise RemoteProtocolError("sym_counter", "the answer to another question")
        self._expected = None
        if message.type is Type.REFUSED:
            raise RemoteProtocolError("sym_refused", "the meter refuses")
        if message.type is not kind:
            raise RemoteProtocolError("sym_unexpected", "another answer than the question calls for")
        return message.body

    def _ask(self, kind: Type, answer: Type, body: bytes = b"") -> bytes:
        counter = self.next_counter
        self.next_counter += 1
        self._expected = (answer, counter)
        return seal(Message(kind, counter, body), self._main_key, self._sensor_id, from_gateway=True)


class PairingMeter:
    """The meter's side (simulated meters, and the tests): `credentials` is what it was given, None unpaired."""

    def __init__(self, main_key: bytes, sensor_id: bytes, capabilities: bytes = b"", highest: int = 0) -> None:
        self._main_key = main_key
        self._sensor_id = sensor_id
        self._capabilities = capabilities
        self.highest = highest
        self.credentials: Credentials | None = None

    def answer(self, data: bytes) -> bytes:
        """Raises RemoteProtocolError for what gets no answer: a false tag, a counter that was seen."""
        message = unseal(data, self._main_key, self._sensor_id, from_gateway=True)
        if message.counter <= self.highest:
            raise RemoteProtocolError("sym_counter", "the counter has not risen")
        self.highest = message.counter
        kind, body = self._handle(message)
        return seal(Message(kind, message.counter, body), self._main_key, self._sensor_id, from_gateway=False)

    def _handle(self, message: Message) -> tuple[Type, bytes]:
        if message.type is Type.HELLO:
            return Type.CAPABILITIES, self._capabilities
        if message.type is Type.CREDENTIALS and self.credentials is None:
            self.credentials = Credentials.from_bytes(message.body)
            return Type.INSTALLED, b""
        if message.type is Type.RESET:
            self.credentials = None
            return Type.RESET_DONE, b""
        return Type.REFUSED, b""


def _key(main_key: bytes, constant: int, counter: int, sensor_id: bytes) -> bytes:
    seed = bytes((constant,)) + counter.to_bytes(4, "big") + sensor_id
    return _tag(main_key, seed + bytes((-len(seed) % 16,)) * (-len(seed) % 16))


def _tag(key: bytes, data: bytes) -> bytes:
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()
