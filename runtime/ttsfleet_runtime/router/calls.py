"""Calls of HTTP workers that want an answer: voices to list, register and delete, and texts to fetch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import structs

from ttsfleet_runtime.errors import ErrorInfo, TTSFleetError
from ttsfleet_runtime.messages import DeleteVoice, ListVoices, RegisterVoice, Reply
from ttsfleet_runtime.pipeline import Pipeline
from ttsfleet_runtime.router.voice_registry import VoiceRegistry
from ttsfleet_runtime.stage import Outgoing


@dataclass(frozen=True)
class _Registration:
    caller: str
    message: RegisterVoice


class VoiceCalls:
    """Answers voice calls; a registration is answered when its entry has been computed."""

    def __init__(self, voices: VoiceRegistry, pipeline: Pipeline) -> None:
        self._voices = voices
        self._pipeline = pipeline
        self._registrations: dict[str, _Registration] = {}

    def handle(self, caller: str, message: RegisterVoice | DeleteVoice | ListVoices) -> list[Outgoing]:
        """Act on a call."""
        return self._answer(caller, message.call, lambda: self._act(caller, message))

    def finish_registrations(self) -> list[Outgoing]:
        """Answer the registrations whose voice has been computed or refused."""
        outgoing: list[Outgoing] = []
        for call, error in self._pipeline.prepared:
            registration = self._registrations.pop(call, None)
            if registration is not None:
                outgoing += self._finish(registration, error)
        self._pipeline.prepared.clear()
        return outgoing

    def answer_text(self, caller: str, call: str, text: str) -> Outgoing:
        return Outgoing(caller, Reply(call=call, text=text))

    def _act(self, caller: str, message: RegisterVoice | DeleteVoice | ListVoices) -> list[Outgoing]:
        match message:
            case ListVoices():
                return [Outgoing(caller, Reply(call=message.call, voices=self._voices.infos()))]
            case DeleteVoice():
                voice_hash = self._voices.delete(message.name)
                return [*self._pipeline.forget_voice(voice_hash), Outgoing(caller, Reply(call=message.call))]
            case RegisterVoice():
                voice_hash = self._voices.check_new(message.name, message.audio, message.transcript)
                call = f"{caller}/{message.call}"
                self._registrations[call] = _Registration(caller, message)
                outgoing = self._pipeline.prepare_voice(call, voice_hash, message.audio)
                return [*outgoing, *self.finish_registrations()]

    def _finish(self, registration: _Registration, error: ErrorInfo | None) -> list[Outgoing]:
        caller, message = registration.caller, registration.message
        if error is not None:
            # The encoders name the field of a speech request; here the recording came as `file`.
            named = structs.replace(error, param="file") if error.param == "ref_audio" else error
            return [Outgoing(caller, Reply(call=message.call, error=named))]

        def register() -> list[Outgoing]:
            self._voices.check_new(message.name, message.audio, message.transcript)
            info = self._voices.register(message.name, message.audio, message.transcript)
            return [Outgoing(caller, Reply(call=message.call, voices=[info]))]

        return self._answer(caller, message.call, register)

    def _answer(self, caller: str, call: str, action: Callable[[], list[Outgoing]]) -> list[Outgoing]:
        try:
            return action()
        except TTSFleetError as error:
            return [Outgoing(caller, Reply(call=call, error=error.info()))]
