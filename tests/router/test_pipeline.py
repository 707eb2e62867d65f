"""The pipeline's rules: messages and process events in, messages out. No process, socket or clock."""

from __future__ import annotations

from typing import Any

import pytest

from ttsfleet_runtime.checkpoint.bundle import (
    BUNDLE_FORMAT,
    FlowInfo,
    HiFTInfo,
    LLMInfo,
    MelInfo,
    ModelInfo,
)
from ttsfleet_runtime.config.plan import EnginePlan, LimitsPlan
from ttsfleet_runtime.errors import ErrorInfo, UnavailableError
from ttsfleet_runtime.messages import (
    Cancel,
    EncodeText,
    EncodeVoice,
    FinishReason,
    Mode,
    RequestFailed,
    SegmentConsumed,
    SegmentDecoded,
    SequenceFinished,
    SequenceJob,
    SpeechRequest,
    TextEncoded,
    VoiceEncoded,
)
from ttsfleet_runtime.pipeline import Pipeline
from ttsfleet_runtime.router.fleet import Fleet
from ttsfleet_runtime.router.voice import Voice
from ttsfleet_runtime.stage import Outgoing


def _model() -> ModelInfo:
    llm = LLMInfo(
        hidden_size=8, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8, ffn_size=8, rms_norm_eps=1e-6,
        rope_theta=1e6, text_vocab_size=10, speech_vocab_size=13, speech_token_size=10, sos_row=10, task_row=11,
        speech_offset=12, eos_id=10, fill_id=12, stop_ids=[10, 11, 12], masked_before_min=10, mix_ratio=(5, 15),
    )  # fmt: skip
    flow = FlowInfo(
        vocab_size=10, token_mel_ratio=2, pre_lookahead_len=3, spk_embed_dim=192, mel_bins=80, encoder_size=8,
        encoder_heads=1, encoder_ffn=8, encoder_blocks=1, up_blocks=1, encoder_chunk=25, estimator_channels=8,
        estimator_heads=1, estimator_head_dim=8, estimator_blocks=1, estimator_mid_blocks=1, time_embed_dim=8,
        estimator_chunk=50, cfg_rate=0.7, num_steps=10,
    )  # fmt: skip
    hift = HiFTInfo(
        base_channels=8, f0_channels=8, nb_harmonics=8, nsf_alpha=0.1, nsf_sigma=0.003, nsf_voiced_threshold=10,
        upsample_rates=[8, 5, 3], upsample_kernels=[16, 11, 7], istft_n_fft=16, istft_hop=4, resblock_kernels=[3],
        resblock_dilations=[[1]], source_resblock_kernels=[7], source_resblock_dilations=[[1]], lrelu_slope=0.1,
        audio_limit=0.99,
    )  # fmt: skip
    return ModelInfo(
        format=BUNDLE_FORMAT, version=2, name="test", model_dir="", digest="d", dtype="fp32", sample_rate=24000,
        token_rate=25, styles=["plain", "news"], tokenizer_dir="", speech_tokenizer_onnx="", speaker_onnx="",
        voices=["amy"], voices_with_prompt=["amy"], sampling_top_p=0.8, sampling_top_k=25, sampling_win_size=10,
        sampling_tau_r=0.1, mel=MelInfo(n_fft=1920, hop=480, num_mels=80, fmin=0, fmax=8000), llm=llm, flow=flow,
        hift=hift,
    )  # fmt: skip


VOICES = {
    "amy": Voice("amy", "hash-amy", has_prompt=True, prompt_ids=(1, 2, 3)),
    "plain": Voice("plain", "hash-plain", has_prompt=False),
    "bob": Voice("bob", "hash-bob", has_prompt=True, prompt_text="Hello there.", audio=lambda: b"wav"),
}
READY = ("encode-0", "encode-1", "llm-0-plain", "llm-0-news", "decode-0-0")


def _pipeline(ready: tuple[str, ...] = READY, **overrides: Any) -> Pipeline:
    values = {
        "encode_process_num": 2, "encode_paral_num": 1, "decode_process_num": 1, "gpt_paral_num": 2, **overrides,
    }  # fmt: skip
    plan = EnginePlan(model_dir="m", **values)
    pipeline = Pipeline(plan, _model(), Fleet(plan, ["plain", "news"]), VOICES)
    pipeline.cache.pin("hash-amy", 50)
    pipeline.cache.pin("hash-plain", 0)
    for identity in ready:
        pipeline.process_ready(identity)
    return pipeline


