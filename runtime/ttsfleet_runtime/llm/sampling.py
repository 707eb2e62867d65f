"""Repetition-aware sampling (RAS) for a batch, as a pure function of (logits, history, uniforms).

The rule, per row (FORMAT.md, section 8): draw from the nucleus, the most probable tokens whose cumulative
probability before adding is below top_p, at most top_k of them. If the drawn token occurred at least
win_size * tau_r times among the last win_size outputs, draw again from the full distribution without that token,
and take that. Draws are inverse-CDF in float64: the first index whose cumulative share exceeds the uniform.

Candidates are ordered by probability, then by id, on every device: probability (float32, non-negative) widened to
float64 leaves 29 mantissa bits free, which take the reversed id, and then the bits compare as integers. So one
top-k over int64 is a stable sort, also for the many ties of half precision, and carries its indices along.

Branches on data exist on the CPU only, where they save work; on CUDA nothing here waits for the device, and all of
it can be captured in a graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_DRAWS = 2
# Speech vocabularies have below 2**20 ids; float64 keeps 29 bits that a widened float32 never uses.
_ID_MASK = (1 << 20) - 1


@dataclass(frozen=True, slots=True)
class SamplingRows:
    """Per-row parameters, each [rows] on the device of the logits.

    history: [rows, length] int64, the last outputs in a ring: output n lies at n % length, -1 = none
    counts: int64, outputs so far; top_k, win_size: int64; top_p, tau_r: float64
    """

    history: Tensor
    counts: Tensor
    top_k: Tensor
    win_size: Tensor
    top_p: Tensor
    tau_r: Tensor


def mask_logits(logits: Tensor, masked_id: int, before_min: Tensor, stop_ids: Tensor, ignore_eos: Tensor) -> None:
    """Forbid, in place, `masked_id` where before_min and all of `stop_ids` where ignore_eos ([rows] bool each)."""
    logits[:, masked_id].masked_fill_(before_min, -torch.inf)
    if logits.is_cuda or bool(ignore_eos.any()):
        forbidden = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        forbidden.index_fill_(0, stop_ids, True)
        logits.masked_fill_(ignore_eos[:, None] & forbidden, -torch.inf)


def sample(logits: Tensor, rows: SamplingRows, uniforms: Tensor, max_top_k: int) -> tuple[Tensor, Tensor]:
    """One token per row.

    logits: [rows, vocab] float32, masked ones -inf. uniforms: [rows, 2] float64 in [0, 1): nucleus draw, second draw.
    max_top_k: at least the largest top_k of the rows.
    Returns (tokens [rows] int64, number of draws used [rows] int64, 1 or 2).
    """
    tokens = _draw_from_nucleus(logits, rows, uniforms[:, 0], min(max_top_k, logits.shape[1]))
    repeated = is_repeated(tokens, rows)
    if logits.is_cuda:
        second = _draw_from_rest(logits, tokens, uniforms[:, 1])
        return torch.where(repeated, second, tokens), repeated.long() + 1
    if bool(repeated.any()):
        again = repeated.nonzero().squeeze(1)
        tokens[again] = _draw_from_rest(logits[again], tokens[again], uniforms[again, 1])
    return tokens, repeated.long() + 1


def nucleus(logits: Tensor, rows: SamplingRows, max_top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Candidates in order: (ids [rows, k] int64, probabilities [rows, k] float64, how many are in [rows, 1])."""
    vocab = logits.shape[1]
    probabilities = torch.softmax(logits, dim=1)
    reversed_ids = torch.arange(vocab - 1, -1, -1, device=logits.device)
    keys = probabilities.double().view(torch.int64).bitwise_or_(reversed_ids)
    keys = torch.topk(keys, max_top_k, dim=1).values
    ids = (vocab - 1) - (keys & _ID_MASK)
    probabilities = (keys & ~_ID_MASK).view(torch.float64)
    cumulative = probabilities.cumsum(1)
    order = torch.arange(1, max_top_k, device=logits.device)
    more = (cumulative[:, :-1] < rows.top_p[:, None]) & (order < rows.top_k[:, None])
    return ids, probabilities, more.sum(1, keepdim=True) + 1


def _draw_from_nucleus(logits: Tensor, rows: SamplingRows, uniform: Tensor, max_top_k: int) -> Tensor:
    ids, probabilities, count = nucleus(logits, rows, max_top_k)
    cumulative = probabilities.cumsum(1)
    bound = cumulative.gather(1, count - 1) * uniform[:, None]
    chosen = (cumulative <= bound).sum(1, keepdim=True)
    return ids.gather(1, torch.minimum(chosen, count - 1)).squeeze(1)


def excluding(logits: Tensor, tokens: Tensor) -> Tensor:
    """[rows, vocab] float32: the full distribution of each row without its token."""
    return torch.softmax(logits.scatter(1, tokens[:, None], -torch.inf), dim=1)


def _draw_from_rest(logits: Tensor, excluded: Tensor, uniform: Tensor) -> Tensor:
    """Draw from all ids in their order, without `excluded`."""
    cumulative = excluding(logits, excluded).double().cumsum(1)
    bound = cumulative[:, -1:] * uniform[:, None]
    return (cumulative <= bound).sum(1).clamp_(max=logits.shape[1] - 1)


def is_repeated(tokens: Tensor, rows: SamplingRows) -> Tensor:
    """[rows] bool: the token occurs at least win_size * tau_r times in the window."""
    length = rows.history.shape[1]
    places = torch.arange(length, device=tokens.device)
    ages = (rows.counts[:, None] - 1 - places) % length
    occurs = (rows.history == tokens[:, None]) & (ages < rows.win_size[:, None])
    return occurs.sum(1) >= rows.win_size * rows.tau_r
