"""Which of two answers is better, as AlpacaEval 2 has it judged.

One call per pair for one token: the answers are named `m` (shown first) and `M`, and how likely the
judge is to write either name weighs its preference (alpaca_eval's `weighted_alpaca_eval_gpt4_turbo`
and `logprob_parser`).
"""

import asyncio
import math
import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from actors.engine import Delta
from configs.errors import RequestError
from configs.schema import Sampling
from jobs.judges import prompt as judge_prompt
from jobs.judges.prompt import JudgePrompt, first_question
from jobs.judges.verdicts import (
    IDENTICAL,
    Case,
    JudgeCalls,
    JudgeRefused,
    JudgeSummary,
    OnProgress,
    Verdicts,
)
from jobs.records import CallResult, Row, Verdict
from jobs.store import Store

PLACEHOLDERS = ("instruction", "output_1", "output_2")
SAMPLING = Sampling(temperature=0, max_tokens=1, top_logprobs=5)
SPACES = ("", " ", "▁")  # how tokens may begin; the last is SentencePiece's
CERTAIN = 0.999  # of a token's probability: then there is little else to list


def prompt(path: Path | None = None) -> JudgePrompt:
    """The pairwise prompt in a file, or ours.

    Raises:
        PromptError: the file cannot be read, or lacks a placeholder.
    """
    return judge_prompt.from_file(path or judge_prompt.FOLDER / "pairwise.txt", PLACEHOLDERS)


@dataclass(frozen=True, slots=True)
class Judging:
    """What is to be judged, and by whom.

    model: the judge; generator: whose answers are judged against those of baseline; identity: hash of
    what the model is, if its name alone does not say; in_flight: most calls at once.
    """

    model: str
    generator: str
    baseline: str
    prompt: JudgePrompt = field(default_factory=prompt)
    identity: str = ""
    in_flight: int = 256
    on_progress: OnProgress | None = None

    @property
    def judge(self) -> str:
        """The judge's name in verdicts, its prompt included."""
        return judge_prompt.judge_name(self.model, [self.prompt], self.identity)


async def judge(task: Judging, store: Store, calls: JudgeCalls) -> JudgeSummary:
    """Judge every row that both generators answered and that has no verdict yet.

    Of rows with several turns only the first is judged: each generator's later turns follow its own
    earlier answers, so they are no answers to one instruction.

    Raises:
        JudgeRefused: the judge gives no log-probabilities; no row was spent.
    """
    pairs = _Pairs(task, store, calls)
    verdicts = Verdicts(task.judge, store, pairs.decide, task.on_progress)
    return await verdicts.collect(pairs.cases(), task.in_flight)


def is_switched(instruction: str) -> bool:
    """Whether the generator's answer is shown first. alpaca_eval draws it from the instruction, with
    seed 0, so that it is the same for every generator and judge."""
    draw = random.Random(f"is_switched_outputs{instruction}0")
    return draw.choices([False, True])[0]


def first_wins(top: Sequence[Mapping[str, Any]]) -> float | None:
    """p = P(m) / (P(m) + P(M)) among the likeliest tokens, or None if neither is there.

    A name that is not there has probability 0, as in `logprob_parser`. That one reads tokens that are
    exactly the names; other tokenizers begin a text with a space, so of all spellings that with the
    most probability is read.
    """
    spelled = [(_probability(top, f"{space}m"), _probability(top, f"{space}M")) for space in SPACES]
    first, second = max(spelled, key=sum)
    return first / (first + second) if first + second > 0 else None


def _probability(top: Sequence[Mapping[str, Any]], token: str) -> float:
    return sum(math.exp(t["logprob"]) for t in top if t["token"] == token)


class _Pairs:
    def __init__(self, task: Judging, store: Store, calls: JudgeCalls) -> None:
        self._task = task
        self._store = store
        self._calls = calls
        self._probe: asyncio.Task[None] | None = None

    def cases(self) -> Iterator[Case]:
        task, name = self._task, self._task.judge
        for row in self._store.rows():
            yield row, Verdict(name, "pairwise", task.generator, task.baseline, row.index, 0, None)

    async def decide(self, row: Row, case: Verdict) -> Verdict | None:
        base = self._store.answer(case.baseline, row.index, 0)
        candidate = self._store.answer(case.generator, row.index, 0)
        if base is None or candidate is None:
            return None
        if base.text == candidate.text:
            return replace(case, value=1.5, cause=IDENTICAL)
        instruction = first_question(row)
        switched = is_switched(instruction)
        shown = (candidate.text, base.text) if switched else (base.text, candidate.text)
        await self._admitted()
        result = await self._ask(instruction, *shown)
        p = first_wins(_top(result.whole))
        if p is None:
            cause = _what_else(result.whole)
            return replace(case, cause=cause, switched=switched, call=result.key)
        return replace(case, value=1 + p if switched else 2 - p, switched=switched, call=result.key)

    async def _ask(self, instruction: str, output_1: str, output_2: str) -> CallResult:
        filled = self._task.prompt.filled(instruction=instruction, output_1=output_1, output_2=output_2)
        return await self._calls.complete(self._task.model, filled, SAMPLING)

    async def _admitted(self) -> None:
        """Return once the judge has shown that it can judge; it is asked once for all rows."""
        if self._probe is None:
            self._probe = asyncio.create_task(self._examine())
        await self._probe

    async def _examine(self) -> None:
        # A word of its own: what a judge could not do yesterday is in the store, and may be mended.
        word = secrets.token_hex(4)
        try:
            whole = (await self._ask(f"Write the word {word}.", word, "No.")).whole
        except RequestError as error:
            raise self._refusal(f"failed at a trial call: {error.message}") from error
        top = _top(whole)
        if not top:
            raise self._refusal(f"returned no top_logprobs with its answer {whole.text!r}")
        known = math.exp(top[0]["logprob"])
        if len(top) == 1 and known < CERTAIN:
            raise self._refusal(f"listed only {top[0]['token']!r} with probability {known:.3f}")

    def _refusal(self, what: str) -> JudgeRefused:
        asked = f"a judge must give log-probabilities (top_logprobs={SAMPLING.top_logprobs})"
        return JudgeRefused(f"judge {self._task.model!r} {what}; {asked}")


def _top(whole: Delta) -> Sequence[Mapping[str, Any]]:
    """The likeliest first tokens, as far as they are in OpenAI's form."""
    top = (whole.logprobs[0].get("top_logprobs") or ()) if whole.logprobs else ()
    return [
        t for t in top if isinstance(t.get("token"), str) and isinstance(t.get("logprob"), float | int)
    ]


def _what_else(whole: Delta) -> str:
    tokens = ", ".join(repr(t["token"]) for t in _top(whole))
    return f"neither m nor M among {tokens}" if tokens else "no log-probabilities"
