"""One pod: its containers started in their order, probed, restarted, and stopped as a kubelet does it."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from netem.netns import in_namespace
from tests.cluster import container as containers_
from tests.cluster.container import Mount, Setting
from tests.cluster.manifests import Object

BACK_OFF_S, BACK_OFF_S_MAX = 1.0, 10.0  # a kubelet's are 10 s and 5 min
_TRIES = 3
TIME_SCALE = 0.2
"""Periods of probes are this part of what the manifests say, so that a case takes seconds."""


@dataclass(slots=True, eq=False)
class Pod:
    """A pod of a controller; `machine` is where it runs, `revision` the template that it was made of."""

    name: str
    ordinal: int
    template: Object
    revision: str
    machine: str
    endpoint: str
    address: str
    namespace: str
    hub: str
    directory: Path
    setting: Setting
    mounts_of: Callable[[Object], Sequence[Mount]]
    environment_of: Callable[[Object], Mapping[str, str]]
    processes: dict[str, trio.Process] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    ready_since: float | None = None
    is_terminating: bool = False
    gone: trio.Event = field(default_factory=trio.Event)
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def is_ready(self) -> bool:
        """Whether every container with a readiness probe answered the last one."""
        return self.ready_since is not None and not self.is_terminating

    async def run(self) -> None:
        """Run until it is deleted, a Job's pod until it is done."""
        spec = self.template["spec"]
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for each in spec.get("initContainers", ()):
                        if each.get("restartPolicy") == "Always":
                            await nursery.start(self._supervise, each)
                        else:
                            await self._complete(each)
                    if spec.get("restartPolicy", "Always") != "Always":
                        for each in spec["containers"]:
                            await self._complete(each)
                        return
                    for each in spec["containers"]:
                        nursery.start_soon(self._supervise, each)
        finally:
            for process in self.processes.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            with trio.CancelScope(shield=True):
                for process in self.processes.values():
                    await process.wait()
            self.gone.set()

    async def stop(self, grace_s: float | None = None) -> None:
        """SIGTERM, SIGKILL after the grace period; sidecars after the others.  Returns when nothing runs."""
        self.is_terminating = True
        if grace_s is None:
            grace_s = float(self.template["spec"].get("terminationGracePeriodSeconds", 30))
        with trio.move_on_after(grace_s):
            for group in ("containers", "initContainers"):
                running = [self.processes.get(each["name"]) for each in self.template["spec"].get(group, ())]
                for process in running:
                    if process is not None and process.returncode is None:
                        process.send_signal(signal.SIGTERM)
                for process in running:
                    if process is not None:
                        await process.wait()
        self._scope.cancel()
        await self.gone.wait()

    def kill(self, container: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Signal one container's process, from outside."""
        self.processes[container].send_signal(how)

    def log(self, container: str) -> str:
        """What a container has said, over its restarts."""
        path = self.directory / f"{container}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    async def _complete(self, container: Object) -> None:
        """Run to its end; raises RuntimeError with what it said where it fails for good."""
        while True:
            process = await self._start(container)
            if status := await process.wait():
                self.restarts[container["name"]] = self.restarts.get(container["name"], 0) + 1
                if self.restarts[container["name"]] > _TRIES:
                    raise RuntimeError(
                        f"{self.name}: {container['name']}: status {status}: {self.log(container['name'])}"
                    )
                await trio.sleep(BACK_OFF_S)
            else:
                return

    async def _start(self, container: Object) -> trio.Process:
        environment, mounts = self.environment_of(container), self.mounts_of(container)
        process = await containers_.start(container, self.setting, mounts, environment)
        self.processes[container["name"]] = process
        return process

    async def _supervise(
        self, container: Object, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        back_off_s, is_first = BACK_OFF_S, True
        while True:
            process = await self._start(container)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_at_end, process, nursery.cancel_scope)
                if await self._started(container, process):
                    if is_first:
                        task_status.started()
                    is_first = False
                    nursery.start_soon(self._probe_liveness, container, process)
                    await self._probe_readiness(container, process)
                process.kill()
                await process.wait()
            self.ready_since = None
            while self.is_terminating:
                await trio.sleep(0.05)
            self.restarts[container["name"]] = self.restarts.get(container["name"], 0) + 1
            await trio.sleep(back_off_s)
            back_off_s = min(2 * back_off_s, BACK_OFF_S_MAX)

    async def _started(self, container: Object, process: trio.Process) -> bool:
        probe = container.get("startupProbe")
        if probe is None:
            return True
        # Failures are counted in the time that the manifest grants: a machine that computes for others is slow.
        for _ in range(round(probe["failureThreshold"] / TIME_SCALE)):
            if await self._answers(probe, container, process):
                return True
            await trio.sleep(probe["periodSeconds"] * TIME_SCALE)
        return False

    async def _probe_readiness(self, container: Object, process: trio.Process) -> None:
        probe = container.get("readinessProbe")
        if probe is None:
            await trio.sleep_forever()
        while True:
            if not await self._answers(probe, container, process):
                self.ready_since = None
            elif self.ready_since is None:
                self.ready_since = trio.current_time()
            await trio.sleep(probe["periodSeconds"] * TIME_SCALE)

    async def _probe_liveness(self, container: Object, process: trio.Process) -> None:
        probe = container.get("livenessProbe")
        failed = 0
        while probe is not None:
            failed = 0 if await self._answers(probe, container, process) else failed + 1
            if failed >= probe["failureThreshold"]:
                process.send_signal(signal.SIGTERM)
                return
            await trio.sleep(probe["periodSeconds"])

    async def _answers(self, probe: Object, container: Object, process: trio.Process) -> bool:
        if "exec" in probe:
            path = containers_.IMAGE_PATH if self.setting.image_of(container) else containers_.PATH
            with trio.move_on_after(probe["timeoutSeconds"]):
                return await containers_.run_inside(process, probe["exec"]["command"], path) == 0
            return False
        asked = probe.get("httpGet") or probe["tcpSocket"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        port = ports.get(asked["port"], asked["port"])
        ask = partial(_ask, self.address, port, asked.get("path"), probe["timeoutSeconds"])
        return await trio.to_thread.run_sync(partial(in_namespace, self.hub, ask))


async def _cancel_at_end(process: trio.Process, scope: trio.CancelScope) -> None:
    await process.wait()
    scope.cancel()


def _ask(host: str, port: int, path: str | None, timeout_s: float) -> bool:
    try:
        if path is None:
            socket.create_connection((host, port), timeout_s).close()
            return True
        return 200 <= get(host, port, path, timeout_s)[0] < 400
    except (OSError, http.client.HTTPException):
        return False


def get(host: str, port: int, path: str, timeout_s: float) -> tuple[int, bytes]:
    """Status and body of an HTTP request, from the network namespace of the calling thread."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
