"""The manifests in k8s/ hold against the Kubernetes API's schemas, against the programs, and against our own rules."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jsonschema
import kubernetes_validate
import pytest
import trio
import yaml
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from typer.testing import CliRunner

from coordinator.config import CoordinatorConfig
from loadtest.config import MetersConfig
from node.config import NodeConfig
from node.monitoring import serve_monitoring
from node.readiness import Readiness
from stromkreis.__main__ import build
from stromkreis.config import load
from tests.cluster.manifests import (
    OVERLAYS,
    ROOT,
    Object,
    containers,
    environment,
    fields_of,
    named,
    of_kind,
    overlay,
    pod_templates,
    rendered,
)

HEAD_PORT = 7450
COORDINATOR = "stromkreis-coordinator.stromkreis.svc.cluster.local"
MODELS: dict[str, type[BaseModel]] = {"coordinator": CoordinatorConfig, "node": NodeConfig, "meters": MetersConfig}
VERSIONS = ("1.32", "1.36")  # pod-index labels and native sidecars are there from 1.32 on; the trial ran on 1.36
ROOT_CONTAINERS = {("netem-lte", "netem")}  # it shapes the pod's interface
SECRETS = {
    "stromkreis-enrolment": {"token": "stk_x"},
    "stromkreis-database": {"url": "postgresql+psycopg://a:b@c/d", "password": "b"},
}
JOB_MADE = {
    "stromkreis-pki",
    "stromkreis-keys",
    "stromkreis-enrolment",
    "stromkreis-root-certificate",
}  # by k8s/base/bootstrap.py
YOURS = {"stromkreis-database"}  # said in the overlay's head


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("STROMKREIS_")]:
        monkeypatch.delenv(name)


def check_schema(each: Object, version: str) -> None:
    if each["apiVersion"] == "monitoring.coreos.com/v1":
        schema = json.loads((Path(__file__).parent / "podmonitor.json").read_text(encoding="utf-8"))
        jsonschema.validate(each, schema)
    else:
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_fits_the_schema_of_its_kind(name: str, version: str) -> None:
    objects = overlay(name)
    assert len(objects) > 15
    for each in objects:
        check_schema(each, version)


def test_a_kind_without_a_schema_and_an_unknown_field_fail() -> None:
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check_schema({"apiVersion": "example.org/v1", "kind": "PodMonitor", "metadata": {"name": "x"}}, "1.36")
    policy = named(overlay("small"), "NetworkPolicy", "dns")
    with pytest.raises(kubernetes_validate.ValidationError):
        check_schema(policy | {"spec": policy["spec"] | {"podSelektor": {}}}, "1.36")


def test_the_base_stands_alone() -> None:
    objects = rendered(ROOT / "k8s" / "base")
    assert {each["kind"] for each in objects} >= {"StatefulSet", "Job", "NetworkPolicy", "PodDisruptionBudget"}
    assert all(each["metadata"].get("namespace", "stromkreis") == "stromkreis" for each in objects)


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_container_is_root_or_may_become_so(name: str) -> None:
    for maker, template in pod_templates(overlay(name)):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        assert not any("hostPath" in volume for volume in spec.get("volumes", ()))
        for container in containers(template):
            context = container["securityContext"]
            where = (maker["metadata"]["name"], container["name"])
            assert context["readOnlyRootFilesystem"] is True, where
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["capabilities"]["drop"] == ["ALL"], where
            if (name, container["name"]) not in ROOT_CONTAINERS:
                assert context.get("runAsUser", 1) > 0, where
                assert context.get("runAsNonRoot", True), where
                assert "add" not in context["capabilities"], where


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_container_may_write_temporary_files(name: str) -> None:
    """Libraries look for such a place when they are imported, and the root is read-only."""
    for _, template in pod_templates(overlay(name)):
        scratch = {each["name"] for each in template["spec"].get("volumes", ()) if "emptyDir" in each}
        for container in containers(template):
            mounts = {each["mountPath"]: each for each in container.get("volumeMounts", ())}
            assert mounts["/tmp"]["name"] in scratch, container["name"]
            assert not mounts["/tmp"].get("readOnly"), container["name"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_container_has_requests_and_limits(name: str) -> None:
    for _, template in pod_templates(overlay(name)):
        for container in containers(template):
            for what, parse in (("cpu", cores), ("memory", bytes_of)):
                asked, most = (parse(container["resources"][key][what]) for key in ("requests", "limits"))
                assert 0 < asked <= most, container["name"]


def cores(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def bytes_of(text: str) -> int:
    found = re.fullmatch(r"(\d+)(Mi|Gi)", text)
    assert found, text
    return int(found[1]) << {"Mi": 20, "Gi": 30}[found[2]]


@pytest.mark.parametrize("name", OVERLAYS)
def test_only_jobs_get_a_service_account_token(name: str) -> None:
    for maker, template in pod_templates(overlay(name)):
        is_job = maker["kind"] in {"Job", "CronJob"}
        assert template["spec"]["automountServiceAccountToken"] is is_job, maker["metadata"]["name"]
        assert template["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", OVERLAYS)
def test_secrets_come_by_reference(name: str) -> None:
    objects = overlay(name)
    assert not of_kind(objects, "Secret")
    for _, template in pod_templates(objects):
        for container in containers(template):
            for entry in container.get("env", ()):
                if re.search(r"TOKEN|PASSWORD|DATABASE|PIN|SECRET", entry["name"]):
                    assert "secretKeyRef" in entry.get("valueFrom", {}), entry["name"]
    for each in of_kind(objects, "ConfigMap"):
        if each["metadata"]["name"].startswith("stromkreis-settings"):
            assert not re.search(r"TOKEN|PASSWORD|DATABASE=|PIN", " ".join(each["data"]))


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_that_is_referred_to_exists(name: str) -> None:
    objects = overlay(name)
    made = {each["metadata"]["name"] for each in of_kind(objects, "ConfigMap")} | JOB_MADE | YOURS
    accounts = {each["metadata"]["name"] for each in of_kind(objects, "ServiceAccount")}
    for maker, template in pod_templates(objects):
        spec = template["spec"]
        volumes = {each["name"] for each in spec.get("volumes", ())}
        volumes |= {each["metadata"]["name"] for each in maker["spec"].get("volumeClaimTemplates", ())}
        for volume in spec.get("volumes", ()):
            reference = volume.get("configMap", {}).get("name") or volume.get("secret", {}).get("secretName")
            assert reference is None or reference in made
        for container in containers(template):
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes
            assert {each["configMapRef"]["name"] for each in container.get("envFrom", ())} <= made
            for entry in container.get("env", ()):
                if "secretKeyRef" in entry.get("valueFrom", {}):
                    reference = entry["valueFrom"]["secretKeyRef"]
                    assert reference["key"] in SECRETS[reference["name"]]
        assert spec.get("serviceAccountName", "") in accounts | {""}
        if maker["kind"] == "StatefulSet":
            named(objects, "Service", maker["spec"]["serviceName"])
    for binding in of_kind(objects, "RoleBinding"):
        named(objects, "Role", binding["roleRef"]["name"])
        assert {each["name"] for each in binding["subjects"]} <= accounts


@pytest.mark.parametrize("name", OVERLAYS)
def test_selectors_choose_pods_that_exist(name: str) -> None:
    objects = overlay(name)
    pods = [template["metadata"]["labels"] for _, template in pod_templates(objects)]
    absent = [{"app.kubernetes.io/component": "meters"}, {"app.kubernetes.io/component": "han-device"}]  # may be added
    for each in objects:
        for selector in selectors(each):
            assert selector in absent or any(selector.items() <= labels.items() for labels in pods), selector


def selectors(each: Object) -> Iterator[dict[str, str]]:
    match each["kind"]:
        case "Service":
            yield each["spec"]["selector"]
        case "StatefulSet" | "PodDisruptionBudget":
            yield each["spec"]["selector"]["matchLabels"]
        case "NetworkPolicy":
            rules = [*each["spec"].get("ingress", ()), *each["spec"].get("egress", ())]
            peers = [peer for rule in rules for peer in (*rule.get("from", ()), *rule.get("to", ()))]
            for chosen in (each["spec"]["podSelector"], *(peer.get("podSelector", {}) for peer in peers)):
                yield chosen.get("matchLabels", {})


def settings(
    name: str, objects: list[Object], container: Object, monkeypatch: pytest.MonkeyPatch, ordinal: int = 7
) -> BaseModel:
    """What the program reads: the file from its ConfigMap and the environment, by its own loader."""
    section = container["args"][0]
    values = environment(objects, container, fields_of(f"stromkreis-x-{ordinal}", ordinal, "10.0.0.7"), SECRETS)
    for key, value in values.items():
        monkeypatch.setenv(key, value)
    (config,) = [
        each for each in of_kind(objects, "ConfigMap") if each["metadata"]["name"].startswith("stromkreis-config-")
    ]
    path = Path(os.environ["CONFIG_DIRECTORY"]) / f"{name}.toml"
    path.write_text(config["data"]["stromkreis.toml"], encoding="utf-8")
    return load(MODELS[section], section, path)


def programs(objects: list[Object]) -> list[tuple[Object, Object]]:
    return [
        (template, container)
        for _, template in pod_templates(objects)
        for container in containers(template)
        if container.get("args", [""])[0] in MODELS
    ]


@pytest.fixture
def _config_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIG_DIRECTORY", str(tmp_path))


@pytest.mark.usefixtures("_config_directory")
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_key_is_read_and_every_port_served(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = overlay(name)
    found = programs(objects)
    assert {container["args"][0] for _, container in found} == set(MODELS)
    for template, container in found:
        with monkeypatch.context() as context:
            config = settings(name, objects, container, context)
        declared = {each["containerPort"] for each in container.get("ports", ())}
        match config:
            case CoordinatorConfig():
                assert declared == {port_of(config.listen), *map(port_of, config.web.listen)}
                assert config.public_endpoint is not None
                assert config.web.public_url is not None
                assert reached(objects, config.public_endpoint) == f"{COORDINATOR}:{port_of(config.listen)}"
                assert [mount_of(container, each.file) for each in config.declared_tokens] == ["enrolment"]
                assert mount_of(container, config.pki_path) == "pki"
                assert mount_of(container, config.keys_path) == "keys"
                assert mount_of(container, config.log_key_path) == "keys"
            case NodeConfig():
                han = {port_of(each.han.listen) for each in config.gateways if each.han.listen is not None}
                assert declared == {port_of(config.metrics), *han}
                assert all(allows(objects, "han-device", "gateways", port, "egress") for port in han)
                assert all(allows(objects, "han-device", "gateways", port, "ingress") for port in han)
                assert reached(objects, config.coordinator) == f"{COORDINATOR}:7381"
                assert config.link.public_host == "10.0.0.7"
                first, last = re.findall(r"tcp://0\.0\.0\.0:(\d+)-(\d+)", config.link.listen)[0]
                assert head_ports(objects) == {(int(first), int(last))}
                grace_s = template["spec"]["terminationGracePeriodSeconds"]
                assert config.drain_s < grace_s
                assert config.token_file is not None
                assert mount_of(container, config.token_file) == "enrolment"
                assert mount_of(container, config.data_dir) == "data"
                assert mount_of(container, config.keys_path) == "data"
                if (seeds := mount_of(container, config.seeds_path)) != "data":
                    (volume,) = [each for each in template["spec"]["volumes"] if each["name"] == seeds]
                    assert volume["emptyDir"]["medium"] == "Memory"
                assert mount_of(container, config.root_certificate) == "root-certificate"
            case MetersConfig():
                assert declared in ({config.first_port}, set())
                assert bool(declared) is (config.host == "0.0.0.0")


def reached(objects: list[Object], address: str) -> str:
    """HOST:PORT of what a gateway reaches at an address: through the relay in its pod where that is on loopback."""
    place = urlsplit(address).netloc
    relays: dict[str, str] = {}
    for container in containers(named(objects, "StatefulSet", "stromkreis-gateways")["spec"]["template"]):
        arguments = container.get("args", [])
        pairs = [arguments[i + 1] for i, each in enumerate(arguments) if each == "--relay"]
        relays |= dict(each.replace("$(POD_NAMESPACE)", "stromkreis").split("=") for each in pairs)
    return relays.get(place, place)


def head_ports(objects: list[Object]) -> set[tuple[int, int]]:
    """The ranges that gateways may call one another at."""
    rules = named(objects, "NetworkPolicy", "wan-gateways")["spec"]["ingress"]
    return {(port["port"], port["endPort"]) for rule in rules for port in rule["ports"]}


def port_of(address: str) -> int:
    port = urlsplit(address).port
    assert port
    return port


def mount_of(container: Object, path: Path) -> str:
    """The volume that a path is on."""
    mounts = [each for each in container["volumeMounts"] if path.is_relative_to(each["mountPath"])]
    best: str = max(mounts, key=lambda each: len(each["mountPath"]))["name"]
    return best


@pytest.mark.usefixtures("_config_directory")
@pytest.mark.parametrize("name", OVERLAYS)
def test_gateways_of_different_pods_are_different_and_have_meters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = overlay(name)
    replicas = named(objects, "StatefulSet", "stromkreis-gateways")["spec"]["replicas"]
    (node,) = [each for _, each in programs(objects) if each["args"][0] == "node"]
    (meters,) = [each for _, each in programs(objects) if each["args"][0] == "meters"]
    ids: set[str] = set()
    gateways = 0
    for ordinal in range(replicas):
        with monkeypatch.context() as context:
            config = settings(name, objects, node, context, ordinal)
        assert isinstance(config, NodeConfig)
        made = config.all_gateways()
        gateways += len(made)
        ids |= {each.id for each in made}
    with monkeypatch.context() as context:
        simulated = settings(name, objects, meters, context)
    assert isinstance(simulated, MetersConfig)
    assert len(ids) == gateways
    assert gateways == replicas * simulated.count
    ports = {port_of(url) for gateway in made for url in gateway.meters}
    assert ports == set(range(simulated.first_port, simulated.first_port + simulated.count))


@pytest.mark.parametrize("name", OVERLAYS)
def test_ports_of_services_and_policies_are_those_of_containers(name: str) -> None:
    objects = overlay(name)
    for service in of_kind(objects, "Service"):
        ports = ports_behind(objects, service["spec"]["selector"])
        for each in service["spec"]["ports"]:
            assert ports[each["name"]] == each.get("targetPort", each["port"])
    for monitor in of_kind(objects, "PodMonitor"):
        chosen = [
            template
            for _, template in pod_templates(objects)
            for wanted in monitor["spec"]["selector"]["matchExpressions"]
            if template["metadata"]["labels"].get(wanted["key"]) in wanted["values"]
        ]
        known = {
            port["name"] for each in chosen for container in containers(each) for port in container.get("ports", ())
        }
        assert {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]} <= known
    for _, template in pod_templates(objects):
        annotations = template["metadata"].get("annotations", {})
        numbers = {port["containerPort"] for each in containers(template) for port in each.get("ports", ())}
        if "prometheus.io/port" in annotations:
            assert int(annotations["prometheus.io/port"]) in numbers
    served = {
        port["containerPort"]
        for _, each in pod_templates(objects)
        for c in containers(each)
        for port in c.get("ports", ())
    }
    ours = {53, 443, 6443} | served
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in (*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())):
            for port in rule.get("ports", ()):
                assert "endPort" in port or port["port"] in ours, (policy["metadata"]["name"], port)


def ports_behind(objects: list[Object], selector: dict[str, str]) -> dict[str, int]:
    return {
        port["name"]: port["containerPort"]
        for _, template in pod_templates(objects)
        if selector.items() <= template["metadata"]["labels"].items()
        for container in containers(template)
        for port in container.get("ports", ())
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_traffic_that_the_programs_need_is_allowed(name: str) -> None:
    """Both ends: egress of who calls, ingress of who is called."""
    objects = overlay(name)
    needed = [
        ("gateways", "coordinator", 7300), ("gateways", "coordinator", 7381), ("gateways", "gateways", HEAD_PORT),
    ]  # fmt: skip
    if any(each["metadata"]["name"] == "stromkreis-meters" for each in of_kind(objects, "StatefulSet")):
        needed += [("gateways", "meters", 20_000), ("gateways", "meters", 20_499)]
    if any(each["metadata"]["name"] == "stromkreis-postgresql" for each in of_kind(objects, "StatefulSet")):
        needed.append(("coordinator", "database", 5432))
    for source, target, port in needed:
        assert allows(objects, source, target, port, "egress"), (source, target, port)
        assert allows(objects, source, target, port, "ingress"), (source, target, port)
    for source, target, port in (
        ("meters", "coordinator", 7300), ("coordinator", "gateways", HEAD_PORT), ("han-device", "gateways", HEAD_PORT),
        ("han-device", "meters", 20_000), ("han-device", "coordinator", 7381), ("gateways", "han-device", 7443),
        ("meters", "gateways", 7390), ("gateways", "coordinator", 7380),
    ):  # fmt: skip
        both = allows(objects, source, target, port, "egress") and allows(objects, source, target, port, "ingress")
        assert not both, (source, target, port)


def allows(objects: list[Object], source: str, target: str, port: int, direction: str) -> bool:
    mine, other = (source, target) if direction == "egress" else (target, source)
    for policy in of_kind(objects, "NetworkPolicy"):
        chosen = policy["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/component", mine)
        if chosen != mine or direction.capitalize() not in policy["spec"]["policyTypes"]:
            continue
        for rule in policy["spec"].get(direction, ()):
            peers = rule.get("to" if direction == "egress" else "from")
            is_peer = peers is None or any(
                peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component") == other
                for peer in peers
            )
            if is_peer and any(each["port"] <= port <= each.get("endPort", each["port"]) for each in rule["ports"]):
                return True
    return False


@pytest.mark.parametrize("name", OVERLAYS)
def test_gateways_keep_their_volumes_and_start_side_by_side(name: str) -> None:
    objects = overlay(name)
    gateways = named(objects, "StatefulSet", "stromkreis-gateways")["spec"]
    assert gateways["podManagementPolicy"] == "Parallel"
    assert gateways["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert gateways["minReadySeconds"] > 0
    assert gateways["template"]["spec"]["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"
    budget = named(objects, "PodDisruptionBudget", "stromkreis-gateways")["spec"]
    assert budget["selector"] == gateways["selector"]
    coordinator = named(objects, "Service", "stromkreis-coordinator")["spec"]
    assert coordinator["clusterIP"] == "None"


@pytest.mark.usefixtures("_config_directory")
@pytest.mark.parametrize("name", OVERLAYS)
def test_several_coordinators_stand_by_on_one_database(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = overlay(name)
    spec = named(objects, "StatefulSet", "stromkreis-coordinator")["spec"]
    ((template, container),) = [each for each in programs(objects) if each[1]["args"][0] == "coordinator"]
    config = settings(name, objects, container, monkeypatch)
    assert isinstance(config, CoordinatorConfig)
    is_alone = spec["replicas"] == 1
    assert config.standby is not is_alone
    service = named(objects, "Service", "stromkreis-coordinator")["spec"]
    assert service["publishNotReadyAddresses"] is is_alone  # only the active one is ready
    if not is_alone:
        assert config.database_url.startswith("postgresql")
        assert spec["updateStrategy"] == {"type": "OnDelete"}  # a rolling update would wait until both are ready
        assert spec["podManagementPolicy"] == "Parallel"
        rules = template["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert [rule["topologyKey"] for rule in rules] == ["kubernetes.io/hostname"]
        assert rules[0]["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


@pytest.mark.usefixtures("_config_directory")
@pytest.mark.parametrize("name", OVERLAYS)
def test_the_tolerated_share_covers_the_largest_failure_domain(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The domain is a machine where a spread over machines is demanded, else a pod."""
    objects = overlay(name)
    gateways = named(objects, "StatefulSet", "stromkreis-gateways")["spec"]
    (table,) = [
        each["data"]
        for each in of_kind(objects, "ConfigMap")
        if each["metadata"]["name"].startswith("stromkreis-settings")
    ]
    for key, value in table.items():
        monkeypatch.setenv(key, value)
    epoch = load(CoordinatorConfig, "coordinator", None).epoch
    population = gateways["replicas"] * int(table["STROMKREIS_NODE__FLEET__COUNT"])
    (spread,) = gateways["template"]["spec"]["topologySpreadConstraints"]
    domains = spread.get("minDomains", gateways["replicas"])
    part = min(population, 1024)  # rings are drawn inside parts of an area
    arguments = [
        "parameters", "--ring", epoch.ring_size, "--corrupt", epoch.corrupt, "--dropout", epoch.dropout,
        "--population", part, "--failure-domain", round(1 / domains, 6),
    ]  # fmt: skip
    result = CliRunner().invoke(build(["parameters"]), [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    assert "Tolerated" in result.output


async def test_every_probe_of_a_node_is_answered() -> None:
    """The coordinator's are, too: it never gets ready in the pod runner's tests otherwise."""
    paths = set()
    for name in OVERLAYS:
        for _, container in programs(overlay(name)):
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container.get(probe, {})
                if "httpGet" in asked:
                    paths.add(asked["httpGet"]["path"])
                    assert asked["httpGet"]["port"] in {port["name"] for port in container["ports"]}
                if asked:
                    assert 3 <= asked["timeoutSeconds"] <= 5
    assert paths == {"/healthz", "/readyz", "/readyz?exclude=seated"}
    healthy: dict[str, str | None] = dict.fromkeys(Readiness(0).checks())
    async with trio.open_nursery() as nursery:
        serve: Any = partial(serve_monitoring, CollectorRegistry(), "http://127.0.0.1:0", lambda: None, lambda: healthy)
        address = await nursery.start(serve)
        async with httpx.AsyncClient(timeout=120) as client:
            for path in paths:
                assert (await client.get(f"{address}{path}")).status_code == 200
        nursery.cancel_scope.cancel()


def test_a_file_of_configuration_in_the_base_has_no_unknown_section() -> None:
    document = tomllib.loads((ROOT / "k8s" / "base" / "stromkreis.toml").read_text(encoding="utf-8"))
    assert set(document) == set(MODELS)


def test_every_yaml_file_below_k8s_is_reached() -> None:
    """A file that no kustomization names would be checked by nobody."""
    named_files: set[Path] = set()
    for kustomization in (ROOT / "k8s").rglob("kustomization.yaml"):
        document = yaml.safe_load(kustomization.read_text(encoding="utf-8"))
        patches = [each["path"] for each in document.get("patches", ()) if "path" in each]
        for path in (*document.get("resources", ()), *document.get("components", ()), *patches):
            target = (kustomization.parent / path).resolve()
            named_files.add(target / "kustomization.yaml" if target.is_dir() else target)
    roots = {ROOT / "k8s" / "overlays" / name / "kustomization.yaml" for name in OVERLAYS}
    assert set((ROOT / "k8s").rglob("*.yaml")) - roots == named_files - roots
