"""The writer of an image's system packages into its list of contents."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = {"ID": "debian", "VERSION_ID": "12"}
LISTING = "libc6\t2.36-9+deb12u10\tamd64\tglibc\nlibstdc++6\t12.2.0-14\tamd64\tgcc-12\n"


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("system_components", ROOT / "tools" / "system_components.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["system_components"] = module
    spec.loader.exec_module(module)
    return module


def test_each_package_becomes_a_component_that_scanners_recognise(writer: ModuleType) -> None:
    first, second = writer.debian_components(LISTING, DEBIAN)
    assert first == {
        "type": "library",
        "bom-ref": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12",
        "name": "libc6",
        "version": "2.36-9+deb12u10",
        "purl": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12",
        "properties": [{"name": "debian:source", "value": "glibc"}],
    }
    assert second["purl"].startswith("pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?")


def test_release_without_a_number_is_named_alone(writer: ModuleType) -> None:
    (one, _) = writer.debian_components(LISTING, {"ID": "debian"})
    assert one["purl"].endswith("distro=debian")


def test_document_keeps_what_it_held_and_has_each_component_once(writer: ModuleType) -> None:
    held = {"type": "library", "bom-ref": "kopf==1.45", "name": "kopf"}
    more = [*writer.debian_components(LISTING, DEBIAN), writer.python_component("3.11.9")]
    document = writer.extended({"bomFormat": "CycloneDX", "components": [held]}, [*more, *more])
    assert document["bomFormat"] == "CycloneDX"
    assert [one["name"] for one in document["components"]] == ["kopf", "libc6", "libstdc++6", "python"]
    assert writer.extended(document, more) == document