def _request(key: str = "r", **values: Any) -> SpeechRequest:
    defaults: dict[str, Any] = {
        "reply_to": "http-0", "text": "Hi.", "voice": "amy", "received": 0.0, "deadline": 100.0,
    }  # fmt: skip
    return SpeechRequest(key=key, **{**defaults, **values})


def _encoded(key: str = "r", segments: int = 1) -> TextEncoded:
    return TextEncoded(key=key, segments=[[4, 5]] * segments)


def _jobs(outgoing: list[Outgoing]) -> list[SequenceJob]:
    return [o.message for o in outgoing if isinstance(o.message, SequenceJob)]


def _failure(outgoing: list[Outgoing]) -> ErrorInfo:
    failures = [o.message for o in outgoing if isinstance(o.message, RequestFailed)]
    assert len(failures) == 1, outgoing
    return failures[0].error


def _decoded(pipeline: Pipeline, key: str, segment: int, last: bool) -> list[Outgoing]:
    done = SequenceFinished(key=key, segment=segment, reason=FinishReason.EOS, num_tokens=9)
    outgoing = pipeline.sequence_finished(done)
    decoded = SegmentDecoded(key=key, segment=segment, last_segment=last, audio_seconds=1.0)
    return outgoing + pipeline.segment_decoded(decoded)


def test_a_request_passes_every_stage_once_and_leaves_nothing_behind() -> None:
    pipeline = _pipeline()
    outgoing = pipeline.submit(_request(), 0.0)
    assert [(o.to, type(o.message)) for o in outgoing] == [("encode-0", EncodeText)]
    outgoing = pipeline.text_encoded(_encoded(), 0.5)
    (job,) = _jobs(outgoing)
    assert outgoing[0].to == "llm-0-plain"
    assert (job.prompt_ids, job.text_ids, job.decoder) == ([1, 2, 3], [4, 5], "decode-0-0")
    assert (job.min_tokens, job.max_tokens) == (4, 40)
    assert job.use_prompt_speech
    assert job.decode.use_prompt
    assert job.decode.last_segment
    assert _decoded(pipeline, "r", 0, last=True) == []
    assert len(pipeline) == 0


def test_a_voice_that_is_not_cached_is_computed_once_for_all_who_wait() -> None:
    pipeline = _pipeline()
    first = pipeline.submit(_request("a", voice="bob"), 0.0)
    assert {type(o.message) for o in first} == {EncodeVoice, EncodeText}
    second = pipeline.submit(_request("b", voice="bob"), 0.0)
    assert not any(isinstance(o.message, EncodeVoice) for o in second)
    pipeline.text_encoded(_encoded("a"), 0.1)
    pipeline.text_encoded(_encoded("b"), 0.1)
    outgoing = pipeline.voice_encoded(VoiceEncoded(voice_hash="hash-bob", num_tokens=40))
    assert [job.key for job in _jobs(outgoing)] == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Mode.ZERO_SHOT),
        ({"voice": "plain"}, Mode.SFT),
        ({"instructions": "Speak slowly."}, Mode.INSTRUCT2),
        ({"mode": Mode.SFT}, Mode.SFT),
        ({"mode": Mode.CROSS_LINGUAL}, Mode.CROSS_LINGUAL),
        ({"voice": "", "prompt_audio": b"x"}, Mode.CROSS_LINGUAL),
        ({"voice": "", "prompt_audio": b"x", "prompt_text": "Hi."}, Mode.ZERO_SHOT),
    ],
)
def test_the_mode_follows_from_the_voice_unless_it_is_given(values: dict[str, Any], expected: Mode) -> None:
    outgoing = _pipeline().submit(_request(**values), 0.0)
    (text,) = [o.message for o in outgoing if isinstance(o.message, EncodeText)]
    assert text.mode is expected


@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ({"voice": "nobody"}, 404, "nobody"),
        ({"style": "opera"}, 404, "opera"),
        ({"voice": "plain", "mode": Mode.ZERO_SHOT}, 400, "prompt recording"),
        ({"voice": "plain", "instructions": "Loud."}, 400, "prompt recording"),
        ({"voice": "", "prompt_audio": b"x", "mode": Mode.ZERO_SHOT}, 400, "ref_text"),
        ({"mode": Mode.INSTRUCT2}, 400, "instructions"),
        ({"deadline": 0.0}, 504, "deadline"),
    ],
)
def test_a_request_that_cannot_be_is_answered_at_once(values: dict[str, Any], status: int, words: str) -> None:
    pipeline = _pipeline()
    error = _failure(pipeline.submit(_request(**values), 1.0))
    assert error.status == status
    assert words in error.message
    assert len(pipeline) == 0


