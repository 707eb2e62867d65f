"""Access to a cluster as kubectl has it: kubeconfig, context, namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.kube_config import list_kube_config_contexts, load_kube_config

from ttsfleet_operator.cluster.api_errors import APIError
from ttsfleet_operator.cluster.client import KubernetesClient
from ttsfleet_operator.errors import TTSFleetError, UsageError


class ClusterError(TTSFleetError):
    """The cluster does not answer, does not know what was asked for, or refuses it."""


@dataclass(frozen=True)
class ClusterAccess:
    """A client, and the namespace that is meant where none is named."""

    client: KubernetesClient
    namespace: str


@asynccontextmanager
async def open_cluster(kubeconfig: str, context: str, namespace: str) -> AsyncIterator[ClusterAccess]:
    """The cluster of the kubeconfig ("" = $KUBECONFIG or ~/.kube/config). Raises UsageError, ClusterError."""
    configuration = Configuration()
    try:
        await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig or None, context=context or None, client_configuration=configuration
        )
        chosen = namespace or _namespace(kubeconfig, context)
    except (ConfigException, OSError) as error:
        raise UsageError(f"no access to a cluster: {error}; give --kubeconfig or --context") from error
    client = KubernetesClient(configuration, "ttsfleet")
    try:
        yield ClusterAccess(client, chosen)
    except APIError as error:
        raise ClusterError(f"the API server of {configuration.host} says: {error}") from error
    finally:
        await client.close()


def _namespace(kubeconfig: str, context: str) -> str:
    contexts, active = list_kube_config_contexts(config_file=kubeconfig or None)  # type: ignore[no-untyped-call]
    chosen = next((one for one in contexts if one["name"] == context), active)
    return str(chosen.get("context", {}).get("namespace") or "default")
