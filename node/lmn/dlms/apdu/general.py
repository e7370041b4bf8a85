"""What carries other APDUs: ciphering, general and of one service (`glo-`, `ded-`), and general block transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from node.lmn.dlms.apdu.message import Apdu, message
from node.lmn.dlms.axdr import encode_length
from node.lmn.dlms.fields import BYTE, OCTETS, unsigned


@message(0xDB)
@dataclass(frozen=True, slots=True)
class GeneralGlobalCiphering(Apdu):
    """Any APDU under the global keys, with its sender."""

    system_title: Annotated[bytes, OCTETS]
    protected: Annotated[bytes, OCTETS]


@message(0xDC)
@dataclass(frozen=True, slots=True)
class GeneralDedicatedCiphering(Apdu):
    """Any APDU under the key of one association, with its sender."""

    system_title: Annotated[bytes, OCTETS]
    protected: Annotated[bytes, OCTETS]


@message(0xE0)
@dataclass(frozen=True, slots=True)
class GeneralBlock(Apdu):
    """General block transfer: `control` has 0x80 last block, 0x40 streaming, and the window in its low six bits."""

    control: Annotated[int, BYTE]
    block_number: Annotated[int, unsigned(2)]
    acknowledged: Annotated[int, unsigned(2)]
    content: Annotated[bytes, OCTETS]


@dataclass(frozen=True, slots=True)
class Ciphered(Apdu):
    """A service under global (`glo-`) or dedicated (`ded-`) keys; its tag says which service."""

    tag: int
    protected: bytes

    def to_bytes(self) -> bytes:
        """Tag, length, protected text."""
        return bytes((self.tag,)) + encode_length(len(self.protected)) + self.protected


GLOBAL_TAGS: Final = {0x01: 0x21, 0x08: 0x28, 0x0E: 0x2E} | {plain: plain + 8 for plain in range(0xC0, 0xC8)}
_DEDICATED_TAGS: Final = {0x01: 0x41, 0x08: 0x48, 0x0E: 0x4E} | {plain: plain + 16 for plain in range(0xC0, 0xC8)}
CIPHERED_TAGS: Final = frozenset(GLOBAL_TAGS.values()) | frozenset(_DEDICATED_TAGS.values())
