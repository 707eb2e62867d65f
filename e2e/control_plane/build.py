"""`python -m control_plane.build`: builds the pinned binaries into the cache, one by one, and prints where they are.

Each binary appears by itself under its name when it is whole, so a run that is cut off goes on where it was. With all
of them there it returns at once. Arguments name groups (control-plane, nodes) or single binaries; none means the
control plane. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control_plane.binaries import BINARIES, CLUSTER_DIR, GROUPS, STAGES, Binary, cache_root, expected_path, missing
from control_plane.errors import BuildFailed
from control_plane.go_toolchain import find_go

# Minutes that a cold build of each took on 2 cores (2026-11, Go 1.26.8); shown so that a wait has an end in sight.
COLD_MINUTES = {
    "kube-apiserver": 3.8,
    "etcd": 0.4,
    "kube-controller-manager": 0.8,
    "kwok": 0.9,
    "helm": 0.9,
    "coredns": 1.8,
    "containerd": 1.2,
    "kubelet": 0.3,
}
# What kwok plays: nodes become ready and stay so, pods run as soon as they are scheduled, and end when deleted.
STAGE_FOLDERS = ("node/fast", "node/heartbeat-with-lease", "pod/fast")


def main(names: list[str]) -> int:
    """Builds what is missing of `names` (the control plane's when empty)."""
    known = [*GROUPS, *(binary.name for binary in BINARIES)]
    if unknown := [name for name in names if name not in known]:
        print(f"no such binary: {', '.join(unknown)}; known are {', '.join(known)}", file=sys.stderr)
        return 2
    wanted = tuple(one for name in names or ["control-plane"] for one in GROUPS.get(name, (name,)))
    try:
        if missing(wanted):
            with one_at_a_time():
                build(wanted)
    except BuildFailed as error:
        print(f"cluster-binaries: {error}", file=sys.stderr)
        return 1
    print("\n".join(str(expected_path(name)) for name in names if name not in GROUPS) or cache_root() / "bin")
    return 0


def build(wanted: tuple[str, ...]) -> None:
    """Builds the binaries in their order and writes kwok's stages.

    Raises:
        BuildFailed: the Go command ended with an error, or there is none.
    """
    go = find_go()
    todo = [binary for binary in BINARIES if binary.name in missing(wanted)]
    started = time.monotonic()
    for number, binary in enumerate(todo, 1):
        cold = COLD_MINUTES.get(binary.name, 0.3)
        say(f"[{number}/{len(todo)}] {binary.name} {binary.version()} (cold about {cold} min)")
        begun = time.monotonic()
        build_binary(go, binary)
        say(f"[{number}/{len(todo)}] {binary.name} done in {time.monotonic() - begun:.0f} s")
    if STAGES in missing(wanted):
        write_stages(go)
    say(f"binaries ready after {(time.monotonic() - started) / 60:.1f} min")


def build_binary(go: Path, binary: Binary) -> None:
    """Builds one binary; its name appears in the folder only when it is whole."""
    target = expected_path(binary.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{binary.name}.{os.getpid()}")
    flags = ["-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", binary.linker_flags()]
    run_go(go, binary.folder, ["build", *flags, "-o", str(unfinished), binary.package])
    unfinished.rename(target)


def write_stages(go: Path) -> None:
    """Writes the stages that kwok publishes in its module into one file beside the binaries."""
    module = Path(run_go(go, "kwok", ["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]).strip())
    stages = [
        path.read_text(encoding="utf-8").strip()
        for name in STAGE_FOLDERS
        for path in sorted((module / "kustomize" / "stage" / name).glob("*.yaml"))
        if path.name != "kustomization.yaml"
    ]
    target = expected_path(STAGES)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{STAGES}.{os.getpid()}")
    unfinished.write_text("\n---\n".join(stages) + "\n", encoding="utf-8")
    unfinished.rename(target)


def run_go(go: Path, module_folder: str, arguments: list[str]) -> str:
    """Runs the Go command in a module of e2e/cluster and returns what it printed."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    answer = subprocess.run(
        [go, *arguments],
        cwd=CLUSTER_DIR / module_folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        # Downloads are told on stderr as well; the errors are what comes last.
        said = "\n".join(line for line in answer.stderr.splitlines() if not line.startswith("go: downloading"))
        raise BuildFailed(f"`go {' '.join(arguments)}` in e2e/cluster/{module_folder} ended with:\n{said}")
    return answer.stdout


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Holds the lock of the cache: two builds at once would do the same work twice."""
    cache_root().mkdir(parents=True, exist_ok=True)
    with (cache_root() / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is under way: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    """Progress goes to stderr; stdout carries only the folder."""
    print(f"==> {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
