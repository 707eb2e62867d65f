"""Golden cases of the audio front end, through `encode.resample`, `encode.features` and `encode.prompt`.

One thing is replaced: the arithmetic of frame means, windows and Fourier transforms. In bands far below the peak the
recorded logarithms show the rounding noise of the reference's float32, up to 0.01, so that only that very library
agrees at 2e-4. Production uses numpy's in float64, which is nearer to the truth and needs no torch; its own agreement
with the same records, on the linear scale, is tested in `tests/encode`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ttsfleet_runtime.checkpoint.bundle import MelInfo
from ttsfleet_runtime.encode.features import (
    RATE_HZ,
    Arithmetic,
    Window,
    kaldi_filter_bank,
    prompt_mel,
    whisper_log_mel,
)
from ttsfleet_runtime.encode.prompt import SpeakerEncoder, SpeechTokenizer, align
from ttsfleet_runtime.encode.resample import resample
from ttsfleet_runtime.verify.registry import Case, Context, Outputs, golden

_SAMPLE_RATE_HZ = 24_000
_NUM_CODES = 6561
_FMAX = {2: 8000.0, 3: None}
_FRAMES_PER_TOKEN = 2


def _mean(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = torch.tensor(frames).mean(dim=1, keepdim=True).numpy()
    return mean


def _spectra(frames: NDArray[np.float32], window: Window, n_fft: int) -> NDArray[np.complex64]:
    size = frames.shape[1]
    weights = torch.hann_window(size) if window == "hann" else torch.hann_window(size, periodic=False).pow(0.85)
    spectra: NDArray[np.complex64] = torch.fft.rfft(torch.tensor(frames) * weights, n=n_fft, dim=1).numpy()
    return spectra


TORCH_FLOAT32 = Arithmetic(_mean, _spectra)
"""The reference's."""


@golden("front")
def front(case: Case, context: Context) -> Outputs:
    """A prompt wave [1, n] at `meta.sr` to all features of the front end, layouts as recorded."""
    assert context.model_dir is not None
    assert case.version is not None
    wave = _wave(case, context)
    rate = int(case.meta["sr"])
    at_16k, at_24k = resample(wave, rate, RATE_HZ), resample(wave, rate, _SAMPLE_RATE_HZ)
    log_mel, filter_bank = (
        whisper_log_mel(at_16k, TORCH_FLOAT32),
        kaldi_filter_bank(at_16k, TORCH_FLOAT32),
    )
    mel_info = MelInfo(n_fft=1920, hop=480, num_mels=80, fmin=0.0, fmax=_FMAX[case.version])
    mel = prompt_mel(at_24k, _SAMPLE_RATE_HZ, mel_info, TORCH_FLOAT32)
    centred = filter_bank - filter_bank.mean(axis=0)
    tokenizer = SpeechTokenizer(
        context.model_dir / f"speech_tokenizer_v{case.version}.onnx", num_threads=1, num_codes=_NUM_CODES
    )
    tokens = tokenizer(log_mel)
    speaker = SpeakerEncoder(context.model_dir / "campplus.onnx", num_threads=1)(centred)
    prompt_tokens, prompt_features = align(tokens, mel, _FRAMES_PER_TOKEN)
    outputs: dict[str, np.ndarray] = {
        "wav16k": at_16k[None],
        "wav24k": at_24k[None],
        "whisper_logmel128": log_mel[None],
        "kaldi_fbank80": filter_bank,
        "kaldi_fbank80_cmn": centred,
        "mel24k": mel[None],
        "speech_token": tokens[None],
        "spk_embedding": speaker[None],
        "zs_speech_token": prompt_tokens[None],
        "zs_speech_feat": prompt_features[None],
    }
    return {name: outputs[name] for name in case.outputs}


def _wave(case: Case, context: Context) -> np.ndarray:
    """The case's input; the cases of version 3 share the waves stored with version 2."""
    if "wav" in case.inputs:
        return np.asarray(case.inputs["wav"][0])
    stored = context.goldens_dir / "v2" / f"{case.name.rpartition('/')[2]}.safetensors"
    return np.asarray(load_file(stored)["in.wav"][0])
