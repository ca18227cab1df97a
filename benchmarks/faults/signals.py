"""Signals at every moment of `serve`, `bench run` and `ask`: when all is gone, and what is left.

    python -m benchmarks.faults.signals [serve|bench|ask] [--moment NAME] [--signal INT] [--json FILE]

A command is started in a user's environment, and gets SIGINT, SIGTERM or SIGHUP at a moment that is
found by what the command prints, by what it has loaded, by its processes, or by what a server sees of
it, and never by sleeping. Every process of a trial carries a mark in its environment, so that orphans
are found too.

A trial is good if the command ends within 10 s, with exit code 130, 143 or 129 (or by the signal
itself), at most one line, no traceback, and no process left.
"""

import json as jsonlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from benchmarks.shared.harness import free_port

MARK = "SLIMMOA_SIGNAL_TRIAL"
LIMIT_S = 10.0
"""Most seconds from the signal to the end of the command and of all of its processes."""
GIVE_UP_S = 60.0
"""Longest wait for a moment."""
LOOK_S = 0.005
SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP}


class Trial:
    """One command under trial.

    Args:
        command: the command and its arguments.
        folder: where it runs, and where its output goes.
    """

    def __init__(self, command: list[str], folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = folder
        environment = {name: os.environ[name] for name in ("PATH", "HOME")} | {MARK: self.mark}
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )

    def errors(self) -> str:
        """What the command has printed to standard error."""
        return (self.folder / "err").read_text("utf-8", "replace")

    def has_loaded(self, library: str) -> bool:
        """Whether the command's process has loaded a library of this name."""
        with suppress(OSError):
            return library in Path(f"/proc/{self.process.pid}/maps").read_text()
        return False

    def processes(self) -> dict[int, str]:
        """The processes of this trial that have not ended, with their titles."""
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with suppress(OSError):
                    if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                        title = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                        found[int(folder.name)] = title.decode(errors="replace").strip()
        return found

    def has_process(self, title: str) -> bool:
        """Whether a process of this trial has this text in its title."""
        return any(title in each for each in self.processes().values())

    def until(self, condition: Callable[[], bool]) -> None:
        """Return once a condition holds.

        Raises:
            TimeoutError: it does not hold in time, or the command has ended.
        """
        due = time.monotonic() + GIVE_UP_S
        while not condition():
            if time.monotonic() > due or self.process.poll() is not None:
                raise TimeoutError(f"the moment did not come: {self.errors()[-300:]!r}")
            time.sleep(LOOK_S)

    def stop(self) -> None:
        """Kill what is left."""
        for pid in self.processes():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class Row:
    """How one trial ended."""

    command: str
    moment: str
    signal: str
    seconds: float
    """From the signal until no process of the trial was left."""
    exit_code: int
    """As a shell sees it: 128 and the signal's number if the signal ended the process."""
    left: int
    """Processes after the limit."""
    lines: int
    """Lines that were printed after the signal."""
    said: str
    """The first of them."""

    @property
    def is_good(self) -> bool:
        code = 128 + SIGNALS[self.signal]
        quiet = self.lines <= 1 and "Traceback" not in self.said
        return self.seconds <= LIMIT_S and self.exit_code == code and not self.left and quiet


Moment = Callable[[Trial, "Scene"], None]


