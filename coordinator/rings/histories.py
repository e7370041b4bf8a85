"""How all rounds of an epoch's rings ended, as members know it: a leaf of the enrolment log for each ring."""

from __future__ import annotations

from coordinator.rings.epochs import AreaEpoch
from protocol import wire
from protocol.dcnet.machines.history import History


def history_leaves(epoch: AreaEpoch) -> dict[int, bytes]:
    """
    32 bytes by ring; none for an epoch that was refused, or that another one has cut short.

    A ring has one end of its last round in the log, as of all others by the rounds that follow them.
    """
    leaves = {}
    for ring in epoch.rings:
        if ring.ledger is None:
            continue
        view, history = ring.view, History(ring.view)
        for number, each in sorted(ring.ledger.ended.items()):
            roster = view.to_wire(each.roster)
            history.add(wire.Result(view.epoch, view.ring, number, int(each.outcome), roster, bytes(64)))
        if (leaf := history.leaf) is not None:
            leaves[view.ring] = leaf
    return leaves
