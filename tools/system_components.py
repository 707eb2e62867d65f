"""Adds what Debian installed, and Python itself, to the CycloneDX file of an image's Python packages.

    python system_components.py SBOM

The Dockerfiles call it while an image is built, with the image's own Python: standard library only. What `dpkg-query`
lists becomes one component each, with a package URL (type `deb`) by which scanners look for known vulnerabilities.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

QUERY = ("dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${Architecture}\t${source:Package}\n")


def debian_components(listing: str, system: Mapping[str, str]) -> list[dict[str, Any]]:
    """One component per line of the listing. `system` is /etc/os-release."""
    distribution = f"{system['ID']}-{system['VERSION_ID']}" if "VERSION_ID" in system else system["ID"]
    found = []
    for line in listing.splitlines():
        name, version, architecture, source = line.split("\t")
        url = f"pkg:deb/{system['ID']}/{quote(name)}@{quote(version)}?arch={architecture}&distro={distribution}"
        found.append(
            {
                "type": "library",
                "bom-ref": url,
                "name": name,
                "version": version,
                "purl": url,
                "properties": [{"name": "debian:source", "value": source}],
            }
        )
    return found


def python_component(version: str) -> dict[str, Any]:
    """The interpreter, which the image's base brings and neither dpkg nor the Python packages list."""
    url = f"pkg:generic/python@{version}"
    return {"type": "platform", "bom-ref": url, "name": "python", "version": version, "purl": url}


def extended(sbom: Mapping[str, Any], more: list[dict[str, Any]]) -> dict[str, Any]:
    """The document with more components, each once, in the order of their references."""
    components = {one["bom-ref"]: one for one in [*sbom.get("components", []), *more]}
    return {**sbom, "components": [components[reference] for reference in sorted(components)]}


def main(path: Path) -> None:
    listing = subprocess.run(QUERY, capture_output=True, text=True, check=True).stdout
    debian = debian_components(listing, platform.freedesktop_os_release())
    more = [*debian, python_component(platform.python_version())]
    path.write_text(json.dumps(extended(json.loads(path.read_text()), more), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