class Endpoint(BaseHTTPRequestHandler):
    """A server for `ask` that stops at each step of an answer until it is told to go on."""

    step: str
    """The step at which the server stops."""
    reached: threading.Event
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._at("the list of models is asked for")
        body = jsonlib.dumps({"object": "list", "data": [{"id": "mix", "object": "model"}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._at("the question is there")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self._at("the stream is open")
        self._send(moa={"type": "proposal.delta", "place": 0, "model": "a", "text": "some"})
        self._at("a proposal grows")
        self._send(content="Some ")
        self._at("the answer has begun")
        self._send(content="words.")
        self._at("the answer goes on")
        self._send(finish_reason="stop")
        self._at("the answer is complete and the stream open")
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _send(self, moa: Any = None, finish_reason: str | None = None, **delta: str) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "mix"}
        chunk |= {"choices": [choice]} | ({"moa": moa, "choices": []} if moa else {})
        self.wfile.write(f"data: {jsonlib.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def _at(self, step: str) -> None:
        if step == type(self).step:
            type(self).reached.set()
            threading.Event().wait(GIVE_UP_S)

    def log_message(self, *_: object) -> None:
        pass


ASKED = (
    "the list of models is asked for",
    "the question is there",
    "the stream is open",
    "a proposal grows",
    "the answer has begun",
    "the answer goes on",
    "the answer is complete and the stream open",
)


@dataclass
class Scene:
    """What a trial is about: the command `slimmoa`, a folder and a port."""

    slimmoa: list[str]
    folder: Path
    port: int

    @property
    def journal(self) -> Path:
        """The file in which the scripted engines note their calls."""
        return self.folder / "journal.jsonl"

    def calls(self) -> int:
        """Calls that the engines have begun."""
        return self.journal.read_text().count("\n") if self.journal.exists() else 0

    def recipe(self, token_s: float) -> Path:
        """A file of a recipe with two models, whose answers take two seconds or so."""
        model = {"engine": "scripted", "tokens": 20, "token_s": token_s, "start_s": 1.0}
        model |= {"journal": str(self.journal), "weight_bytes": 1_000_000, "concurrency": 8}
        recipe = {
            "name": "mix",
            "models": {"a": model, "b": model},
            "layers": [{"proposers": [{"model": "a"}, {"model": "b"}]}],
            "aggregator": {"model": "a"},
        }
        file = self.folder / "recipe.yaml"
        file.write_text(yaml.safe_dump(recipe), "utf-8")
        return file

    def listens(self) -> bool:
        """Whether something listens on the port."""
        wanted = f":{self.port:04X} "
        with Path("/proc/net/tcp").open() as table:
            return any(wanted in line and " 0A " in line for line in table)


def printed(text: str) -> Moment:
    """Once the command has printed a text."""
    return lambda trial, _: trial.until(lambda: text in trial.errors())


def loaded(library: str) -> Moment:
    """Once the command has loaded a library."""
    return lambda trial, _: trial.until(lambda: trial.has_loaded(library))


def started(title: str) -> Moment:
    """Once the command has such a process below it."""
    return lambda trial, _: trial.until(lambda: trial.has_process(title))


def called(count: int) -> Moment:
    """Once the engines have begun so many calls."""
    return lambda trial, scene: trial.until(lambda: scene.calls() >= count)


def _listens(trial: Trial, scene: Scene) -> None:
    trial.until(scene.listens)


def _asked(trial: Trial, scene: Scene) -> None:
    """While an answer of a second is in work."""
    printed("ready")(trial, scene)
    command = [*scene.slimmoa, "ask", "Why?", "--url", f"http://127.0.0.1:{scene.port}/v1"]
    subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    called(1)(trial, scene)


def _twice(trial: Trial, scene: Scene) -> None:
    """While the command stops already, because of SIGTERM."""
    _asked(trial, scene)
    trial.process.send_signal(signal.SIGTERM)
    printed("stopping")(trial, scene)


EARLY: dict[str, Moment] = {
    "the process starts": lambda trial, _: trial.until(lambda: trial.has_loaded("libc")),
    "Python has started": loaded("_ctypes"),
    "the command line is imported": loaded("_pydantic_core"),
    "Ray is imported": loaded("_raylet"),
    "Ray's GCS starts": started("gcs_server"),
    "the raylet starts": started("raylet/raylet"),
}
SERVE: dict[str, Moment] = EARLY | {
    "Serve's controller starts": started("ray::ServeController"),
    "a model starts": started("ray::ServeReplica:slimmoa:model-"),
    "the port is open": _listens,
    "ready": printed("ready"),
    "all is printed": printed("stop: Ctrl-C"),
    "an answer is in work": _asked,
}
BENCH: dict[str, Moment] = EARLY | {
    "Ray is up": printed("starting the models"),
    "Serve's controller starts": started("ray::ServeController"),
    "a model starts": started("ray::ServeReplica:slimmoa-job"),
    "the first call": called(1),
    "a hundred calls": called(100),
    "the last call": called(3 * 60),
}
ASK: dict[str, Moment] = {
    "the process starts": EARLY["the process starts"],
    "Python has started": EARLY["Python has started"],
    "the command line is imported": EARLY["the command line is imported"],
    "OpenAI's client is imported": loaded("jiter"),
}


def trials(command: str) -> dict[str, Moment]:
    """The moments of a command, by name."""
    match command:
        case "serve":
            return SERVE
        case "bench":
            return BENCH
        case _:
            at_server = dict.fromkeys(ASKED, lambda *_: None)
            return ASK | at_server


def arguments(command: str, scene: Scene) -> list[str]:
    """The command line of a command under trial."""
    if command == "serve":
        return ["serve", str(scene.recipe(0.05)), "--port", str(scene.port)]
    if command == "bench":
        rows = [jsonlib.dumps({"prompt": f"Question {n}?"}) for n in range(60)]
        (scene.folder / "set.jsonl").write_text("\n".join(rows))
        recipe = str(scene.recipe(0.02))
        return ["bench", "run", "--set", "set.jsonl", "--config", recipe, "--out", "run"]
    return ["ask", "Why?", "--url", f"http://127.0.0.1:{scene.port}/v1"]


@contextmanager
def endpoint(scene: Scene, step: str) -> Iterator[threading.Event]:
    """A server on the scene's port that stops at a step; yields the event of reaching it."""
    reached = threading.Event()
    handler = type("At", (Endpoint,), {"step": step, "reached": reached})
    with ThreadingHTTPServer(("127.0.0.1", scene.port), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield reached
        server.shutdown()


def run_trial(slimmoa: list[str], command: str, name: str, number: str) -> Row:
    """Start a command, send it a signal at a moment, and see how it ends."""
    with tempfile.TemporaryDirectory() as temporary:
        scene = Scene(slimmoa, Path(temporary), free_port())
        moment = trials(command)[name]
        step = name if name in ASKED else ""
        with endpoint(scene, step) if command == "ask" else _nothing() as reached:
            trial = Trial([*slimmoa, *arguments(command, scene)], scene.folder)
            try:
                moment(trial, scene)
                if step and reached is not None:
                    trial.until(reached.is_set)
                return _end(trial, command, name, number)
            finally:
                trial.stop()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _end(trial: Trial, command: str, name: str, number: str) -> Row:
    before = len(trial.errors())
    began = time.monotonic()
    trial.process.send_signal(SIGNALS[number])
    with suppress(subprocess.TimeoutExpired):
        trial.process.wait(3 * LIMIT_S)
    while trial.processes() and time.monotonic() < began + 3 * LIMIT_S:
        time.sleep(LOOK_S)
    seconds = time.monotonic() - began
    left = trial.processes()
    code = trial.process.poll()
    after = re.sub(r"\r\x1b\[K|\x1b\[\?25h", "", trial.errors()[before:])
    lines = [line for line in after.splitlines() if line.strip()]
    shell = -1 if code is None else 128 - code if code < 0 else code
    said = lines[0] if lines else ""
    return Row(command, name, number, round(seconds, 1), shell, len(left), len(lines), said)


def main(
    command: Annotated[str, typer.Argument(help="serve, bench or ask; all by default.")] = "all",
    moment: Annotated[list[str] | None, typer.Option(help="Only this moment. Repeatable.")] = None,
    number: Annotated[list[str] | None, typer.Option("--signal", help="INT, TERM or HUP.")] = None,
    slimmoa: Annotated[str, typer.Option(help="The command.")] = f"{sys.executable} -m cli",
    json: Annotated[Path | None, typer.Option(help="A file to which the rows are added.")] = None,
    budget_s: Annotated[float, typer.Option(help="Begin no trial after so many seconds.")] = 1e9,
) -> None:
    """Send signals to commands and print how each of them ends."""
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no trial is left behind
    done = {(r["command"], r["moment"], r["signal"]) for r in _rows(json)}
    is_good = True
    for each in ("ask", "serve", "bench") if command == "all" else (command,):
        for name in moment or trials(each):
            for sent in number or SIGNALS:
                if (each, name, sent) in done or time.monotonic() > began + budget_s:
                    continue
                try:
                    row = run_trial(shlex.split(slimmoa), each, name, sent)
                except TimeoutError as error:
                    print(f"{each} | {name} | {sent} | {error}")
                    is_good = False
                    continue
                is_good = is_good and row.is_good
                mark = "" if row.is_good else "  <-- "
                print(
                    f"| {each} | {name} | {sent} | {row.seconds} | {row.exit_code} | {row.left} | "
                    f"{row.lines} | {row.said[:90]} |{mark}",
                    flush=True,
                )
                if json is not None:
                    with json.open("a") as file:
                        file.write(jsonlib.dumps(asdict(row)) + "\n")
    raise typer.Exit(0 if is_good else 1)


def _rows(file: Path | None) -> list[dict[str, Any]]:
    if file is None or not file.exists():
        return []
    return [jsonlib.loads(line) for line in file.read_text().splitlines()]


if __name__ == "__main__":
    typer.run(main)
