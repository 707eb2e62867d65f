"""PCM in, encoded bytes out: one incremental encoder per request, with FFmpeg's codecs through PyAV.

Input is always signed 16-bit little-endian mono. A streaming encoder writes to a sink that cannot seek and is
flushed after every packet, so what it holds back is only what its codec needs to look ahead; a whole-file encoder may
seek, so that its headers tell the true length. Encoding is CPU work: `encode_file` belongs in a thread.

Held back while streaming at 24 kHz, measured as pushed minus decodable audio after 2 s in 20 ms pushes
(`tests/audio/test_encoders.py` bounds it): pcm, wav 0 ms; opus < 30 ms (20 ms frames, a page for each); flac < 40 ms
(960-sample blocks); mp3 < 50 ms (576-sample frames without bit reservoir); aac < 100 ms (1024-sample frames).
"""

from __future__ import annotations

import io
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from av.audio.stream import AudioStream

from ttsfleet_runtime.audio.formats import BYTES_PER_SAMPLE, AudioFormat

_UNKNOWN_LENGTH = 0xFFFFFFFF
_WAV_HEADER_AFTER_RIFF_SIZE = 36
_OPUS_SAMPLE_RATES = (8000, 12000, 16000, 24000, 48000)


class AudioEncoder(ABC):
    """One stream of encoded audio. `push` any amount of PCM, then `finish` once; the bytes in order are the file."""

    @abstractmethod
    def push(self, pcm: bytes) -> bytes:
        """Take whole samples of PCM; return the bytes that became ready, possibly none."""

    @abstractmethod
    def finish(self) -> bytes:
        """The bytes still held back. The encoder cannot be used afterwards."""

    @staticmethod
    def for_format(audio_format: AudioFormat, sample_rate: int) -> AudioEncoder:
        """A streaming encoder: promptly flushed, with headers that do not claim a length."""
        match audio_format:
            case AudioFormat.PCM:
                return PcmEncoder()
            case AudioFormat.WAV:
                return WavEncoder(sample_rate)
            case _:
                return PacketEncoder(_STREAMED[audio_format], sample_rate, _ForwardSink())


def encode_file(audio_format: AudioFormat, pcm: bytes, sample_rate: int) -> bytes:
    """A whole file with true lengths in its headers. Takes tens of milliseconds per minute of audio."""
    match audio_format:
        case AudioFormat.PCM:
            return pcm
        case AudioFormat.WAV:
            return wav_header(sample_rate, len(pcm)) + pcm
        case _:
            sink = io.BytesIO()
            encoder = PacketEncoder(_WHOLE[audio_format], sample_rate, sink)
            encoder.push(pcm)
            encoder.finish()
            return sink.getvalue()


def wav_header(sample_rate: int, num_bytes: int | None) -> bytes:
    """RIFF header of 16-bit mono PCM; `num_bytes` None = unknown: 0xFFFFFFFF, as players of streams expect."""
    data = _UNKNOWN_LENGTH if num_bytes is None else num_bytes
    riff = _UNKNOWN_LENGTH if num_bytes is None else num_bytes + _WAV_HEADER_AFTER_RIFF_SIZE
    form = struct.pack("<IHHIIHH", 16, 1, 1, sample_rate, sample_rate * BYTES_PER_SAMPLE, BYTES_PER_SAMPLE, 16)
    return b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + form + b"data" + struct.pack("<I", data)


class PcmEncoder(AudioEncoder):
    """Bytes as they are."""

    def push(self, pcm: bytes) -> bytes:
        return pcm

    def finish(self) -> bytes:
        return b""


class WavEncoder(AudioEncoder):
    """A header of unknown length, then PCM."""

    def __init__(self, sample_rate: int) -> None:
        self._header = wav_header(sample_rate, None)

    def push(self, pcm: bytes) -> bytes:
        head, self._header = self._header, b""
        return head + pcm

    def finish(self) -> bytes:
        return self.push(b"")


@dataclass(frozen=True)
class _Codec:
    """How FFmpeg is asked for a format."""

    container: str
    codec: str
    sample_format: str
    bit_rate: int | None = None
    codec_options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)


_FLUSH = {"flush_packets": "1"}
_STREAMED = {
    # No bit reservoir: a frame's bits then lie in the frame itself, so it can be decoded when it arrives.
    AudioFormat.MP3: _Codec(
        "mp3", "libmp3lame", "s16p", 96_000, {"reservoir": "0"}, {**_FLUSH, "write_xing": "0", "id3v2_version": "0"}
    ),
    AudioFormat.OPUS: _Codec(
        "ogg", "libopus", "s16", 48_000, {"application": "audio"}, {**_FLUSH, "page_duration": "20000"}
    ),
    AudioFormat.AAC: _Codec("adts", "aac", "fltp", 96_000, {}, _FLUSH),
    AudioFormat.FLAC: _Codec("flac", "flac", "s16", None, {"frame_size": "960"}, _FLUSH),
}
_WHOLE = {
    AudioFormat.MP3: _Codec("mp3", "libmp3lame", "s16p", 96_000),
    AudioFormat.OPUS: _Codec("ogg", "libopus", "s16", 48_000, {"application": "audio"}),
    AudioFormat.AAC: _Codec("adts", "aac", "fltp", 96_000),
    AudioFormat.FLAC: _Codec("flac", "flac", "s16"),
}


class _ForwardSink:
    """Collects what the muxer writes until it is taken. Has no `seek`, so the muxer does not patch headers."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._written)
        self._written.clear()
        return data


class PacketEncoder(AudioEncoder):
    """An FFmpeg codec in its container. With a `_ForwardSink`, `push` and `finish` return the bytes."""

    def __init__(self, codec: _Codec, sample_rate: int, sink: _ForwardSink | io.BytesIO) -> None:
        self._sink = sink
        self._sample_rate = sample_rate
        self._pts = 0
        self._container = av.open(sink, "w", format=codec.container, options=codec.container_options)
        rate = _codec_sample_rate(codec.codec, sample_rate)
        stream = self._container.add_stream(codec.codec, rate=rate, options=codec.codec_options)
        assert isinstance(stream, AudioStream), codec.codec
        self._stream = stream
        context = stream.codec_context
        context.layout = "mono"
        context.format = codec.sample_format
        context.thread_count = 1
        if codec.bit_rate is not None:
            context.bit_rate = codec.bit_rate

    def push(self, pcm: bytes) -> bytes:
        if pcm:
            samples = np.frombuffer(pcm, dtype="<i2")[None, :]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = self._sample_rate
            frame.time_base = Fraction(1, self._sample_rate)
            frame.pts = self._pts
            self._pts += samples.shape[1]
            self._container.mux(self._stream.encode(frame))
        return self._taken()

    def finish(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._taken()

    def _taken(self) -> bytes:
        return self._sink.take() if isinstance(self._sink, _ForwardSink) else b""


def _codec_sample_rate(codec: str, sample_rate: int) -> int:
    """Opus knows five rates; PyAV resamples what is pushed at another."""
    if codec == "libopus" and sample_rate not in _OPUS_SAMPLE_RATES:
        return _OPUS_SAMPLE_RATES[-1]
    return sample_rate
