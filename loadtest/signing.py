"""Signatures under what a liar says: nobody takes a lie that its member did not sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.incarnations import NonceTable
from protocol.dcnet.machines.member import Member
from protocol.dcnet.setup.rings import RingView
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.dcnet.setup.statements import AttemptContext, nonce_text, text_of_confirm, text_of_input


def sign_input(
    view: RingView, secrets: EpochSecrets, context: AttemptContext, message: wire.MaskedInput
) -> wire.MaskedInput:
    """The message with the signature of the member whose secrets these are; as it is where there is no attempt."""
    if context.round < 0:
        return message
    return replace(message, signature=secrets.sign(text_of_input(view, secrets.position, context, message)))


def sign_confirm(
    view: RingView, secrets: EpochSecrets, context: AttemptContext, roster: int, message: wire.Confirm
) -> wire.Confirm:
    """The same for a confirmation of the roster."""
    if context.round < 0:
        return message
    return replace(message, signature=secrets.sign(text_of_confirm(view, secrets.position, context, roster, message)))


def sign_nonce(view: RingView, secrets: EpochSecrets, nonce: bytes) -> bytes:
    """What the member whose secrets these are signs of a nonce of its own."""
    return secrets.sign(nonce_text(view, secrets.position, nonce))


def sign_ready(view: RingView, secrets: EpochSecrets, message: wire.Ready, nonce: bytes) -> wire.Ready:
    """READY of another process of that member."""
    return replace(message, nonce=nonce, signature=sign_nonce(view, secrets, nonce))


class SignedNonces(NonceTable):
    """A table whose owner has the secrets of all members, and so may say any nonce of anybody: `newest` is its word."""

    def __init__(self, suite: Suite, view: RingView, secrets: Sequence[EpochSecrets]) -> None:
        super().__init__(suite, view)
        self._secrets = secrets

    def difference(self, expected: int) -> tuple[bytes, bytes, bytes]:
        """As it is said, and signed."""
        for position, nonce in enumerate(self.newest):
            self.signatures[position] = sign_nonce(self._view, self._secrets[position], nonce)
        return super().difference(expected)


def sign_again(message: wire.RingMessage, member: Member, secrets: EpochSecrets) -> wire.RingMessage:
    """A changed message of a member, signed for the attempt that it is in; others as they are."""
    current = member.current
    if isinstance(message, wire.MaskedInput):
        return sign_input(member.view, secrets, current.context, message)
    if isinstance(message, wire.Confirm):
        return sign_confirm(member.view, secrets, current.context, current.roster, message)
    return message
