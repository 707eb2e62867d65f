"""A cluster with real nodes: the control plane of `control_plane.plane`, and nodes on which containers run.

`with RealCluster.started(nodes=3) as cluster:`. Needs root; see `requirements`. Of the host it takes a link,
cgroups, a folder and a lock file, all gone at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from string import Template

from control_plane import flags
from control_plane.errors import ControlPlaneError, NeverHappened, StartFailed
from control_plane.plane import ControlPlane
from control_plane.processes import Processes
from control_plane.waiting import eventually
from control_plane.watching import Api
from real_nodes import content_store, images, leftovers, network, requirements
from real_nodes.layout import DNS_ADDRESS, DOMAIN, HOST_ADDRESS, STATE, places
from real_nodes.lock import Lock
from real_nodes.node import Credentials, RealNode
from real_nodes.policy_enforcer import PolicyEnforcer

DNS_MANIFEST = Path(__file__).with_name("coredns.yaml")
# A node is lost when its kubelet was silent for so long; it beats every two seconds.
REACH = flags.Reach(address=HOST_ADDRESS, node_grace="8s")
READY_SECONDS = 60


class NodesImpossible(ControlPlaneError):
    """This machine lacks what nodes need."""


class RealCluster(ControlPlane):
    """A control plane on an address that nodes reach, the nodes, and CoreDNS on them."""

    def __init__(self, nodes: int = 3, archives: Sequence[Path] = (), store: Path | None = None) -> None:
        """Takes the machine's lock and removes what a run that was killed has left; nothing runs yet.

        Args:
            nodes: how many, in two zones by turns.
            archives: images (docker or OCI archives) that every node has from the beginning.
            store: images that are unpacked already (`content_store.prepare`), which every node has too.

        Raises:
            NodesImpossible: what is missing here, and how to get it.
            ClusterRunning: another process has such a cluster.
        """
        if obstacles := requirements.obstacles():
            raise NodesImpossible("; ".join(obstacles))
        self._lock = Lock()
        self._lock.acquire()
        try:
            leftovers.remove()
            STATE.mkdir(parents=True, mode=0o755)
            super().__init__(REACH)
        except BaseException:
            self._lock.release()
            raise
        self._places = places(nodes)
        self._archives = tuple(archives)
        self._unpacked = store
        self._node_processes = Processes(STATE)
        self._network = network.Network(self._node_processes)
        self._store: Future[Path] | None = None
        self._nodes: dict[str, RealNode] = {}
        self._policies: PolicyEnforcer | None = None

    @classmethod
    @contextmanager
    def started(
        cls, nodes: int = 3, archives: Sequence[Path] = (), store: Path | None = None
    ) -> Iterator[RealCluster]:
        """A cluster whose nodes and DNS are ready; stopped at the end."""
        cluster = cls(nodes, archives, store)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()

    def start(self) -> None:
        """Starts the control plane and the nodes; returns when all nodes are Ready and names are resolved.

        Raises:
            StartFailed: with the end of the log of what did not start. Nothing is left.
        """
        try:
            self._network.start()
            with ThreadPoolExecutor(max_workers=1) as beside:
                self._store = beside.submit(self._prepare_images)
                super().start()
                root = self._store.result()
            self.kubectl("apply", "-f", "-", input=_dns_manifest())
            self._nodes = {place.letter: self._new_node(place.number, root) for place in self._places}
            with ThreadPoolExecutor(max_workers=len(self._nodes)) as together:
                for started in [together.submit(node.start) for node in self._nodes.values()]:
                    started.result()
            self.wait_for_nodes()
            self.kubectl(
                "-n", "kube-system", "rollout", "status", "deployment/coredns", f"--timeout={READY_SECONDS}s"
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends everything and removes all that was made on the host. It can be called twice.

        Raises:
            NotEnforced: everything has ended, but network policies did not act until then.
        """
        if not self._lock.is_held:
            return
        try:
            if self._policies:
                self._policies.stop()
        finally:
            self._node_processes.stop()
            if self._store:
                wait([self._store])
            super().stop()
            leftovers.remove()
            self._lock.release()

    def node(self, letter: str) -> RealNode:
        """The node "a", "b", ..."""
        return self._nodes[letter]

    @property
    def real_nodes(self) -> list[RealNode]:
        """All nodes that are not played."""
        return list(self._nodes.values())

    def wait_for_nodes(self, letters: Sequence[str] | None = None, within: float = READY_SECONDS) -> None:
        """Waits until the nodes (all by default) are Ready.

        Raises:
            StartFailed: with the end of the log of the kubelet of one that is not.
        """
        wanted = [node for letter, node in self._nodes.items() if letters is None or letter in letters]
        names = ", ".join(node.name for node in wanted)
        try:
            eventually(lambda: not self._late(wanted), f"{names} Ready", within, every=0.1)
        except NeverHappened as error:
            logs = [f"{node.name}: {node.kubelet.last_lines()}" for node in self._late(wanted)]
            raise StartFailed("\n".join([str(error), *logs])) from error

    def enforce_network_policies(self) -> PolicyEnforcer:
        """Has NetworkPolicies act from now on, until the cluster stops; `settle` of the answer waits for changes."""
        if not self._policies:
            self._policies = PolicyEnforcer(Api(self.server, self._tls), lambda: self.real_nodes)
            self._policies.start()
        return self._policies

    def import_image(self, archive: Path) -> None:
        """Gives the images of an archive to every node. Each unpacks it; `archives` at the start is quicker."""
        with ThreadPoolExecutor(max_workers=len(self._nodes)) as together:
            for imported in [together.submit(node.import_image, archive) for node in self.real_nodes]:
                imported.result()

    def exec_in_node(self, letter: str, *command: str) -> str:
        """Runs a command as root on a node and returns what it printed."""
        return self.node(letter).exec(*command)

    def _late(self, wanted: Sequence[RealNode]) -> list[RealNode]:
        """Those that are not Ready, or were so only before their last start."""
        ready = self._ready_nodes()
        boots = {node["metadata"]["name"]: node["status"]["nodeInfo"]["bootID"] for node in self.get("nodes")}
        return [node for node in wanted if node.name not in ready or boots.get(node.name) != node.boot_id]

    def _prepare_images(self) -> Path:
        folder = STATE / "images"
        folder.mkdir()
        archives = [*images.write_archives(folder), *self._archives]
        return content_store.prepare(folder, archives, self._node_processes, base=self._unpacked)

    def _new_node(self, number: int, store: Path) -> RealNode:
        place = self._places[number]
        content_store.link_into(store, place.folder / "var" / "lib" / "containerd")
        user, groups = f"system:node:{place.name}", ["system:nodes"]
        credentials = Credentials(
            authority=self.authority,
            kubelet=self.kubeconfig_for(user, groups),
            kube_proxy=self.kubeconfig_for("system:kube-proxy"),
            serving=self.certificate_for(user, groups, [place.name, place.address]),
        )
        return RealNode(place, self._places, self._node_processes, self._network, credentials)


def _dns_manifest() -> str:
    values = {"address": DNS_ADDRESS, "domain": DOMAIN, "image": images.DNS_IMAGE}
    return Template(DNS_MANIFEST.read_text(encoding="utf-8")).substitute(values)
