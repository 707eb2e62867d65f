"""Plays PCM as it arrives through whatever player the machine has. Starts a child process, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Sequence

from ttsfleet_operator.errors import SpeechError

PLAYERS: dict[str, Callable[[int], list[str]]] = {
    "ffplay": lambda rate: [
        *("-nodisp", "-autoexit", "-loglevel", "error", "-fflags", "nobuffer"),
        *("-f", "s16le", "-ar", str(rate), "-ch_layout", "mono", "-i", "-"),
    ],
    "aplay": lambda rate: ["-q", "-t", "raw", "-f", "S16_LE", "-r", str(rate), "-c", "1"],
    "paplay": lambda rate: ["--raw", "--format=s16le", f"--rate={rate}", "--channels=1"],
    "play": lambda rate: ["-q", "-t", "raw", "-r", str(rate), "-e", "signed", "-b", "16", "-c", "1", "-"],
}


def find_player() -> str | None:
    """The first player of the machine's PATH, by name."""
    return next((name for name in PLAYERS if shutil.which(name)), None)


class Player:
    """A player process that takes signed 16-bit little-endian mono PCM."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name

    @classmethod
    async def start(cls, name: str, sample_rate_hz: int) -> Player:
        """Start player `name` (a key of PLAYERS). Raises SpeechError when it cannot be run."""
        return await cls.start_command(name, PLAYERS[name](sample_rate_hz))

    @classmethod
    async def start_command(cls, program: str, arguments: Sequence[str]) -> Player:
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            raise SpeechError(f"player {program} cannot be started: {error}") from error
        return cls(process, program)

    async def write(self, pcm: bytes) -> None:
        """Hand over audio; waits while the player's buffer is full. Raises SpeechError when the player has died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(pcm)
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise SpeechError(
                f"player {self._name} ended while audio was coming; is a sound device present?"
            ) from error

    async def finish(self) -> None:
        """Close the input and wait until everything has been heard."""
        await self._close_input()
        await self._process.wait()

    async def stop(self) -> None:
        """End the player at once."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()
        await self._close_input()

    async def _close_input(self) -> None:
        """How the pipe ended has to be asked for: Python 3.11.2 logs it as never retrieved otherwise."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self._process.stdin.wait_closed()
