"""What is to be said beside a total, for REST and the dashboard."""

from __future__ import annotations

from typing import Final

from coordinator.storage.totals import AreaTotal
from coordinator.web.models import Mark

RING_SIZE_FLOOR: Final = 46
"""Members of the smallest ring in which 30 honest ones are left in a total, at 1 % corrupt (protocol, section 6)."""


def marks_of(total: AreaTotal, *, time_lapse: bool) -> list[Mark]:
    """What is to be said beside a total."""
    awaited = max(total.members, total.enrolled or 0)
    found = {
        Mark.INCOMPLETE: total.present < awaited,
        Mark.CARRIED: total.returned,
        Mark.NOISE: any(slot.noise is not None for slot in total.schema.slots),
        Mark.TIME_LAPSE: time_lapse,
        Mark.SMALL_RINGS: total.smallest_ring < RING_SIZE_FLOOR,
    }
    return [mark for mark, is_set in found.items() if is_set]
