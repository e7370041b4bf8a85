"""
What a person is meter_summary of simulated meters: which speak what and where, and the gateways that would read them.

The gateways are tables for a node's configuration, one a meter.  They hold keys as the meter list does, so whoever
writes them to a file keeps it to its owner.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import tomli_w

from loadtest.config import MetersConfig
from loadtest.meters.meter_list import MeterEntry
from node.lmn.registry import DRIVERS

_PREFIX = "ESTK00"  # as `[node.fleet]` has it


def gateways_toml(meter_list: Sequence[MeterEntry]) -> str:
    """`[[node.gateways]]` for each meter, its keys with it."""
    gateways = [
        {"id": f"{_PREFIX}{index:08d}", "meters": [entry.url]}
        | ({"keys": {entry.id: entry.keys}} if entry.keys else {})
        for index, entry in enumerate(meter_list)
    ]
    head = "# The gateways of simulated meters, one each; they belong behind the section [node] of a configuration."
    return f"{head}\n\n{tomli_w.dumps({'node': {'gateways': gateways}})}"


def meter_summary(meter_list: Sequence[MeterEntry], config: MetersConfig) -> str:
    """A few lines for standard output: how many of each protocol, the first of each, how to see one, where all are."""
    by_protocol: dict[str, list[MeterEntry]] = {}
    for entry in meter_list:
        by_protocol.setdefault(entry.protocol, []).append(entry)
    lines = [f"{len(meter_list)} meters listen, each on a line of its own; Ctrl-C ends."]
    lines += [f"  {len(each):5d} {protocol:12}  first {each[0].url}" for protocol, each in by_protocol.items()]
    shown = next((entry for entry in meter_list if not entry.keys), meter_list[0])
    can_ask = DRIVERS[shown.url.partition("+")[0]].poll is not None and "push=1" not in shown.url
    options = "--ask --once " if can_ask else ""
    lines.append(f"See one:        stromkreis sniff {options}{shlex.quote(shown.url)}")
    lines.append(f"All with keys:  {config.meter_list or 'add --meter-list FILE (JSON)'}")
    lines.append(f"For a node:     {config.gateways or 'add --gateways FILE (TOML, its keys included)'}")
    return "\n".join(lines)
