"""How much decode work may run at once on a class of device. Pure numbers, with where they come from.

CPU: a decision of about 50 ms. One core of an AMD EPYC (torch 2.11, model tiny-en) solves 13,000 frames times Euler
steps a second and vocodes 1,500 frames; packing several jobs pays up to 400 frames (four of 56 frames: 15 ms instead
of 26; four of 200: nothing gained). No company for first chunks: a step's time grows with its frames.

CUDA: a step of the full-size model is bound by its thousand kernel launches up to about 1,000 frames, so company is
free up to there; 8,192 frames times steps are 2 TFLOP.
"""

from __future__ import annotations

from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.decode.scheduler import Limits

PATIENCE_SECONDS = 2.0


def decode_limits(plan: EnginePlan) -> Limits:
    """The plan's batch sizes with the budgets of its device class."""
    on_cpu = plan.device == "cpu"
    return Limits(
        max_batch_size=plan.decode_max_batch_size,
        max_active=plan.decode_paral_num,
        frame_budget=512 if on_cpu else 8192,
        vocode_budget=208 if on_cpu else 2048,
        companion_frames=0 if on_cpu else 1024,
        patience_seconds=PATIENCE_SECONDS,
    )
