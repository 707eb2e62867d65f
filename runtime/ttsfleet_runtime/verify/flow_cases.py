"""Golden cases of the flow: speaker projection, encoder, vector field, ODE, whole and chunked inference.

Cases hold tensors as the reference has them, [batch, channel, time]; the model's are [time, channel]. All ten steps
of a case go through `FlowModel.advance`; a vector field through the estimator's own batch of two sequences.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.decode.attention import PackedAttention
from ttsfleet_runtime.decode.estimator import CONTEXT_ROWS, TimeBiases
from ttsfleet_runtime.decode.flow import FlowJob, FlowModel
from ttsfleet_runtime.decode.packing import PackedLayout
from ttsfleet_runtime.verify.registry import Case, Context, Outputs, golden


@lru_cache(maxsize=2)
def _load(bundle_dir: Path, device: str) -> FlowModel:
    return FlowModel.load(bundle_dir, read_model_info(bundle_dir).flow, device)


def flow_model(context: Context) -> FlowModel:
    """The case's flow, loaded once per bundle and device."""
    assert context.bundle_dir is not None
    return _load(context.bundle_dir, context.device)


def _item(case: Case, name: str, index: int = 0) -> Tensor:
    """One batch item of an input, as it is stored."""
    return torch.from_numpy(np.array(case.inputs[name][index]))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).numpy()


def channels_first(rows: Tensor) -> np.ndarray:
    """[time, channels] -> [1, channels, time]."""
    return _array(rows.T[None])


def begin(case: Case, model: FlowModel, *, streaming: bool, finalize: bool, num_tokens: int | None = None) -> FlowJob:
    """The flow call of a case, over its first `num_tokens` tokens (None = all)."""
    return model.begin(
        _item(case, "token")[:num_tokens],
        _item(case, "prompt_token"),
        _item(case, "prompt_feat"),
        _item(case, "embedding"),
        streaming=streaming,
        finalize=finalize,
    )


@golden("spk_proj")
def spk_proj(case: Case, context: Context) -> Outputs:
    return {"spk": _array(flow_model(context).project_speaker(_item(case, "embedding"))[None])}


@golden("flow_mu")
def flow_mu(case: Case, context: Context) -> Outputs:
    model = flow_model(context)
    job = begin(case, model, streaming=case.meta["streaming"], finalize=case.meta["finalize"])
    return {"mu": channels_first(job.mu), "cond": channels_first(job.cond), "spks": _array(job.spk[None])}


@golden("flow_full")
def flow_full(case: Case, context: Context) -> Outputs:
    model = flow_model(context)
    job = begin(case, model, streaming=case.meta["streaming"], finalize=case.meta["finalize"])
    model.advance([job], job.num_steps)
    return {"mel": channels_first(job.mel)}


@golden("flow_chunks")
def flow_chunks(case: Case, context: Context) -> Outputs:
    """The calls of one streamed request, all in one batch as the calls of different requests would be."""
    model = flow_model(context)
    calls = case.meta["calls"]
    jobs = [
        begin(case, model, streaming=c["streaming"], finalize=c["finalize"], num_tokens=c["n_tokens"]) for c in calls
    ]
    model.advance(jobs, model.info.num_steps)
    ratio = model.info.token_mel_ratio
    return {
        f"mel_{index:02d}": channels_first(job.mel[ratio * call["token_offset"] :])
        for index, (call, job) in enumerate(zip(calls, jobs, strict=True))
    }


@golden("estimator")
@torch.inference_mode()
def estimator(case: Case, context: Context) -> Outputs:
    """One vector field for two independent sequences of the length that the mask leaves."""
    model = flow_model(context)
    field, info = model.estimator, model.info
    lengths = [int(mask.sum()) for mask in case.inputs["mask"]]
    layout = PackedLayout(lengths, gap=CONTEXT_ROWS, copies=1, device=field.device)
    attention = PackedAttention(
        layout,
        [case.meta["streaming"]] * len(lengths),
        chunk=info.estimator_chunk,
        num_heads=info.estimator_heads,
        head_dim=info.estimator_head_dim,
        device=field.device,
    )

    def rows(name: str, index: int) -> Tensor:
        return _item(case, name, index).T[: lengths[index]].to(field.device)

    both = range(len(lengths))
    x = layout.pack([rows("x", i) for i in both])
    speakers = torch.from_numpy(np.array(case.inputs["spks"])).to(field.device)
    conditions = [field.condition(rows("mu", i), speakers[i], rows("cond", i)) for i in both]
    t = torch.from_numpy(np.array(case.inputs["t"])).to(field.device)
    biases = TimeBiases(field.time_biases(t), layout.rows_of(list(both)).to(field.device))
    hidden = field.project(x).add_(layout.pack(conditions))
    velocity = layout.unpack(field.velocity(hidden, biases, layout, attention))
    out = np.zeros_like(case.inputs["x"])
    for index, (length, rows_out) in enumerate(zip(lengths, velocity, strict=True)):
        out[index, :, :length] = _array(rows_out.T)
    return {"v": out}


@golden("flow_ode")
@torch.inference_mode()
def flow_ode(case: Case, context: Context) -> Outputs:
    """Ten single steps from the given noise: the state before each, the vector field at the first and the last."""
    model = flow_model(context)
    job = FlowJob(
        mu=_item(case, "mu").T.contiguous().to(model.device),
        cond=_item(case, "cond").T.contiguous().to(model.device),
        x=_item(case, "noise").T.contiguous().to(model.device),
        spk=_item(case, "spks").to(model.device),
        step=0,
        streaming=case.meta["streaming"],
        num_prompt_frames=0,
        num_steps=model.info.num_steps,
    )
    states, fields = [], []
    while not job.done:
        states.append(_array(job.x.T))
        fields.append(_array(model.solver.velocity(job).transpose(1, 2)))
        model.advance([job], 1)
    return {
        "mel": channels_first(job.mel),
        "t_steps": model.solver.t_starts.numpy(),
        "x_in_steps": np.stack(states),
        "v_first": fields[0],
        "v_last": fields[-1],
    }
