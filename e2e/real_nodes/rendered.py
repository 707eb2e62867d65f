"""What operator and chart render, and pods that stand in for theirs: with the test image in place of ours."""

from __future__ import annotations

import copy
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from control_plane import binaries
from real_nodes.images import POD_IMAGE
from ttsfleet_operator.api.manifest import parse_services
from ttsfleet_operator.fleet.plan import plan_fleet
from ttsfleet_operator.fleet.settings import FleetSettings, References
from ttsfleet_operator.manifests.fleet_objects import render_fleet
from ttsfleet_operator.manifests.pod_template import pod_template
from ttsfleet_operator.profiles import builtin_profiles

Manifest: TypeAlias = dict[str, Any]
CHART = Path(__file__).resolve().parents[2] / "charts" / "ttsfleet"
SETTINGS = FleetSettings(release="1.2.3", runtime_image="registry.example/runtime:1.2.3")
# What runtime and operator listen on, each for its own purpose, and a port that neither has.
API, MANAGEMENT, OTHER = 8080, 8081, 9000


@dataclass(frozen=True)
class Objects:
    """Rendered manifests."""

    all: list[Manifest]

    def one(self, kind: str) -> Manifest:
        """The only one of its kind, without an owner: there is no TTSService in the cluster."""
        (found,) = [one for one in self.all if one["kind"] == kind]
        return {**found, "metadata": {k: v for k, v in found["metadata"].items() if k != "ownerReferences"}}

    def pod(self, name: str, namespace: str) -> Manifest:
        """A pod as its Deployment makes it."""
        template = self.one("Deployment")["spec"]["template"]
        metadata = {**template["metadata"], "name": name, "namespace": namespace}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(template["spec"])}

    def stand_in(self, name: str, namespace: str, node: str) -> Manifest:
        """The pod with the test image instead: a container for each of its ports and one for a port more."""
        made = self.pod(name, namespace)
        spec, main = made["spec"], made["spec"]["containers"][0]
        kept = ("name", "ports", "startupProbe", "livenessProbe", "readinessProbe", "securityContext")
        served = [
            {key: main[key] for key in kept if key in main} | {"image": POD_IMAGE, "args": ["serve", f":{API}"]}
        ]
        served += [
            {
                "name": f"port-{port}",
                "image": POD_IMAGE,
                "args": ["serve", f":{port}"],
                "securityContext": main["securityContext"],
            }
            for port in (MANAGEMENT, OTHER)
        ]
        made["spec"] = {
            "securityContext": spec["securityContext"],
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 1,
            "containers": served,
        }
        return made


def rendered(namespace: str, source: str, network: str = "", settings: FleetSettings = SETTINGS) -> Objects:
    """What the operator writes for a service of one CPU class."""
    (one,) = parse_services(f"""\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {{name: narrator, namespace: {namespace}, uid: 7f0c}}
spec:
  model: {{source: {source}}}
  hardware: {{classes: [{{name: cpu, cpu: {{}}}}]}}
  network: {{{network}}}
""")
    plan = plan_fleet(one, builtin_profiles(), None, {}, settings, References(), pod_template)
    assert [decision.problem for decision in plan.classes] == [None]
    return Objects(render_fleet(plan, settings))


def chart(namespace: str, **values: Any) -> Objects:
    """What the chart installs with its defaults and these values for its NetworkPolicy."""
    command = [str(binaries.path_of("helm")), "template", "ttsfleet", str(CHART), "--namespace", namespace]
    given = yaml.safe_dump({"networkPolicy": values})
    answer = subprocess.run(
        [*command, "--kube-version", "1.36", "--values", "-"], input=given, capture_output=True, text=True, check=True
    )
    return Objects([one for one in yaml.safe_load_all(answer.stdout) if one])
