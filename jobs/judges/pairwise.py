"""Judges which of two answers is better, with the method of AlpacaEval 2.

The prompt names the first answer `m` and the second `M`. One call per pair asks the judge for one
token, the name of the better answer. The probabilities of the two names give the preference, as in
alpaca_eval's `weighted_alpaca_eval_gpt4_turbo` and `logprob_parser`.
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
from actors.text.thinking_marks import FAMILIES
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
    VerdictCollector,
)
from jobs.records import CallResult, Row, Verdict
from jobs.store import Store

PLACEHOLDERS = ("instruction", "output_1", "output_2")
"""Placeholders that a pairwise prompt must have."""
SAMPLING = Sampling(temperature=0, max_tokens=1, top_logprobs=5)
"""How the judge is sampled: one token, with the probabilities of the five likeliest ones."""
SPACES = ("", " ", "▁")
"""What a tokenizer may put before a word; the last one is SentencePiece's space."""
THOUGHT_MARKS = frozenset(mark for family in FAMILIES for mark in family.begins)
"""Marks that begin a thought."""
CERTAIN = 0.999
"""A judge that gives a token this probability or more need not list other tokens."""


def load_prompt(path: Path | None = None) -> JudgePrompt:
    """The pairwise prompt in a file; without a path, the project's own prompt.

    Raises:
        PromptError: the file cannot be read, or lacks a placeholder.
    """
    return judge_prompt.read_prompt(path or judge_prompt.FOLDER / "pairwise.txt", PLACEHOLDERS)


@dataclass(frozen=True, slots=True)
class PairwiseTask:
    """Which pairs of answers are to be compared, and by which judge."""

    model: str
    """Name of the model that judges."""
    generator: str
    """The generator whose answers are judged."""
    baseline: str
    """The generator whose answers the judged answers are compared with."""
    prompt: JudgePrompt = field(default_factory=load_prompt)
    """The judge's prompt."""
    identity: str = ""
    """The judging model's `identity.model_identity`; empty if the name alone identifies the model."""
    in_flight: int = 256
    """Most calls to the judge at once."""
    on_progress: OnProgress | None = None
    """Gets a summary after each pair."""

    @property
    def judge_name(self) -> str:
        """The judge's name in verdicts, with a hash of the prompt and of `identity`."""
        return judge_prompt.name_with_hash(self.model, [self.prompt], self.identity)


async def judge_pairs(task: PairwiseTask, store: Store, calls: JudgeCalls) -> JudgeSummary:
    """Judge every row that both generators answered and that has no verdict yet.

    Only the first turn of a row is judged. Later turns follow each generator's own earlier answers, so
    the two generators do not answer the same conversation there.

    Raises:
        JudgeRefused: a trial call to the judge failed or gave no log-probabilities. Then no verdict
            is stored, except on pairs of equal answers, which need no judge.
    """
    judge = _PairJudge(task, store, calls)
    collector = VerdictCollector(task.judge_name, store, judge.judge_pair, task.on_progress)
    return await collector.collect(judge.cases(), task.in_flight)


def is_switched(instruction: str) -> bool:
    """Whether the judge sees the generator's answer before the baseline's.

    As in alpaca_eval, the order is drawn from the instruction with seed 0. So the order is the same for
    every generator and every judge.
    """
    draw = random.Random(f"is_switched_outputs{instruction}0")
    return draw.choices([False, True])[0]


def first_wins(top: Sequence[Mapping[str, Any]]) -> float | None:
    """The probability that the first answer wins, P(m) / (P(m) + P(M)).

    The first answer has the name `m`, and the second answer the name `M`. A name that is not among the
    tokens has probability 0, as in `logprob_parser`. The official parser accepts only the bare names.
    Some tokenizers begin a text with a space, so this function takes the spelling of the names that has
    the most probability.

    Args:
        top: The likeliest first tokens, each with `token` and `logprob`.

    Returns:
        A probability, or None if neither name is among the tokens.
    """
    spelled = [(_probability(top, f"{space}m"), _probability(top, f"{space}M")) for space in SPACES]
    first, second = max(spelled, key=sum)
    return first / (first + second) if first + second > 0 else None


def _probability(top: Sequence[Mapping[str, Any]], token: str) -> float:
    """The probability of a token; 0 if the token is not listed."""
    return sum(math.exp(t["logprob"]) for t in top if t["token"] == token)


