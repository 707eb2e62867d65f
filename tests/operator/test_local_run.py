"""`ttsfleet run` and `say` with real processes: starting, watching, announcing, stopping, and every way to fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import wave
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from ttsfleet_operator.api.manifest import parse_services
from ttsfleet_operator.cli import main
from ttsfleet_operator.cli.serving import StartDisplay
from ttsfleet_operator.errors import PlanError, UsageError
from ttsfleet_operator.launch import LaunchOptions, choose_class, model_reference, prepare_launch
from ttsfleet_operator.local_server import ProcessState, StartState, free_ports
from ttsfleet_operator.machine import GPUDevice, Machine
from ttsfleet_operator.profiles import builtin_profiles

HERE = Path(__file__).resolve().parent
TABLE = builtin_profiles()
MANIFEST = """\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {name: local}
spec:
  model: {source: {pvc: {claimName: models}}}
  hardware: {classes: [{name: ada, gpu: {products: [NVIDIA-GeForce-RTX-4090]}}, {name: cpu, cpu: {}}]}
  rollout: {drain: {maxStreamSeconds: 0}}
"""
NO_GPU = Machine(4, 16384)
RTX_4090 = Machine(8, 65536, (GPUDevice(0, "NVIDIA-GeForce-RTX-4090", 24564, (8, 9)),))


class Runner:
    """Starts `ttsfleet` as a process whose `ttsfleet-runtime` is the stand-in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to(sys.executable)
        program = folder / "bin" / "ttsfleet-runtime"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "fake_runtime.py"}" "$@"\n')
        program.chmod(0o755)
        self.model = folder / "model"
        self.model.mkdir()
        self.manifest = folder / "service.yaml"
        self.manifest.write_text(MANIFEST)
        self.port, self.management_port = free_ports(2)

    def start(self, behaviour: str, *more: str) -> subprocess.Popen[str]:
        (self.model / "behaviour").write_text(behaviour)
        code = f"import sys; sys.executable = {str(self.folder / 'bin' / 'python')!r}\n"
        code += "from ttsfleet_operator.cli import main; raise SystemExit(main(sys.argv[1:]))"
        words = ["run", "-f", str(self.manifest), "--model-dir", str(self.model), "--class", "cpu"]
        words += ["--port", str(self.port), "--management-port", str(self.management_port)]
        words += ["--state-dir", str(self.folder / "state"), *more]
        return subprocess.Popen(
            [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, behaviour: str, *more: str) -> tuple[int, str]:
        process = self.start(behaviour, *more)
        output = process.communicate(timeout=60)[0]
        return process.returncode, output


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def read_until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    lines = ""
    for line in process.stdout:
        lines += line
        if word in line:
            return lines
    raise AssertionError(f"{word!r} never came:\n{lines}")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_service_is_announced_and_stops_cleanly_on_a_signal(runner: Runner, number: signal.Signals) -> None:
    process = runner.start("late")
    shown = read_until(process, "Ctrl-C stops it")
    assert f"http://127.0.0.1:{runner.port}/v1/audio/speech" in shown
    assert "waiting for llm-0" in shown
    assert "✓ llm-0" in shown
    record = yaml.safe_load((runner.folder / "state" / "server.json").read_text())
    process.send_signal(number)
    rest = process.communicate(timeout=30)[0]
    assert process.returncode == 0, rest
    assert not alive(record["pid"])
    assert not (runner.folder / "state" / "server.json").exists()


def test_rendered_engine_lies_in_the_state_folder(runner: Runner) -> None:
    process = runner.start("ready")
    read_until(process, "Ctrl-C stops it")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    engine = yaml.safe_load((runner.folder / "state" / "engine.yaml").read_text())
    assert engine["device"] == "cpu"
    assert engine["port"] == runner.port
    assert engine["management_host"] == "127.0.0.1"


def test_process_that_is_started_again_is_shown() -> None:
    console = Console(file=StringIO(), width=100)
    with StartDisplay(console) as display:
        display.show(StartState(answering=True, processes={"llm-0": ProcessState(ready=False, pid=7)}))
        display.show(StartState(answering=True, processes={"llm-0": ProcessState(ready=False, pid=None)}))
        display.show(StartState(answering=True, processes={"llm-0": ProcessState(ready=False, pid=8)}))
        display.show(StartState(answering=True, ready=True, processes={"llm-0": ProcessState(ready=True, pid=8)}))
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert shown.count("llm-0 ended and was started again") == 1
    assert shown.count("✓ llm-0") == 1


def test_second_signal_kills_a_runtime_that_does_not_end(runner: Runner) -> None:
    process = runner.start("stubborn")
    read_until(process, "Ctrl-C stops it")
    pid = yaml.safe_load((runner.folder / "state" / "server.json").read_text())["pid"]
    process.send_signal(signal.SIGINT)
    read_until(process, "Ctrl-C again")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 1
    assert not alive(pid)


def test_state_folder_serves_one_at_a_time(runner: Runner) -> None:
    process = runner.start("ready")
    read_until(process, "Ctrl-C stops it")
    runner.port, runner.management_port = free_ports(2)
    code, output = runner.run("ready")
    assert code == 2
    assert "another ttsfleet serves from" in output
    process.send_signal(signal.SIGTERM)
    assert "stopped" in process.communicate(timeout=30)[0]


def test_runtime_that_crashes_shows_its_last_words(runner: Runner) -> None:
    code, output = runner.run("crash")
    assert code == 1
    assert "ended with exit code 1 before it was ready" in output
    assert "the checkpoint is damaged: llm.pt" in output


def test_runtime_that_never_gets_ready_is_stopped_after_the_timeout(runner: Runner) -> None:
    code, output = runner.run("deaf", "--ready-timeout", "1")
    assert code == 1
    assert "not ready after 1 s: llm-0 loads" in output


def test_runtime_that_dies_while_serving_is_an_error(runner: Runner) -> None:
    process = runner.start("ready")
    read_until(process, "Ctrl-C stops it")
    os.kill(yaml.safe_load((runner.folder / "state" / "server.json").read_text())["pid"], signal.SIGKILL)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 1
    assert "the runtime ended by itself" in output


def test_taken_port_is_said_before_anything_starts(runner: Runner, speech_server: Any) -> None:
    runner.port = speech_server.port
    code, output = runner.run("ready")
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{speech_server.port}" in output
    assert "--port" in output


@pytest.mark.parametrize(
    ("options", "machine", "expected"),
    [
        (LaunchOptions(), RTX_4090, "ada"),
        (LaunchOptions(), NO_GPU, "cpu"),
        (LaunchOptions(force_cpu=True), RTX_4090, "cpu"),
        (LaunchOptions(class_name="cpu"), RTX_4090, "cpu"),
    ],
)
def test_first_class_that_fits_the_machine_is_chosen(options: LaunchOptions, machine: Machine, expected: str) -> None:
    assert choose_class(parse_services(MANIFEST)[0], TABLE, machine, options)[0].name == expected


def test_machine_without_the_asked_gpu_is_refused_and_never_silently_the_cpu(minimal_manifest: str) -> None:
    with pytest.raises(PlanError, match=r"which has no GPU.*give --cpu"):
        choose_class(parse_services(minimal_manifest)[0], TABLE, NO_GPU, LaunchOptions())


def test_forced_cpu_needs_no_cpu_class(minimal_manifest: str) -> None:
    chosen, site = choose_class(parse_services(minimal_manifest)[0], TABLE, NO_GPU, LaunchOptions(force_cpu=True))
    assert (chosen.name, site.device) == ("cpu", "cpu")


def test_unknown_class_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="has the classes ada, cpu"):
        choose_class(parse_services(MANIFEST)[0], TABLE, NO_GPU, LaunchOptions(class_name="gpu"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("pvc: {claimName: models}", "claim models is a cluster's; give --model-dir"),
        ("huggingFace: {repo: a/b}", "a/b is a Hugging Face repository.*does not download yet.*--model-dir"),
        ("oci: {reference: r.example/m}", "an OCI image"),
    ],
)
def test_model_that_would_have_to_be_fetched_names_the_remedy(source: str, message: str) -> None:
    service = parse_services(MANIFEST.replace("pvc: {claimName: models}", source))[0]
    with pytest.raises(UsageError, match=message):
        model_reference(service, "")


