"""Sealed values open in their own place and under their own key, and nowhere else."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.security.storage_key import FileStorageKeys
from node.storage.cipher import STORE_PURPOSE, StorageCipher
from node.storage.errors import SealError
from protocol.errors import StromkreisError

KEY = bytes(range(32))
PARTS = st.one_of(st.text(max_size=8), st.integers(0, 2**63), st.binary(max_size=8))
ROWS = st.lists(PARTS, max_size=4).map(tuple)


@given(st.text(max_size=12), ROWS, st.binary(max_size=200))
def test_what_was_sealed_opens_in_its_place(column: str, row: tuple[str | int | bytes, ...], value: bytes) -> None:
    cipher = StorageCipher(KEY)
    assert StorageCipher(KEY).open(column, row, cipher.seal(column, row, value)) == value


@given(st.tuples(st.text(max_size=3), ROWS), st.tuples(st.text(max_size=3), ROWS))
def test_a_value_in_another_place_does_not_open(
    mine: tuple[str, tuple[str | int | bytes, ...]], other: tuple[str, tuple[str | int | bytes, ...]]
) -> None:
    cipher = StorageCipher(KEY)
    sealed = cipher.seal(*mine, b"61803398")
    if mine != other:
        with pytest.raises(SealError):
            cipher.open(*other, sealed)


@given(st.binary(max_size=60), st.integers(0, 10**6))
def test_an_altered_value_does_not_open(value: bytes, place: int) -> None:
    cipher = StorageCipher(KEY)
    sealed = bytearray(cipher.seal("account.opened", ("g",), value))
    sealed[place % len(sealed)] ^= 1 << place % 8
    with pytest.raises(SealError):
        cipher.open("account.opened", ("g",), bytes(sealed))


@pytest.mark.parametrize("bad", [b"", bytes(11), bytes(28), bytes(500), None, 5, "text"])
def test_what_is_no_sealed_value_is_told_without_a_value(bad: object) -> None:
    with pytest.raises(SealError) as refused:
        StorageCipher(KEY).open("account.opened", ("ESTK0000000001",), bad)  # type: ignore[arg-type]
    assert "account.opened does not open in its row" in str(refused.value)
    assert refused.value.__cause__ is None


def test_each_value_has_a_nonce_of_its_own_from_the_given_source() -> None:
    numbers = itertools.count(1)
    cipher = StorageCipher(KEY, lambda count: next(numbers).to_bytes(count, "big"))
    sealed = [cipher.seal("a", (), b"the same value") for _ in range(3)]
    assert [each[:12] for each in sealed] == [number.to_bytes(12, "big") for number in (1, 2, 3)]
    assert len({each[12:] for each in sealed}) == 3
    assert {len(each) for each in sealed} == {len(b"the same value") + 28}


def test_another_key_opens_nothing_and_a_short_one_is_refused() -> None:
    sealed = StorageCipher(KEY).seal("a", (), b"value")
    with pytest.raises(SealError):
        StorageCipher(bytes(32)).open("a", (), sealed)
    with pytest.raises(ValueError, match="a storage key of 16 bytes; expected 32"):
        StorageCipher(bytes(16))


def test_the_storage_key_is_made_once_and_readable_to_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "storage.key"
    first = FileStorageKeys(path, lambda count: b"\x5a" * count)
    again = FileStorageKeys(path, lambda count: b"\xa5" * count)
    assert path.read_text() == "5a" * 32 + "\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["storage.key"]
    assert first.storage_key(STORE_PURPOSE) == again.storage_key(STORE_PURPOSE)
    assert first.storage_key("another") != first.storage_key(STORE_PURPOSE) != b"\x5a" * 32


def test_a_start_that_was_killed_while_the_key_was_made_bars_no_later_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container every process has the same id."""

    def killed(*_arguments: object, **_named: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "storage.key"
    with monkeypatch.context() as crash:
        crash.setattr(Path, "hardlink_to", killed)
        crash.setattr(Path, "unlink", killed)  # it was not cleaned up after
        with pytest.raises(KeyboardInterrupt):
            FileStorageKeys(path, lambda count: b"\x5a" * count)
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    FileStorageKeys(path, lambda count: b"\xa5" * count)
    assert path.read_text() == "a5" * 32 + "\n"


@pytest.mark.parametrize("content", ["", "5a" * 31, "5a" * 33, "6f" * 31 + "xx"])
def test_a_damaged_key_file_is_told_without_its_content(tmp_path: Path, content: str) -> None:
    path = tmp_path / "storage.key"
    path.write_text(content)
    with pytest.raises(StromkreisError, match=r"storage\.key: expected 32 bytes in hexadecimal; put") as refused:
        FileStorageKeys(path)
    assert "6f6f" not in str(refused.value)
    assert path.read_text() == content


def test_a_key_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(StromkreisError, match="neither read nor made"):
        FileStorageKeys(tmp_path / "no directory" / "storage.key")
