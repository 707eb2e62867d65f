"""`spec.model` and `spec.styles`: where the weights come from and where they are kept."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from ttsfleet_operator.api.base import (
    DNS_1123,
    LocalObjectRef,
    ObjectName,
    Quantity,
    RelativePath,
    SecretKeyRef,
    Sha256,
    Struct,
    check_exactly_one,
    refuse,
)

HttpsURL: TypeAlias = Annotated[str, StringConstraints(pattern=r"^https://[^\s]+$", max_length=2048)]
Endpoint: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(https://[^\s]+)?$", max_length=2048)]
Repository: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", max_length=200)
]
NonEmpty: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class HuggingFaceSource(Struct):
    repo: Repository
    revision: str = ""
    endpoint: Endpoint = ""
    token_secret_ref: SecretKeyRef | None = None


class ModelScopeSource(Struct):
    repo: Repository
    revision: str = ""
    endpoint: Endpoint = ""
    token_secret_ref: SecretKeyRef | None = None


class S3Source(Struct):
    bucket: NonEmpty
    prefix: str = ""
    endpoint: Endpoint = ""
    region: str = ""
    secret_ref: LocalObjectRef | None = None


class HttpsSource(Struct):
    """An archive behind a URL. The digest is required: nothing else says that it is the archive that was meant."""

    url: HttpsURL
    sha256: Sha256


class OCISource(Struct):
    reference: NonEmpty
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class PVCSource(Struct):
    claim_name: ObjectName
    sub_path: RelativePath = ""


class BuiltinSource(Struct):
    """A model that ships with ttsfleet."""

    name: Annotated[str, StringConstraints(pattern=DNS_1123, max_length=63)]


SOURCE_MEMBERS = ("huggingFace", "modelScope", "s3", "https", "oci", "pvc", "builtin")


class ModelSource(Struct):
    """A union: exactly one member."""

    hugging_face: HuggingFaceSource | None = None
    model_scope: ModelScopeSource | None = None
    s3: S3Source | None = None
    https: HttpsSource | None = None
    oci: OCISource | None = None
    pvc: PVCSource | None = None
    builtin: BuiltinSource | None = None

    @model_validator(mode="after")
    def _exactly_one_member(self) -> ModelSource:
        check_exactly_one("a model source", self._members(), SOURCE_MEMBERS)
        return self

    def _members(self) -> list[str]:
        values = (
            self.hugging_face,
            self.model_scope,
            self.s3,
            self.https,
            self.oci,
            self.pvc,
            self.builtin,
        )
        return [name for name, value in zip(SOURCE_MEMBERS, values, strict=True) if value is not None]

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
    storage_class_name: str = ""
    access_modes: Annotated[
        tuple[Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"], ...],
        Field(min_length=1),
    ] = ("ReadWriteOnce",)
    size: Quantity
    retain: bool = True


class ModelCache(Struct):
    """Where fetched weights are kept: a claim that we create, or one that exists."""

    claim: CacheClaim | None = None
    existing_claim: ObjectName | None = None

    @model_validator(mode="after")
    def _exactly_one_kind(self) -> ModelCache:
        given = [
            name
            for name, value in (("claim", self.claim), ("existingClaim", self.existing_claim))
            if value is not None
        ]
        check_exactly_one("a model cache", given, ("claim", "existingClaim"))
        return self


class ModelSpec(Struct):
    source: ModelSource
    manifest_sha256: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = Field(
        default="", alias="manifestSHA256"
    )
    cache: ModelCache | None = None

    @model_validator(mode="after")
    def _a_builtin_is_not_pinned(self) -> ModelSpec:
        if self.source.builtin is not None and self.manifest_sha256:
            raise refuse(
                "builtin_pin", "manifestSHA256 does not apply to a builtin model: the release pins it; remove it"
            )
        return self


class StyleSpec(Struct):
    """One more set of LLM weights, in a folder of the model."""

    name: Annotated[str, StringConstraints(pattern=DNS_1123, max_length=40)]
    path: Annotated[RelativePath, Field(min_length=1)]
