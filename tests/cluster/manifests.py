"""The manifests in k8s/ as a cluster gets them: rendered by kustomize, references resolved as a kubelet does it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = tuple(sorted(path.parent.name for path in (ROOT / "k8s" / "overlays").glob("*/kustomization.yaml")))
Object = dict[str, Any]


@cache
def kubectl() -> str:
    """A kubectl with kustomize 5; where there is none, that is a failure with CI=true and else a skip."""
    found = subprocess.run([ROOT / ".ci" / "kubectl"], capture_output=True, text=True, check=False)
    if found.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(found.stderr)
        pytest.skip(found.stderr.strip())
    return found.stdout.strip()


@cache
def rendered(directory: Path) -> list[Object]:
    """The objects that `kubectl kustomize` makes of a directory; not to be changed."""
    done = subprocess.run([kubectl(), "kustomize", directory], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return [each for each in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if each is not None]


def overlay(name: str) -> list[Object]:
    """The objects of an overlay."""
    return rendered(ROOT / "k8s" / "overlays" / name)


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """The objects of these kinds."""
    return [each for each in objects if each["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The object of that kind and name."""
    (found,) = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def pod_templates(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Each object that makes pods, and its pod template."""
    for each in objects:
        match each["kind"]:
            case "StatefulSet" | "Job" | "Deployment" | "DaemonSet":
                yield each, each["spec"]["template"]
            case "CronJob":
                yield each, each["spec"]["jobTemplate"]["spec"]["template"]


def containers(template: Object) -> list[Object]:
    """All containers of a pod template, in the order in which they start."""
    spec = template["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


def environment(
    objects: list[Object], container: Object, fields: Mapping[str, str], secrets: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """
    A container's environment, references resolved and `$(NAME)` expanded, as a kubelet does it.

    `fields` are the pod's by their path, `secrets` the contents by name and key of Secrets that are not in the objects.
    """
    values: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        values |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in container.get("env", ()):
        source = entry.get("valueFrom", {})
        if "fieldRef" in source:
            values[entry["name"]] = fields[source["fieldRef"]["fieldPath"]]
        elif "secretKeyRef" in source:
            values[entry["name"]] = secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
        else:
            values[entry["name"]] = expanded(entry.get("value", ""), values)
    return values


def expanded(text: str, values: Mapping[str, str]) -> str:
    """Each `$(NAME)` of a known name replaced."""

    def value_of(found: re.Match[str]) -> str:
        return values.get(found[1], found[0])

    return re.sub(r"\$\((\w+)\)", value_of, text)


def fields_of(pod: str, ordinal: int, address: str, namespace: str = "stromkreis") -> dict[str, str]:
    """What the downward API tells of a pod."""
    return {
        "metadata.name": pod,
        "metadata.namespace": namespace,
        "metadata.labels['apps.kubernetes.io/pod-index']": str(ordinal),
        "status.podIP": address,
    }
