"""The control plane is a real one: nodes, scheduling, RBAC, the audit log, and what the proxy can break."""

from __future__ import annotations

from control_plane.plane import ControlPlane


def test_nodes_become_ready_with_the_labels_of_their_gpu(own_control_plane: ControlPlane) -> None:
    (name,) = own_control_plane.nodes("4090", prefix="labelled")
    labels = own_control_plane.get("node", name)["metadata"]["labels"]
    own_control_plane.delete_nodes([name])
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-GeForce-RTX-4090"
