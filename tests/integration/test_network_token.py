"""A ring whose gateways' keys are on a PKCS#11 token, admitted by their quality seals."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import SecretStr

from coordinator.gwa.ca import CertificateAuthority
from loadtest.network import Network
from node.config import SecurityConfig
from node.configured import open_keys
from protocol import pki
from protocol.errors import StromkreisError


def give_seals(network: Network, maker: CertificateAuthority) -> None:
    """What `stromkreis pki seal` does."""
    settings = network.node_config(0, network.gateways, "node")
    keys = open_keys(settings, maker.root)
    for gateway in settings.all_gateways():
        module = keys.open(gateway.id)
        seal = maker.issue_triple(pki.check_package(module.seal_package()), datetime.now(UTC), roles=pki.SEAL_TRIPLE)
        module.install_seal(tuple(map(pki.to_der, seal)), (pki.to_der(maker.sub_ca),))
    keys.close()


@pytest.mark.rounds
async def test_keys_on_a_token_make_exact_totals_also_after_a_restart(
    network: Network, ledger: Any, token: Any, tmp_path: Path
) -> None:
    network.security = SecurityConfig(library=token.library, token_label=token.label, pin=SecretStr(token.pin))
    network.quality_seal = "required"
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        assert network.coordinator_config is not None
        with pytest.raises(BaseExceptionGroup) as caught:
            async with trio.open_nursery() as early:
                await network.start_node(early, 0, network.gateways, "unsealed")
        assert caught.group_contains(StromkreisError, match="quality_seal")
        maker = CertificateAuthority.create_manufacturer(
            network.coordinator_config.pki_path, datetime.now(UTC), "Zaehlerwerk"
        )
        give_seals(network, maker)
        async with trio.open_nursery() as first:
            await network.start_node(first, 0, network.gateways, "node")
            await network.wait_until(lambda: len(ledger.check(network)) >= 3)
            first.cancel_scope.cancel()
        before = len(ledger.check(network))
        await network.start_node(nursery, 0, network.gateways, "node")
        await network.wait_until(lambda: len(ledger.check(network)) >= before + 2)
        nursery.cancel_scope.cancel()
    content = b"".join(path.read_bytes() for path in (tmp_path / "node" / "keys").glob("*"))
    assert b"PRIVATE KEY" not in content
    assert b"PRIVATE KEY".hex().encode() not in content
