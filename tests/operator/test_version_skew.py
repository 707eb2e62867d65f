"""Which runtime images an operator refuses."""

from __future__ import annotations

import pytest

from ttsfleet_operator.version_skew import refused_image

RELEASE_IMAGE = "registry.example/ttsfleet/runtime:1.4.0"


@pytest.mark.parametrize(
    ("image", "refused"),
    [
        pytest.param("", False, id="the release's own"),
        pytest.param("registry.example/ttsfleet/runtime:1.4.9", False, id="the same minor"),
        pytest.param("mirror.example:5000/ttsfleet/runtime:v1.3.0-cuda13", False, id="one minor behind, in a mirror"),
        pytest.param("mirror.example:5000/ttsfleet/runtime:1.2.0", True, id="two minors behind"),
        pytest.param("ttsfleet/runtime:1.5.0", True, id="newer than the operator"),
        pytest.param("ttsfleet/runtime:2.4.0", True, id="another major"),
        pytest.param("ttsfleet/runtime@sha256:aa", False, id="a digest names no version"),
        pytest.param("ttsfleet/runtime:1.9.0@sha256:aa", True, id="a tag beside a digest does"),
        pytest.param("ttsfleet/runtime:main", False, id="a tag that is no version"),
        pytest.param("acme/speech:9.9.9", False, id="somebody's own image"),
    ],
)
def test_an_image_is_refused_by_its_version(image: str, refused: bool) -> None:
    assert refused_image(image, RELEASE_IMAGE, "1.4.0") == (image if refused else "")
