"""Signatures under what a liar says: nobody takes a lie that its member did not sign."""

from __future__ import annotations

from dataclasses import replace

from protocol import wire
from protocol.dcnet.machines.member import Member
from protocol.dcnet.setup.rings import RingView
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.dcnet.setup.statements import AttemptContext, text_of_confirm, text_of_input


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


def sign_again(message: wire.RingMessage, member: Member, secrets: EpochSecrets) -> wire.RingMessage:
    """A changed message of a member, signed for the attempt that it is in; others as they are."""
    current = member.current
    if isinstance(message, wire.MaskedInput):
        return sign_input(member.view, secrets, current.context, message)
    if isinstance(message, wire.Confirm):
        return sign_confirm(member.view, secrets, current.context, current.roster, message)
    return message
