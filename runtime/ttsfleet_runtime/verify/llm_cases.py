"""Golden cases of the LLM: composition and prefill, decode steps, free generation, text-in streaming.

Everything runs through the engine that serves: its scheduler plans, its runner computes. What a case dictates,
uniforms or tokens, is injected where the engine takes them anyway.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ttsfleet_runtime.llm.bistream import BistreamComposer, StreamedPrompt
from ttsfleet_runtime.llm.sequence import Accepted, Sequence, SequenceSpec, SequenceStatus, Vocabulary
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


def _rows(vocabulary: Vocabulary, case: Case) -> tuple[int, ...]:
    text = [*_ids(case, "prompt_text"), *_ids(case, "text")]
    return tuple(vocabulary.prompt_rows(text, _ids(case, "prompt_speech_token")))


def _ids(case: Case, name: str) -> list[int]:
    return [int(value) for value in case.inputs[name].ravel()]
