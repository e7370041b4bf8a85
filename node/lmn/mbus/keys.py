"""Which key belongs to which meter.  Keys never appear in a text, a log or a repr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from node.lmn.mbus.device import DeviceAddress
from protocol.errors import LocalProtocolError

KEY_SIZE: Final = 16


class KeyStore:
    """
    Meter number (the 14 characters of DIN 43849, or only its last eight) to a 16-byte AES key.

    The single `default` key serves the `decode` command, where one key is given for one file; with `all_secured` it is
    the key of whoever speaks, and nobody is believed without.
    """

    def __init__(
        self, keys: Mapping[str, bytes] | None = None, default: bytes | None = None, *, all_secured: bool = False
    ) -> None:
        self._keys: dict[str, bytes] = {}
        self._default = default
        self._all_secured = all_secured
        if default is not None:
            _check(default)
        for device, key in (keys or {}).items():
            self.add(device, key)

    @classmethod
    def of(cls, keys: Mapping[str, bytes] | bytes | None) -> KeyStore:
        """A store out of what a caller has: a mapping, one key for all, or nothing."""
        return cls(default=keys) if isinstance(keys, bytes) else cls(keys)

    def add(self, device: str, key: bytes) -> None:
        """Remember or replace a key.  Raises LocalProtocolError for a key of another size."""
        _check(key)
        self._keys[device.upper()] = key

    def key_of(self, address: DeviceAddress) -> bytes | None:
        """The key of a meter, None where there is none."""
        return self._own_key(address) or self._default

    def key_named(self, device: str) -> bytes | None:
        """The same by the meter's 14 characters."""
        return self._keys.get(device) or self._keys.get(device[-8:]) or self._default

    def must_be_secured(self, address: DeviceAddress) -> bool:
        """Whether the meter has a key of its own: then what comes in the clear is not from it."""
        return self._all_secured or self._own_key(address) is not None

    def _own_key(self, address: DeviceAddress) -> bytes | None:
        return self._keys.get(str(address)) or self._keys.get(address.number)

    def __repr__(self) -> str:
        return f"KeyStore({len(self._keys)} keys)"


def _check(key: bytes) -> None:
    if len(key) != KEY_SIZE:
        raise LocalProtocolError(f"an M-Bus key has {KEY_SIZE} bytes")
