"""A run whose processes are killed, one after another, while it goes on: what is lost, and what is not.

    python -m benchmarks.faults.killed [--rows 200] [--kills 10] [--seed N] [--json FILE]

A driver (`slimmoa bench run`) answers a set with scripted models that take turns in one slot, on
a Ray cluster that outlives it. At random moments SIGKILL hits the driver, a model's actor, the keeper
and Serve's controller in turn; a killed driver is started again with the same command. The engines
themselves note each call that they start. None may start that was stored before the last kill.
"""

import json as jsonlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import yaml

from benchmarks.shared.harness import Limit, report, run
from cluster import ray_runtime
from configs.schema import Recipe, Sampling
from jobs.app_choice import JOB_APP
from jobs.identity import call_key, model_identity
from jobs.store import FILE, Store, StoreError, database

T = TypeVar("T")

REPLICA = f"ray::ServeReplica:{JOB_APP}"
DRIVER = "driver"
# What is killed, in turn, and how its process calls itself; the driver is our own child.
KINDS = {DRIVER: "", "model": ":model-"}
KINDS |= {"keeper": "ray::RayKeeper", "controller": "ray::ServeController"}
CALLS_PER_ROW = 3
IN_FLIGHT = 64
POLL_S = 0.01
GIVE_UP_S = 120.0
END_S = 10.0


def recipe(journal: Path, start_s: float) -> Recipe:
    """Two proposers and an aggregator in one slot, at about 17 calls per second."""
    model = {"engine": "scripted", "tokens": 20, "first_token_s": 0.05, "token_s": 0.0095}
    model |= {"start_s": start_s}
    model |= {"concurrency": 4, "weight_bytes": 1_000_000, "journal": str(journal)}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": dict.fromkeys(("a", "b", "writer"), model),
            "layers": [{"proposers": [{"model": "a"}, {"model": "b"}]}],
            "aggregator": {"model": "writer"},
        }
    )


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill. keys: of the calls that were stored before; noted: bytes of the journal after that;
    answered: rows then; idle_s: until the next call was stored."""

    what: str
    keys: frozenset[bytes]
    noted: int
    answered: int
    idle_s: float


@contextmanager
def cluster() -> Iterator[str]:
    """A Ray cluster below this process; yields its address."""
    ray_runtime.connect(None, verbose=False)
    try:
        import ray

        yield ray.get_runtime_context().gcs_address
    finally:
        ray_runtime.disconnect(None, local=True)


class Job:
    """A run, and its driver of the moment. start_s: of each model's engine."""

    def __init__(self, folder: Path, rows: int, address: str, start_s: float = 0) -> None:
        self.folder, self.journal, self._log = folder / "run", folder / "journal.jsonl", folder / "log"
        self.recipe = recipe(self.journal, start_s)
        questions = [{"instruction": f"Question {n}: why?"} for n in range(rows)]
        (folder / "set.json").write_text(jsonlib.dumps(questions), "utf-8")
        settings = self.recipe.model_dump(mode="json", exclude_defaults=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(settings), "utf-8")
        files = ["--set", str(folder / "set.json"), "--config", str(folder / "recipe.yaml")]
        self._command = [sys.executable, "-m", "cli", "bench", "run", *files, "--out", str(self.folder)]
        self._command += ["--in-flight", str(IN_FLIGHT)]
        # `connect` has set these for Ray's processes, and a driver is none of them.
        own = {k: v for k, v in os.environ.items() if k not in ray_runtime.REPLICA_ENVIRONMENT}
        self._environment = own | {"RAY_ADDRESS": address}

    def start(self) -> None:
        """Start a driver, the first or the next one."""
        with self._log.open("ab") as log:
            self._driver = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )

    def kill(self, kind: str, chance: random.Random) -> Kill:
        """Kill one process of a kind; a driver is started again. Returns when work has gone on."""
        pid, what = self.until(lambda: self._target(kind, chance))
        keys, noted = frozenset(self._keys()), self.journal.stat().st_size
        answered = self._count("answers")
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        if kind == DRIVER:
            self._driver.wait()
            self.start()
        before = self._count("calls")
        self.stored(before + 1)
        return Kill(what, keys, noted, answered, time.monotonic() - killed)

    def stored(self, calls: int) -> None:
        """Return when so many calls are stored."""
        self.until(lambda: self._count("calls") >= calls)

    def until(self, look: Callable[[], T | None]) -> T:
        """What `look` finds at last. A driver that ends meanwhile ends the benchmark."""
        give_up = time.monotonic() + GIVE_UP_S
        while not (found := look()):
            if self._driver.poll() is not None or time.monotonic() > give_up:
                code = self._driver.poll()
                how = "is stuck" if code is None else f"ended with {code}"
                raise SystemExit(f"the driver {how}; drivers printed:\n{self.said()}")
            time.sleep(POLL_S)
        return found

    def ended(self) -> int:
        """The driver's exit code, when it has ended."""
        return self._driver.wait(GIVE_UP_S)

    def stop(self) -> None:
        """End the driver, should it still run."""
        self._driver.kill()
        self._driver.wait()

    def said(self) -> str:
        """What all drivers have printed."""
        return self._log.read_text("utf-8")

    def _target(self, kind: str, chance: random.Random) -> tuple[int, str] | None:
        if kind == DRIVER:
            return self._driver.pid, DRIVER
        found = sorted((pid, title) for pid, title in processes().items() if KINDS[kind] in title)
        pid, title = chance.choice(found) if found else (0, "")
        return (pid, title.rsplit(":", 1)[-1].split(".")[0]) if found else None

    def _count(self, table: str) -> int:
        """0 as well before there is a store, and while it is made."""
        if not (self.folder / FILE).is_file():
            return 0
        with suppress(StoreError):
            return int(self._read(f"SELECT count(*) FROM {table}")[0][0])
        return 0

    def _keys(self) -> list[bytes]:
        return [key for (key,) in self._read("SELECT key FROM calls")]

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        store = database.open_for_reading(self.folder / FILE)
        try:
            return store.execute(query).fetchall()
        finally:
            store.close()


