"""The message counters taken from meters under their keys, durable before a reading goes on (`node.lmn.counters`)."""

from __future__ import annotations

from typing import Generic, TypeVar

from node.lmn.counters import ReplayCounters
from node.lmn.mbus.receiver import LayerReceiver

_Receiver = TypeVar("_Receiver", bound=LayerReceiver)


class SecuredMeters(Generic[_Receiver]):
    """
    A receiver of secured telegrams, and where its counters are kept.

    It outlives the link, for the receiver knows the counters against replay and the formats of compact frames.
    """

    def __init__(self, receiver: _Receiver, taken: ReplayCounters) -> None:
        self.receiver = receiver
        self._taken = taken
        self._kept = dict(receiver.counters)

    async def keep(self) -> None:
        """Return when what was taken is on the disk.  Raises StoreError: then nothing of it may go on."""
        new = dict(self.receiver.counters.items() - self._kept.items())
        for sender, number in new.items():
            await self._taken.keep(sender, number)
            self._kept[sender] = number
