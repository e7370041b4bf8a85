"""
One option from processes to figures: undisturbed, with cold tunnels, without the WAN, and back.

Everybody who measures is in this process, and all processes have one clock, so that a moment is the same for meter,
management system and device.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import trio

from loadtest.demo.processes import DemoError, children, usage
from loadtest.ems.actuators import AnsweredActuator, ModbusActuator
from loadtest.ems.channel import HomeEnd, RemoteEnd
from loadtest.ems.devices.program import Event, Program, program
from loadtest.ems.ems import Applied, Ems
from loadtest.ems.installation import CHARGER, EMP_VALUES, Installation
from loadtest.ems.limits import HEARTBEAT_TIMEOUT_S, PowerLimit
from loadtest.ems.measured import Spans, is_recovered, result_of, tunnelled
from loadtest.ems.meter import CAP_W, HouseholdMeter
from loadtest.ems.options import Option, Source
from loadtest.ems.participant import Participant
from loadtest.ems.readers import Learn, collect, poll_consumer_interface, poll_inbox
from loadtest.ems.result import Result
from loadtest.ems.tunnel import keep_open
from loadtest.ems.wan import Wan, wan
from protocol.link.tls import client_context

FAILSAFE_W: Final = 4_200
"""What § 14a EnWG leaves a controllable system in any case."""
TUNNEL_S: Final = 50.0
"""For which a command may wait for a tunnel that the participant begins."""
COLD_COUNT: Final = 3
_COLD_S: Final = 60.0
_PATIENCE_S: Final = 300.0
_STOPPED_S: Final = 5.0
_LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Settings:
    """
    `directory` gets results and, in run-OPTION, the processes' files.

    `duration_s` of undisturbed measurement, `cut_s` without the WAN; `wan` is a link profile of netem, `emp_values` one
    of `EMP_VALUES`, `display_s` the display interval of the meter's profile.
    """

    directory: Path
    duration_s: float = 60.0
    cut_s: float = 15.0
    wan: str = "lte"
    emp_values: str = "1s"
    display_s: int = 1
    heartbeat_timeout_s: float = HEARTBEAT_TIMEOUT_S


@dataclass(slots=True)
class Run:
    """One option's; `run` it once.  `say` is told what goes on."""

    option: Option
    settings: Settings
    say: Callable[[str], None]
    meter: HouseholdMeter = field(default_factory=HouseholdMeter)
    applied: list[Applied] = field(default_factory=list)
    openings: list[tuple[float, float]] = field(default_factory=list)
    parties: dict[str, Ems] = field(default_factory=dict)
    limit: PowerLimit | None = None
    _break: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    async def run(self) -> Result:
        """From nothing to the result.  Raises DemoError, which names the process and the end of its log."""
        work = self.settings.directory / f"run-{self.option.name}"
        shutil.rmtree(work, ignore_errors=True)
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(children(self.settings.directory / f"log-{self.option.name}"))
            installation = Installation(work, group, self.settings.display_s)
            nursery = await stack.enter_async_context(trio.open_nursery())
            try:
                network = await self._start(installation, nursery, stack)
                return await self._measure(installation, network)
            finally:
                nursery.cancel_scope.cancel()

    # --- parts --------------------------------------------------------------------------------------------------------

    async def _start(
        self, installation: Installation, nursery: trio.Nursery, stack: AsyncExitStack
    ) -> Wan:  # fmt: skip
        await trio.to_thread.run_sync(installation.prepare)
        self.say("coordinator, gateway, profiles")
        await installation.start_coordinator()
        participant = Participant(installation.pki)
        ports = installation.ports
        targets = {"inbox": ports["inbox"], CHARGER: ports["emp_tls"], **await participant.start(nursery)}
        network = await stack.enter_async_context(wan(self.settings.wan, targets))
        meter_port = await nursery.start(self.meter.serve)
        await installation.start_gateway(meter_port)
        values = EMP_VALUES[self.settings.emp_values] if self.option.remote is Source.INBOX else None
        await installation.roll_out(network.ports, values)
        self.say("devices and energy management")
        log_dir = installation.group.log_dir
        central = await self._program(stack, "central_system", log_dir)
        charger = await self._program(stack, "modbus_charger", log_dir)
        participant.central_system_port = (await central.first("listening"))["port"]
        charger_port = (await charger.first("listening"))["port"]
        if self.option.uses_tunnel:
            await installation.start_tunnel_ends(charger_port)
        way = [f"ws://127.0.0.1:{participant.central_system_port}/CP1"]
        if self.option.remote_commands:
            way = ["ws://ocpp.emp.example/CP1", f"socks5h://127.0.0.1:{ports['socks']}"]
        point = await self._program(stack, "charge_point", log_dir, *way)
        await point.first("connected")
        self._connect(installation, participant, nursery, meter_port)
        self._command(nursery, central, ports["emp_modbus"] if self.option.remote_commands else charger_port)
        return network

    async def _program(self, stack: AsyncExitStack, name: str, log_dir: Path, *arguments: str) -> Program:
        on_event = partial(self._on_event, name)
        return await stack.enter_async_context(program(name, *arguments, log_dir=log_dir, on_event=on_event))

    def _on_event(self, device: str, event: Event) -> None:
        if event["event"] == "applied":
            self.applied.append(Applied(device, event["limit_w"], event["at_s"]))

    def _connect(
        self, installation: Installation, participant: Participant, nursery: trio.Nursery, meter_port: int
    ) -> None:  # fmt: skip
        """Values to whoever wants them, and the home's connections to the participant."""
        option, adapter_port = self.option, installation.ports.get("socks", 0)
        local = self.parties["local"] = Ems(self.meter)
        remote = self.parties["remote"] = Ems(self.meter)
        if option.bounds:
            self.limit = PowerLimit(FAILSAFE_W, time.time(), self.settings.heartbeat_timeout_s)
        home_end, remote_end = HomeEnd(self.limit, local.wake), RemoteEnd(remote.learn)
        participant.serve_box = remote_end.serve
        learners: list[Learn] = [local.learn] if option.local is Source.COLLECTOR else []
        learners += [home_end.learn] if option.remote is Source.TUNNEL else []
        if learners:
            nursery.start_soon(collect, meter_port, partial(_tell_all, learners), local.failed)
        if option.local is Source.CONSUMER_INTERFACE:
            nursery.start_soon(
                poll_consumer_interface, installation.address("han"), installation.home_context(), local.learn,
                local.failed,
            )  # fmt: skip
        if option.remote is Source.INBOX:
            nursery.start_soon(
                poll_inbox, installation.address("https"), client_context(installation.pki / "root.pem"),
                installation.operator_token, remote.learn, remote.failed,
            )  # fmt: skip
        opened = partial(_note, self.openings)
        if option.bounds or option.remote is Source.TUNNEL:
            mine = opened if option.bounds else _ignore
            nursery.start_soon(keep_open, adapter_port, "box", home_end.serve, remote.failed, mine)
        if option.bounds:
            self._break = remote_end.close
            nursery.start_soon(remote.drive, remote_end.actuator, lambda: 2 * CAP_W)

    def _command(self, nursery: trio.Nursery, central: Program, modbus_port: int) -> None:
        """Whoever commands the chargers does."""
        if self.option.remote_commands:
            ems = self.parties["remote"]
            modbus = ModbusActuator(partial(self._order_tunnel, modbus_port), TUNNEL_S)
            self._break = modbus.close
            wanted: Callable[[], int | None] = ems.wanted_w
        else:
            ems = self.parties["local"]
            modbus = ModbusActuator(partial(trio.open_tcp_stream, "127.0.0.1", modbus_port))
            wanted = self._within_limit
        ocpp = AnsweredActuator("OCPP charge point", central.send)
        nursery.start_soon(_answers, central, ocpp)
        for each in (modbus, ocpp):
            nursery.start_soon(ems.drive, each, wanted)

    async def _order_tunnel(self, port: int) -> trio.abc.Stream:
        """Each connection to `emp-tunnel` is an order; it is taken at once, and carries when there is a tunnel."""
        began_s = time.time()
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        self.openings.append((began_s, began_s))
        return stream

    def _within_limit(self) -> int:
        wanted_w = self.parties["local"].wanted_w()
        bound_w = None if self.limit is None else self.limit.limit_w(time.time())
        return wanted_w if bound_w is None else min(wanted_w, bound_w)

    # --- the course of a run ------------------------------------------------------------------------------------------

    async def _measure(self, installation: Installation, network: Wan) -> Result:
        option, settings = self.option, self.settings
        self.parties = {name: each for name, each in self.parties.items() if self._has(name)}
        self.say("waits until values and commands come through")
        await self._until(self._is_settled, self._patience_s, "values and commands come through")
        node = installation.children["node"].pid
        at, began_s, cpu_s, octets = datetime.now(UTC), time.time(), usage(node).cpu_s, network.relayed_bytes()
        self.say(f"undisturbed for {settings.duration_s:g} s")
        await trio.sleep(settings.duration_s)
        spans = Spans(began_s, time.time())
        spans.cpu_s = usage(node).cpu_s - cpu_s
        spans.octets = {name: each - octets[name] for name, each in network.relayed_bytes().items()}
        if option.uses_tunnel:
            self.say(f"{COLD_COUNT} cold tunnels")
            await self._cold()
        self.say(f"no WAN for {settings.cut_s:g} s")
        spans.cut_s = time.time()
        await network.cut()
        await trio.sleep(settings.cut_s)
        spans.healed_s = time.time()
        await network.heal()
        with trio.move_on_after(self._patience_s):
            while not is_recovered(self.parties.values(), spans):
                await trio.sleep(_LOOK_S)
        if option.local is Source.COLLECTOR and not option.uses_wan:
            self.say("the gateway's process stopped")
            spans.stopped_s = time.time()
            await installation.stop_gateway()
            await trio.sleep(_STOPPED_S)
        spans.ends_s = time.time()
        nominal_s = EMP_VALUES[settings.emp_values].nominal_s
        return result_of(
            option, at, spans, self.parties, self.applied, self.meter, self.openings,
            limit=self.limit, nominal_s=nominal_s, wan=settings.wan, emp_values=settings.emp_values,
            display_s=settings.display_s,
        )  # fmt: skip

    @property
    def _patience_s(self) -> float:
        """For values and commands to come: what is delivered by periods may take the next but one."""
        period_s = EMP_VALUES[self.settings.emp_values].period_s if self.option.remote is Source.INBOX else 0
        display_s = self.settings.display_s if self.option.local is Source.CONSUMER_INTERFACE else 0
        return _PATIENCE_S + 3 * max(period_s, display_s)

    def _has(self, party: str) -> bool:
        return (self.option.local if party == "local" else self.option.remote) is not None

    def _is_settled(self) -> bool:
        return all(
            each.arrivals and (not each.commands or any(one.is_accepted for one in each.commands))
            for each in self.parties.values()
        )

    async def _cold(self) -> None:
        """Break the tunnel that commands go through, and wait for the next one to carry a command."""
        ems = self.parties["remote"]
        for _ in range(COLD_COUNT):
            openings, broken_s = len(self.openings), time.time()
            await self._break()
            await self._until(
                partial(_is_carried, self.openings, openings, ems, broken_s), _COLD_S, "a cold tunnel carries a command"
            )

    async def _until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        with trio.move_on_after(timeout_s):
            while not condition():
                await trio.sleep(_LOOK_S)
            return
        told = "; ".join(f"{name}: {dict(each.failures)}" for name, each in self.parties.items() if each.failures)
        raise DemoError(f"waited {timeout_s:g} s in vain until {what}{f' ({told})' if told else ''}")


def _is_carried(openings: list[tuple[float, float]], before: int, ems: Ems, broken_s: float) -> bool:
    return len(openings) > before and any(
        each.is_accepted and each.done_s >= openings[before][1] >= broken_s for each in tunnelled(ems)
    )  # fmt: skip


def _tell_all(learners: list[Learn], energy_tenth_wh: int, power_w: int | None) -> None:
    for each in learners:
        each(energy_tenth_wh, power_w)


def _note(openings: list[tuple[float, float]], began_s: float, opened_s: float) -> None:
    openings.append((began_s, opened_s))


def _ignore(_began_s: float, _opened_s: float) -> None:
    pass


async def _answers(central: Program, actuator: AnsweredActuator) -> None:
    """Hand on what the central system tells of commands."""
    seen = 0
    while True:
        for each in central.events[seen:]:
            actuator.take(each)
        seen = len(central.events)
        await central.wait(seen)
