"""Profile sets alike: one JSON text, in which `{gateway}` is a gateway's id and `{number}` its last eight digits."""

from __future__ import annotations

from protocol.profiles.profile_set import ProfileSet

GATEWAY, NUMBER = "{gateway}", "{number}"
_SAMPLE = "ESTK0000000000"
_NUMBER_LENGTH = 8


class ProfileTemplate:
    """A text that makes a set for every gateway.  Raises RemoteProtocolError `bad_profile` for one that makes none."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.for_gateway(_SAMPLE)

    def for_gateway(self, gateway: str) -> ProfileSet:
        """The set of one gateway.  Raises RemoteProtocolError `bad_profile`."""
        return ProfileSet.from_bytes(filled(self._text, gateway).encode())


def filled(text: str, gateway: str) -> str:
    """A template's text for one gateway."""
    return text.replace(GATEWAY, gateway).replace(NUMBER, gateway[-_NUMBER_LENGTH:])