def processes() -> dict[int, str]:
    """Processes below this one, by id, as they call themselves."""
    titles, children = {}, defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text("utf-8", "replace").rsplit(") ", 1)[1].split()[1])
            title = (folder / "cmdline").read_text("utf-8", "replace").rstrip("\0")
        except OSError:
            continue  # it has just ended
        titles[int(folder.name)] = title
        children[parent].append(int(folder.name))
    family = list(children[os.getpid()])
    for process in family:
        family += children[process]
    return {process: titles[process] for process in family if titles[process]}


def engine_calls(job: Job) -> list[tuple[int, bytes]]:
    """Calls that engines started: where each stands in the journal, in bytes, and its key."""
    identities = {name: model_identity(model) for name, model in job.recipe.models.items()}
    calls, at = [], 0
    for line in job.journal.read_bytes().splitlines(keepends=True):
        call = jsonlib.loads(line)
        sampling = Sampling.model_validate(call["sampling"])
        model = call["model"]
        calls.append((at, call_key(model, identities[model], call["messages"], sampling)))
        at += len(line)
    return calls


def whole_rows(store: Store, generator: str) -> int:
    """Rows with an answer that is made of stored calls, one of each model."""
    rows = [
        answer.row
        for answer in store.answers(generator)
        if len(answer.used) == CALLS_PER_ROW
        and all(store.call(used.key) is not None for used in answer.used)
        and not answer.missing
    ]
    return len(set(rows)) if len(set(rows)) == len(rows) else 0


def left_processes() -> int:
    """Processes of the application, once they have had time to end."""
    give_up = time.monotonic() + END_S
    while left := sum(title.startswith(REPLICA) for title in processes().values()):
        if time.monotonic() > give_up:
            break
        time.sleep(POLL_S)
    return left


def killed_run(job: Job, rows: int, kills: int, chance: random.Random) -> tuple[list[Kill], int]:
    """The kills, and the exit code of the last driver."""
    moments = sorted(chance.sample(range(1, CALLS_PER_ROW * rows - kills), kills))
    done, kinds = [], list(KINDS)
    job.start()
    try:
        for number, moment in enumerate(moments):
            job.stored(moment)
            done.append(job.kill(kinds[number % len(kinds)], chance))
        return done, job.ended()
    finally:
        job.stop()


def main(
    *,
    rows: Annotated[int, typer.Option(min=8, help="Rows of the set.")] = 200,
    kills: Annotated[int, typer.Option(min=1, help="How many processes to kill.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the moments, and of which model.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """A run whose processes are killed while it goes on; about three minutes."""
    with tempfile.TemporaryDirectory(prefix="slimmoa-killed-") as folder, cluster() as address:
        job = Job(Path(folder), rows, address)
        done, code = killed_run(job, rows, kills, random.Random(seed))
        left = left_processes()
        calls = engine_calls(job)
        with Store.open(job.folder, read_only=True) as store:
            whole = whole_rows(store, job.recipe.name)
            answered, failures = store.answered_count(job.recipe.name), len(store.failures())
    repeated = sum(key in kill.keys for kill in done for at, key in calls if at >= kill.noted)
    distinct = len({key for _, key in calls})
    limits = [
        Limit("calls that an engine started again though their result was stored", repeated, 0),
        Limit("rows with one whole answer", whole, rows, at_least=True),
        Limit("rows answered", answered, rows),
        Limit("rows that failed", failures, 0),
        Limit("exit code of the last driver", code, 0),
        Limit("processes of the application left", left, 0),
    ]
    title = f"{rows} rows, seed {seed}: {distinct} different engine calls, {len(calls)} started"
    report(title, _table(done), limits, json)


def _table(kills: Sequence[Kill]) -> list[dict[str, Any]]:
    return [
        {"kill": number, "of": kill.what, "calls stored": len(kill.keys)}
        | {"rows answered": kill.answered, "s until the next call was stored": kill.idle_s}
        for number, kill in enumerate(kills, 1)
    ]


if __name__ == "__main__":
    run(main)
