"""Which flow call comes next for a segment, given the tokens so far (tests/goldens/FORMAT.md, section 15). Pure.

A stream is cut into chunks of 25, 50, then 100 tokens. The first is lengthened so that prompt plus chunk is a
multiple of the model's attention chunk: the borders of chunks then coincide with those of the masks, and frames
already spoken never change. A call that is not the last needs three tokens of look-ahead beyond its chunk. The last
call covers all tokens; the released models' driver gives it full attention (`final_chunk: reference`), `streaming`
keeps the chunk masks there too. The hop belongs to one segment: in the released driver it is shared by all requests
and never falls back, so that a second request waits four times as long for its first chunk.

A segment that is not streamed has one call over everything, with full attention.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

FIRST_HOP = 25
MAX_HOP = 100
HOP_FACTOR = 2
LOOKAHEAD_TOKENS = 3

FinalChunk = Literal["reference", "streaming"]


@dataclass(frozen=True, slots=True)
class FlowCall:
    """One flow call over the first `num_tokens` tokens; what it adds begins at token `token_offset`.

    Without `finalize` the last look-ahead tokens are context only. `num_new_tokens` is what becomes audio.
    """

    num_tokens: int
    token_offset: int
    num_new_tokens: int
    streaming: bool
    finalize: bool


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """Where a segment stands between two flow calls. Immutable: `after(call)` is the plan once the call is done."""

    stream: bool
    final_chunk: FinalChunk
    hop: int
    padding: int
    lookahead: int
    offset: int = 0
    complete: bool = False

    def next_call(self, num_tokens: int, finished: bool) -> FlowCall | None:
        """The call that `num_tokens` tokens allow, or None: wait for more (or nothing is left to say).

        finished: no more tokens will come. A finished segment without any token has no call.
        """
        if self.complete or num_tokens == 0:
            return None
        chunk = self._chunk_tokens()
        if self.stream and num_tokens - self.offset >= chunk + self.lookahead:
            return FlowCall(self.offset + chunk + self.lookahead, self.offset, chunk, streaming=True, finalize=False)
        if not finished:
            return None
        keep_masks = self.stream and self.final_chunk == "streaming"
        return FlowCall(num_tokens, self.offset, num_tokens - self.offset, streaming=keep_masks, finalize=True)

    def after(self, call: FlowCall) -> ChunkPlan:
        """The plan once `call` (from `next_call`) has been solved."""
        if call.finalize:
            return replace(self, offset=call.num_tokens, complete=True)
        offset = call.token_offset + call.num_new_tokens
        return replace(self, offset=offset, hop=min(MAX_HOP, HOP_FACTOR * self.hop))

    def _chunk_tokens(self) -> int:
        return self.hop + self.padding if self.offset == 0 else self.hop


def plan_chunks(
    num_prompt_tokens: int,
    *,
    stream: bool,
    final_chunk: FinalChunk,
    first_hop: int = FIRST_HOP,
    lookahead: int = LOOKAHEAD_TOKENS,
) -> ChunkPlan:
    """The plan of a segment before its first token.

    num_prompt_tokens: speech tokens of the voice that the flow sees before the segment's own (0 without prompt)
    """
    return ChunkPlan(
        stream=stream,
        final_chunk=final_chunk,
        hop=first_hop,
        padding=-num_prompt_tokens % first_hop,
        lookahead=lookahead,
    )
