"""Stores moved away, put back, and keys alone, on a living network: no energy twice, and it goes on."""

import fcntl
import shutil
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import trio

from loadtest.network import Network
from protocol.dcnet.machines.effects import Ended
from protocol.wire import Outcome

AWAY = ("ESTK0000000006", "ESTK0000000007")


def move_store_away(directory: Path, _: Path) -> None:
    for path in directory.glob("registers.sqlite*"):
        path.rename(path.with_name(f"damaged-{path.name}"))


def put_all_back(directory: Path, copy: Path) -> None:
    shutil.rmtree(directory)
    shutil.copytree(copy, directory)


def put_store_back(directory: Path, copy: Path) -> None:
    for path in directory.glob("registers.sqlite*"):
        path.unlink()
    for path in copy.glob("registers.sqlite*"):
        shutil.copy2(path, directory / path.name)


def keep_keys_only(directory: Path, _: Path) -> None:
    """What the backup of a node has: no store, no storage key, no epoch seeds."""
    for path in directory.rglob("*"):
        if path.is_file() and path.suffix != ".json":
            path.unlink()


def is_free(directory: Path) -> bool:
    """Whether the node that was cancelled has closed its store."""
    with (directory / "registers.sqlite.lock").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def with_all(network: Network, seen: int) -> list[Ended]:
    return [each for each in network.ended()[seen:] if each.roster == 0xFF]


def two_with_all(network: Network, seen: int) -> bool:
    return len(with_all(network, seen)) > 1


def zeros_of(network: Network, first_q: int) -> tuple[int, ...] | None:
    """The quarter hours that the accounts which began anew count from, by which all totals are exact."""
    rows = network.rows(network.ended())
    for zeros in product(range(first_q, first_q + 20), repeat=len(AWAY)):
        if network.judged_rows(rows, {name: (q,) for name, q in zip(AWAY, zeros, strict=True)}).exact:
            return zeros
    return None


@pytest.mark.parametrize("lose", [move_store_away, put_all_back, put_store_back, keep_keys_only])
async def test_an_account_that_is_not_the_newest_begins_anew(
    network: Network, lose: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    network.rounds = 60
    network.origin_unix_s += 25  # meters stand still until all accounts have begun, however slowly
    directory, copy = network.directory / "away", network.directory / "copy"
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 6, "steady")
        scope = await network.start_node(nursery, 6, 2, "away")
        await network.wait_until(lambda: with_all(network, 0)[1:])
        scope.cancel()
        await network.wait_until(partial(is_free, network.directory / "away"))
        shutil.copytree(directory, copy)
        seen = len(network.ended())
        scope = await network.start_node(nursery, 6, 2, "away")
        await network.wait_until(lambda: with_all(network, seen)[2:])
        scope.cancel()
        await network.wait_until(partial(is_free, network.directory / "away"))
        lose(directory, copy)
        seen, last = len(network.ended()), network.ended()[-1]
        await network.start_node(nursery, 6, 2, "away")
        await network.wait_until(lambda: with_all(network, seen)[2:])
        nursery.cancel_scope.cancel()
    assert caplog.text.count("its store is older than its last contribution") == len(AWAY)
    last_q = network.rows([last])[0].q
    assert not network.judged(network.ended()).exact  # what flowed while the store was away is in no total
    zeros = zeros_of(network, last_q - 1)
    assert zeros is not None
    assert min(zeros) > last_q - 1
    opened = [each for each in network.ended() if each.outcome is Outcome.OPENED]
    assert max(each.epoch for each in opened) <= 2  # a quarter of the gateways waits: the next epoch may come early


async def test_a_node_that_is_started_again_keeps_its_account(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    network.rounds = 60
    network.origin_unix_s += 25  # meters stand still until all accounts have begun, however slowly
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 6, "steady")
        for _ in range(3):
            seen = len(network.ended())
            scope = await network.start_node(nursery, 6, 2, "away")
            await network.wait_until(partial(two_with_all, network, seen))
            scope.cancel()
            await network.wait_until(partial(is_free, network.directory / "away"))
        nursery.cancel_scope.cancel()
    assert "its store is older" not in caplog.text
    assert network.judged(network.ended()).exact
    assert network.flown("steady", "away").is_conserved
