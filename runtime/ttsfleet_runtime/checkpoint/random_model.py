"""`ttsfleet-runtime make-checkpoint`: a whole CosyVoice2 directory with random weights, for benchmarks and tests.

It has every file of a published directory at the wanted dimensions, needs no network, and is the same for the same
seed. ONNX files and the BPE come from the built-in voice: its speech codes (below 2,187) are a part of the released
ones. Torch is imported when weights are made.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ttsfleet_runtime.checkpoint import resolve_model_dir
from ttsfleet_runtime.checkpoint.cached import DTYPES, DType
from ttsfleet_runtime.checkpoint.dimensions import SPEAKER_SIZE, flow_dimensions, hift_dimensions, llm_dimensions
from ttsfleet_runtime.checkpoint.directory import TOKENIZER_DIR, read_json
from ttsfleet_runtime.checkpoint.random_recipe import PRESETS, Preset, qwen_config, tokenizer_config, yaml_text
from ttsfleet_runtime.checkpoint.recipe import Recipe
from ttsfleet_runtime.errors import ConfigError

if TYPE_CHECKING:
    import torch

VOICE = "random"
PROMPT_SECONDS = 5
_TOKENS_PER_SECOND = 25
_PROMPT_TEXT_TOKENS = 24
_DONOR = "builtin:tiny-en"


def make_checkpoint(out: Path, preset: Preset, *, seed: int = 0, dtype: DType = "fp16") -> Path:
    """Write the directory `out`, which must not exist or be empty, and return it.

    `dtype` is what the weights are stored in. Raises ConfigError when `out` is taken.
    """
    import torch

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already; give another --out or remove it", param="out")
    out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    _write_tokenizer(out / TOKENIZER_DIR, preset)
    (out / "cosyvoice2.yaml").write_text(yaml_text(preset))
    donor = resolve_model_dir(_DONOR)
    for name in ("campplus.onnx", "speech_tokenizer_v2.onnx"):
        shutil.copyfile(donor / name, out / name)
    torch.save({VOICE: _voice(preset, donor, generator)}, out / "spk2info.pt")
    _write_weights(out, generator, dtype)
    return out


def _write_tokenizer(folder: Path, preset: Preset) -> None:
    donor = resolve_model_dir(_DONOR) / TOKENIZER_DIR
    folder.mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(donor / name, folder / name)
    end = preset.first_special_id
    generation = {"bos_token_id": end, "eos_token_id": end}
    for name, content in {
        "config.json": qwen_config(preset),
        "tokenizer_config.json": tokenizer_config(preset),
        "generation_config.json": generation,
    }.items():
        (folder / name).write_text(json.dumps(content, indent=1))


def _voice(preset: Preset, donor: Path, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A voice with everything that sft and zero-shot need. The mel has the level and range of speech."""
    import torch

    num_tokens = PROMPT_SECONDS * _TOKENS_PER_SECOND
    num_words = len(read_json(donor / TOKENIZER_DIR / "vocab.json"))

    def ids(limit: int, count: int) -> torch.Tensor:
        return torch.randint(limit, (1, count), generator=generator, dtype=torch.int32)

    def length(count: int) -> torch.Tensor:
        return torch.tensor([count], dtype=torch.int32)

    speaker = torch.randn(1, SPEAKER_SIZE, generator=generator)
    tokens = ids(preset.speech_codes, num_tokens)
    return {
        "embedding": speaker,
        "llm_embedding": speaker,
        "flow_embedding": speaker,
        "prompt_text": ids(num_words, _PROMPT_TEXT_TOKENS),
        "prompt_text_len": length(_PROMPT_TEXT_TOKENS),
        "llm_prompt_speech_token": tokens,
        "llm_prompt_speech_token_len": length(num_tokens),
        "flow_prompt_speech_token": tokens,
        "flow_prompt_speech_token_len": length(num_tokens),
        "prompt_speech_feat": torch.randn(1, 2 * num_tokens, 80, generator=generator) * 2.0 - 6.0,
        "prompt_speech_feat_len": length(2 * num_tokens),
    }


def _write_weights(out: Path, generator: torch.Generator, dtype: DType) -> None:
    import torch

    from ttsfleet_runtime.checkpoint.bundle_files import TORCH_DTYPES
    from ttsfleet_runtime.checkpoint.random_weights import random_flow, random_hift, random_llm

    recipe = Recipe(out / "cosyvoice2.yaml")
    stored = TORCH_DTYPES[dtype]
    llm = llm_dimensions(recipe, out / TOKENIZER_DIR / "config.json")
    flow = flow_dimensions(recipe)
    torch.save(random_hift(hift_dimensions(recipe), flow.mel_bins, generator, stored), out / "hift.pt")
    torch.save(random_flow(flow, generator, stored), out / "flow.pt")
    torch.save(random_llm(llm, generator, stored), out / "llm.pt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--like", choices=sorted(PRESETS), required=True, help="whose dimensions to take")
    parser.add_argument("--random", action="store_true", required=True, help="with random weights (the only kind)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the new directory (./<like>-random)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (0)")
    parser.add_argument("--dtype", choices=DTYPES, default="fp16", help="that the weights are stored in (fp16)")


def run(args: argparse.Namespace) -> int:
    """Write the directory and print its path. Raises ConfigError when it exists already."""
    out = (args.out or Path(f"{args.like}-random")).absolute()
    make_checkpoint(out, PRESETS[args.like], seed=args.seed, dtype=args.dtype)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    sys.stderr.write(f"{args.like} with random weights, seed {args.seed}, {size / 1e6:.0f} MB\n")
    sys.stdout.write(f"{out}\n")
    return 0
