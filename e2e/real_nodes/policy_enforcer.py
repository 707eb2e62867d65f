"""Enforces the NetworkPolicies of a cluster on its real nodes, as long as the cluster runs.

A thread keeps each node's packet filter (that of its network namespace, not the host's) as `network_policy` makes it
from the pods, namespaces and policies of the API server. A new pod is open until its address is known and the rules
follow, as with many network plugins; `settle` waits for that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from control_plane.errors import CommandFailed, ControlPlaneError, NeverHappened
from control_plane.waiting import eventually
from control_plane.watching import Api, Unanswered, Watched
from real_nodes.network_policy import rule_set
from real_nodes.node import RealNode, has_ended
from real_nodes.policy_objects import Objects

PODS, NAMESPACES = "/api/v1/pods", "/api/v1/namespaces"
POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
# A node that comes back tells so here; its rules were lost.
NODES = "/api/v1/nodes"


class NotEnforced(ControlPlaneError):
    """Policies do not act, with the reason."""


class PolicyEnforcer:
    """The policies of a cluster on its nodes, from `start` to `stop`."""

    def __init__(self, api: Api, nodes: Callable[[], Sequence[RealNode]]) -> None:
        self._api = api
        self._nodes = nodes
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._watched = {path: Watched(api, path, self._changed.set) for path in (PODS, NAMESPACES, POLICIES, NODES)}
        self._thread = threading.Thread(target=self._run, name="network policies", daemon=True)
        self._applied: dict[str, tuple[int, str]] = {}
        """Per node its first process and the rules in it."""
        self._failure: BaseException | None = None

    def start(self) -> None:
        for watched in self._watched.values():
            watched.start()
        self._thread.start()

    def stop(self) -> None:
        """Ends the threads.

        Raises:
            NotEnforced: policies have not been enforced to the end.
        """
        self._ended.set()
        self._changed.set()
        for watched in self._watched.values():
            watched.stop()
        self._thread.join()
        self._require_working()

    def settle(self, within: float = 20) -> None:
        """Returns when what the API server has now is enforced on every node that runs.

        Raises:
            NotEnforced: what stands against it.
        """

        def settled() -> bool:
            self._require_working()
            try:
                lists = [self._api.list(path)[0] for path in (PODS, NAMESPACES, POLICIES)]
            except (OSError, Unanswered):
                return False
            objects = Objects.read(*lists)
            return all(
                self._applied.get(node.name) == (pid, rule_set(objects, node.name))
                for node in self._nodes()
                if (pid := running_pid(node))
            )

        try:
            eventually(settled, "the policies are enforced", within)
        except NeverHappened as error:
            troubles = [one.trouble for one in self._watched.values() if one.trouble]
            raise NotEnforced("; ".join([str(error), *troubles])) from error

    def _require_working(self) -> None:
        failures = [self._failure, *(watched.failure for watched in self._watched.values())]
        for failure in filter(None, failures):
            raise NotEnforced(f"network policies are not enforced: {failure}") from failure

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                self._changed.wait()
                self._changed.clear()
                self._enforce()
        except Exception as error:  # noqa: BLE001 - told by `settle` and `stop`
            self._failure = error

    def _enforce(self) -> None:
        lists = [self._watched[path].objects for path in (PODS, NAMESPACES, POLICIES)]
        if any(one is None for one in lists):
            return
        objects = Objects.read(*(one or [] for one in lists))
        for node in self._nodes():
            pid = running_pid(node)
            wanted = (pid, rule_set(objects, node.name))
            if pid and self._applied.get(node.name) != wanted and not self._ended.is_set():
                self._apply(node, *wanted)

    def _apply(self, node: RealNode, pid: int, rules: str) -> None:
        try:
            if self._applied.get(node.name, (0, ""))[0] != pid:
                # Otherwise the kernel answers only one refused connection per second.
                node.exec("tee", "/proc/sys/net/ipv4/icmp_ratelimit", input="0")
            node.exec("nft", "-f", "-", input=rules)
        except (OSError, CommandFailed):
            if is_lost(node, pid):
                return
            raise
        self._applied[node.name] = (pid, rules)


def running_pid(node: RealNode) -> int:
    """The first process of a node, or 0 when the node is down."""
    try:
        pid = node.pid
    except (FileNotFoundError, ValueError):
        return 0
    return 0 if has_ended(pid) else pid


def is_lost(node: RealNode, pid: int) -> bool:
    """Whether the node is ending or has ended: its commands fail a moment before its first process is gone."""
    try:
        return eventually(lambda: running_pid(node) != pid, f"{node.name} has ended", within=2)
    except NeverHappened:
        return False
