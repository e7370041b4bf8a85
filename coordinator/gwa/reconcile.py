"""Bring into the database what a restore of it must not undo (see coordinator.storage.irrevocable)."""

from __future__ import annotations

import logging

from coordinator.storage.gateways import GatewayRepository
from coordinator.storage.irrevocable import Irrevocable

log = logging.getLogger(__name__)


def reconcile(gateways: GatewayRepository, known: Irrevocable) -> int:
    """
    Revoke who was revoked, free the ids that were, take the uses that tokens have lost; how many of these the database
    did not know.

    More than none: it was put back to an earlier state, or a crash came between file and database.
    """
    missed = sum(gateways.restore_revocation(gateway, certificates) for gateway, certificates in known.revoked.values())
    missed += sum(gateways.restore_release(name, key, at_ms) for key, (name, at_ms) in known.released.items())
    for name, at_ms in known.left.items():
        gateways.leave(name, at_ms)  # is among the revoked, and counted with them
    missed += sum(gateways.limit_uses(digest, left) for digest, left in known.uses_left.items())
    missed += sum(gateways.revoke_token(digest, at_ms) for digest, at_ms in known.tokens_revoked.items())
    if missed:
        log.warning(
            "%d revocations and uses of tokens were not in the database, and count again; was it put back to an earlier"
            " state?", missed,
        )  # fmt: skip
    return missed
