"""What can go wrong with the control plane of the tests, each with its remedy in the message."""

from __future__ import annotations


class ControlPlaneError(Exception):
    """Base of all errors of this package."""


class BinariesMissing(ControlPlaneError):
    """The binaries of the control plane are not built."""


class BuildFailed(ControlPlaneError):
    """A binary could not be built, or there is no Go to build it with."""


class StartFailed(ControlPlaneError):
    """A process of the control plane ended, or did not become ready in time."""


class CommandFailed(ControlPlaneError):
    """kubectl (or another command) ended with an error. `stderr` is what it said."""

    def __init__(self, command: str, returncode: int, stdout: str, stderr: str) -> None:
        super().__init__(f"{command} ended with {returncode}: {stderr.strip() or stdout.strip()}")
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr


class ClusterRefused(ControlPlaneError):
    """E2E_KUBECONFIG names a cluster that the allow-list does not allow."""


class NotOnGivenCluster(ControlPlaneError):
    """The operation needs a control plane of our own, and the tests run on a given cluster."""


class NeverHappened(ControlPlaneError):
    """What a test waited for did not come about before its deadline."""
