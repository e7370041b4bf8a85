"""
A node that kills itself with SIGKILL at a chosen moment, run by test_network_crash.py.

`dying_node.py MOMENT ROUND CONFIG`: in its second contribution, but not before round ROUND of the epoch, it dies at
the moment SHARED or SERVED (the progress that is made durable), at the stage `before` the write, `after` it and before
anything is sent, or `sent`: when the message that the write precedes has been handed to the link.  With BILL it dies
around its first bill (`never`: not at all), and bills a few hours, where its configuration would want days.
"""

import os
import signal
import sys
from typing import Any

from node import fleet
from node.aggregation.bills import BillingRules, Bills
from node.aggregation.contribution import Contributions
from node.aggregation.membership import Membership
from node.wan.coordinator_session import CoordinatorSession
from protocol import wire
from protocol.dcnet.machines.effects import Attempted, Progress
from protocol.dcnet.setup.rings import RingView
from stromkreis.__main__ import main


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm_bill(stage: str) -> None:
    keep, post = Bills._keep, CoordinatorSession.post

    async def dying(mine: Bills, *arguments: Any) -> None:
        if stage == "before":
            die()
        await keep(mine, *arguments)
        if stage == "after":
            die()

    def sending(mine: CoordinatorSession, message: wire.Message) -> None:
        post(mine, message)
        if stage == "sent" and isinstance(message, wire.Bill):
            die()

    rules = BillingRules(span_min_s=900, hiding_min=1, listed_only=False)
    vars(fleet)["billing_rules"] = lambda _: rules
    Bills._keep, CoordinatorSession.post = dying, sending  # type: ignore[method-assign, assignment]


def arm(progress: Progress, stage: str, first_round: int) -> None:
    rounds = set()
    attempted, to_head = Contributions.attempted, Membership._to_head
    message_of: type[wire.MaskedInput | wire.Reveal] = {
        Progress.SHARED: wire.MaskedInput,
        Progress.SERVED: wire.Reveal,
    }[progress]

    async def dying(mine: Contributions, view: RingView, record: Attempted) -> None:
        rounds.add((view.epoch, record.round))
        due = record.round >= first_round and len(rounds) > 1 and record.progress is progress
        if due and stage == "before":
            die()
        await attempted(mine, view, record)
        if due and stage == "after":
            die()

    async def sending(mine: Membership, message: wire.RingMessage) -> None:
        await to_head(mine, message)
        if stage == "sent" and isinstance(message, message_of) and message.round >= first_round and len(rounds) > 1:
            die()

    Contributions.attempted, Membership._to_head = dying, sending  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    moment, first_round, config = sys.argv[1:]
    name, _, stage = moment.partition("-")
    if name == "BILL":
        arm_bill(stage)
    else:
        arm(Progress[name], stage, int(first_round))
    sys.argv[1:] = ["node", "--config", config, "--log-level", "DEBUG"]
    main()
