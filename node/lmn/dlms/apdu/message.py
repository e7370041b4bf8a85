"""What an APDU is: a dataclass whose fields carry their own codec, in the order in which they are sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final, TypeVar, get_type_hints

from node.lmn.dlms.fields import Codec


class Apdu:
    """A message; `to_bytes` encodes it, `decode_apdu` is its inverse."""

    __slots__ = ()
    PREFIX: ClassVar[bytes] = b""
    CODECS: ClassVar[tuple[tuple[str, Codec], ...]] = ()

    def to_bytes(self) -> bytes:
        """Raises LocalProtocolError for data whose type cannot hold it."""
        return self.PREFIX + b"".join(codec.write(getattr(self, name)) for name, codec in self.CODECS)


MESSAGES: Final[dict[bytes, type[Apdu]]] = {}
"""Every APDU by the octets it begins with; full once the package is imported."""
_A = TypeVar("_A", bound=type[Apdu])


def message(*prefix: int) -> Callable[[_A], _A]:
    """Register a dataclass as the APDU that begins with these octets; its fields are annotated with their codecs."""

    def register(cls: _A) -> _A:
        hints = get_type_hints(cls, include_extras=True)
        names = cls.__dataclass_fields__  # type: ignore[attr-defined]
        cls.PREFIX = bytes(prefix)
        cls.CODECS = tuple((name, hints[name].__metadata__[0]) for name in names)
        MESSAGES[cls.PREFIX] = cls
        return cls

    return register
