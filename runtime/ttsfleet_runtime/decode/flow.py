"""Speech tokens -> mel: the conditional flow-matching model of CosyVoice2.

Source: tests/goldens/FORMAT.md, sections 10 and 12.

`begin` encodes the tokens of one request into a `FlowJob`; `advance` moves any jobs by some Euler steps. Between two
calls jobs may come and go: a job carries all of its state, the model none. The decode stage and `verify` call it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import FlowInfo
from ttsfleet_runtime.decode.encoder import TokenEncoder
from ttsfleet_runtime.decode.estimator import Estimator
from ttsfleet_runtime.decode.noise import flow_noise
from ttsfleet_runtime.decode.solver import FlowJob, Solver
from ttsfleet_runtime.decode.weights import Weights

__all__ = ["FlowJob", "FlowModel"]

_UNIT_EPS = 1e-12


class FlowModel:
    """Weights of the flow on one device; safe to share between jobs, not between threads."""

    def __init__(
        self,
        info: FlowInfo,
        weights: Mapping[str, Tensor],
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._build(info, Weights(weights, device, dtype))

    @classmethod
    def load(
        cls,
        bundle_dir: Path,
        info: FlowInfo,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ) -> FlowModel:
        """Read `flow.safetensors` of a bundle. Raises CheckpointError naming the file or the missing key."""
        model = cls.__new__(cls)
        model._build(info, Weights.load(bundle_dir / "flow.safetensors", device, dtype))
        return model

    @torch.inference_mode()
    def _build(self, info: FlowInfo, weights: Weights) -> None:
        self.info = info
        self.device, self.dtype = weights.device, weights.dtype
        self.embedding = weights["input_embedding.weight"]
        self.speaker_affine = weights.dense("spk_embed_affine_layer")
        self.encoder = TokenEncoder(info, weights.under("encoder"), weights)
        self.estimator = Estimator(info, weights.under("decoder.estimator"))
        self.solver = Solver(info, self.estimator)

    @torch.inference_mode()
    def project_speaker(self, embedding: Tensor) -> Tensor:
        """embedding: [spk_embed_dim], as CAM++ gives it -> [mel_bins]."""
        row = embedding.to(self.device, self.dtype).view(1, -1)
        return self.speaker_affine(F.normalize(row, dim=1, eps=_UNIT_EPS))[0]

    @torch.inference_mode()
    def begin(
        self,
        tokens: Tensor,
        prompt_tokens: Tensor,
        prompt_mel: Tensor,
        embedding: Tensor,
        *,
        streaming: bool,
        finalize: bool,
    ) -> FlowJob:
        """Encode one request's tokens so far.

        tokens, prompt_tokens: [n] integers; prompt_mel: [frames, mel_bins]; embedding: [spk_embed_dim]. Empty prompt
        tensors mean no prompt. Without `finalize` the last `pre_lookahead_len` tokens are context only. Raises
        InvalidRequestError when prompt and speech exceed the fixed noise.
        """
        num_context = 0 if finalize else self.info.pre_lookahead_len
        parts = (prompt_tokens, tokens)
        ids = torch.cat([part.flatten().to(self.device, torch.int64, non_blocking=True) for part in parts])
        frames = (ids.shape[0] - num_context) * self.info.token_mel_ratio
        noise = flow_noise(frames, self.device)
        rows = F.embedding(ids.clamp_(min=0), self.embedding)
        mu = self.encoder(rows, num_context, streaming=streaming)
        cond = torch.zeros_like(mu)
        num_prompt_frames = prompt_mel.shape[0]
        cond[:num_prompt_frames] = prompt_mel.to(self.device, self.dtype, non_blocking=True)
        return FlowJob(
            mu=mu,
            cond=cond,
            x=noise,
            spk=self.project_speaker(embedding),
            step=0,
            streaming=streaming,
            num_prompt_frames=num_prompt_frames,
            num_steps=self.info.num_steps,
        )

    @torch.inference_mode()
    def advance(self, jobs: Sequence[FlowJob], num_steps: int = 1) -> None:
        """Take `num_steps` Euler steps in each job, never beyond its last. Jobs may differ in everything."""
        self.solver.advance(jobs, num_steps)
