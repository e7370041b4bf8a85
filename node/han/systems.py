"""What a controllable system finds of itself at home: its proxy profiles, and how many tunnels each has open."""

from __future__ import annotations

from datetime import UTC, datetime

from node.han import models
from node.han.accounts import Account
from node.han.query import Query
from node.han.view import NotThere, View
from protocol.profiles.communication import ProxyProfile


def proxy_ids(view: View, account: Account) -> list[str]:
    """The ids of its proxy profiles, of those too that do not count yet or any more."""
    return [each.id for each in _own(view, account)]


def proxy(view: View, account: Account, name: str, _query: Query) -> models.Proxy:
    """One of them.  Raises NotThere."""
    for each in _own(view, account):
        if each.id == name:
            return models.Proxy(
                id=each.id, participant=each.participant, server_name=each.server_name, address=each.address,
                initiators=each.initiators, cls_address=each.cls_address, idle_timeout_s=each.idle_timeout_s,
                duration_max_s=each.duration_max_s, valid_from=each.valid_from, valid_to=each.valid_to,
                is_valid=each.is_valid_at(datetime.fromtimestamp(view.facts.clock(), UTC)),
                open_tunnels=view.facts.open_tunnels(each.id),
            )  # fmt: skip
    raise NotThere


def _own(view: View, account: Account) -> list[ProxyProfile]:
    current = view.facts.profiles.current
    return [] if current is None else [each for each in current.proxy if each.cls == account.user]
