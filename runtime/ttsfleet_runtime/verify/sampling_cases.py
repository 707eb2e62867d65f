"""Golden cases of what follows the logits: the sampler, the stop rules, the limit on silence. No model is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.llm.sampling import SamplingRows, excluding, is_repeated, mask_logits, nucleus, sample
from ttsfleet_runtime.llm.sequence import Sequence, SequenceSpec, Vocabulary
from ttsfleet_runtime.llm.silence import SilenceLimiter
from ttsfleet_runtime.messages import Sampling
from ttsfleet_runtime.verify.registry import Case, Context, Outputs, golden


@golden("scripted")
def scripted(case: Case, context: Context) -> Outputs:
    """Stop rules: the production sampler and rule with logits that a script gives."""
    document = case.document
    vocabulary = _vocabulary(context)
    results = [{**script, "tokens": _run_script(script, document, vocabulary)} for script in document["cases"]]
    return {"cases": results}


def _run_script(script: Mapping[str, Any], document: Mapping[str, Any], vocabulary: Vocabulary) -> list[int]:
    spec = SequenceSpec(rows=(0,), seed=0, segment=0, min_tokens=script["min_len"], max_tokens=script["max_len"])
    sequence = Sequence(number=0, spec=spec, rows=[0])
    steps = script["preferences_per_step"]
    tokens: list[int] = []
    while sequence.may_sample_more:
        logits = torch.full((1, document["ids"]["logits"]), -60.0)
        preferred = steps[min(len(sequence.outputs), len(steps) - 1)]
        for token, value in zip(preferred, (60.0, 20.0, -20.0), strict=False):
            logits[0, token] = value
        before_min = torch.tensor([len(sequence.outputs) < spec.min_tokens])
        never = torch.tensor([False])
        mask_logits(logits, vocabulary.masked_before_min, before_min, torch.tensor([0]), never)
        rows = _sampling_rows([sequence.outputs], Sampling())
        drawn, _ = sample(logits, rows, torch.full((1, 2), 0.5, dtype=torch.float64), spec.sampling.top_k)
        accepted = sequence.accept(int(drawn[0]), vocabulary)
        if accepted.emitted is not None:
            tokens.append(accepted.emitted)
        if accepted.finish is not None:
            break
    return tokens


@golden("silent_filter")
def silent_filter(case: Case, context: Context) -> Outputs:
    """Tokens that are forwarded to the flow."""
    meta = case.meta
    limiter = SilenceLimiter(frozenset(meta["silent_tokens"]), meta["max_silent_token_num"])
    kept = [token for token in case.inputs["tokens"].tolist() if limiter.keeps(token)]
    return {"kept": np.array(kept, dtype=np.int64)}


@golden("ras_uniform")
def ras_uniform(case: Case, context: Context) -> Outputs:
    """The sampler on a batch of 200 rows with given uniforms."""
    logits = torch.from_numpy(case.inputs["logits"].copy())
    sampling = _sampling_of(case)
    masked = torch.from_numpy(case.inputs["ignore_eos"] > 0)
    for row in masked.nonzero().squeeze(1).tolist():
        logits[row, int(case.inputs["eos_index"][row])] = -torch.inf
    rows = _sampling_rows(_histories(case), sampling)
    uniforms = torch.from_numpy(case.inputs["uniforms"].astype(np.float64))
    tokens, num_draws = sample(logits, rows, uniforms, sampling.top_k)
    return {"token": tokens.numpy(), "draws_used": num_draws.numpy()}


@golden("ras_torch")
def ras_torch(case: Case, context: Context) -> Outputs:
    """The candidate filter and the repetition rule, with the exponential race that the case gives as noise."""
    logits = torch.from_numpy(case.inputs["logits"].copy())
    sampling = _sampling_of(case)
    rows = _sampling_rows(_histories(case), sampling)
    ids, probabilities, count = nucleus(logits, rows, sampling.top_k)
    race = torch.from_numpy(case.inputs["q_nucleus"].astype(np.float64))
    inside = torch.arange(ids.shape[1]) < count
    winners = torch.where(inside, probabilities / race[:, : ids.shape[1]], -1.0).argmax(1)
    tokens = ids.gather(1, winners[:, None]).squeeze(1)
    race_rest = torch.from_numpy(case.inputs["q_random"].astype(np.float64))
    second = (excluding(logits, tokens).double() / race_rest).argmax(1)
    return {"token": torch.where(is_repeated(tokens, rows), second, tokens).numpy()}


def _sampling_of(case: Case) -> Sampling:
    meta = case.meta
    return Sampling(top_p=meta["top_p"], top_k=meta["top_k"], win_size=meta["win_size"], tau_r=meta["tau_r"])


def _histories(case: Case) -> list[list[int]]:
    """Previous outputs per row, oldest first; the arrays are padded with -1."""
    return [[token for token in row if token >= 0] for row in case.inputs["history"].tolist()]


def _sampling_rows(histories: list[list[int]], sampling: Sampling) -> SamplingRows:
    """Rows of the sampler for whole histories: a ring holds the last outputs at their number modulo its length."""
    length = max(sampling.win_size, 1)
    rings = torch.full((len(histories), length), -1)
    for row, history in enumerate(histories):
        for index in range(max(0, len(history) - length), len(history)):
            rings[row, index % length] = history[index]
    count = len(histories)
    return SamplingRows(
        history=rings,
        counts=torch.tensor([len(history) for history in histories]),
        top_k=torch.full((count,), sampling.top_k),
        win_size=torch.full((count,), sampling.win_size),
        top_p=torch.full((count,), sampling.top_p, dtype=torch.float64),
        tau_r=torch.full((count,), sampling.tau_r, dtype=torch.float64),
    )


def _vocabulary(context: Context) -> Vocabulary:
    assert context.bundle_dir is not None
    return Vocabulary.of(read_model_info(context.bundle_dir).llm)
