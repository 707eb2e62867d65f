"""How much decode work may run at once on a class of device. Pure numbers, with where they come from.

CPU: a decision of about 50 ms. One core of an AMD EPYC (torch 2.11, model tiny-en) solves 13,000 frames times Euler
steps a second and vocodes 1,500 frames; packing flow jobs pays up to 400 frames (four of 56 frames: 15 ms instead of
26; four of 200: nothing gained). The vocoder gains nothing by packing there, so passes run one by one and each chunk
leaves as soon as it is done. No company for first chunks: a step's time grows with its frames.

CUDA: estimates from the size of the released model, 270 MFLOP a frame and step: a step launches about a thousand
kernels, which hides the arithmetic of about 1,000 frames, so company is free up to there.

Patience: with decisions of 50 ms, overdue work gets a tenth of the time at most.
"""

from __future__ import annotations

from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.decode.scheduler import Limits

PATIENCE_SECONDS = 0.5


def decode_limits(plan: EnginePlan) -> Limits:
    """The plan's batch sizes with the budgets of its device class."""
    on_cpu = plan.device == "cpu"
    return Limits(
        max_batch_size=plan.decode_max_batch_size,
        max_active=plan.decode_paral_num,
        frame_budget=512 if on_cpu else 8192,
        vocode_budget=1 if on_cpu else 2048,
        companion_frames=0 if on_cpu else 1024,
        patience_seconds=PATIENCE_SECONDS,
    )
