"""The program: flags, log, termination message, exit code.

Exit codes: 0 (the model is in place; its digest is the termination message and the output), 10 to 19 (`failures`),
128 + n after signal n. A second start continues where the first one ended.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from ttsfleet_runtime.fetch.config import Limits, read_config
from ttsfleet_runtime.fetch.failures import SENTENCES, Failure, FetchError, failure_of_os_error
from ttsfleet_runtime.fetch.manifest import digest_files, hash_tree
from ttsfleet_runtime.fetch.pipeline import fetch
from ttsfleet_runtime.fetch.progress import LogProgress, Progress, TerminalProgress

# Kubernetes makes the file in every container; elsewhere there is none, and none is made.
TERMINATION_LOG = Path("/dev/termination-log")
_SHOW_CURSOR = "\x1b[?25h"

logger = logging.getLogger("ttsfleet_runtime.fetch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    limits = Limits()
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="FILE", help="fetch.yaml")
    what.add_argument(
        "--print-digest", type=Path, metavar="DIR", help="print the digest of a model directory, for manifestSHA256"
    )
    parser.add_argument(
        "--termination-log",
        type=Path,
        metavar="FILE",
        help=f"termination message (else {TERMINATION_LOG} if it is there)",
    )
    parser.add_argument(
        "--stall-seconds", type=float, default=limits.stall_seconds, metavar="S", help="longest time without a byte"
    )
    parser.add_argument(
        "--lock-seconds", type=float, default=limits.lock_seconds, metavar="S", help="longest wait for another fetch"
    )
    parser.add_argument(
        "--attempts", type=int, default=limits.attempts, metavar="N", help="requests in a row that may fail"
    )
    parser.add_argument(
        "--backoff-seconds", type=float, default=limits.backoff_seconds, metavar="S", help="first pause between them"
    )
    parser.add_argument(
        "--max-gib", type=float, default=limits.max_bytes / (1 << 30), metavar="GIB", help="largest model accepted"
    )
    parser.add_argument(
        "--allow-insecure-loopback", action="store_true", help="admit http and https sources on this machine (tests)"
    )


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Do what the flags ask. Returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_at_once)
    _configure_logging()
    message = _termination_log(arguments.termination_log)
    try:
        if arguments.print_digest is not None:
            message = None
            sys.stdout.write(f"{digest_files(hash_tree(arguments.print_digest))}\n")
            return 0
        config = read_config(arguments.config)
        with _progress() as progress:
            digest = fetch(config, _limits(arguments), environment, progress)
        text = f"sha256:{digest}"
        _write(message, text)
        sys.stdout.write(f"{text}\n")
        return 0
    except FetchError as error:
        return _failed(message, error.failure, error.message)
    except OSError as error:
        return _failed(message, failure_of_os_error(error), f"{error.filename or 'the volume'}: {error.strerror}")
    except Exception:
        logger.exception("this is a fault of ttsfleet")
        return _failed(message, Failure.FAILED, "unexpected error")


def _failed(message: Path | None, failure: Failure, words: str) -> int:
    logger.error("%s (exit code %d)", words, failure)
    try:
        _write(message, SENTENCES[failure])
    except OSError as error:
        logger.error("the termination message cannot be written: %s", error.strerror)
    return int(failure)


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.write_text(text)


def _termination_log(given: Path | None) -> Path | None:
    if given is not None:
        return given
    return TERMINATION_LOG if TERMINATION_LOG.is_file() else None


def _limits(arguments: argparse.Namespace) -> Limits:
    return Limits(
        stall_seconds=arguments.stall_seconds,
        lock_seconds=arguments.lock_seconds,
        attempts=arguments.attempts,
        backoff_seconds=arguments.backoff_seconds,
        max_bytes=int(arguments.max_gib * (1 << 30)),
        allow_loopback=arguments.allow_insecure_loopback,
    )


def _progress() -> Progress:
    return TerminalProgress() if sys.stderr.isatty() else LogProgress()


def _configure_logging() -> None:
    """Our own loggers only: those of libraries would tell whole URLs, signatures included."""
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Stderr:
    """What stderr is at the moment: a progress bar takes its place, so that lines do not end up in it."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """What is on the volume is valid at any moment, so there is nothing to end in order. As the first process of a
    container it would not be ended by a signal that it does not handle."""
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())
    os._exit(128 + number)
