"""Grades from 1 to 10 for single answers, as MT-Bench has them given (FastChat's llm_judge)."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from actors.engine import Delta, Message
from configs.schema import Sampling
from jobs.judges import prompt as judge_prompt
from jobs.judges.prompt import JudgePrompt, PromptError, first_question
from jobs.judges.verdicts import Case, JudgeCalls, JudgeSummary, OnProgress, Verdicts
from jobs.records import Row, Verdict
from jobs.store import Store

TURNS = 2
RATINGS = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))
LEAST, MOST = 1, 10

# By FastChat's names: our file, and what each prompt must show.
ONE = ("question", "answer")
TWO = ("question_1", "answer_1", "question_2", "answer_2")
PROMPTS = {
    "single-v1": ("grade", ONE),
    "single-math-v1": ("grade_reference", (*ONE, "ref_answer_1")),
    "single-v1-multi-turn": ("grade_second_turn", TWO),
    "single-math-v1-multi-turn": (
        "grade_second_turn_reference",
        (*TWO, "ref_answer_1", "ref_answer_2"),
    ),
}
GradePrompts = Mapping[str, JudgePrompt]  # by FastChat's names


def prompts(path: Path | None = None) -> GradePrompts:
    """Ours, or those of a file in the format of FastChat's `judge_prompts.jsonl`.

    Raises:
        PromptError: the file cannot be read, or a prompt or a placeholder is missing.
    """
    if path is not None:
        return _from_jsonl(path)
    return {
        name: judge_prompt.from_file(judge_prompt.FOLDER / f"{file}.txt", needs)
        for name, (file, needs) in PROMPTS.items()
    }


def _from_jsonl(path: Path) -> GradePrompts:
    try:
        lines = [json.loads(line) for line in judge_prompt.read(path).splitlines() if line.strip()]
        found = {line["name"]: line for line in lines}
        wanted = {
            name: (found[name]["system_prompt"], found[name]["prompt_template"]) for name in PROMPTS
        }
    except (json.JSONDecodeError, TypeError) as error:
        raise PromptError(f"prompt file {str(path)!r} is not JSON lines: {error}") from error
    except KeyError as error:
        need = f"the prompts {', '.join(PROMPTS)} with system_prompt and prompt_template"
        raise PromptError(f"prompt file {str(path)!r} lacks {error}; it needs {need}") from error
    return {
        name: judge_prompt.checked(
            JudgePrompt(
                path.stem, (Message(role="system", content=system), Message(role="user", content=user))
            ),
            PROMPTS[name][1],
        )
        for name, (system, user) in wanted.items()
    }


@dataclass(frozen=True, slots=True)
class Grading:
    """What is to be graded, and by whom.

    model: the judge; generator: whose answers; identity: hash of what the model is, if its name alone
    does not say; max_tokens: room for the judge's reasons (FastChat's is 2048); in_flight: most calls
    at once.
    """

    model: str
    generator: str
    prompts: GradePrompts = field(default_factory=prompts)
    identity: str = ""
    max_tokens: int = 2048
    in_flight: int = 256
    on_progress: OnProgress | None = None

    @property
    def judge(self) -> str:
        """The judge's name in verdicts, its prompts included."""
        texts = [self.prompts[name] for name in PROMPTS]
        return judge_prompt.judge_name(self.model, texts, self.identity, self.max_tokens)


async def grade(task: Grading, store: Store, calls: JudgeCalls) -> JudgeSummary:
    """Grade every answered turn that has no grade yet, of the first two turns of each row.

    A second turn is graded in view of the first, and with the reference answers if the row has them.
    """
    answers = _Answers(task, store, calls)
    verdicts = Verdicts(task.judge, store, answers.decide, task.on_progress)
    return await verdicts.collect(answers.cases(), task.in_flight)


def rating(text: str) -> float | None:
    """The first number in double square brackets, or else in single ones, whatever its size."""
    for pattern in RATINGS:
        if found := pattern.search(text):
            return float(found[1])
    return None


class _Answers:
    def __init__(self, task: Grading, store: Store, calls: JudgeCalls) -> None:
        self._task = task
        self._store = store
        self._calls = calls
        self._sampling = Sampling(temperature=0, max_tokens=task.max_tokens)

    def cases(self) -> Iterator[Case]:
        name, generator = self._task.judge, self._task.generator
        for row in self._store.rows():
            for turn in range(min(TURNS, len(row.turns))):
                yield row, Verdict(name, "grade", generator, "", row.index, turn, value=None)

    async def decide(self, row: Row, case: Verdict) -> Verdict | None:
        turns = range(case.turn + 1)
        answers = [self._store.answer(case.generator, row.index, turn) for turn in turns]
        texts = [answer.text for answer in answers if answer is not None]
        if len(texts) < len(answers):
            return None
        filled = self._messages(row, texts)
        result = await self._calls.complete(self._task.model, filled, self._sampling)
        value, cause = _grade(result.whole)
        return replace(case, value=value, cause=cause, call=result.key)

    def _messages(self, row: Row, answers: list[str]) -> list[Message]:
        turn = len(answers)
        questions = [first_question(row), *row.turns[1:turn]]
        shown = {"question": questions[0], "answer": answers[0]}
        has_reference = len(row.references) >= turn and row.references[turn - 1] != ""
        kinds = {"question": questions, "answer": answers, "ref_answer": row.references[:turn]}
        for kind, texts in kinds.items():
            shown |= {f"{kind}_{n}": text for n, text in enumerate(texts, 1)}
        name = ("single-math-v1" if has_reference else "single-v1") + "-multi-turn" * (turn == TURNS)
        return self._task.prompts[name].filled(**shown)


def _grade(whole: Delta) -> tuple[float | None, str]:
    """The grade, or why there is none."""
    value = rating(whole.text)
    if value is None:
        cut = " before max_tokens" if whole.finish_reason == "length" else ""
        return None, f"no rating of the form [[5]]{cut}"
    if not LEAST <= value <= MOST:
        return None, f"rating {value:g} is not from {LEAST} to {MOST}"
    return value, ""
