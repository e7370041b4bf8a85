"""
A pod runner: runs rendered manifests on this machine, the way a cluster's controllers and kubelets do.

Pods are processes in network namespaces that one hub joins (`netem.namespaces`); a pod that is made again has another
address.  StatefulSets keep a pod for each ordinal with the volume of that ordinal, scale, and roll over one by one when
their template changes; Jobs run once.  Names of services and pods are answered by dnsmasq.  Machines are labels: a pod
is put on the one with the fewest, and a machine can be cut off from the others or drained.

What is not here: an API server beyond what Jobs ask for, images, quotas, limits of CPU and memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import trio

from netem.namespaces import NamespaceEmulation, emulate, unshaped
from netem.netns import in_namespace
from netem.network import Network
from netem.profiles import UNSHAPED, LinkProfile
from netem.scenario import LinkState
from tests.cluster.api_server import PORT, ApiServer
from tests.cluster.container import Mount, Setting, own_claimed, own_projected
from tests.cluster.manifests import Object, environment, fields_of, named, of_kind
from tests.cluster.pod import TIME_SCALE, Pod, get

HUB = "10.213.0.1"
NAMESPACE = "stromkreis"
DOMAIN = f"{NAMESPACE}.svc.cluster.local"
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_PODS_MAX = 120
_LOOP_S = 0.1


@dataclass(slots=True)
class Controller:
    """A StatefulSet: the number of pods and the template that it brings about."""

    made_of: Object
    replicas: int
    template: Object
    pods: dict[int, Pod] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The object's name."""
        name: str = self.made_of["metadata"]["name"]
        return name

    @property
    def revision(self) -> str:
        """Which template it is."""
        return hashlib.sha256(json.dumps(self.template, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def is_settled(self) -> bool:
        """Every pod is there, of the present template, and ready for `minReadySeconds`."""
        needed_s = self.made_of["spec"].get("minReadySeconds", 0) * TIME_SCALE
        return len(self.pods) == self.replicas and all(
            pod.is_ready
            and pod.revision == self.revision
            and pod.ready_since is not None
            and trio.current_time() - pod.ready_since >= needed_s
            for pod in self.pods.values()
        )


class Cluster:
    """Manifests that run; see `run_cluster`."""

    def __init__(
        self, objects: list[Object], directory: Path, net: NamespaceEmulation, machines: int, images: Mapping[str, Path]
    ) -> None:
        self.objects = objects
        self.directory = directory
        self.machines: dict[str, bool] = {f"machine-{index}": True for index in range(machines)}
        """Whether pods may be put there."""
        self.controllers = {
            each["metadata"]["name"]: Controller(each, each["spec"].get("replicas", 1), each["spec"]["template"])
            for each in of_kind(objects, "StatefulSet")
        }
        self.stray: list[Pod] = []
        """Pods that were deleted by force and still run on a machine that cannot be reached."""
        self._net = net
        self._images = images
        self._endpoints: Iterator[str] = iter(f"p{index}" for index in range(_PODS_MAX))
        self._links: dict[str, LinkState] = {}
        self._pods = count()
        self._dns: trio.Process | None = None
        self._hosts = directory / "hosts"
        self._api: ApiServer | None = None
        self._nursery: trio.Nursery | None = None

    # Running

    async def start(self, nursery: trio.Nursery) -> None:
        """Serve names and the API server's interface, then let controllers and Jobs do their work."""
        self._nursery = nursery
        listen = partial(socket.create_server, (HUB, PORT))
        bound = partial(in_namespace, self._net.hub, listen)
        self._api = ApiServer(self.objects, HUB, self.directory, bound)
        self._hosts.write_text("", encoding="ascii")
        ip = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin") or "ip"
        dnsmasq = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin")
        if dnsmasq is None:
            raise FileNotFoundError("dnsmasq is not installed (Debian package dnsmasq-base)")
        self._dns = await trio.lowlevel.open_process([
            ip, "netns", "exec", self._net.hub, dnsmasq, "--keep-in-foreground", "--conf-file=/dev/null", "--user=root",
            "--no-resolv", "--no-hosts", f"--addn-hosts={self._hosts}", "--local=/cluster.local/", "--local-ttl=1",
            "--bind-interfaces", f"--listen-address={HUB}", "--pid-file=",
            f"--log-facility={self.directory / 'dnsmasq.log'}",
        ])  # fmt: skip
        # Before it listens it would be ended by the signal that tells it of new names.
        reach = partial(socket.create_connection, (HUB, 53), 1.0)
        with trio.fail_after(120):
            while True:
                with suppress(OSError):
                    (await trio.to_thread.run_sync(partial(in_namespace, self._net.hub, reach))).close()
                    break
                await trio.sleep(_LOOP_S)
        for controller in self.controllers.values():
            nursery.start_soon(self._reconcile, controller)
        for each in of_kind(self.objects, "Job"):
            nursery.start_soon(self._run_job, each)

    async def close(self) -> None:
        """Stop every pod at once, then names and the API server's interface."""
        with trio.CancelScope(shield=True):
            for controller in self.controllers.values():
                controller.replicas = 0
            async with trio.open_nursery() as nursery:
                for pod in (*self._all_pods(), *self.stray):
                    if not pod.gone.is_set():
                        nursery.start_soon(pod.stop)
            if self._dns is not None:
                self._dns.send_signal(signal.SIGCONT)
                self._dns.kill()
                await self._dns.wait()
            if self._api is not None:
                await trio.to_thread.run_sync(self._api.close)

    async def until_settled(self, timeout_s: float = 180.0, *names: str) -> None:
        """Wait until the named StatefulSets, or all, are as they shall be.  Raises RuntimeError with the pods' logs."""
        wanted = [self.controllers[name] for name in names or self.controllers]
        with trio.move_on_after(timeout_s) as scope:
            while not all(each.is_settled for each in wanted):
                await trio.sleep(_LOOP_S)
        if scope.cancelled_caught:
            raise RuntimeError(f"not settled after {timeout_s} s\n{self.describe()}")

    def describe(self) -> str:
        """Every pod with its state and the end of what it said."""
        lines = []
        for pod in (*self._all_pods(), *self.stray):
            lines.append(f"{pod.name} {pod.address} {'ready' if pod.is_ready else 'not ready'} restarts {pod.restarts}")
            lines += [f"  {name}: {pod.log(name)[-600:]}" for name in pod.processes]
        return "\n".join(lines)

    # What a user does

    def pod(self, name: str) -> Pod:
        """A pod by its name.  Raises LookupError where there is none."""
        found = [pod for pod in self._all_pods() if pod.name == name]
        if not found:
            raise LookupError(f"there is no pod {name}")
        return found[0]

    def has(self, name: str) -> bool:
        """Whether there is a pod of that name."""
        return any(pod.name == name for pod in self._all_pods())

    async def delete(self, name: str, grace_s: float | None = None) -> None:
        """Delete a pod, as `kubectl delete pod` does; its controller makes it again."""
        controller, pod = self._owned(name)
        await pod.stop(grace_s)
        self._forget(controller, pod)

    def delete_by_force(self, name: str) -> None:
        """Take a pod off the books while it runs on, as is done where its machine cannot be reached."""
        controller, pod = self._owned(name)
        self.stray.append(pod)
        self._forget(controller, pod)

    def scale(self, name: str, replicas: int) -> None:
        """Set the number of pods of a StatefulSet."""
        self.controllers[name].replicas = replicas

    def roll(self, name: str) -> None:
        """Change the template of a StatefulSet as `kubectl rollout restart` does."""
        controller = self.controllers[name]
        metadata = controller.template["metadata"]
        annotations = metadata.get("annotations", {}) | {"restarted-at": str(trio.current_time())}
        controller.template = controller.template | {"metadata": metadata | {"annotations": annotations}}

    async def drain(self, machine: str) -> None:
        """Put nothing there any more and evict what is there, within the disruption budgets."""
        self.machines[machine] = False
        for pod in [each for each in self._all_pods() if each.machine == machine]:
            while not self._may_evict(pod):
                await trio.sleep(_LOOP_S)
            await self.delete(pod.name)

    async def cut(self, machine: str) -> None:
        """Cut a machine's pods off from those of the others."""
        self.machines[machine] = False
        await self._link(machine, 1)

    async def heal(self, machine: str) -> None:
        """The opposite; what was deleted by force there is stopped by its kubelet."""
        self.machines[machine] = True
        await self._link(machine, 0)
        for pod in [each for each in self.stray if each.machine == machine]:
            self.stray.remove(pod)
            await pod.stop()

    def stop_dns(self) -> None:
        """Let names get no answer at all."""
        assert self._dns is not None
        self._dns.send_signal(signal.SIGSTOP)

    def resume_dns(self) -> None:
        """Let names be answered again."""
        assert self._dns is not None
        self._dns.send_signal(signal.SIGCONT)

    def volume(self, pod: str, claim: str = "data") -> Path:
        """The directory of a pod's volume; it outlives the pod."""
        return self.directory / "volumes" / f"{claim}-{pod}"

    async def fetch(self, pod: str, port: int, path: str, timeout_s: float = 5.0) -> bytes:
        """What a pod answers to a request."""
        ask = partial(get, self.pod(pod).address, port, path, timeout_s)
        status, body = await trio.to_thread.run_sync(partial(in_namespace, self._net.hub, ask))
        if status != 200:
            raise OSError(f"{pod}: {path}: status {status}")
        return body

    # Controllers

    async def _reconcile(self, controller: Controller) -> None:
        is_parallel = controller.made_of["spec"].get("podManagementPolicy") == "Parallel"
        while True:
            for ordinal in range(controller.replicas):
                if ordinal not in controller.pods:
                    await self._make(controller, ordinal)
                if not is_parallel and not controller.pods[ordinal].is_ready:
                    break
            for ordinal in sorted(controller.pods, reverse=True):
                if ordinal >= controller.replicas and not controller.pods[ordinal].is_terminating:
                    self._spawn(self._end, controller, controller.pods[ordinal])
            old = [each for each in controller.pods.values() if each.revision != controller.revision]
            if (
                old
                and all(each.is_ready or each in old for each in controller.pods.values())
                and self._is_paced(controller)
            ):
                await self._end(controller, max(old, key=lambda each: each.ordinal))
            await trio.sleep(_LOOP_S)

    def _is_paced(self, controller: Controller) -> bool:
        """Whether the pods of the new template are ready for long enough for the next one to be replaced."""
        needed_s = controller.made_of["spec"].get("minReadySeconds", 0) * TIME_SCALE
        return len(controller.pods) == controller.replicas and all(
            each.ready_since is not None and trio.current_time() - each.ready_since >= needed_s
            for each in controller.pods.values()
            if each.revision == controller.revision
        )

    async def _end(self, controller: Controller, pod: Pod) -> None:
        await pod.stop()
        self._forget(controller, pod)

    async def _run_job(self, job: Object) -> None:
        pod = await self._pod_of(job["metadata"]["name"], 0, job["spec"]["template"], "")
        await pod.run()

    async def _make(self, controller: Controller, ordinal: int) -> None:
        name = f"{controller.name}-{ordinal}"
        for claim in controller.made_of["spec"].get("volumeClaimTemplates", ()):
            self.volume(name, claim["metadata"]["name"]).mkdir(parents=True, exist_ok=True)
        pod = await self._pod_of(name, ordinal, controller.template, controller.revision)
        controller.pods[ordinal] = pod
        self._tell_names()
        self._spawn(self._when_mountable, pod)

    async def _when_mountable(self, pod: Pod) -> None:
        """Run a pod once all that it mounts is there; until then a kubelet shows ContainerCreating."""
        while not pod.is_terminating and self._missing(pod.template):
            await trio.sleep(_LOOP_S)
        if pod.is_terminating:
            pod.gone.set()
            return
        await pod.run()

    async def _pod_of(self, name: str, ordinal: int, template: Object, revision: str) -> Pod:
        endpoint = next(self._endpoints)
        machine = self._machine()
        directory = self.directory / "pods" / f"{next(self._pods):03}-{name}"
        directory.mkdir(parents=True)
        address, namespace = self._net.address(endpoint), self._net.namespace(endpoint)
        resolv = f"nameserver {HUB}\nsearch {DOMAIN} svc.cluster.local cluster.local\noptions ndots:5\n"
        etc = {"hosts": f"127.0.0.1 localhost\n{address} {name}\n", "resolv.conf": resolv, "hostname": f"{name}\n"}
        setting = Setting(name, namespace, directory, etc, template["spec"]["securityContext"], self._images)
        shared: dict[str, Mount] = {}

        def mounts_of(container: Object) -> Sequence[Mount]:
            return self._mounts(name, template, container, directory, shared)

        def environment_of(container: Object) -> Mapping[str, str]:
            objects = [*self.objects, *self._created_config_maps()]
            values = environment(objects, container, fields_of(name, ordinal, address, NAMESPACE), self._secret_texts())
            return {"KUBERNETES_SERVICE_HOST": HUB, "KUBERNETES_SERVICE_PORT": str(PORT), **values}

        return Pod(
            name, ordinal, template, revision, machine, endpoint, address, namespace, self._net.hub, directory, setting,
            mounts_of, environment_of,
        )  # fmt: skip

    # Volumes, names, machines

    def _mounts(
        self, pod: str, template: Object, container: Object, directory: Path, shared: dict[str, Mount]
    ) -> Sequence[Mount]:
        spec = template["spec"]
        group = spec["securityContext"].get("fsGroup", 0)
        volumes = {each["name"]: each for each in spec.get("volumes", ())}
        made = []
        for mount in container.get("volumeMounts", ()):
            volume = volumes.get(mount["name"])
            is_read_only = mount.get("readOnly", False)
            if volume is None:
                source = self.volume(pod, mount["name"])
                own_claimed(source, group)
            elif "emptyDir" in volume:
                source = directory / f"volume-{mount['name']}"
                source.mkdir(exist_ok=True)
                source.chmod(0o777)
            else:
                source = directory / f"volume-{mount['name']}"
                if mount["name"] not in shared:
                    self._write_volume(volume, source, group)
                    shared[mount["name"]] = Mount(source, mount["mountPath"], is_read_only=True)
            made.append(Mount(source, mount["mountPath"], is_read_only))
        if spec.get("automountServiceAccountToken", True):
            made.append(Mount(self._account(spec["serviceAccountName"], directory, group), _ACCOUNT, is_read_only=True))
        return made

    def _write_volume(self, volume: Object, target: Path, group: int) -> None:
        target.mkdir()
        if "secret" in volume:
            mode = volume["secret"].get("defaultMode", 0o644)
            files = self._secrets()[volume["secret"]["secretName"]]
        else:
            mode = volume["configMap"].get("defaultMode", 0o644)
            found = named([*self.objects, *self._created_config_maps()], "ConfigMap", volume["configMap"]["name"])
            files = {name: text.encode() for name, text in found["data"].items()}
        for name, data in files.items():
            (target / name).write_bytes(data)
        own_projected(target, group, mode)

    def _account(self, name: str, directory: Path, group: int) -> Path:
        assert self._api is not None
        target = directory / "account"
        if not target.exists():
            target.mkdir()
            (target / "token").write_text(self._api.tokens[name], encoding="ascii")
            (target / "ca.crt").write_text(self._api.certificate, encoding="ascii")
            (target / "namespace").write_text(NAMESPACE, encoding="ascii")
            own_projected(target, group, 0o440)
        return target

    def _missing(self, template: Object) -> bool:
        config_maps = {
            each["metadata"]["name"] for each in of_kind([*self.objects, *self._created_config_maps()], "ConfigMap")
        }
        known = self._secrets().keys() | config_maps
        spec: dict[str, Any] = template["spec"]
        wanted = {each.get("configMap", {}).get("name") for each in spec.get("volumes", ())}
        wanted |= {each.get("secret", {}).get("secretName") for each in spec.get("volumes", ())}
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            wanted |= {
                each.get("valueFrom", {}).get("secretKeyRef", {}).get("name") for each in container.get("env", ())
            }
        return not wanted - {None} <= known

    def _secrets(self) -> dict[str, dict[str, bytes]]:
        given = {
            each["metadata"]["name"]: {key: base64.b64decode(value) for key, value in each["data"].items()}
            for each in of_kind(self.objects, "Secret")
        }
        return given | (self._api.secrets() if self._api is not None else {})

    def _secret_texts(self) -> dict[str, dict[str, str]]:
        return {
            name: {key: data.decode("latin-1") for key, data in each.items()} for name, each in self._secrets().items()
        }

    def _created_config_maps(self) -> list[Object]:
        return [] if self._api is None else [each | {"kind": "ConfigMap"} for each in self._api.config_maps()]

    def _tell_names(self) -> None:
        lines = []
        for service in of_kind(self.objects, "Service"):
            name, selector = service["metadata"]["name"], service["spec"]["selector"]
            is_early = service["spec"].get("publishNotReadyAddresses", False)
            for pod in self._all_pods():
                labels = pod.template["metadata"]["labels"]
                if selector.items() <= labels.items() and (is_early or pod.is_ready):
                    lines.append(f"{pod.address} {name}.{DOMAIN}\n{pod.address} {pod.name}.{name}.{DOMAIN}\n")
        self._hosts.write_text("".join(lines), encoding="ascii")
        if self._dns is not None:
            self._dns.send_signal(signal.SIGHUP)

    def _machine(self) -> str:
        held = {name: 0 for name, is_open in self.machines.items() if is_open}
        for pod in self._all_pods():
            if pod.machine in held:
                held[pod.machine] += 1
        return min(held, key=lambda name: held[name])

    async def _link(self, machine: str, group: int) -> None:
        for pod in (*self._all_pods(), *self.stray):
            if pod.machine == machine:
                self._links[pod.endpoint] = LinkState(self._links[pod.endpoint].profile, group=group)
        await self._net.apply(self._links)

    async def shape(self, profile: LinkProfile) -> None:
        """Give every pod's link a profile; of delay and jitter only where the cluster was made with `delays`."""
        self._links = {name: LinkState(profile) for name in (f"p{index}" for index in range(_PODS_MAX))}
        await self._net.apply(self._links)

    def _may_evict(self, pod: Pod) -> bool:
        for budget in of_kind(self.objects, "PodDisruptionBudget"):
            selector = budget["spec"]["selector"]["matchLabels"].items()
            if selector <= pod.template["metadata"]["labels"].items():
                owner = self._owned(pod.name)[0]
                away = owner.replicas - sum(each.is_ready for each in owner.pods.values())
                return bool(away < budget["spec"]["maxUnavailable"])
        return True

    def _owned(self, name: str) -> tuple[Controller, Pod]:
        return next((c, pod) for c in self.controllers.values() for pod in c.pods.values() if pod.name == name)

    def _forget(self, controller: Controller, pod: Pod) -> None:
        if controller.pods.get(pod.ordinal) is pod:
            del controller.pods[pod.ordinal]
        self._tell_names()

    def _all_pods(self) -> list[Pod]:
        return [pod for controller in self.controllers.values() for pod in controller.pods.values()]

    def _spawn(self, function: Any, *arguments: Any) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(function, *arguments)


@asynccontextmanager
async def run_cluster(
    objects: list[Object],
    directory: Path,
    *,
    machines: int = 3,
    delays: bool = False,
    images: Mapping[str, Path] | None = None,
) -> AsyncIterator[Cluster]:
    """
    Run manifests; on leaving every pod is stopped, and namespaces and processes are gone.

    `delays`: packets pass this program, which can delay them.  `images`: see `Setting`.  Raises a NetemError where
    namespaces cannot be made.
    """
    network = Network.model_validate({"endpoints": [{"name": f"p{index}"} for index in range(_PODS_MAX)]})
    start = {f"p{index}": LinkState(UNSHAPED) for index in range(_PODS_MAX)}
    async with emulate(network, start, rng=Random(1)) if delays else unshaped(network) as net:
        cluster = Cluster(objects, directory, net, machines, images or {})
        cluster._links = start
        async with trio.open_nursery() as nursery:
            try:
                await cluster.start(nursery)
                yield cluster
            finally:
                with suppress(trio.TooSlowError):
                    await cluster.close()
            nursery.cancel_scope.cancel()