def test_builtin_model_is_passed_by_name_and_a_directory_by_path(tmp_path: Path) -> None:
    service = parse_services(MANIFEST.replace("pvc: {claimName: models}", "builtin: {name: tiny-en}"))[0]
    assert model_reference(service, "") == "builtin:tiny-en"
    assert model_reference(service, str(tmp_path)) == str(tmp_path)
    with pytest.raises(UsageError, match="no such directory"):
        model_reference(service, str(tmp_path / "no"))


def test_plan_that_cannot_run_is_not_started(tmp_path: Path) -> None:
    text = MANIFEST.replace("name: ada, ", "name: ada, engine: {workers: 16}, ")
    options = LaunchOptions(model_dir=str(tmp_path))
    with pytest.raises(PlanError, match="class ada cannot run here: the plan needs"):
        prepare_launch(parse_services(text)[0], TABLE, RTX_4090, options, tmp_path)


def test_sentence_is_written_as_a_file_of_the_format_of_its_ending(speech_server: Any, tmp_path: Path) -> None:
    whole, streamed = tmp_path / "a.wav", tmp_path / "b.wav"
    assert main(["say", "Hello.", "--url", speech_server.url, "-o", str(whole)]) == 0
    assert main(["say", "Hello.", "--url", f"{speech_server.url}/v1/", "-o", str(streamed), "--stream"]) == 0
    assert [body["response_format"] for body in speech_server.bodies] == ["wav", "pcm"]
    for path in (whole, streamed):
        with wave.open(str(path)) as reader:
            assert reader.getnframes() == 12000


def test_refusal_of_the_server_is_shown_in_its_words(speech_server: Any, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    speech_server.script = ["refuse"]
    assert main(["say", "Hello.", "--url", speech_server.url, "-o", str(tmp_path / "a.wav")]) == 1
    assert "the server answered 429: the queues are full" in capsys.readouterr().err


def test_server_that_is_not_there_is_a_failure_without_a_traceback(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert main(["say", "Hello.", "--url", url, "-o", str(tmp_path / "a.wav")]) == 1
    assert "the server did not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["say", " "],
        ["say", "Hello.", "-o", "speech.doc"],
        ["plan", "-f", "/nonexistent.yaml"],
    ],
)
def test_wrong_use_has_exit_code_2(words: list[str]) -> None:
    assert main(words) == 2
