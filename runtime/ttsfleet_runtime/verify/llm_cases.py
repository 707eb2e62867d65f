"""Golden cases of the LLM: composition and prefill, decode steps, sampling, stop rules, text-in streaming.

Everything runs through the engine that serves: its scheduler plans, its runner computes. What a case dictates,
uniforms or logits, is injected where the engine takes them anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.llm.bistream import BistreamComposer, StreamedPrompt
from ttsfleet_runtime.llm.sampling import SamplingRows, excluding, is_repeated, mask_logits, nucleus, sample
from ttsfleet_runtime.llm.sequence import Accepted, Sequence, SequenceSpec, SequenceStatus, Vocabulary
from ttsfleet_runtime.llm.silence import SilenceLimiter
from ttsfleet_runtime.messages import Sampling
from ttsfleet_runtime.verify.llm_session import Session
from ttsfleet_runtime.verify.registry import Case, Context, Outputs, golden

_END_OF_PROMPT = 151646


@golden("llm_prefill")
@torch.inference_mode()
def llm_prefill(case: Case, context: Context) -> Outputs:
    """Rows, hidden states of all positions, logits of the last one."""
    session = Session(context)
    rows = _rows(session.vocabulary, case)
    session.scheduler.add(SequenceSpec(rows=rows, seed=0, segment=0, min_tokens=0, max_tokens=1))
    hidden = torch.cat(_prefill(session))
    model = session.runner.model
    outputs = {"hidden": hidden[None], "logits_last": _logits(session, hidden[-1:])}
    if "lm_input" in case.outputs:
        outputs["lm_input"] = model.embed(torch.tensor(rows, device=model.device))[None]
    return {name: tensor.cpu().numpy() for name, tensor in outputs.items()}


def _prefill(session: Session) -> list[Tensor]:
    """Hidden states of the chunks that the scheduler plans for the one sequence that is queued."""
    hidden = []
    while plan := session.scheduler.schedule():
        if plan.decode:
            break
        hidden += [session.runner.prefill_hidden(chunk) for chunk in plan.prefill]
    return hidden


def _logits(session: Session, hidden: Tensor) -> Tensor:
    # Padded like a batch of the engine; one row alone may take another path through the library.
    return session.runner.model.logits(hidden.expand(4, -1))[:1]


@golden("llm_decode")
@torch.inference_mode()
def llm_decode(case: Case, context: Context) -> Outputs:
    """Decode steps whose tokens are forced: what is sampled is replaced before the next step."""
    session = Session(context)
    runner, scheduler = session.runner, session.scheduler
    forced = _ids(case, "forced")
    spec = SequenceSpec(
        rows=_rows(session.vocabulary, case), seed=0, segment=0, min_tokens=0, max_tokens=len(forced) + 1
    )
    sequence = scheduler.add(spec)
    hidden: list[Tensor] = []
    logits: list[Tensor] = []
    while sequence.status is not SequenceStatus.RUNNING:
        plan = session.plan()
        runner.launch(plan)
    assert runner.last_logits is not None
    prefill_logits = runner.last_logits[:1].cpu()
    for token in forced:
        sequence.num_in_flight = 0
        sequence.accept(token, session.vocabulary)
        runner.reload(sequence)
        runner.launch(session.plan())
        assert runner.last_hidden is not None
        hidden.append(runner.last_hidden[:1].cpu())
        logits.append(runner.last_logits[:1].cpu())
    return {
        "prefill_logits_last": prefill_logits.numpy(),
        "step_hidden": torch.cat(hidden).numpy(),
        "step_logits": torch.cat(logits).numpy(),
    }


@golden("llm_generate")
def llm_generate(case: Case, context: Context) -> Outputs:
    """Free generation with given uniforms, cut at the case's number of steps."""
    session = Session(context, case.inputs["uniforms"])
    num_text = len(_ids(case, "text"))
    spec = SequenceSpec(
        rows=_rows(session.vocabulary, case), seed=0, segment=0, min_tokens=2 * num_text, max_tokens=20 * num_text
    )
    session.scheduler.add(spec)
    tokens: list[int] = []
    while len(tokens) < case.meta["max_steps"] and not session.engine.idle:
        tokens += [accepted.emitted for accepted in session.step() if accepted.emitted is not None]
    return {"tokens": np.array(tokens), "n_uniforms_used": np.array([session.uniforms.used])}


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


