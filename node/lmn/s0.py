"""
Impulse input (S0): a meter that only clicks, so many times per kilowatt hour.

Counting contact closures proves nothing: a cable that was off for a minute has lost a minute.  So every reading says
NOT_FOR_BILLING, and `is_billable` is the gate through which a gateway's account takes its readings.

The count is exact: pulses and the constant are integers, and the division floors to a thousandth of a watt hour, so the
differences of readings telescope and nothing drifts.  A click shorter than a pulse and its pause can be is contact
bounce.  Source: IEC 62053-31 clause 4 (pulse and pause of at least 30 ms each).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import trio

from node.lmn.profiles import MeterProfile
from node.lmn.session import Batch, Clock, Driver, LmnStores
from protocol.errors import LocalProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import WATT_HOUR

PULSE_PERIOD_MIN_S = 0.06
ACTIVE_ENERGY = Obis(1, 0, 1, 8, 0, 255)
_SCALER = -3  # of a watt hour


class PulseInput:
    """
    Counts one input.  `constant_imp_per_kwh` is printed on the meter; `start_wh` what its display said at the start.

    Raises LocalProtocolError for a constant that is not positive.
    """

    def __init__(
        self,
        device: str,
        constant_imp_per_kwh: int,
        *,
        obis: Obis = ACTIVE_ENERGY,
        start_wh: int = 0,
        period_min_s: float = PULSE_PERIOD_MIN_S,
    ) -> None:
        if constant_imp_per_kwh <= 0:
            raise LocalProtocolError("the impulse constant is a positive number of impulses per kWh")
        self._device = device
        self._constant = constant_imp_per_kwh
        self._obis = obis
        self._start_wh = start_wh
        self._period_min_s = period_min_s
        self._last_s: float | None = None
        self.pulse_count = 0
        self.bounce_count = 0

    def count(self, now_s: float, pulses: int = 1) -> int:
        """
        Count pulses that came since the last call, the newest now; how many the time between allows.

        What is more than one per `period_min_s` is contact bounce.
        """
        allowed = pulses
        if self._last_s is not None:
            allowed = min(pulses, int((now_s - self._last_s) / self._period_min_s + 1e-6))
        self.bounce_count += pulses - allowed
        self.pulse_count += allowed
        if allowed:
            self._last_s = now_s
        return allowed

    def reading(self, received_at: datetime | None = None) -> Reading:
        """The register as it stands, in thousandths of a watt hour; measured when it was counted."""
        value = self._start_wh * 1000 + self.pulse_count * 1_000_000 // self._constant
        return Reading(
            self._device, self._obis, value, _SCALER, WATT_HOUR,
            measured_at=received_at, received_at=received_at, quality=Quality.NOT_FOR_BILLING,
            record={"pulses": self.pulse_count, "constant_imp_per_kwh": self._constant},
        )  # fmt: skip


async def listen(
    stream: trio.abc.ReceiveStream, pulses: PulseInput, *, clock: Callable[[], float]
) -> AsyncGenerator[Batch, None]:
    """
    Readings of an input whose pulses come as characters: an S0 output on a serial port's receive line makes the port
    see one character per pulse, whatever its bits (the wiring that vzlogger's S0 meter uses too).
    """
    while data := await stream.receive_some(64):
        now_s = clock()
        if pulses.count(now_s, len(data)):
            yield [pulses.reading(datetime.fromtimestamp(now_s, UTC))]


class S0Push:
    """One input; its pulses are counted over all links."""

    def __init__(self, profiles: Sequence[MeterProfile], _stores: LmnStores) -> None:
        constant = profiles[0].constant_imp_per_kwh
        if len(profiles) > 1 or constant is None:
            raise LocalProtocolError("an S0 link is one input, with its constant_imp_per_kwh")
        self._pulses = PulseInput(profiles[0].name_on_bus, constant)

    def listen(self, stream: trio.abc.Stream, clock: Clock) -> AsyncGenerator[Batch, None]:
        """As `PushSession.listen`."""
        return listen(stream, self._pulses, clock=clock)


S0: Final = Driver("s0", push=S0Push)
