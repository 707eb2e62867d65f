"""Which runtime images this operator must not run. Pure.

engine.yaml and the command line are the joint between the two. A runtime of the operator's minor release or of the
one before understands what is rendered; a newer one may not. Only the release's own repository has tags that mean a
version: an image from elsewhere is its owner's responsibility, and a digest names no version.
"""

from __future__ import annotations

import re

_VERSION = re.compile(r"^v?(\d+)\.(\d+)(?:\.\d+)?(?:[-+.].*)?$")
MAX_MINORS_BEHIND = 1


def refused_image(image: str, runtime_image: str, release: str) -> str:
    """`image` when its version is too far from the operator's release, otherwise "".

    image: spec.runtime.image; runtime_image: the release's own.
    """
    if not image or _repository(image) != _repository(runtime_image):
        return ""
    ours, theirs = _version(release), _version(_tag(image))
    if ours is None or theirs is None:
        return ""
    behind = ours[1] - theirs[1]
    return "" if ours[0] == theirs[0] and 0 <= behind <= MAX_MINORS_BEHIND else image


def _repository(image: str) -> str:
    """The last part of the repository's path: mirrors keep it, their hosts differ."""
    name = image.split("@")[0]
    path, _, last = name.rpartition("/")
    return "/".join((path.rpartition("/")[2], last.split(":")[0]))


def _tag(image: str) -> str:
    return image.split("@")[0].rpartition("/")[2].partition(":")[2]


def _version(text: str) -> tuple[int, int] | None:
    match = _VERSION.match(text)
    return (int(match[1]), int(match[2])) if match else None
