"""Grades single answers from 1 to 10, with the method of MT-Bench (FastChat's `llm_judge`)."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from actors.engine import Delta, Message
from actors.text.thinking import split, without_reasoning
from actors.text.thinking_marks import FAMILIES
from configs.schema import Sampling
from jobs.judges import prompt as judge_prompt
from jobs.judges.prompt import JudgePrompt, PromptError, first_question
from jobs.judges.verdicts import Case, JudgeCalls, JudgeSummary, OnProgress, VerdictCollector
from jobs.records import Row, Verdict
from jobs.sets.known_sets import MT_BENCH_WITH_REFERENCE, is_mt_bench
from jobs.store import Store

TURNS = 2
"""The first so many turns of a row are graded; MT-Bench has prompts for two."""
RATINGS = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))
"""Forms of a rating in the judge's answer, in the order in which FastChat looks for them."""
LEADING_BLOCK = re.compile(
    r"\A\s*<(reason|reasoning|analysis|reflection|scratchpad|thoughts)>.*?</\1>",
    re.DOTALL | re.IGNORECASE,
)
"""A block of reasoning at the beginning of an answer, in tags that no family of models has of itself
but that prompts ask for."""
READING = "after reasoning, references by category"
"""How a rating is read and a prompt is chosen. The text counts in a judge's name: grades that an
earlier version stored, and that may be numbers of the judge's reasoning, are those of another judge."""
LEAST = 1
"""The lowest grade."""
MOST = 10
"""The highest grade."""

FIRST_TURN = ("question", "answer")
"""Placeholders of a prompt that grades a first turn."""
SECOND_TURN = ("question_1", "answer_1", "question_2", "answer_2")
"""Placeholders of a prompt that grades a second turn."""
PROMPTS = {
    "single-v1": ("grade", FIRST_TURN),
    "single-math-v1": ("grade_reference", (*FIRST_TURN, "ref_answer_1")),
    "single-v1-multi-turn": ("grade_second_turn", SECOND_TURN),
    "single-math-v1-multi-turn": (
        "grade_second_turn_reference",
        (*SECOND_TURN, "ref_answer_1", "ref_answer_2"),
    ),
}
"""For each prompt, by FastChat's name: the project's own file without its ending, and the placeholders
that the prompt must have. The prompts with `math` are for rows with reference answers."""
GradePrompts = Mapping[str, JudgePrompt]
"""The four prompts by FastChat's names."""


def load_prompts(path: Path | None = None) -> GradePrompts:
    """The prompts of a file in the format of FastChat's `judge_prompts.jsonl`; without a path, the
    project's own prompts.

    Raises:
        PromptError: the file cannot be read, or a prompt or a placeholder is missing.
    """
    if path is not None:
        return _read_jsonl(path)
    return {
        name: judge_prompt.read_prompt(judge_prompt.FOLDER / f"{file}.txt", needs)
        for name, (file, needs) in PROMPTS.items()
    }


def _read_jsonl(path: Path) -> GradePrompts:
    try:
        text = judge_prompt.read_text(path)
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
        found = {line["name"]: line for line in lines}
        names = [line["name"] for line in lines]
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise PromptError(f"prompt file {str(path)!r} has several prompts {doubled!r}")
        wanted = {
            name: (found[name]["system_prompt"], found[name]["prompt_template"]) for name in PROMPTS
        }
    except (json.JSONDecodeError, TypeError) as error:
        raise PromptError(f"prompt file {str(path)!r} is not JSON lines: {error}") from error
    except KeyError as error:
        need = f"the prompts {', '.join(PROMPTS)} with system_prompt and prompt_template"
        raise PromptError(f"prompt file {str(path)!r} lacks {error}; it needs {need}") from error
    prompts = {}
    for name, (system, user) in wanted.items():
        messages = Message(role="system", content=system), Message(role="user", content=user)
        prompts[name] = JudgePrompt(path.stem, messages)
        judge_prompt.require_placeholders(prompts[name], PROMPTS[name][1])
    return prompts


@dataclass(frozen=True, slots=True)
class GradeTask:
    """Which answers are to be graded, and by which judge."""

    model: str
    """Name of the model that judges."""
    generator: str
    """The generator whose answers are graded."""
    prompts: GradePrompts = field(default_factory=load_prompts)
    """The judge's prompts."""
    identity: str = ""
    """The judging model's `identity.model_identity`; empty if the name alone identifies the model."""
    references: Mapping[int, tuple[str, ...]] | None = None
    """Reference answers in place of the set's own, one per turn, by the row's index; None takes those
    of the set."""
    max_tokens: int = 2048
    """Most tokens of the judge's answer, which gives reasons; 2048 as in FastChat."""
    in_flight: int = 256
    """Most calls to the judge at once."""
    on_progress: OnProgress | None = None
    """Gets a summary after each turn of a row, also if the turn could not be graded."""

    @property
    def judge_name(self) -> str:
        """The judge's name in verdicts, with a hash of the prompts, the references that were given,
        `identity` and `max_tokens`."""
        prompts = [self.prompts[name] for name in PROMPTS]
        given = "" if self.references is None else json.dumps(sorted(self.references.items()))
        settings = (self.identity, self.max_tokens, READING, given)
        return judge_prompt.name_with_hash(self.model, prompts, *settings)


