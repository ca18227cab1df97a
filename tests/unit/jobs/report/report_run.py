"""Fills a store with an invented run: a mixture, its members, variants, verdicts and an ablation."""

import asyncio
import math
import random
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.engine import Delta
from configs.schema import Recipe
from jobs import variants
from jobs.ablation.ablate import AblationTask, ablate
from jobs.identity import to_generator
from jobs.records import Answer, Failure, Generator, Progress, Row, StoredCall, UsedCall, Verdict
from jobs.store import Store
from jobs.variants import Variant

BASELINE = "gpt4_1106_preview"
JUDGE = "qwen2.5-7b, pairwise"
BEGAN = 1_795_000_000.0
"""Unix time of the start of the run."""
HOSTILE = (
    "<script>document.title = 'owned'; fetch('http://example.org/')</script>",
    "</pre></details></main><img src=x onerror=\"document.title='owned'\"> & <b>bold</b>",
    "A dollar $x^2$ and {{ braces }} {% raw %} | pipes | `ticks` *stars* https://example.org",
    "unbroken" * 60,
    "你好，世界。مرحبا بالعالم 🦙 \x00",
)
"""Texts that would break a page or a Markdown file without escaping, or that are hard to lay out."""
SKILL = {"qwen2.5-7b": 0.5, "llama-3.1-8b": 0.4, "gemma-2-9b": 0.45, "mistral-7b": 0.1, "phi-4": 0.3}
"""How good each model is, in log-odds of winning."""


def recipe() -> Recipe:
    """A recipe with three proposers, one of them also the aggregator, and two unused models."""
    models = {
        name: {
            "engine": "vllm",
            "weights": [{"hub": f"maker/{name}-instruct-awq", "revision": "1f2e3d"}],
        }
        for name in SKILL
    }
    proposers = [{"model": name} for name in list(SKILL)[:3]]
    return Recipe.model_validate(
        {
            "name": "trio",
            "description": "three quantized 7B to 9B models, one of them aggregates",
            "models": models,
            "layers": [{"proposers": proposers}],
            "aggregator": {"model": "qwen2.5-7b", "sampling": {"max_tokens": 1024}},
        }
    )


@dataclass
class InventedRun:
    """Invents answers, calls and verdicts at random, according to the skill of each generator."""

    store: Store
    rows: int
    """Number of rows."""
    gain: float = 0.45
    """How much better than its aggregator alone a mixture is, in log-odds of winning."""

    def answer_with(self, variants: Sequence[Variant]) -> Awaitable[None]:
        """Answer all rows with these variants, for `ablate`."""
        for variant in variants:
            identities = dict.fromkeys(SKILL, "1")
            self.store.add_generator(to_generator(variant, identities, 7))
        return self._answer(variants)

    async def _answer(self, variants: Sequence[Variant]) -> None:
        for variant in variants:
            answers = list(self._answers(variant))
            await asyncio.gather(*(self.store.keep_call(call) for call in self._calls(answers)))
            self.store.add_answers(answers)

    async def judge_all(self, generators: Sequence[str]) -> None:
        """Make verdicts on these generators, for `ablate`."""
        verdicts = (self._verdict(name, row) for name in generators for row in range(self.rows))
        await asyncio.gather(*(self.store.keep_verdict(verdict) for verdict in verdicts))

    def _answers(self, variant: Variant) -> Iterator[Answer]:
        for row in range(self.rows):
            chance = random.Random(f"{variant.name} {row}")
            words = int(chance.lognormvariate(4.6 + 0.3 * self._skill(variant.name), 0.5))
            text = " ".join(
                chance.choices(("a", "good", "answer", "is", "not", "always", "long"), k=words)
            )
            missing: tuple[dict[str, object], ...] = ()
            if variant.model is None and row % 97 == 5:
                missing = ({"layer": 1, "model": "gemma-2-9b", "cause": "empty", "detail": "no text"},)
            yield Answer(
                variant.name,
                row,
                0,
                f"{HOSTILE[row % len(HOSTILE)]} {text}" if row < 10 else text,
                tuple(self._used(variant, row)),
                missing,
                "length" if chance.random() < 0.02 else "stop",
                12.5,
                BEGAN + 30 * row,
            )

    def _used(self, variant: Variant, row: int) -> Iterator[UsedCall]:
        if variant.model is not None:
            yield UsedCall(0, 0, variant.model, _key(variant.model, row))
            return
        yield UsedCall(0, 0, variant.recipe.aggregator.model, _key(variant.name, row))
        for place, proposer in enumerate(variant.recipe.layers[0].proposers):
            yield UsedCall(1, place, proposer.model, _key(proposer.model, row))

    def _calls(self, answers: Iterable[Answer]) -> Iterator[StoredCall]:
        for answer in answers:
            for used in answer.used:
                chance = random.Random(f"{used.model} {answer.row}")
                words = chance.choices(("one", "proposal", "said", "this", "other", "that"), k=40)
                text = f"{HOSTILE[0]} {used.model}: {' '.join(words)}"
                yield StoredCall(used.key, used.model, 1, Delta(text, completion_tokens=40))

    def _verdict(self, generator: str, row: int) -> Verdict:
        chance = random.Random(f"{generator} judged {row}")
        hard = random.Random(f"row {row}").gauss(0, 1.5)
        value = 1 + 1 / (1 + math.exp(-(self._skill(generator) + hard + chance.gauss(0, 1) - 0.6)))
        unusable = chance.random() < 0.005
        return Verdict(
            JUDGE,
            "pairwise",
            generator,
            BASELINE,
            row,
            0,
            None if unusable else value,
            "no m or M" if unusable else "",
        )

    def _skill(self, generator: str) -> float:
        """The skill of a generator, derived from its name."""
        skill = SKILL.get(generator)
        if skill is not None:
            return skill
        by = next((SKILL[name] for name in SKILL if generator.endswith(f"-by-{name}")), 0.5)
        lost = next(
            (0.2 * SKILL[name] for name in SKILL if generator.endswith(f"-without-{name}")), 0.0
        )
        return by + self.gain - lost