def test_beyond_the_queue_a_request_is_refused_with_retry_after() -> None:
    pipeline = _pipeline(gpt_paral_num=1, limits=LimitsPlan(queued_requests=1))
    for key in "ab":
        pipeline.submit(_request(key), 0.0)
    error = _failure(pipeline.submit(_request("c"), 0.0))
    assert error.status == 429
    assert error.retry_after_seconds is not None


def test_a_streamed_request_prepares_one_segment_ahead_of_playback() -> None:
    pipeline = _pipeline()
    pipeline.submit(_request(stream=True), 0.0)
    assert [j.segment for j in _jobs(pipeline.text_encoded(_encoded(segments=4), 0.0))] == [0]
    assert [j.segment for j in _jobs(pipeline.segment_consumed(SegmentConsumed(key="r", segment=0)))] == [1]
    assert _jobs(_decoded(pipeline, "r", 0, last=False)) == []
    assert [j.segment for j in _jobs(pipeline.segment_consumed(SegmentConsumed(key="r", segment=1)))] == [2]


def test_an_offline_request_keeps_a_bounded_number_of_segments_in_the_engine() -> None:
    pipeline = _pipeline()
    pipeline.submit(_request(), 0.0)
    assert len(_jobs(pipeline.text_encoded(_encoded(segments=9), 0.0))) == 4
    assert [j.segment for j in _jobs(_decoded(pipeline, "r", 0, last=False))] == [4]


def test_cancel_reaches_the_stages_that_hold_the_request() -> None:
    pipeline = _pipeline()
    pipeline.submit(_request(), 0.0)
    assert [o.to for o in pipeline.cancel(Cancel(key="r"))] == ["encode-0"]
    pipeline.submit(_request("s"), 0.0)
    pipeline.text_encoded(_encoded("s"), 0.0)
    assert [o.to for o in pipeline.cancel(Cancel(key="s"))] == ["decode-0-0", "llm-0-plain"]
    assert len(pipeline) == 0


def test_a_cancelled_text_gives_its_encoder_slot_back() -> None:
    pipeline = _pipeline(ready=("encode-0", "llm-0-plain", "decode-0-0"))
    pipeline.submit(_request("a"), 0.0)
    pipeline.cancel(Cancel(key="a"))
    assert [o.to for o in pipeline.submit(_request("b"), 0.0)] == ["encode-0"]


def test_a_cancelled_text_lets_the_next_in_line_go() -> None:
    pipeline = _pipeline(ready=("encode-0", "llm-0-plain", "decode-0-0"))
    pipeline.submit(_request("a"), 0.0)
    assert pipeline.submit(_request("b"), 0.0) == []
    outgoing = pipeline.cancel(Cancel(key="a"))
    assert [o.message.key for o in outgoing if isinstance(o.message, EncodeText)] == ["b"]


def test_a_new_request_does_not_overtake_one_that_waits_for_an_encoder() -> None:
    pipeline = _pipeline(ready=("llm-0-plain", "decode-0-0"))
    for key in "ab":
        assert pipeline.submit(_request(key), 0.0) == []
    sent = [*pipeline.process_ready("encode-0"), *pipeline.submit(_request("c"), 0.0)]
    assert [o.message.key for o in sent if isinstance(o.message, EncodeText)] == ["a"]


def test_a_recording_that_cannot_be_read_fails_only_its_request() -> None:
    def unreadable() -> bytes:
        raise UnavailableError("the voices cannot be read")

    voices = {
        **VOICES,
        "broken": Voice("broken", "hash-broken", has_prompt=True, prompt_text="Hi.", audio=unreadable),
    }
    plan = EnginePlan(model_dir="m")
    pipeline = Pipeline(plan, _model(), Fleet(plan, ["plain"]), voices)
    assert _failure(pipeline.submit(_request(voice="broken"), 0.0)).status == 503
    assert len(pipeline) == 0


def test_a_text_without_segments_is_refused_instead_of_waiting_for_its_deadline() -> None:
    pipeline = _pipeline()
    pipeline.submit(_request(), 0.0)
    assert _failure(pipeline.text_encoded(_encoded(segments=0), 0.0)).status == 400


def test_a_deleted_voice_leaves_the_cache_when_its_last_request_ends() -> None:
    pipeline = _pipeline()
    pipeline.submit(_request(voice="bob"), 0.0)
    pipeline.voice_encoded(VoiceEncoded(voice_hash="hash-bob", num_tokens=40))
    assert pipeline.forget_voice("hash-bob") == []
    pipeline.cancel(Cancel(key="r"))
    assert pipeline.evicted == ["hash-bob"]