async def grade_answers(task: GradeTask, store: Store, calls: JudgeCalls) -> JudgeSummary:
    """Grade the first two turns of each row, as far as they are answered and have no verdict yet.

    A verdict without a value, which an unusable answer of the judge gave, is not made again either.

    The judge of a second turn sees the first turn too, and sees the reference answers of the row if
    there are any. Of MT-Bench's questions, only those of MT_BENCH_WITH_REFERENCE are graded with
    references, as in FastChat.
    """
    judge = _GradeJudge(task, store, calls)
    collector = VerdictCollector(task.judge_name, store, judge.grade, task.on_progress)
    return await collector.collect(judge.cases(), task.in_flight)


def shown_references(row: Row, given: Mapping[int, tuple[str, ...]] | None = None) -> tuple[str, ...]:
    """The reference answers of a row that the judge sees.

    Args:
        row: The row.
        given: Reference answers in place of the set's own, by the row's index; None takes the set's.
    """
    if is_mt_bench(row) and row.category not in MT_BENCH_WITH_REFERENCE:
        return ()
    return row.references if given is None else given.get(row.index, ())


def find_rating(text: str) -> float | None:
    """The first number in double square brackets, or else the first number in single brackets, as in
    FastChat. What the judge thought before its answer does not count.

    The number may lie outside of the range of grades. Without such a number the result is None.
    """
    answer = _after_reasoning(text)
    for pattern in RATINGS:
        if found := pattern.search(answer):
            return float(found[1])
    return None


def _after_reasoning(text: str) -> str:
    """The judge's answer without its reasoning, in whichever marks, sentences or tags that stands."""
    answer, _ = split(text, FAMILIES)
    return LEADING_BLOCK.sub("", without_reasoning(answer))


class _GradeJudge:
    """Grades one answer after another."""

    def __init__(self, task: GradeTask, store: Store, calls: JudgeCalls) -> None:
        self._task = task
        self._store = store
        self._calls = calls
        self._sampling = Sampling(temperature=0, max_tokens=task.max_tokens)

    def cases(self) -> Iterator[Case]:
        """Yield a case for each turn that is to be graded."""
        name, generator = self._task.judge_name, self._task.generator
        for row in self._store.rows():
            for turn in range(min(TURNS, len(row.turns))):
                yield row, Verdict(name, "grade", generator, "", row.index, turn, value=None)

    async def grade(self, row: Row, case: Verdict) -> Verdict | None:
        """The verdict on the answer to one turn; None if this or an earlier turn has no answer."""
        turns = range(case.turn + 1)
        answers = [self._store.answer(case.generator, row.index, turn) for turn in turns]
        texts = [answer.text for answer in answers if answer is not None]
        if len(texts) < len(answers):
            return None
        messages = self._messages(row, texts)
        result = await self._calls.complete(self._task.model, messages, self._sampling)
        value, cause = _read_grade(result.whole)
        return replace(case, value=value, cause=cause, call=result.key)

    def _messages(self, row: Row, answers: list[str]) -> list[Message]:
        """The prompt for the last of these answers, which are those to the row's first turns."""
        turn = len(answers)
        questions = [first_question(row), *row.turns[1:turn]]
        shown = {"question": questions[0], "answer": answers[0]}
        references = shown_references(row, self._task.references)
        has_reference = len(references) >= turn and references[turn - 1] != ""
        kinds = {"question": questions, "answer": answers, "ref_answer": references[:turn]}
        for kind, texts in kinds.items():
            shown |= {f"{kind}_{n}": text for n, text in enumerate(texts, 1)}
        name = ("single-math-v1" if has_reference else "single-v1") + "-multi-turn" * (turn == TURNS)
        return self._task.prompts[name].fill(**shown)


def _read_grade(whole: Delta) -> tuple[float | None, str]:
    """The grade in the judge's answer and an empty text; or None and the reason."""
    value = find_rating(whole.text)
    if value is None:
        thought = bool(whole.reasoning) or _after_reasoning(whole.text) != whole.text.strip()
        after = " after its reasoning" if thought else ""
        cut = " before max_tokens" if whole.finish_reason == "length" else ""
        return None, f"no rating of the form [[5]]{after}{cut}"
    if not LEAST <= value <= MOST:
        return None, f"rating {value:g} is not from {LEAST} to {MOST}"
    return value, ""
