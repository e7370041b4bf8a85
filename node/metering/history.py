"""
A register's past values, from day blocks and the entries after them.

Any thread may read them, on a reader of its own (node.storage.reader).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from node.metering.entries import LoggedReading, decode_block, decode_entry, nearest
from node.storage.repositories.metering_log import MeteringLogReader
from protocol.metering.interval import day_of
from protocol.metering.obis import Obis

PACKER = "day blocks"
"""The subscriber that makes blocks of closed days; see node.metering.retention."""
_NEWEST_TELEGRAMS = 8  # a meter may spread its registers over telegrams


def registered_values(
    reader: MeteringLogReader, gateway: str, until: int, meter: str, obis: Obis, from_s: int, to_s: int
) -> list[LoggedReading]:
    """
    A register's values at the registration times from `from_s` up to and without `to_s` (metering time, Unix, s).

    For each the one that was measured nearest to it, in order; of entries up to the position `until`.  Raises
    StoreError, SealError.
    """
    packed = reader.cursors(gateway).get(PACKER, 0)
    found: list[LoggedReading] = []
    if from_s < to_s:
        for day, data in reader.blocks(gateway, meter, obis, day_of(from_s), day_of(to_s - 1)):
            found += decode_block(meter, obis, day, data)
    entries = reader.entries(gateway, packed, until, meter=meter, registered=True)
    readable = [decode_entry(position, data, obis) for position, data in entries if data is not None]
    recent = nearest(each for entry in readable for each in entry.readings)
    if found and recent and (recent[0].registration_s or 0) <= (found[-1].registration_s or 0):
        found = nearest([*found, *recent])  # a day that is a block already, of which something came late
    else:
        found += recent
    times = [each.registration_s or 0 for each in found]
    return found[bisect_left(times, from_s) : bisect_left(times, to_s)]


def newest_values(reader: MeteringLogReader, gateway: str, meter: str, now_us: int) -> list[LoggedReading]:
    """The newest value of each register of a meter, by OBIS code.  Raises StoreError."""
    entries = reader.newest_entries(gateway, meter, now_us, _NEWEST_TELEGRAMS)
    return _newest(each for position, data in reversed(entries) for each in decode_entry(position, data).readings)


def _newest(readings: Iterable[LoggedReading]) -> list[LoggedReading]:
    newest: dict[Obis, LoggedReading] = {}
    for each in readings:
        known = newest.get(each.obis)
        if each.value is not None and (known is None or each.measured_ms >= known.measured_ms):
            newest[each.obis] = each
    return [newest[obis] for obis in sorted(newest)]
