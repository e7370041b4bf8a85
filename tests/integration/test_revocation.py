"""A gateway that is shut out while it is connected: nothing more is taken from it, by a coordinator that runs on."""

from pathlib import Path

import pytest
import trio
from typer.testing import CliRunner

from coordinator.gwa.enrolment import Directory
from coordinator.store import Store
from loadtest.network import Network
from protocol.wire import Outcome
from stromkreis.pki import app


async def test_a_gateway_that_is_shut_out_is_cut_off_at_once(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.service.EXPEL_S", 0.2)
    network.relay, network.rounds, network.dropout = True, 120, 0.2
    config = tmp_path / "stromkreis.toml"
    config.write_text(f'[coordinator]\ndata_dir = "{network.directory / "coordinator"}"\n')
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        with trio.fail_after(40):
            while not (full := [each for each in network.ended() if each.roster == 0xFF]):
                await trio.sleep(0.2)
        head = network.head_of(full[-1])
        members = network.members()[full[-1].epoch, 0]
        victim = next(each for each in members if each != head)
        result = await trio.to_thread.run_sync(lambda: CliRunner().invoke(app, ["revoke", victim, "-c", str(config)]))
        assert (result.exit_code, result.output) == (0, f"{victim} is shut out\n")
        without = 0xFF & ~(1 << members.index(victim))
        with trio.fail_after(40):
            while not [each for each in network.ended() if each.roster == without]:
                await trio.sleep(0.2)
        rounds = network.ended()
        nursery.cancel_scope.cancel()
    after = rounds[next(index for index, each in enumerate(rounds) if each.roster == without) :]
    assert not [each for each in after if each.outcome is Outcome.OPENED and each.roster & ~without]


def test_who_is_not_there_cannot_be_shut_out(tmp_path: Path) -> None:
    config = tmp_path / "stromkreis.toml"
    config.write_text(f'[coordinator]\ndata_dir = "{tmp_path}"\n')
    result = CliRunner().invoke(app, ["revoke", "ESTK0000000001", "-c", str(config)])
    assert (result.exit_code, "no active gateway ESTK0000000001" in result.stderr) == (1, True)
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    assert Directory(store).revoked() == []
    store.close()
