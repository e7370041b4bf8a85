"""The file of epoch seeds: whole after a process died in the middle of writing it, and without what was deleted."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from node.storage.errors import StoreError
from node.storage.migrations import EPOCH_SEED_STEPS, migrate
from node.storage.migrations.seeds003_ends_of_old_seeds import LONGEST_S
from node.storage.repositories.epoch_seeds import EpochSeedRepository
from node.storage.schema import status

ROOT = Path(__file__).parents[2]
COUNT = 600
"""Seeds that fill more pages than one transaction changes: its journal stays smaller than the file."""

# The kernel ends the process in the middle of a transaction's writes: pages within the file are written, the first one
# behind its end is not.
DYING = """
import resource, signal, sys
from pathlib import Path
from node.storage.repositories.epoch_seeds import EpochSeedRepository
path = Path(sys.argv[1])
seeds = EpochSeedRepository(path)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size,) * 2)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
for number in range(10_000):
    seeds.add(f"late{number:05}", 1, bytes([number % 256]) * 32, 1e9)
    print(number, flush=True)
"""


def filled(path: Path) -> EpochSeedRepository:
    seeds = EpochSeedRepository(path)
    for number in range(COUNT):
        seeds.add(f"g{number:05}", 1, seed_of(number), 1e9)
    return seeds


def seed_of(number: int) -> bytes:
    return number.to_bytes(4, "big") * 8


def everything_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


def test_killed_in_the_middle_of_a_transaction_the_file_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "epochs.sqlite"
    filled(path).close()
    child = subprocess.run([sys.executable, "-c", DYING, path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert child.returncode == -signal.SIGXFSZ, child.stderr
    kept = len(child.stdout.split())
    assert (tmp_path / "epochs.sqlite-journal").read_bytes()[:8] == bytes.fromhex("d9d505f920a163d7")  # it is hot
    with pytest.raises(
        StoreError, match=r"epochs\.sqlite: the node was killed while it wrote this file; start it once"
    ):
        status(tmp_path / "registers.sqlite", path)
    seeds = EpochSeedRepository(path)
    assert status(tmp_path / "registers.sqlite", path)[1].found == str(len(EPOCH_SEED_STEPS))
    assert [seeds.seed(f"g{number:05}", 1) for number in range(COUNT)] == [seed_of(each) for each in range(COUNT)]
    late = [seeds.seed(f"late{number:05}", 1) for number in range(kept + 1)]
    assert late == [bytes([number % 256]) * 32 for number in range(kept)] + [None]
    seeds.add("late", 1, bytes(32), 1e9)
    seeds.close()
    assert not any((tmp_path / "epochs.sqlite-journal").read_bytes()[:8])


@pytest.mark.parametrize("how", ["delete", "delete_before", "delete_ended", "delete_gateway"])
def test_a_deleted_seed_is_in_no_file_any_more(tmp_path: Path, how: str) -> None:
    with closing(filled(tmp_path / "epochs.sqlite")) as seeds:
        assert seed_of(7) in everything_in(tmp_path)
        arguments = {"delete": ("g00007", 1), "delete_before": ("g00007", 2), "delete_ended": ("g00007", 10**9)}
        getattr(seeds, how)(*arguments.get(how, ("g00007",)))
        assert seeds.seed("g00007", 1) is None
        assert seed_of(7) not in everything_in(tmp_path)
        assert seed_of(8) in everything_in(tmp_path)


def test_what_a_crash_left_in_the_journal_is_overwritten_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "epochs.sqlite"
    filled(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=PERSIST")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("DELETE FROM seed WHERE gateway='g00007'")  # and died before it was overwritten
    assert seed_of(7) in everything_in(tmp_path)
    EpochSeedRepository(path).close()
    assert seed_of(7) not in everything_in(tmp_path)


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "epochs.sqlite"
    filled(path).close()
    octets = bytearray(path.read_bytes())
    octets[2 * 4096 : 3 * 4096] = b"\xff" * 4096
    path.write_bytes(octets)
    with pytest.raises(StoreError, match=r"epochs\.sqlite: the file is damaged .* move it away"):
        EpochSeedRepository(path)


def test_seeds_of_earlier_releases_get_an_end(tmp_path: Path) -> None:
    path = tmp_path / "epochs.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, EPOCH_SEED_STEPS[:2])
        connection.execute("INSERT INTO seed (gateway, epoch, seed) VALUES ('old', 1, x'01')")
        connection.execute("INSERT INTO seed (gateway, epoch, seed, end_s) VALUES ('new', 1, x'02', 1e9)")
    before_s = int(time.time())
    with closing(EpochSeedRepository(path)) as seeds:
        seeds.delete_ended("old", before_s + LONGEST_S - 1)
        assert seeds.seed("old", 1) == b"\1"
        seeds.delete_ended("old", int(time.time()) + LONGEST_S + 1)
        assert seeds.seed("old", 1) is None
        seeds.delete_ended("new", 10**9)
        assert seeds.seed("new", 1) is None
