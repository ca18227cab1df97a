"""A judge that thinks is read after its thoughts, or refused where its first token has to tell."""

from dataclasses import replace
from pathlib import Path

import pytest

from actors.engine import Delta, FinishReason
from jobs.judges import grade as grading
from jobs.judges.grade import GradeTask, find_rating, grade_answers
from jobs.judges.pairwise import PairwiseTask, judge_pairs
from jobs.judges.verdicts import JudgeRefused
from jobs.records import Answer, CallResult, Generator, Row
from jobs.store import Store


@pytest.mark.parametrize(
    ("says", "rating"),
    [
        ("<think>Perhaps [[3]], or [[4]].</think>\n\nRating: [[7]]", 7),
        ("Perhaps [[3]].</think>\nRating: [[7]]", 7),  # the template has begun the thought
        ("<think>\nPerhaps [[3]]. I go on", None),  # cut within the thought
        ("<thinking>[[3]]</thinking>[[7]]", 7),
        ("[THINK][[3]][/THINK]Rating: [[7]]", 7),
        ("◁think▷[[3]]◁/think▷[[7]]", 7),
        ("<seed:think>[[3]]</seed:think>[[7]]", 7),
        (
            "<|channel|>analysis<|message|>[[3]]<|end|><|start|>assistant<|channel|>final<|message|>"
            "Rating: [[7]]",
            7,
        ),
        ("<|channel|>analysis<|message|>I would say [[3]]", None),
        ("Here is my thought process: [[3]]. Here is my response: Rating: [[7]]", 7),
        ("<reasoning>[[3]]</reasoning>\nRating: [[7]]", 7),
        ("<Analysis>\n[3]\n</Analysis>[7]", 7),
        ("Good <b>text</b>. [[7]]", 7),
        ("It is [[7]]; a second `</think>` would be odd.", 7),
        ("[[6.5]] as it says [[9]]", 6.5),  # no thought: the first number, as in FastChat
    ],
)
def test_a_number_within_a_thought_is_no_rating(says: str, rating: float | None) -> None:
    assert find_rating(says) == rating


class Calls:
    """Calls to a judge that always gives the same answer."""

    def __init__(self, *answers: Delta) -> None:
        self.answers = list(answers)
        self.made = 0

    async def complete(self, *_: object) -> CallResult:
        self.made += 1
        answer = self.answers[min(self.made, len(self.answers)) - 1]
        return CallResult(answer, b"key", was_stored=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two rows that two generators have answered."""
    with Store.open(tmp_path) as store:
        store.add_rows(Row(n, (f"q{n}",)) for n in range(2))
        for name in ("base", "ours"):
            store.add_generator(Generator(name, "file", name))
            store.add_answers(Answer(name, n, 0, f"{name} {n}") for n in range(2))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "reasoning", "finish", "cause"),
    [
        (
            "",
            "Let me see. [[3]]",
            "length",
            "no rating of the form [[5]] after its reasoning before max",
        ),
        (
            "<think>[[3]]",
            "",
            "length",
            "no rating of the form [[5]] after its reasoning before max_token",
        ),
        ("<think>[[3]]</think>Good.", "", "stop", "no rating of the form [[5]] after its reasoning"),
    ],
)
async def test_a_judge_that_only_thought_gave_no_grade(
    folder: Path, text: str, reasoning: str, finish: FinishReason, cause: str
) -> None:
    with Store.open(folder) as store:
        judge = Calls(Delta(text, reasoning, finish))
        summary = await grade_answers(GradeTask("judge", "ours"), store, judge)
        assert (summary.judged, summary.unusable) == (0, 2)
        assert all(each.value is None and each.cause.startswith(cause) for each in store.verdicts())


def test_grades_of_an_earlier_reading_are_those_of_another_judge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = GradeTask("judge", "ours").judge_name
    monkeypatch.setattr(grading, "READING", "the first number anywhere")
    assert GradeTask("judge", "ours").judge_name != now


def logprobs(*tokens: str) -> tuple[dict[str, object], ...]:
    top = [{"token": token, "logprob": -0.5 - n} for n, token in enumerate(tokens)]
    return ({"token": tokens[0], "logprob": -0.5, "top_logprobs": top},)


@pytest.mark.parametrize(
    "answer",
    [
        Delta("", "Okay", "length", logprobs=logprobs("Okay", "M", "m")),
        Delta("", "", "length", logprobs=logprobs("<think>", "m", "M")),
        Delta("<think>", "", "length", logprobs=logprobs("<", "m", "M")),
        Delta("", "", "length", logprobs=logprobs("[THINK]", "m", "M")),
    ],
    ids=["reasoning", "token", "text", "mistral"],
)
async def test_a_judge_of_pairs_that_thinks_is_refused_at_once(folder: Path, answer: Delta) -> None:
    judge = Calls(answer)
    with Store.open(folder) as store:
        with pytest.raises(
            JudgeRefused, match=r"'judge' thinks before it answers, .* turn its thinking"
        ):
            await judge_pairs(PairwiseTask("judge", "ours", "base"), store, judge)
        assert list(store.verdicts()) == []
    assert judge.made == 1


async def test_a_thought_among_verdicts_is_no_verdict(folder: Path) -> None:
    sound = Delta("m", "", "length", logprobs=logprobs("m", "M"))
    thought = replace_reasoning(sound, "Hm")
    with Store.open(folder) as store:
        task = replace(PairwiseTask("judge", "ours", "base"), in_flight=1)
        summary = await judge_pairs(task, store, Calls(sound, sound, thought))
        assert (summary.judged, summary.unusable) == (1, 1)
        assert [each.cause for each in store.verdicts()][1] == "the judge thought before it answered"


def replace_reasoning(answer: Delta, reasoning: str) -> Delta:
    return Delta(answer.text, reasoning, answer.finish_reason, logprobs=answer.logprobs)
