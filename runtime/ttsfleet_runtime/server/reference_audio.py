"""The recording of an inline clone: base64, a data URL, or a URL to fetch."""

from __future__ import annotations

import asyncio
import base64
import binascii

from ttsfleet_runtime.config.plan import LimitsPlan
from ttsfleet_runtime.errors import InvalidRequestError, TooLargeError
from ttsfleet_runtime.server.fetch import AudioFetcher

_PARAM = "ref_audio"


async def load_reference_audio(value: str, limits: LimitsPlan, fetcher: AudioFetcher) -> bytes:
    """The recording's bytes, at most `limits.prompt_bytes`. Raises InvalidRequestError or TooLargeError."""
    if value[:8].lower().startswith(("http://", "https://")):
        audio = await fetcher.fetch(value)
    else:
        audio = await asyncio.to_thread(decode_base64, value, limits.prompt_bytes)
    if not audio:
        raise InvalidRequestError("ref_audio: the recording is empty", param=_PARAM)
    return audio


def decode_base64(value: str, max_bytes: int) -> bytes:
    """Plain base64 or a data URL."""
    if value[:5].lower() == "data:":
        head, comma, value = value.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidRequestError("ref_audio: a data URL must be base64: data:audio/wav;base64,…", param=_PARAM)
    value = "".join(value.split())
    if len(value) * 3 // 4 > max_bytes + 2:
        raise TooLargeError(
            f"ref_audio: the recording has about {len(value) * 3 // 4} bytes; at most {max_bytes} are accepted "
            "(limits.prompt_bytes)",
            param=_PARAM,
        )
    try:
        audio = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError(
            "ref_audio: neither an http(s) URL nor base64 (A-Z a-z 0-9 + / with = at the end)", param=_PARAM
        ) from error
    if len(audio) > max_bytes:
        raise TooLargeError(
            f"ref_audio: the recording has {len(audio)} bytes; at most {max_bytes} are accepted "
            "(limits.prompt_bytes)",
            param=_PARAM,
        )
    return audio
