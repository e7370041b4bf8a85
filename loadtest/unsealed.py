"""A cipher that hides nothing: what sealing costs is measured against it, and a search is shown to find by it."""

from __future__ import annotations


class Unsealed:
    """`node.storage.cipher.Cipher` without encryption; nothing but tests and benchmarks may put a store under it."""

    def seal(self, _column: str, _row: tuple[str | int | bytes, ...], value: bytes) -> bytes:
        """The value as it is."""
        return value

    def open(self, _column: str, _row: tuple[str | int | bytes, ...], sealed: bytes) -> bytes:
        """The value as it is."""
        return sealed
