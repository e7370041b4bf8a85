"""Where a member's log has lost its oldest events: with which one a replay begins, and what held by then."""

from __future__ import annotations

from loadtest.simulator.event_log_file import ReplayError, Row
from protocol import wire


def had_served(events: tuple[Row, ...]) -> bool:
    """
    Whether the member had served, when the first of the events came, since a round that it knew to have opened.

    Its next READY says so.  That an OPEN counts it among those that served does not: its head may only suppose that.
    """
    for row in events:
        if row.get("refused") == "served_left_out":
            return True
        for each in row.get("effects", ()):
            if each["effect"] == "Ready":
                return bool(each["has_served"])
        is_opened = row["event"] == "Result" and row["outcome"] == wire.Outcome.OPENED
        if is_opened or any(each["effect"] == "SERVED" for each in row.get("effects", ())):
            return False
    return False


def term_at(events: tuple[Row, ...]) -> int | None:
    """The term of the member's head when the first of the events came, from what it did next; None: it had none."""
    for row in events:
        if row["event"] == "APPOINTED":
            return None
        said = [row] if row["event"] == "Open" and "refused" not in row else row.get("effects", [])
        for each in said:
            if "term" in each:
                return int(each["term"])
    return None


def first_whole_round(events: tuple[Row, ...]) -> int:
    """Where the older events are gone: the first event of a round after the one that the log begins in."""
    seen: list[int] = []
    for index, row in enumerate(events):
        round_ = row.get("round", -1)
        # Which ends the member had heard of is known where they are all.
        # An offer that is answered at once had an OPEN before it, and that is gone.
        begins = row["event"] == "OFFERED" and row["settled"] == round_ and row["after"] == "waiting"
        if seen and begins and row["before"] == "waiting" and round_ > max(seen):
            return index
        if round_ >= 0:
            seen.append(round_)
    raise ReplayError("the log holds no whole round; expected one that begins before its round does")
