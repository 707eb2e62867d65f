"""From a prompt's audio to a voice entry: speech tokens, mel and speaker vector, aligned.

The two networks run in ONNX Runtime on the CPU. Their inputs are addressed by position and their outputs flattened,
because exporters disagree about names and ranks. The file's own samples are resampled to 16 kHz and to 24 kHz
separately, as the reference does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.encode.audio import PromptAudio
from ttsfleet_runtime.encode.features import RATE_HZ, kaldi_filter_bank, prompt_mel, whisper_log_mel
from ttsfleet_runtime.encode.resample import resample
from ttsfleet_runtime.errors import CheckpointError, InvalidRequestError
from ttsfleet_runtime.voices import VoiceEntry

_INTEGER_TYPES = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}
_ERRORS_ONLY = 3


class SpeechTokenizer:
    """Whisper log-mel to speech tokens, 25 per second."""

    def __init__(self, path: Path, num_threads: int, num_codes: int) -> None:
        self._path = path
        self._num_codes = num_codes
        self._session = _open_session(path, num_threads, num_inputs=2)
        features, length = self._session.get_inputs()
        self._features, self._length = features.name, length.name
        self._length_type = _INTEGER_TYPES.get(length.type)
        if self._length_type is None:
            raise CheckpointError(
                f"{path}: second input {length.name!r} is {length.type}, expected an integer tensor"
            )

    def __call__(self, log_mel: NDArray[np.float32]) -> NDArray[np.int32]:
        """log_mel: [128, frames] float32; returns [ceil(ceil(frames / 2) / 2)] int32 codes."""
        inputs = {self._features: log_mel[None], self._length: np.array([log_mel.shape[1]], dtype=self._length_type)}
        tokens = np.asarray(self._session.run(None, inputs)[0]).reshape(-1).astype(np.int32)
        if tokens.size and not (tokens.min() >= 0 and tokens.max() < self._num_codes):
            raise CheckpointError(
                f"{self._path}: gave the speech token {tokens.max()}; this model has {self._num_codes} codes"
            )
        return tokens


class SpeakerEncoder:
    """CAM++: filter bank to a speaker vector, used as it comes (the flow normalises it)."""

    def __init__(self, path: Path, num_threads: int) -> None:
        self._session = _open_session(path, num_threads, num_inputs=1)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, filter_bank: NDArray[np.float32]) -> NDArray[np.float32]:
        """filter_bank: [frames, 80] float32, mean over time removed; returns [192] float32."""
        output = self._session.run(None, {self._input: filter_bank[None]})[0]
        return np.asarray(output, dtype=np.float32).reshape(-1)


class VoiceEncoder:
    """Computes voice entries; holds the two sessions, keeps nothing of a voice. Safe to call from another thread."""

    def __init__(self, model: ModelInfo, num_threads: int) -> None:
        directory = Path(model.model_dir)
        self._model = model
        self._speech_tokenizer = SpeechTokenizer(
            directory / model.speech_tokenizer_onnx, num_threads, model.llm.speech_token_size
        )
        self._speaker_encoder = SpeakerEncoder(directory / model.speaker_onnx, num_threads)

    def encode(self, audio: PromptAudio) -> VoiceEntry:
        """Raises InvalidRequestError when the audio is too short for a single token."""
        at_16k = resample(audio.samples, audio.rate_hz, RATE_HZ)
        at_model_rate = resample(audio.samples, audio.rate_hz, self._model.sample_rate)
        filter_bank = kaldi_filter_bank(at_16k)
        speaker = self._speaker_encoder(filter_bank - filter_bank.mean(axis=0))
        tokens = self._speech_tokenizer(whisper_log_mel(at_16k))
        mel = prompt_mel(at_model_rate, self._model.sample_rate, self._model.mel)
        tokens, mel = align(tokens, mel, self._model.flow.token_mel_ratio)
        if not len(tokens):
            raise InvalidRequestError(
                f"prompt audio of {audio.seconds:.2f} s gives no speech token; send at least 1 s", param="ref_audio"
            )
        return VoiceEntry(speech_tokens=tokens, mel=mel, speaker_embedding=speaker)


def align(
    tokens: NDArray[np.int32], mel: NDArray[np.float32], frames_per_token: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The longest prefixes of tokens [n] and mel [frames, bins] that cover the same time: [P], [ratio * P, bins]."""
    num_tokens = min(len(mel) // frames_per_token, len(tokens))
    return tokens[:num_tokens], mel[: num_tokens * frames_per_token]


def _open_session(path: Path, num_threads: int, num_inputs: int) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; prompts cannot be encoded without it")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Spinning workers take the cores from the other stages; prompts differ in length, so kept patterns and a
    # growing arena would only hold memory.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # pybind exceptions without a public base class
        raise CheckpointError(f"{path}: not a usable ONNX model: {error}") from error
    if len(session.get_inputs()) != num_inputs:
        raise CheckpointError(f"{path}: has {len(session.get_inputs())} inputs, expected {num_inputs}")
    return session