class _PairJudge:
    """Judges one pair after another; a trial call before the first pair shows whether it can."""

    def __init__(self, task: PairwiseTask, store: Store, calls: JudgeCalls) -> None:
        self._task = task
        self._store = store
        self._calls = calls
        self._trial: asyncio.Task[None] | None = None

    def cases(self) -> Iterator[Case]:
        """Yield a case for each row."""
        task, name = self._task, self._task.judge_name
        for row in self._store.rows():
            yield row, Verdict(name, "pairwise", task.generator, task.baseline, row.index, 0, None)

    async def judge_pair(self, row: Row, case: Verdict) -> Verdict | None:
        """The verdict on the two answers to a row; None if one of them is missing."""
        base = self._store.answer(case.baseline, row.index, 0)
        candidate = self._store.answer(case.generator, row.index, 0)
        if base is None or candidate is None:
            return None
        if base.text == candidate.text:
            return replace(case, value=1.5, cause=IDENTICAL)
        instruction = first_question(row)
        switched = is_switched(instruction)
        shown = (candidate.text, base.text) if switched else (base.text, candidate.text)
        await self._require_log_probabilities()
        result = await self._ask(instruction, *shown)
        p = None if _thinks(result.whole) else first_wins(_top(result.whole))
        if p is None:
            cause = _why_unusable(result.whole)
            return replace(case, cause=cause, switched=switched, call=result.key)
        return replace(case, value=1 + p if switched else 2 - p, switched=switched, call=result.key)

    async def _ask(self, instruction: str, output_1: str, output_2: str) -> CallResult:
        messages = self._task.prompt.fill(instruction=instruction, output_1=output_1, output_2=output_2)
        return await self._calls.complete(self._task.model, messages, SAMPLING)

    async def _require_log_probabilities(self) -> None:
        """Raise JudgeRefused if a trial call fails; all pairs share this one call."""
        if self._trial is None:
            self._trial = asyncio.create_task(self._try_judge())
        await self._trial

    async def _try_judge(self) -> None:
        # Each trial asks for a new word. The same question would get its earlier answer from the store,
        # which may lack log-probabilities although the judge has been repaired since.
        word = secrets.token_hex(4)
        try:
            whole = (await self._ask(f"Write the word {word}.", word, "No.")).whole
        except RequestError as error:
            raise self._refusal(f"failed at a trial call: {error.message}") from error
        if _thinks(whole):
            raise JudgeRefused(
                f"judge {self._task.model!r} thinks before it answers, and its first token tells "
                "nothing: turn its thinking off (docs/thinking.md), or have it grade (bench grade)"
            )
        top = _top(whole)
        if not top:
            raise self._refusal(f"returned no top_logprobs with its answer {whole.text!r}")
        known = math.exp(top[0]["logprob"])
        if len(top) == 1 and known < CERTAIN:
            raise self._refusal(f"listed only {top[0]['token']!r} with probability {known:.3f}")

    def _refusal(self, what: str) -> JudgeRefused:
        need = f"a judge must give log-probabilities (top_logprobs={SAMPLING.top_logprobs})"
        return JudgeRefused(f"judge {self._task.model!r} {what}; {need}")


def _top(whole: Delta) -> Sequence[Mapping[str, Any]]:
    """The likeliest first tokens of an answer; entries that do not have OpenAI's form are left out."""
    top = (whole.logprobs[0].get("top_logprobs") or ()) if whole.logprobs else ()
    return [
        t for t in top if isinstance(t.get("token"), str) and isinstance(t.get("logprob"), float | int)
    ]


def _thinks(whole: Delta) -> bool:
    """Whether an answer of the judge begins with a thought."""
    first = next((token.get("token") for token in whole.logprobs), "")
    begins = isinstance(first, str) and first.strip() in THOUGHT_MARKS
    return begins or bool(whole.reasoning.strip()) or whole.text.strip() in THOUGHT_MARKS


def _why_unusable(whole: Delta) -> str:
    """Say why an answer of the judge is no verdict."""
    if _thinks(whole):
        return "the judge thought before it answered"
    tokens = ", ".join(repr(t["token"]) for t in _top(whole))
    return f"neither m nor M among {tokens}" if tokens else "no log-probabilities"
