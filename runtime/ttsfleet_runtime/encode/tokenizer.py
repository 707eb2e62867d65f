"""The text tokenizer: Qwen2's byte-level BPE with the special tokens of CosyVoice.

Built from `vocab.json`, `merges.txt` and `tokenizer_config.json` as published. Special tokens are recognised inside
a text; no begin or end token is added. Knows nothing of normalisation, which comes before (`encode.normalize`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers

from ttsfleet_runtime.encode.special_tokens import SPECIAL_TOKENS
from ttsfleet_runtime.errors import CheckpointError

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer: contractions, words with one leading non-letter, single digits, symbols, white space."""

_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


class TextTokenizer:
    """Text to ids and back. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def from_directory(cls, directory: Path, version: int) -> TextTokenizer:
        """Load the tokenizer of a model of `version` (2 or 3).

        Raises CheckpointError for a missing or damaged file, and when the special tokens cannot have the ids that
        follow the first published one without a gap.
        """
        for name in _FILES:
            if not (directory / name).is_file():
                raise CheckpointError(f"{directory / name}: no such file; the tokenizer needs {', '.join(_FILES)}")
        published = _published_tokens(directory / "tokenizer_config.json")
        names = [*published.values(), *SPECIAL_TOKENS[version]]
        ids = range(next(iter(published)), next(iter(published)) + len(names))
        try:
            vocabulary, merges = BPE.read_file(str(directory / "vocab.json"), str(directory / "merges.txt"))
            # In the vocabulary, so that the library takes these ids over instead of counting on from its size.
            model = BPE({**vocabulary, **dict(zip(names, ids, strict=True))}, merges)
        except Exception as error:  # the library raises bare Exception for a damaged file
            raise CheckpointError(f"{directory}: vocab.json or merges.txt cannot be read: {error}") from error
        _check_ids(directory, vocabulary, published, dict(zip(names, ids, strict=True)))
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = NFC()
        tokenizer.pre_tokenizer = PreTokenizers(
            [Split(Regex(_WORDS), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = ByteLevelDecoder()
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
        return cls(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Ids of one text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def count(self, text: str) -> int:
        """Length of a text in tokens."""
        return len(self.encode(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts in one call of the library."""
        if not texts:
            return []
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def special_tokens(self) -> dict[str, int]:
        """Special token names and ids, in id order."""
        added = self._tokenizer.get_added_tokens_decoder()
        return {added[id_].content: id_ for id_ in sorted(added)}


def _published_tokens(path: Path) -> dict[int, str]:
    """`added_tokens_decoder` of tokenizer_config.json: contiguous ids and names, in id order."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["added_tokens_decoder"]
        tokens = {int(id_): str(entries[id_]["content"]) for id_ in sorted(entries, key=int)}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: no usable added_tokens_decoder ({error!r})") from error
    if not tokens:
        raise CheckpointError(f"{path}: added_tokens_decoder is empty; <|endoftext|> and others are expected")
    return tokens


def _check_ids(
    directory: Path, vocabulary: Mapping[str, int], published: Mapping[int, str], special: Mapping[str, int]
) -> None:
    """Refuse files in which a special token's id is taken or differs: the LLM's rows are addressed by them."""
    taken = {id_: name for name, id_ in vocabulary.items() if name not in special}
    for name, id_ in special.items():
        given = vocabulary.get(name, id_)
        if given != id_ or id_ in taken or published.get(id_, name) != name:
            raise CheckpointError(
                f"{directory}: special token {name!r} must have id {id_}, which belongs to "
                f"{taken.get(id_, published.get(id_, f'another token, while it has {given}'))!r}: "
                "vocab.json and tokenizer_config.json do not belong together"
            )
