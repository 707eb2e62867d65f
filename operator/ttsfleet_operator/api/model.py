"""`spec.model` and `spec.styles`: where the weights come from and where they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, StringConstraints

from ttsfleet_operator.api.base import (
    BUCKET,
    DNS_1123,
    IMAGE,
    REGION,
    REPOSITORY,
    REVISION,
    SHA256_OR_EMPTY,
    Endpoint,
    HttpsURL,
    LocalObjectRef,
    ObjectName,
    OptionalObjectName,
    PositiveBytesQuantity,
    RelativePath,
    SecretKeyRef,
    Sha256,
    Struct,
)
from ttsfleet_operator.api.rules import Rule, exactly_one

Repository: TypeAlias = Annotated[str, StringConstraints(pattern=REPOSITORY, max_length=200)]
Revision: TypeAlias = Annotated[str, StringConstraints(pattern=REVISION, max_length=128)]
AccessMode: TypeAlias = Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]


class HuggingFaceSource(Struct):
    """A repository of the Hugging Face hub, or of a mirror of it."""

    repo: Repository
    """Repository as owner/name, e.g. FunAudioLLM/CosyVoice2-0.5B."""
    revision: Revision = ""
    """Commit, tag or branch. Give a commit to fix the weights. Absent or empty = the default branch."""
    endpoint: Endpoint = ""
    """https URL of a mirror. Absent or empty = the public hub."""
    token_secret_ref: SecretKeyRef | None = None
    """Access token for private or gated repositories; mounted as a file. Absent = anonymous."""


class ModelScopeSource(Struct):
    """A repository of ModelScope, or of a mirror of it."""

    repo: Repository
    """Repository as owner/name, e.g. iic/CosyVoice2-0.5B."""
    revision: Revision = ""
    """Commit, tag or branch. Absent or empty = the default branch."""
    endpoint: Endpoint = ""
    """https URL of a mirror. Absent or empty = the public hub."""
    token_secret_ref: SecretKeyRef | None = None
    """Access token; mounted as a file. Absent = anonymous."""


class S3Source(Struct):
    """A folder of an S3 bucket or of a compatible store."""

    bucket: Annotated[str, StringConstraints(pattern=BUCKET, max_length=63)]
    """Name of the bucket."""
    prefix: RelativePath = ""
    """Folder in the bucket. Absent or empty = the whole bucket."""
    endpoint: Endpoint = ""
    """https URL of a compatible store. Absent or empty = AWS."""
    region: Annotated[str, StringConstraints(pattern=REGION, max_length=63)] = ""
    """Region of the bucket. Absent or empty = the store's default."""
    secret_ref: LocalObjectRef | None = None
    """Secret with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; mounted as files. Absent = anonymous, or the
    identity of the pod's service account."""


class HttpsSource(Struct):
    """An archive behind a URL. The digest is required: nothing else says that it is the archive that was meant."""

    url: HttpsURL
    """https URL of a .tar, .tar.gz or .zip archive."""
    sha256: Sha256
    """SHA-256 of the archive, 64 lower-case hexadecimal digits."""


class OCISource(Struct):
    """An OCI image or artifact that is mounted as a volume: one copy per node (needs image volumes)."""

    reference: Annotated[str, StringConstraints(pattern=IMAGE, max_length=512)]
    """Image reference, by digest where the weights must not change."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the node pulls the image. Absent = IfNotPresent."""


class PVCSource(Struct):
    """A claim that already holds the model directory; nothing is fetched and nothing written."""

    claim_name: ObjectName
    """Name of the PersistentVolumeClaim in the service's namespace."""
    sub_path: RelativePath = ""
    """Model directory within the volume. Absent or empty = its root."""


class BuiltinSource(Struct):
    """A model that ships with ttsfleet."""

    name: Annotated[str, StringConstraints(pattern=DNS_1123, max_length=63)]
    """Name of the model, e.g. tiny-en."""


SOURCE_MEMBERS = {
    "huggingFace": "hugging_face",
    "modelScope": "model_scope",
    "s3": "s3",
    "https": "https",
    "oci": "oci",
    "pvc": "pvc",
    "builtin": "builtin",
}


