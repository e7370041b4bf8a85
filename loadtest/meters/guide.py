"""
What a person is told of simulated meters: which speak what and where, and the gateways that would read them.

The gateways are tables for a node's configuration, one a meter.  They hold keys as the meter book does, so whoever
writes them to a file keeps it to its owner.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from loadtest.config import MetersConfig
from loadtest.meters.book import BookEntry
from node.lmn.drivers import DRIVERS

_PREFIX = "ESTK00"  # as `[node.fleet]` has it


def gateways_toml(book: Sequence[BookEntry]) -> str:
    """`[[node.gateways]]` for each meter, its keys with it."""
    lines = ["# The gateways of simulated meters, one each; they belong behind the section [node] of a configuration."]
    for index, entry in enumerate(book):
        lines += ["", "[[node.gateways]]", f'id = "{_PREFIX}{index:08d}"', f'meters = ["{entry.url}"]']
        if entry.keys:
            lines += [f"[node.gateways.keys.{entry.id}]", *(f'{name} = "{key}"' for name, key in entry.keys.items())]
    return "\n".join(lines) + "\n"


def told(book: Sequence[BookEntry], config: MetersConfig) -> str:
    """A few lines for standard output: how many of each protocol, the first of each, how to see one, where all are."""
    by_protocol: dict[str, list[BookEntry]] = {}
    for entry in book:
        by_protocol.setdefault(entry.protocol, []).append(entry)
    lines = [f"{len(book)} meters listen, each on a line of its own; Ctrl-C ends."]
    lines += [f"  {len(each):5d} {protocol:12}  first {each[0].url}" for protocol, each in by_protocol.items()]
    shown = next((entry for entry in book if not entry.keys), book[0])
    can_ask = DRIVERS[shown.url.partition("+")[0]].ask is not None and "push=1" not in shown.url
    options = "--ask --once " if can_ask else ""
    lines.append(f"See one:        stromkreis sniff {options}{shlex.quote(shown.url)}")
    lines.append(f"All with keys:  {config.book or 'add --book FILE (JSON)'}")
    lines.append(f"For a node:     {config.gateways or 'add --gateways FILE (TOML, its keys included)'}")
    return "\n".join(lines)
