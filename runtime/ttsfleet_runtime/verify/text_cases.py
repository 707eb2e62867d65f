"""Golden cases of the text front end, through `encode.tokenizer`, `encode.normalize` and `encode.split`.

They are recorded for both model versions; a version is run when its random model lies beside the cases.
"""

from __future__ import annotations

from pathlib import Path

from ttsfleet_runtime.encode.normalize import (
    TextNormalizer,
    contains_chinese,
    is_only_punctuation,
    remove_brackets,
    remove_spaces,
    replace_corner_marks,
)
from ttsfleet_runtime.encode.number_words import spell_out_numbers
from ttsfleet_runtime.encode.split import split_text
from ttsfleet_runtime.encode.tokenizer import TextTokenizer
from ttsfleet_runtime.encode.verbalize import Verbalizer
from ttsfleet_runtime.verify.registry import Case, Context, Outputs, golden


@golden("text_tokenize")
def text_tokenize(case: Case, context: Context) -> Outputs:
    """Ids of each text, their text without special tokens, and the table of special tokens."""
    special: dict[str, dict[str, int]] = {}
    outputs: dict[str, object] = {"special_tokens": special}
    for version, tokenizer in _tokenizers(context.goldens_dir).items():
        special[f"v{version}"] = tokenizer.special_tokens()
        outputs[f"v{version}"] = [
            {"text": text, "ids": ids, "decoded": tokenizer.decode(ids)}
            for text in (entry["text"] for entry in case.document[f"v{version}"])
            for ids in [tokenizer.encode(text)]
        ]
    return outputs


@golden("text_normalize")
def text_normalize(case: Case, context: Context) -> Outputs:
    """Each text with wetext, with the rules alone and with normalisation off; whole and in segments."""
    outputs: dict[str, object] = {}
    verbalizer = Verbalizer(keep_quirks=True)
    for version, tokenizer in _tokenizers(context.goldens_dir).items():
        with_wetext = TextNormalizer(tokenizer.count, verbalizer)
        rules_only = TextNormalizer(tokenizer.count, None)
        off = TextNormalizer(tokenizer.count, None, enabled=False)
        outputs[f"v{version}"] = [
            {
                "text": text,
                "wetext_split": with_wetext.segments(text),
                "wetext_nosplit": with_wetext.normalize(text),
                "none_split": rules_only.segments(text),
                "none_nosplit": rules_only.normalize(text),
                "text_frontend_false_split": off.segments(text),
            }
            for text in (entry["text"] for entry in case.document[f"v{version}"])
        ]
    return outputs


@golden("text_rules")
def text_rules(case: Case, context: Context) -> Outputs:
    """Each rule by itself; English segments are counted in version 2's tokens."""
    tokenizer = _tokenizers(context.goldens_dir)[2]
    return {
        "cases": [
            {
                "text": text,
                "contains_chinese": contains_chinese(text),
                "only_punct": is_only_punctuation(text),
                "corner": replace_corner_marks(text),
                "bracket": remove_brackets(text),
                "blank": remove_spaces(text),
                "spell": spell_out_numbers(text),
                "split_zh": split_text(text, "zh", tokenizer.count),
                "split_en": split_text(text, "en", tokenizer.count),
            }
            for text in (entry["text"] for entry in case.document)
        ]
    }


def _tokenizers(goldens_dir: Path) -> dict[int, TextTokenizer]:
    directories = {version: goldens_dir / f"cosyvoice{version}-random" / "CosyVoice-BlankEN" for version in (2, 3)}
    return {
        version: TextTokenizer.from_directory(directory, version)
        for version, directory in directories.items()
        if directory.is_dir()
    }
