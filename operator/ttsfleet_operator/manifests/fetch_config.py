"""fetch.yaml: what the fetch step of a pod gets, or checks, before the runtime starts.

The program is `ttsfleet-runtime fetch --config FILE`. Secrets are never in the file: it names the files that hold
them. A source that is mounted or built in needs no fetch; a mounted one with a pin is checked against it.
"""

from __future__ import annotations

import yaml

from ttsfleet_operator.api.model import HuggingFaceSource, ModelScopeSource, S3Source
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.fleet.settings import FleetSettings, installation_ca_bundle, own_ca_bundle
from ttsfleet_operator.pod_layout import CA_DIR, CREDENTIALS_DIR, FETCHED_SOURCES, TOKEN_FILE, pod_model_dir

SCHEMA_VERSION = 1
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def needs_fetch(service: TTSService) -> bool:
    """Whether a pod has a fetch step."""
    source = service.spec.model.source
    return source.kind in FETCHED_SOURCES or (source.builtin is None and bool(service.spec.model.manifest_sha256))


def render_fetch_yaml(service: TTSService, settings: FleetSettings) -> str:
    """fetch.yaml as text; "" for a pod without a fetch step."""
    if not needs_fetch(service):
        return ""
    values: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        "model_dir": pod_model_dir(service.spec.model.source),
        "source": _source(service, settings),
    }
    if service.spec.model.manifest_sha256:
        values["manifest_sha256"] = service.spec.model.manifest_sha256
    if service.spec.styles:
        values["styles"] = [{"name": style.name, "path": style.path} for style in service.spec.styles]
    ca = own_ca_bundle(service) or installation_ca_bundle(service, settings)
    if ca is not None:
        values["ca_file"] = f"{CA_DIR}/{ca.key}"
    return yaml.dump(values, Dumper=_DUMPER, sort_keys=False, default_flow_style=False, allow_unicode=True)


def endpoint_of(service: TTSService, settings: FleetSettings) -> str:
    """The endpoint that a fetch goes to beside the public one; "" = the public one."""
    source = service.spec.model.source
    if source.hugging_face is not None:
        return source.hugging_face.endpoint or settings.hugging_face_endpoint
    if source.model_scope is not None:
        return source.model_scope.endpoint or settings.model_scope_endpoint
    if source.s3 is not None:
        return source.s3.endpoint
    return source.https.url if source.https is not None else ""


def _source(service: TTSService, settings: FleetSettings) -> dict[str, object]:
    source = service.spec.model.source
    endpoint = endpoint_of(service, settings)
    if source.https is not None:
        return {"kind": "https", "url": source.https.url, "sha256": source.https.sha256}
    if source.s3 is not None:
        return _s3(source.s3, endpoint)
    hub = source.hugging_face or source.model_scope
    if hub is not None:
        return _hub(source.kind, hub, endpoint)
    return {"kind": "mounted"}


def _hub(kind: str, hub: HuggingFaceSource | ModelScopeSource, endpoint: str) -> dict[str, object]:
    values: dict[str, object] = {"kind": kind, "repo": hub.repo}
    if hub.revision:
        values["revision"] = hub.revision
    if endpoint:
        values["endpoint"] = endpoint
    if hub.token_secret_ref is not None:
        values["token_file"] = TOKEN_FILE
    return values


def _s3(bucket: S3Source, endpoint: str) -> dict[str, object]:
    values: dict[str, object] = {"kind": "s3", "bucket": bucket.bucket}
    for name, value in (("prefix", bucket.prefix), ("region", bucket.region), ("endpoint", endpoint)):
        if value:
            values[name] = value
    if bucket.secret_ref is not None:
        values["credentials_dir"] = CREDENTIALS_DIR
    return values
