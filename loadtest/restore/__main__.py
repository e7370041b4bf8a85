"""
Restore drills on a living network of real processes: `python -m loadtest.restore` (make acceptance-restore).

Each drill takes data away, or puts older ones back, as an operator might, and waits until all gateways are in totals
again.  In the end every total is held against the meters' own registers: what was lost with a store is in no total, and
nothing is in two.  Exit status 1 where a drill fails.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import trio

from loadtest.network import Network
from loadtest.restore.living import AWAY, Living

Drill = Callable[[Living], Awaitable[float]]
_ZEROS_AFTER = 30  # quarter hours in which an account that begins anew has its zero, after the total before


@dataclass(frozen=True, slots=True)
class _Done:
    name: str
    seconds: float
    since: int  # the quarter hour of the last total before
    began_anew: bool


async def _away(living: Living, change: Callable[[Path], None], how: signal.Signals = signal.SIGTERM) -> float:
    living.stop("away", how)
    change(living.network.directory / "away")
    seen = living.last_q()
    living.restart_away()
    return await living.until_all(seen)


async def killed(living: Living) -> float:
    """A node killed and started again"""
    return await _away(living, lambda _: None, signal.SIGKILL)


async def store_moved_away(living: Living) -> float:
    """A node's store moved away"""

    def change(directory: Path) -> None:
        for path in directory.glob("registers.sqlite*"):
            path.rename(path.with_name(f"moved-{time.monotonic_ns()}-{path.name}"))

    return await _away(living, change)


async def volume_put_back(living: Living) -> float:
    """A node's whole volume put back"""
    directory, copy = living.network.directory / "away", living.network.directory / "volume"
    living.stop("away")
    shutil.copytree(directory, copy)
    seen = living.last_q()
    living.restart_away()
    await living.until_all(seen, rounds=3)

    def change(_: Path) -> None:
        shutil.rmtree(directory)
        copy.rename(directory)

    return await _away(living, change)


async def keys_alone(living: Living) -> float:
    """A node's keys alone, from its backup"""

    def change(directory: Path) -> None:
        for path in directory.rglob("*"):
            if path.is_file() and path.suffix != ".json":
                path.unlink()

    return await _away(living, change)


async def two_copies(living: Living) -> float:
    """Two copies of a node at once, the older stopped later"""
    network = living.network
    twin = network.directory / "twin"
    living.stop("away")
    shutil.copytree(network.directory / "away", twin)
    living.restart_away()
    text = (network.directory / "away.toml").read_text(encoding="utf-8")
    config = network.directory / "twin.toml"
    config.write_text(text.replace(str(network.directory / "away"), str(twin)), encoding="utf-8")
    living.run_node("twin", str(config))
    await trio.sleep(6 * network.period_s)
    seen = living.last_q()
    living.stop("away")
    shutil.rmtree(network.directory / "away")
    # The one that stays is the one that connected last; it need not know what the other contributed.
    living.stop("twin")
    twin.rename(network.directory / "away")
    living.restart_away()
    return await living.until_all(seen)


async def coordinator_restored(living: Living) -> float:
    """A coordinator's backup put back, a gateway revoked since"""
    network = living.network
    backup = network.directory / "backup"
    _stromkreis(living, "backup", str(backup))
    seen = living.last_q()
    await living.until_all(seen, rounds=3)
    revoked = f"ESTK00{5:08d}"
    _stromkreis(living, "pki", "revoke", revoked)
    await trio.sleep(2 * network.period_s)
    living.stop("coordinator")
    living.remember()
    _stromkreis(living, "restore", str(backup))
    seen = living.last_q()
    living.restart_coordinator()
    took_s = await living.until_all(seen, without=revoked)
    if any(revoked in each.roster for each in living.rows() if each.q > seen):
        raise RuntimeError(f"{revoked} was revoked, and is in a total again")
    if "revocations and uses of tokens were not in the database" not in living.log_of("coordinator"):
        raise RuntimeError("the restored coordinator does not know who was revoked")
    return took_s


def _stromkreis(living: Living, *arguments: str) -> None:
    command = [sys.executable, "-m", "stromkreis", *arguments, "--config", str(living.coordinator_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=living.network.directory)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"stromkreis {' '.join(arguments)}: {done.stdout}{done.stderr}")


DRILLS: tuple[tuple[Drill, bool], ...] = (  # and whether the smaller node's accounts begin anew
    (killed, False), (store_moved_away, True), (volume_put_back, True), (keys_alone, True), (two_copies, True),
    (coordinator_restored, False),
)  # fmt: skip


async def run(directory: Path, drills: tuple[tuple[Drill, bool], ...] = DRILLS, period_s: float = 2.0) -> bool:
    """All drills, one after the other, on one network; whether all totals are exact in the end."""
    origin_s = float(int(time.time()) + 60)  # meters stand still until all accounts have begun
    living = Living(Network(directory, rounds=60, period_s=period_s, origin_unix_s=origin_s))
    done: list[_Done] = []
    async with trio.open_nursery() as nursery:
        try:
            await living.start(nursery)
            for drill, may_begin_anew in drills:
                since = living.last_q()
                said = living.log_of("away").count("its store is older")
                seconds = await drill(living)
                began_anew = living.log_of("away").count("its store is older") > said
                name = (drill.__doc__ or "").strip()
                if began_anew and not may_begin_anew:
                    raise RuntimeError(f"{name}: an account began anew that need not")
                done.append(_Done(name, seconds, since, began_anew))
                what = "accounts begin anew" if began_anew else "accounts go on"
                sys.stdout.write(f"{name:<62} all in totals again after {seconds:5.1f} s, {what}\n")
                sys.stdout.flush()
        finally:
            living.kill_all()
        nursery.cancel_scope.cancel()
    exact = is_exact(living, done)
    sys.stdout.write(f"{len(living.rows())} rounds, every total exact: {'yes' if exact else 'NO'}\n")
    return exact


def is_exact(living: Living, done: list[_Done]) -> bool:
    """Whether there are zeros for the accounts that began anew by which every total is what it must be."""
    rows, network = living.rows(), living.network
    _, first, count = AWAY
    names = [f"ESTK00{first + index:08d}" for index in range(count)]
    anew = [each for each in done if each.began_anew]
    found: dict[str, tuple[int, ...]] = dict.fromkeys(names, ())
    first_since = min((each.since for each in anew), default=living.last_q())
    before = network.judged_rows([row for row in rows if row.q <= first_since])
    if not before.exact:
        sys.stdout.write(f"before any loss: {'; '.join(map(str, before.differences[:3]))}\n")
        return False
    for index, each in enumerate(anew):
        until = anew[index + 1].since if index + 1 < len(anew) else living.last_q()
        upto = [row for row in rows if row.q <= until]
        candidates = range(each.since, min(each.since + _ZEROS_AFTER, until + 1))
        for zeros in product(candidates, repeat=count):
            tried = {name: (*found[name], zero) for name, zero in zip(names, zeros, strict=True)}
            if network.judged_rows(upto, tried).exact:
                found = tried
                break
        else:
            sys.stdout.write(f"after '{each.name}' a total is not what it must be\n")
            return False
    return network.judged_rows(rows, found).exact


def main() -> None:
    """Run all drills in a directory of their own."""
    with tempfile.TemporaryDirectory() as directory:
        sys.exit(0 if trio.run(run, Path(directory)) else 1)


if __name__ == "__main__":
    main()
