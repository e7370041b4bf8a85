"""A gateway that is revoked while it is connected: nothing more is taken from it, by a coordinator that runs on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from typer.testing import CliRunner

from coordinator.storage.store import Store
from loadtest.network import Network
from node.aggregation.head import HeadDriver
from protocol.dcnet.machines.effects import Ended
from stromkreis.pki import app

if TYPE_CHECKING:
    from tests.integration.conftest import Ledger


class Revoked:
    """A ring of eight over real sockets, one of whose members is revoked by the command while rounds run."""

    def __init__(self, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("coordinator.gwa.admission.EXPEL_S", 0.2)
        network.rounds, network.dropout = 120, 0.2
        self.network = network
        self.config = tmp_path / "stromkreis.toml"
        self.config.write_text(f'[coordinator]\ndata_dir = "{network.directory / "coordinator"}"\n')
        self.without = 0
        self.victim = ""

    async def run(self, *, is_head: bool, is_down: bool = False) -> list[Ended]:
        """The rounds from the first one without the victim to the third."""
        network = self.network
        async with trio.open_nursery() as nursery:
            await network.start_meters(nursery)
            coordinator = await network.start_coordinator(nursery)
            await network.start_node(nursery, 0, 8, "node")
            await network.wait_until(lambda: [each for each in network.ended() if each.roster == 0xFF])
            if is_down:
                await coordinator.stop()
            last = network.ended()[-1]
            members = network.members()[last.epoch, 0]
            self.victim = next(each for each in members if (each == network.head_of(last)) is is_head)
            self.without = 0xFF & ~(1 << members.index(self.victim))
            command = ["revoke", self.victim, "-c", str(self.config)]
            result = await trio.to_thread.run_sync(lambda: CliRunner().invoke(app, command))
            assert (result.exit_code, result.output) == (0, f"{self.victim} is revoked\n")
            if is_down:
                await network.start_coordinator(nursery)
            await network.wait_until(lambda: [each for each in network.ended() if each.roster == self.without][2:])
            rounds = network.ended()
            nursery.cancel_scope.cancel()
        return rounds[next(index for index, each in enumerate(rounds) if each.roster == self.without) :]


@pytest.fixture
def revoked(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Revoked:
    return Revoked(network, tmp_path, monkeypatch)


@pytest.mark.parametrize("relay", [False, True], ids=["direct", "relay"])
@pytest.mark.parametrize("is_head", [False, True], ids=["member", "head"])
async def test_a_gateway_that_is_shut_out_is_out_of_its_ring_at_once(
    revoked: Revoked, ledger: Ledger, *, relay: bool, is_head: bool
) -> None:
    revoked.network.relay = relay
    after = await revoked.run(is_head=is_head)
    assert [each for each in after if each.roster & ~revoked.without] == []
    assert len({each.epoch for each in after}) == 1, "the ring goes on without it"
    assert ledger.check(revoked.network)
    assert revoked.network.flown("node").is_conserved


async def test_a_gateway_shut_out_during_downtime_is_out_afterwards(revoked: Revoked, ledger: Ledger) -> None:
    after = await revoked.run(is_head=False, is_down=True)
    assert [each for each in after if each.roster & ~revoked.without] == []
    assert len({each.epoch for each in after}) == 1
    assert ledger.check(revoked.network)
    assert revoked.network.flown("node").is_conserved


async def test_a_head_that_keeps_a_gateway_that_was_shut_out_opens_nothing(
    revoked: Revoked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    liars: list[HeadDriver] = []
    expel = HeadDriver.expel

    def keeping(head: HeadDriver, members: int) -> None:
        if not liars and members:
            liars.append(head)
        if head not in liars:
            expel(head, members)

    monkeypatch.setattr(HeadDriver, "expel", keeping)
    after = await revoked.run(is_head=False)
    assert liars
    assert caplog.text.count("refuses: expelled_member") >= 7
    assert after[0].term > 0, "the head was replaced"
    assert [each for each in after if each.roster & ~revoked.without] == []
    assert revoked.network.flown("node").is_conserved


def test_who_is_not_there_cannot_be_shut_out(tmp_path: Path) -> None:
    config = tmp_path / "stromkreis.toml"
    config.write_text(f'[coordinator]\ndata_dir = "{tmp_path}"\n')
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    result = CliRunner().invoke(app, ["revoke", "ESTK0000000001", "-c", str(config)])
    assert (result.exit_code, "no active gateway ESTK0000000001" in result.stderr) == (1, True)
    assert store.gateways.revoked() == []
    store.close()
