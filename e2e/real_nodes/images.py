"""Images of single static binaries, written as OCI archives without a registry or a build tool."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from control_plane import binaries
from real_nodes.configuration import SANDBOX_IMAGE

POD_IMAGE = "localhost/ttsfleet-e2e/pod:1"
RUNTIME_IMAGE = "localhost/ttsfleet-e2e/runtime-stand-in:1"
DNS_IMAGE = "localhost/ttsfleet-e2e/coredns:1"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_OCI = "application/vnd.oci.image"


def write_archives(folder: Path) -> list[Path]:
    """The images that every cluster has: the sandbox of pods, CoreDNS, and a program for tests."""
    pod, dns = binaries.path_of("pod"), binaries.path_of("coredns")
    return [
        write_archive(folder / "pause.tar", SANDBOX_IMAGE, {"pod": pod}, ["/pod", "pause"]),
        write_archive(folder / "pod.tar", POD_IMAGE, {"pod": pod}, ["/pod"]),
        write_archive(folder / "coredns.tar", DNS_IMAGE, {"coredns": dns}, ["/coredns"]),
    ]


def write_runtime_stand_in(target: Path) -> Path:
    """An image that a speech pod can be started from: it is ready at once and speaks nothing."""
    program = binaries.path_of("pod")
    files = {"usr/local/bin/ttsfleet-runtime": program, "bin/sleep": program}
    return write_archive(target, RUNTIME_IMAGE, files, ["/usr/local/bin/ttsfleet-runtime"])


def write_archive(target: Path, name: str, files: Mapping[str, Path], entrypoint: Sequence[str]) -> Path:
    """Writes an image of one layer with the given executables (path in the image to file), an OCI layout in a tar."""
    machine = platform.machine()
    on = {"architecture": _ARCHITECTURES.get(machine, machine), "os": "linux"}
    layer = _layer(files)
    settings = {
        **on,
        "config": {"Entrypoint": list(entrypoint), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    config = json.dumps(settings).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor(f"{_OCI}.config.v1+json", config),
            "layers": [_descriptor(f"{_OCI}.layer.v1.tar", layer)],
        }
    ).encode()
    entry = {
        **_descriptor(f"{_OCI}.manifest.v1+json", manifest),
        "platform": on,
        "annotations": {"io.containerd.image.name": name},
    }
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    with tarfile.open(target, "w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        for blob in (layer, config, manifest):
            _add(archive, f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}", blob)
        _add(archive, "index.json", index)
    return target


def _layer(files: Mapping[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for name, path in sorted(files.items()):
            _add(layer, name, path.read_bytes(), mode=0o755)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    """Without a time or an owner, so that the same files give the same image."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
