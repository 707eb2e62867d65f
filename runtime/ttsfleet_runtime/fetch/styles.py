"""Whether a model has the styles that a service names."""

from __future__ import annotations

from collections.abc import Iterable

from ttsfleet_runtime.fetch.config import Style
from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.paths import checked_path


def check_styles(styles: Iterable[Style], paths: Iterable[str]) -> None:
    """Raises FetchError for a style whose file or folder is not among the `paths` of the model's files."""
    there: set[str] = set()
    for path in paths:
        parts = path.split("/")
        there.update("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    for style in styles:
        if checked_path(style.path) not in there:
            raise FetchError(
                Failure.INVALID_SOURCE,
                f"the style {style.name!r} names {style.path!r}, which the model does not have; correct spec.styles",
            )