@golden("bistream")
def bistream(case: Case, context: Context) -> Outputs:
    """Text in pieces: the rows of every LM call, the tokens, the draws, the last logits."""
    session = Session(context, case.inputs["uniforms"])
    prompt_text = _ids(case, "prompt_text")
    instruct = prompt_text.index(_END_OF_PROMPT) + 1 if _END_OF_PROMPT in prompt_text else 0
    composer = BistreamComposer(
        session.vocabulary,
        session.info.mix_ratio,
        StreamedPrompt(
            instruct_ids=tuple(prompt_text[:instruct]),
            text_ids=tuple(prompt_text[instruct:]),
            speech=tuple(_ids(case, "prompt_speech_token")),
        ),
    )
    spec = SequenceSpec(rows=(), seed=0, segment=0, min_tokens=0, max_tokens=0)
    run = _StreamedRun(session, session.scheduler.add(spec, composer), composer, case.meta["max_steps"])
    for piece in case.meta["pieces"]:
        for token in piece:
            composer.add_text([token])
            run.go_on()
    composer.close()
    run.go_on()
    hidden = session.runner.last_hidden
    assert hidden is not None
    return {
        "calls": np.array(run.calls),
        "tokens": np.array(run.tokens),
        "uniforms_used": np.array([session.uniforms.used]),
        # Computed again: what was sampled from has masks in it.
        "last_logits": session.runner.model.logits(hidden)[:1].cpu().numpy(),
    }


class _StreamedRun:
    """Drives one streamed sequence and writes down what it feeds."""

    def __init__(self, session: Session, sequence: Sequence, composer: BistreamComposer, max_tokens: int) -> None:
        self._session = session
        self._composer = composer
        self._sequence = sequence
        self._max_tokens = max_tokens
        self._num_fed = 0
        self._num_calls = 0
        self.calls: list[tuple[int, int, int]] = []
        self.tokens: list[int] = []

    def go_on(self) -> None:
        """As far as the text so far allows."""
        sequence, session = self._sequence, self._session
        session.scheduler.resume(sequence)
        while len(self.tokens) < self._max_tokens and sequence.status in _COMPUTING:
            forced = self._composer.forces_next
            used = session.uniforms.used
            self._write_calls()
            for accepted in self._sample():
                if forced:
                    # The reference does not draw when it forces fill; the engine draws and overrules.
                    session.uniforms.used = used
                if accepted.emitted is not None:
                    self.tokens.append(accepted.emitted)

    def _sample(self) -> list[Accepted]:
        """Steps until the sequence has sampled once (a long call may take several chunks)."""
        while not (accepted := self._session.step()):
            pass
        return accepted

    def _write_calls(self) -> None:
        for row in self._sequence.rows[self._num_fed :]:
            self.calls.append((self._num_calls, *_kind(row, self._session.vocabulary)))
        self._num_fed = len(self._sequence.rows)
        self._num_calls += 1


_COMPUTING = (SequenceStatus.WAITING, SequenceStatus.PREFILLING, SequenceStatus.RUNNING)


def _kind(row: int, vocabulary: Vocabulary) -> tuple[int, int]:
    """(kind, id) as the cases number them: 0 sos, 1 task, 2 text, 3 speech."""
    if row == vocabulary.sos_row:
        return 0, -1
    if row == vocabulary.task_row:
        return 1, -1
    if row >= vocabulary.speech_offset:
        return 3, row - vocabulary.speech_offset
    return 2, row


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


def _rows(vocabulary: Vocabulary, case: Case) -> tuple[int, ...]:
    text = [*_ids(case, "prompt_text"), *_ids(case, "text")]
    return tuple(vocabulary.prompt_rows(text, _ids(case, "prompt_speech_token")))


def _ids(case: Case, name: str) -> list[int]:
    return [int(value) for value in case.inputs[name].ravel()]