def test_encode_work_of_a_dead_process_is_retried_once_on_another() -> None:
    pipeline = _pipeline()
    pipeline.submit(_request(), 0.0)
    outgoing = pipeline.process_lost("encode-0")
    assert [(o.to, type(o.message)) for o in outgoing] == [("encode-1", EncodeText)]
    assert _failure(pipeline.process_lost("encode-1")).status == 503


def test_voice_work_of_a_dead_process_is_retried_once_on_another() -> None:
    pipeline = _pipeline()
    pipeline.submit(_request(voice="bob"), 0.0)
    retried = [o for o in pipeline.process_lost("encode-0") if isinstance(o.message, EncodeVoice)]
    retried += [o for o in pipeline.text_encoded(_encoded(), 0.0) if isinstance(o.message, EncodeVoice)]
    assert [o.to for o in retried] == ["encode-1"]
    assert isinstance(retried[0].message, EncodeVoice)
    assert retried[0].message.audio == b"wav"


@pytest.mark.parametrize("identity", ["llm-0-plain", "decode-0-0"])
def test_requests_of_a_dead_engine_fail_at_once_with_503(identity: str) -> None:
    pipeline = _pipeline()
    pipeline.submit(_request(), 0.0)
    pipeline.text_encoded(_encoded(), 0.0)
    error = _failure(pipeline.process_lost(identity))
    assert error.status == 503
    assert len(pipeline) == 0


def test_a_request_whose_llm_had_finished_survives_its_death() -> None:
    pipeline = _pipeline()
    pipeline.submit(_request(), 0.0)
    pipeline.text_encoded(_encoded(), 0.0)
    done = SequenceFinished(key="r", segment=0, reason=FinishReason.EOS, num_tokens=9)
    pipeline.sequence_finished(done)
    assert pipeline.process_lost("llm-0-plain") == []
    assert len(pipeline) == 1


def test_requests_of_a_dead_http_worker_are_cancelled_everywhere() -> None:
    pipeline = _pipeline()
    pipeline.submit(_request(), 0.0)
    pipeline.text_encoded(_encoded(), 0.0)
    outgoing = pipeline.process_lost("http-0")
    assert {type(o.message) for o in outgoing} == {Cancel}
    assert len(pipeline) == 0


def test_without_a_live_engine_a_request_fails_instead_of_waiting() -> None:
    pipeline = _pipeline(ready=("encode-0",))
    pipeline.submit(_request(), 0.0)
    assert _failure(pipeline.text_encoded(_encoded(), 0.0)).status == 503


def test_text_waits_while_all_encoders_are_busy_and_goes_on_when_one_is_free() -> None:
    pipeline = _pipeline(ready=("encode-0", "llm-0-plain", "decode-0-0"))
    pipeline.submit(_request("a"), 0.0)
    assert pipeline.submit(_request("b"), 0.0) == []
    outgoing = pipeline.text_encoded(_encoded("a"), 0.0)
    assert [o.message.key for o in outgoing if isinstance(o.message, EncodeText)] == ["b"]


def test_a_late_request_is_ended_with_504() -> None:
    pipeline = _pipeline()
    pipeline.submit(_request(deadline=5.0), 0.0)
    assert pipeline.expire(4.9) == []
    assert _failure(pipeline.expire(5.0)).status == 504


def test_a_text_that_cannot_fit_is_refused_with_the_limit_in_the_message() -> None:
    pipeline = _pipeline(max_req_total_len=20)
    pipeline.submit(_request(), 0.0)
    error = _failure(pipeline.text_encoded(_encoded(), 0.0))
    assert error.status == 400
    assert "max_req_total_len is 20" in error.message


def test_messages_of_a_forgotten_request_are_ignored() -> None:
    pipeline = _pipeline()
    assert pipeline.text_encoded(_encoded("gone"), 0.0) == []
    assert _decoded(pipeline, "gone", 0, last=True) == []
    assert pipeline.segment_consumed(SegmentConsumed(key="gone", segment=0)) == []


def test_a_registered_voice_is_prepared_and_its_end_is_told() -> None:
    pipeline = _pipeline()
    outgoing = pipeline.prepare_voice("call-1", "hash-new", b"wav")
    assert [type(o.message) for o in outgoing] == [EncodeVoice]
    pipeline.voice_encoded(VoiceEncoded(voice_hash="hash-new", num_tokens=10))
    assert pipeline.prepared == [("call-1", None)]
    assert pipeline.release_voices()[0].message.voice_hashes == ["hash-new"]  # type: ignore[union-attr]
