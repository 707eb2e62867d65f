"""The operator when processes, connections and the API server fail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial

import pytest

from control_plane.operator_process import OperatorProcess
from control_plane.plane import ControlPlane
from control_plane.proxy_orders import Filter, counted_write
from control_plane.speech import children, install_definitions, service, wait_serving
from control_plane.waiting import eventually

ADMIN = ["system:masters"]
MAX_WRITES = 30


@pytest.fixture(scope="module")
def plane(own_control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """With our definitions and CPU nodes."""
    install_definitions(own_control_plane)
    nodes = own_control_plane.nodes(count=2, prefix="faults")
    yield own_control_plane
    own_control_plane.kubectl("delete", "ttsservices", "-A", "--all", "--wait=false")
    own_control_plane.delete_nodes(nodes)


@pytest.fixture
def operators(plane: ControlPlane) -> Iterator[list[OperatorProcess]]:
    """What a test starts is stopped after it; none may have failed unexpectedly."""
    started: list[OperatorProcess] = []
    yield started
    logs = [one.log() for one in started]
    for one in started:
        one.stop()
    assert not any("Traceback" in log for log in logs), "\n".join(logs)


def scale(plane: ControlPlane, name: str, namespace: str, replicas: int) -> None:
    plane.kubectl("scale", f"ttsservice/{name}", f"--replicas={replicas}", "-n", namespace)


@pytest.mark.slow
def test_killed_after_any_write_of_a_first_reconcile_it_converges_to_the_same(
    plane: ControlPlane, operators: list[OperatorProcess]
) -> None:
    """The proxy kills the process when the API server has answered the n-th write, for every n that there is.

    The operator that came after one kill is the next to be killed, at another service.
    """
    proxy = plane.proxy("operator-killed", ADMIN)
    reference = None
    with plane.namespace() as home:

        def start() -> OperatorProcess:
            operators.append(OperatorProcess(proxy.kubeconfig, NAMESPACE=home))
            return operators[-1]

        operator = start()
        for index in range(MAX_WRITES):
            with plane.namespace() as namespace:
                operator.wait_leader()
                if index:
                    proxy.kill_after(operator.pid, index, written_in(namespace))
                plane.apply(service("killed", namespace, replicas=2))
                if index:
                    eventually(partial(ended_or_done, operator, namespace), "killed or done", every=0.2)
                    if operator.running:
                        break
                    operator = start()
                wait_serving(plane, "killed", namespace, 2)
                found = json.loads(json.dumps(children(plane, "killed", namespace)).replace(namespace, "NAMESPACE"))
                reference = reference or found
                assert found == reference, f"killed after write {index}"
                plane.kubectl("delete", "ttsservice", "killed", "-n", namespace)
        else:
            pytest.fail(f"a first reconcile has more than {MAX_WRITES} writes")
    assert index > 5


def written_in(namespace: str) -> Filter:
    return lambda request: counted_write(request) and request.namespace == namespace


def ended_or_done(operator: OperatorProcess, namespace: str) -> bool:
    """Whether it was killed, or has got the answer to its last write: that the service is ready."""
    done = f'ttsfleet_service_ready{{namespace="{namespace}",service="killed"}} 1.0'
    return not operator.running or done in operator.answer("/metrics")[1]


def test_of_two_operators_one_acts_and_the_other_takes_over(
    plane: ControlPlane, operators: list[OperatorProcess], namespace: str
) -> None:
    users = ("operator-a", "operator-b")
    settings = {"WATCH_NAMESPACES": namespace, "NAMESPACE": namespace}
    for user in users:
        operators.append(OperatorProcess(plane.kubeconfig_for(user, ADMIN), user, **settings))
        operators[-1].wait_ready()
    first, second = operators
    first.wait_leader()
    mark = plane.audit_mark()
    plane.apply(service("two", namespace))
    wait_serving(plane, "two", namespace)
    assert list(plane.audit(since=mark, user=users[1], writes=True, namespace=namespace)) == []
    assert (second.metric("ttsfleet_leader"), second.answer("/readyz")) == (0.0, (200, "ok\n"))
    first.kill()
    scale(plane, "two", namespace, 2)
    second.wait_leader(within=40)
    wait_serving(plane, "two", namespace, 2)


def test_a_leader_gives_its_lease_back_at_an_orderly_end(
    plane: ControlPlane, operators: list[OperatorProcess], namespace: str
) -> None:
    settings = {"WATCH_NAMESPACES": namespace, "NAMESPACE": namespace}
    for name in ("one", "two"):
        operators.append(OperatorProcess(plane.kubeconfig, name, **settings))
        operators[-1].wait_ready()
    operators[0].wait_leader()
    operators[0].stop()
    operators[1].wait_leader(within=8)


def test_a_leader_whose_lease_was_taken_ends_at_once(
    plane: ControlPlane, operators: list[OperatorProcess], namespace: str
) -> None:
    operators.append(OperatorProcess(plane.kubeconfig, WATCH_NAMESPACES=namespace, NAMESPACE=namespace))
    operators[0].wait_leader()
    patch = {"spec": {"holderIdentity": "another", "leaseDurationSeconds": 3600}}
    plane.kubectl("patch", "lease", "ttsfleet-operator", "-n", namespace, "--type=merge", f"-p={json.dumps(patch)}")
    assert operators[0].wait_end(within=15) == 3


def test_it_goes_on_when_the_api_server_was_restarted(
    plane: ControlPlane, operators: list[OperatorProcess], namespace: str
) -> None:
    operators.append(OperatorProcess(plane.kubeconfig, WATCH_NAMESPACES=namespace, NAMESPACE=namespace))
    operators[0].wait_leader()
    plane.apply(service("restarted", namespace))
    wait_serving(plane, "restarted", namespace)
    plane.restart_api_server()
    scale(plane, "restarted", namespace, 2)
    wait_serving(plane, "restarted", namespace, 2, within=60)
    assert operators[0].running


def test_a_busy_api_server_delays_and_does_not_hinder(
    plane: ControlPlane, operators: list[OperatorProcess], namespace: str
) -> None:
    proxy = plane.proxy("operator-busy", ADMIN)
    operators.append(OperatorProcess(proxy.kubeconfig, WATCH_NAMESPACES=namespace, NAMESPACE=namespace))
    operators[0].wait_leader()
    refusal = proxy.refuse(lambda request: request.is_write and request.resource != "leases", times=3)
    plane.apply(service("busy", namespace))
    wait_serving(plane, "busy", namespace, within=60)
    assert refusal.given == 3
    assert operators[0].metric("ttsfleet_reconcile_errors_total") > 0


def test_dropped_watches_are_taken_up_again(
    plane: ControlPlane, operators: list[OperatorProcess], namespace: str
) -> None:
    proxy = plane.proxy("operator-dropped", ADMIN)
    operators.append(OperatorProcess(proxy.kubeconfig, WATCH_NAMESPACES=namespace, NAMESPACE=namespace))
    operators[0].wait_leader()
    plane.apply(service("dropped", namespace))
    wait_serving(plane, "dropped", namespace)
    for replicas in (2, 1, 2):
        assert proxy.drop_watches() > 0
        scale(plane, "dropped", namespace, replicas)
        wait_serving(plane, "dropped", namespace, replicas)


def test_frozen_watches_are_noticed_and_what_they_missed_is_found(
    plane: ControlPlane, operators: list[OperatorProcess], namespace: str
) -> None:
    proxy = plane.proxy("operator-frozen", ADMIN)
    settings = {"WATCH_NAMESPACES": namespace, "NAMESPACE": namespace, "PROBE_SECONDS": "2"}
    operators.append(OperatorProcess(proxy.kubeconfig, **settings))
    operators[0].wait_leader()
    plane.apply(service("frozen", namespace))
    wait_serving(plane, "frozen", namespace)
    proxy.freeze_watches(lambda request: request.resource == "ttsservices")
    scale(plane, "frozen", namespace, 2)
    wait_serving(plane, "frozen", namespace, 2, within=40)
    assert operators[0].metric("ttsfleet_watch_gaps_total") > 0
    deadline = time.monotonic() + 40
    replicas = 2
    while operators[0].answer("/livez")[0] == 200:
        assert time.monotonic() < deadline, "a dead watch was never noticed"
        replicas = 3 - replicas
        scale(plane, "frozen", namespace, replicas)
        time.sleep(1)  # the watch stays frozen while the service changes, round after round
    assert "ttsservices" in operators[0].answer("/livez")[1]


def test_what_happened_while_it_was_down_is_right_after_it_returns(
    plane: ControlPlane, operators: list[OperatorProcess], namespace: str
) -> None:
    settings = {"WATCH_NAMESPACES": namespace, "NAMESPACE": namespace}
    operators.append(OperatorProcess(plane.kubeconfig, **settings))
    operators[0].wait_leader()
    plane.apply(service("edited", namespace), service("deleted", namespace), service("kept", namespace))
    for name in ("edited", "deleted", "kept"):
        wait_serving(plane, name, namespace)
    operators[0].kill()
    plane.apply(service("created", namespace))
    scale(plane, "edited", namespace, 3)
    plane.kubectl("delete", "ttsservice", "deleted", "-n", namespace, "--timeout=20s")
    plane.kubectl("delete", "service", "kept", "-n", namespace)
    operators.append(OperatorProcess(plane.kubeconfig, **settings))
    wait_serving(plane, "created", namespace)
    wait_serving(plane, "edited", namespace, 3)
    eventually(lambda: plane.find("service", "kept", namespace), "the deleted child is back")
    eventually(lambda: children(plane, "deleted", namespace) == {}, "the deleted service's children are gone")