def fill(store: Store, rows: int = 805, *, gain: float = 0.45) -> None:
    """Fill a store with a complete run."""
    begin(store, rows)
    invented = InventedRun(store, rows, gain)
    store.add_generator(Generator(BASELINE, "file", "0", {"file": "model_outputs.json"}))
    store.add_answers(
        Answer(BASELINE, row, 0, "the baseline's answer " * random.Random(row).randint(5, 90))
        for row in range(rows)
    )

    async def run() -> None:
        task = AblationTask(recipe(), BASELINE, JUDGE)
        findings = await ablate(task, store, invented.answer_with, invented.judge_all)
        store.set_about(ablation=findings.to_json())
        for row in (3, 4, rows - 1):
            await store.keep_failure(
                Failure("generate", "trio-with-phi-4", row, "engine_error", HOSTILE[1], attempts=3)
            )
        for each in progress(rows):
            await store.keep_progress(each)

    asyncio.run(run())


def begin(store: Store, rows: int) -> None:
    """Fill a store with a run that has its set and recipe, but no answers yet."""
    base = recipe()
    store.set_about(
        recipe=base.model_dump(mode="json", exclude_defaults=True),
        set={"name": "alpaca_eval", "identity": "5e7", "column": "instruction", "count": rows},
        seed=7,
        began=BEGAN,
    )
    store.add_rows(
        Row(row, (f"Question {row}: {HOSTILE[row % len(HOSTILE)]}",), dataset="helpful_base")
        for row in range(rows)
    )
    store.add_generator(to_generator(variants.mixture(base), dict.fromkeys(SKILL, "1"), 7))


def progress(rows: int, names: Sequence[str] = ("trio", "qwen2.5-7b", "gemma-2-9b")) -> list[Progress]:
    """The progress of two sessions with a night between them.

    The counters start from zero in each session; the rows do not.
    """
    found = []
    for session, start in enumerate((BEGAN, BEGAN + 40_000)):
        for step in range(120):
            done = (session + step / 119) / 2
            at, tokens = start + 30 * step, int(20_000 * step + 4_000 * (step % 7))
            swaps = 3 * (step // 15)
            for n, name in enumerate(names):
                share = min(1.0, max(0.0, (done - 0.1 * n) / 0.75))
                whole = (int(rows * share), 0, tokens, 30 * step, 900 * session, swaps)
                found.append(Progress(at + 0.001 * n, name, *whole))
    return found


def _key(generator: str, row: int) -> bytes:
    return random.Random(f"{generator} {row}").randbytes(16)


def make_run(folder: Path, rows: int = 805, *, gain: float = 0.45) -> Path:
    """Make a folder with a complete run."""
    folder.mkdir(parents=True, exist_ok=True)
    with Store.open(folder) as store:
        fill(store, rows, gain=gain)
    return folder
