"""Golden cases of the vocoder, alone, in streams, and at the end of the whole path from speech tokens.

The reference's random source noise is replaced by a formula in these cases, which restarts in each vocoder call.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.decode.hift import HiFT
from ttsfleet_runtime.decode.stream import ChunkPlan, plan_chunks
from ttsfleet_runtime.decode.vocoder_stream import NoiseFunction, StreamVocoder, resample_mel
from ttsfleet_runtime.verify.flow_cases import begin, channels_first, flow_model
from ttsfleet_runtime.verify.registry import Case, Context, Outputs, golden

_WEYL_MULTIPLIER = 2654435761


@lru_cache(maxsize=2)
def _load(bundle_dir: Path, device: str) -> HiFT:
    return HiFT.load(bundle_dir, read_model_info(bundle_dir).hift, device)


def _hift(context: Context) -> HiFT:
    assert context.bundle_dir is not None
    return _load(context.bundle_dir, context.device)


def _mel(case: Case, hift: HiFT) -> Tensor:
    """[1, mel_bins, frames] -> [frames, mel_bins] on the device."""
    return torch.from_numpy(np.ascontiguousarray(case.inputs["mel"][0].T)).to(hift.device)


def _formula_noise(num_samples: int, harmonics: int) -> Tensor:
    """(u - 0.5) sqrt(12) of the Weyl sequence, [samples, harmonics] float32."""
    index = np.arange(num_samples * harmonics, dtype=np.int64)
    uniform = ((index * _WEYL_MULTIPLIER) % 2**32) / 2.0**32
    return torch.from_numpy(((uniform - 0.5) * math.sqrt(12.0)).astype(np.float32)).view(num_samples, harmonics)


def _noise_function(hift: HiFT) -> NoiseFunction:
    return lambda first, count: _formula_noise(count, hift.info.nb_harmonics + 1).to(hift.device)


def _array(tensor: Tensor, *shape: int) -> np.ndarray:
    return tensor.cpu().numpy().reshape(*shape)


@golden("f0pred")
def f0pred(case: Case, context: Context) -> Outputs:
    hift = _hift(context)
    return {"f0": _array(hift.f0(_mel(case, hift)), 1, -1)}


@golden("source")
@torch.inference_mode()
def source(case: Case, context: Context) -> Outputs:
    hift = _hift(context)
    f0 = torch.from_numpy(np.array(case.inputs["f0"][0])).to(hift.device)
    num_samples = f0.shape[0] * hift.samples_per_frame
    if "noise" in case.inputs:
        noise = torch.from_numpy(np.array(case.inputs["noise"][0])).to(hift.device)
    else:
        noise = _noise_function(hift)(0, num_samples)
    head = case.outputs["sine_waves_head"].shape[1]
    return {
        "source": _array(hift.source(f0, noise), 1, 1, -1),
        "sine_waves_head": _array(hift.source.waves(f0, noise)[:head], 1, head, -1),
        "uv_frames": _array(hift.source.voiced(f0), 1, -1),
    }


@golden("decode")
def decode(case: Case, context: Context) -> Outputs:
    hift = _hift(context)
    given = torch.from_numpy(np.array(case.inputs["s"][0, 0]))
    return {"speech": _array(hift.decode(_mel(case, hift), given), 1, -1)}


@golden("vocoder")
def vocoder(case: Case, context: Context) -> Outputs:
    hift = _hift(context)
    mel = _mel(case, hift)
    noise = _noise_function(hift)(0, mel.shape[0] * hift.samples_per_frame)
    cache = torch.from_numpy(np.array(case.inputs["cache_source"][0, 0]))
    waveform, excitation = hift.vocode([mel], [noise], [cache if cache.numel() else None])[0]
    return {"speech": _array(waveform, 1, -1), "source": _array(excitation, 1, 1, -1)}


@golden("hift_stream")
def hift_stream(case: Case, context: Context) -> Outputs:
    """A stream with the mel given: what is said and what is kept after each chunk."""
    hift = _hift(context)
    mel = _mel(case, hift)
    assert context.bundle_dir is not None
    flow = read_model_info(context.bundle_dir).flow
    stream, noise = StreamVocoder(hift), _noise_function(hift)
    out: dict[str, np.ndarray] = {}
    for index, call in enumerate(case.meta["calls"]):
        final = call["finalize"]
        last_token = call["n_tokens"] - (0 if final else flow.pre_lookahead_len)
        new = mel[flow.token_mel_ratio * call["token_offset"] : flow.token_mel_ratio * last_token]
        out[f"speech_{index:02d}"] = _array(stream.push(new, noise, final), 1, -1)
        if stream.cache_mel is None or stream.cache_source is None or stream.cache_speech is None:
            continue
        out[f"cache_mel_{index:02d}"] = channels_first(stream.cache_mel)
        out[f"cache_source_{index:02d}"] = _array(stream.cache_source, 1, 1, -1)
        out[f"cache_speech_{index:02d}"] = _array(stream.cache_speech, 1, -1)
    return out


@golden("hift_speed")
def hift_speed(case: Case, context: Context) -> Outputs:
    hift = _hift(context)
    out: dict[str, np.ndarray] = {}
    for speed in case.meta["speeds"]:
        mel = resample_mel(_mel(case, hift), speed)
        out[f"mel_{speed}"] = channels_first(mel)
        out[f"speech_{speed}"] = _array(StreamVocoder(hift).push(mel, _noise_function(hift), True), 1, -1)
    return out


@golden("e2e")
def e2e(case: Case, context: Context) -> Outputs:
    """Given tokens -> waveform: streamed by the plan that the decode stage follows, and as one file."""
    num_prompt_tokens = case.inputs["prompt_token"].shape[1]
    streamed = plan_chunks(num_prompt_tokens, stream=True, final_chunk="reference")
    if "hop_start" in case.meta:
        hop = case.meta["hop_start"]
        streamed = plan_chunks(num_prompt_tokens, stream=True, final_chunk="reference", first_hop=hop)
    out = {f"chunk_{index:02d}": speech for index, (_, speech) in enumerate(_speak(case, context, streamed))}
    if case.meta.get("nonstream", True):
        whole = plan_chunks(num_prompt_tokens, stream=False, final_chunk="reference")
        [(out["mel"], out["speech"])] = _speak(case, context, whole)
    return out


def _speak(case: Case, context: Context, plan: ChunkPlan) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mel and audio of each call of `plan` over the case's tokens."""
    model, hift = flow_model(context), _hift(context)
    num_tokens = case.inputs["token"].shape[1]
    stream, spoken = StreamVocoder(hift), []
    while (call := plan.next_call(num_tokens, finished=True)) is not None:
        job = begin(case, model, streaming=call.streaming, finalize=call.finalize, num_tokens=call.num_tokens)
        model.advance([job], job.num_steps)
        mel = job.mel[model.info.token_mel_ratio * call.token_offset :]
        speech = stream.push(mel, _noise_function(hift), call.finalize)
        spoken.append((channels_first(mel), _array(speech, 1, -1)))
        plan = plan.after(call)
    return spoken