class ModelSource(Struct):
    """Where the weights come from: exactly one member."""

    RULES: ClassVar[tuple[Rule, ...]] = (exactly_one("a model source", SOURCE_MEMBERS),)

    hugging_face: HuggingFaceSource | None = None
    """A repository of the Hugging Face hub."""
    model_scope: ModelScopeSource | None = None
    """A repository of ModelScope."""
    s3: S3Source | None = None
    """A folder of an S3 bucket."""
    https: HttpsSource | None = None
    """An archive behind a URL, with its SHA-256."""
    oci: OCISource | None = None
    """An OCI image that is mounted as a volume."""
    pvc: PVCSource | None = None
    """A claim that already holds the model directory."""
    builtin: BuiltinSource | None = None
    """A model that ships with ttsfleet."""

    def _members(self) -> list[str]:
        return [wire for wire, name in SOURCE_MEMBERS.items() if getattr(self, name) is not None]

    @property
    def kind(self) -> str:
        """The name of the one member, as in the manifest."""
        return self._members()[0]

    @property
    def hint(self) -> str:
        """The text in the source that most likely names the model, for guessing its dimensions before a fetch."""
        for named in (self.hugging_face, self.model_scope):
            if named is not None:
                return named.repo
        if self.s3 is not None:
            return f"{self.s3.bucket}/{self.s3.prefix}"
        if self.https is not None:
            return self.https.url
        if self.oci is not None:
            return self.oci.reference
        if self.pvc is not None:
            return f"{self.pvc.claim_name}/{self.pvc.sub_path}"
        return self.builtin.name if self.builtin is not None else ""


class CacheClaim(Struct):
    """A PersistentVolumeClaim that the operator creates for fetched weights. Kubernetes cannot change a claim's
    storage class or access modes, nor shrink it."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            name="storage_class_change",
            cel="(has(self.storageClassName) ? self.storageClassName : '') == "
            "(has(oldSelf.storageClassName) ? oldSelf.storageClassName : '')",
            message="storageClassName of a claim cannot change; remove model.cache, or use existingClaim with a "
            "claim of the new class",
        ),
        Rule(
            name="access_modes_change",
            cel="(has(self.accessModes) ? self.accessModes : ['ReadWriteOnce']) == "
            "(has(oldSelf.accessModes) ? oldSelf.accessModes : ['ReadWriteOnce'])",
            message="accessModes of a claim cannot change; remove model.cache, or use existingClaim with a claim of "
            "the new modes",
        ),
        Rule(
            name="claim_shrinks",
            cel="quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",
            message="size of a claim cannot shrink: it was {old}, now {new}",
            values={"old": "string(oldSelf.size)", "new": "string(self.size)"},
        ),
    )

    storage_class_name: OptionalObjectName = ""
    """StorageClass of the claim. Absent or empty = the cluster's default class. Cannot change."""
    access_modes: Annotated[tuple[AccessMode, ...], Field(min_length=1, max_length=4)] = ("ReadWriteOnce",)
    """Access modes of the claim; ReadWriteMany where replicas run on several nodes. Absent = [ReadWriteOnce]. Cannot
    change."""
    size: PositiveBytesQuantity
    """Size of the claim, e.g. 20Gi. Can grow where the storage class allows it."""
    retain: bool = True
    """Keep the claim, and the weights in it, when the service is deleted. Absent = true."""


class ModelCache(Struct):
    """Where fetched weights are kept: a claim that the operator creates, or one that exists."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        exactly_one("a model cache", {"claim": "claim", "existingClaim": "existing_claim"}),
    )

    claim: CacheClaim | None = None
    """A claim that the operator creates. Exactly one of claim and existingClaim."""
    existing_claim: ObjectName | None = None
    """Name of a claim that exists in the service's namespace. Exactly one of claim and existingClaim."""


def _pinned_builtin(model: ModelSpec) -> Mapping[str, object] | None:
    return {} if model.source.builtin is not None and model.manifest_sha256 else None


class ModelSpec(Struct):
    """The model that is served."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            name="builtin_pin",
            cel="!has(self.source.builtin) || !has(self.manifestSHA256) || self.manifestSHA256 == ''",
            message="manifestSHA256 does not apply to a builtin model: the release pins it; remove it",
            check=_pinned_builtin,
        ),
    )

    source: ModelSource
    """Where the weights come from."""
    manifest_sha256: Annotated[str, StringConstraints(pattern=SHA256_OR_EMPTY, max_length=64)] = Field(
        default="", alias="manifestSHA256"
    )
    """SHA-256 over the list of all files and their digests; a fetch that differs is refused. Absent or empty = not
    pinned."""
    cache: ModelCache | None = None
    """Where fetched weights are kept. Absent = an emptyDir: each pod fetches for itself."""


class StyleSpec(Struct):
    """One set of LLM weights of the model."""

    name: Annotated[str, StringConstraints(pattern=DNS_1123, max_length=40)]
    """Name by which requests choose the style; the first of the list is the default."""
    path: Annotated[RelativePath, Field(min_length=1)]
    """The style's LLM weights, relative to the model directory: a file, or a folder with llm.pt."""
