"""Pairwise verdicts by a scripted judge: the prompts it gets, how answers are read, what is stored."""

import asyncio
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from actors.engine import Delta, Message
from configs.errors import BadRequest, EngineUnavailable, Overloaded
from configs.schema import Sampling
from jobs.judges import prompt as judge_prompt
from jobs.judges.pairwise import PairwiseTask, first_wins, is_switched, judge_pairs
from jobs.judges.verdicts import JudgeRefused, JudgeSummary
from jobs.records import Answer, CallResult, Generator, Row, Verdict
from jobs.store import Store

AS_IS = "Name a lake."
"""An instruction for which alpaca_eval's random_seeded_choice shows the baseline's answer first."""
SWITCHED = "Name a river."
"""An instruction for which it shows the generator's answer first."""
TRIAL = "Write the word"
"""Text that only the prompt of a trial call contains."""


def token(text: str, probability: float) -> dict[str, Any]:
    """A token with its log-probability in OpenAI's form."""
    return {"token": text, "logprob": math.log(probability), "bytes": list(text.encode())}


def says(tokens: Mapping[str, float]) -> Delta:
    """A judge's answer, which lists the likeliest first tokens with their probabilities."""
    top = [token(text, probability) for text, probability in tokens.items()]
    return Delta(text=top[0]["token"], logprobs=({**top[0], "top_logprobs": top},))


@dataclass
class Calls:
    """Calls to a judge that answers by a script; keeps the prompts that it got."""

    script: Callable[[str], Delta] = lambda _: says({"m": 0.8, "M": 0.2})
    """Makes the answer from the last message."""
    asked: list[tuple[str, list[Message], Sampling]] = field(default_factory=list)
    running: int = 0
    """How many calls are under way now."""
    most: int = 0
    """How many calls were under way at once at any time."""

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> CallResult:
        self.asked.append((model, list(messages), sampling))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            key = f"call {len(self.asked)}".encode()
            return CallResult(self.script(messages[-1]["content"]), key, was_stored=False)
        finally:
            self.running -= 1

    def prompts(self) -> list[str]:
        """The last message of each prompt about a row."""
        texts = [messages[-1]["content"] for _, messages, _ in self.asked]
        return [text for text in texts if TRIAL not in text]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


def with_answers(store: Store, *instructions: str, same: bool = False) -> Store:
    """The store with a row for each instruction, which `ours` and `base` answered."""
    store.add_rows(Row(n, (text,)) for n, text in enumerate(instructions))
    for name in ("ours", "base"):
        store.add_generator(Generator(name, "file", name))
        text = "same" if same else f"{name} says"
        store.add_answers(Answer(name, n, 0, f"{text} {n}") for n in range(len(instructions)))
    return store


TASK = PairwiseTask("judge", generator="ours", baseline="base")
FIVE = [f"Question {n}?" for n in range(5)]


class TestPreference:
    @pytest.mark.parametrize(
        ("tokens", "p"),
        [
            ({"m": 0.6, "M": 0.3, "The": 0.1}, 2 / 3),
            ({"M": 0.9, "m": 0.1}, 0.1),
            ({"m": 0.2, "Both": 0.8}, 1.0),
            ({"M": 1e-30, "Both": 0.9}, 0.0),
            ({" m": 0.3, " M": 0.6, "M": 1e-3}, 1 / 3),
            ({"▁M": 0.75, "▁m": 0.25}, 0.25),
            ({"m": 0.5, "M": 0.25, " M": 0.2}, 2 / 3),
            ({"model": 0.5, "Mm": 0.2, "(m": 0.1}, None),
        ],
    )
    def test_weighs_the_two_names_and_nothing_else(
        self, tokens: Mapping[str, float], p: float | None
    ) -> None:
        assert first_wins([token(*each) for each in tokens.items()]) == pytest.approx(p)

    def test_names_without_any_probability_are_no_answer(self) -> None:
        impossible = [{"token": name, "logprob": -9999.0} for name in "mM"]
        assert first_wins(impossible) is None

    @pytest.mark.parametrize(
        ("instruction", "switched"),
        [
            (AS_IS, False),
            (SWITCHED, True),
            ("What is 2+2?", False),
            ("Wie heißt der höchste Berg?", True),
            ("", False),
            ("Count\nto three.", False),
        ],
    )
    def test_order_is_drawn_from_the_instruction(self, instruction: str, switched: bool) -> None:
        assert is_switched(instruction) is switched

    @pytest.mark.parametrize(("instruction", "value"), [(AS_IS, 1.2), (SWITCHED, 1.8)])
    async def test_a_verdict_is_from_baseline_1_to_generator_2_in_either_order(
        self, store: Store, instruction: str, value: float
    ) -> None:
        calls = Calls()
        summary = await judge_pairs(TASK, with_answers(store, instruction), calls)
        [verdict] = store.verdicts()
        assert verdict.value == pytest.approx(value)
        assert verdict == Verdict(
            TASK.judge_name,
            "pairwise",
            "ours",
            "base",
            row=0,
            turn=0,
            value=verdict.value,
            switched=instruction == SWITCHED,
            call=b"call 2",
        )
        [asked] = calls.prompts()
        first = "ours" if instruction == SWITCHED else "base"
        assert asked.index(f"{first} says 0") == min(asked.index("ours says"), asked.index("base says"))
        assert summary == JudgeSummary(TASK.judge_name, judged=1)

    async def test_one_token_with_five_alternatives_is_asked_for_greedily(self, store: Store) -> None:
        calls = Calls()
        await judge_pairs(TASK, with_answers(store, AS_IS), calls)
        assert {(model, sampling) for model, _, sampling in calls.asked} == {
            ("judge", Sampling(temperature=0, max_tokens=1, top_logprobs=5))
        }


class TestRun:
    async def test_identical_answers_are_a_tie_and_cost_no_call(self, store: Store) -> None:
        calls = Calls()
        summary = await judge_pairs(TASK, with_answers(store, *FIVE, same=True), calls)
        assert summary == JudgeSummary(TASK.judge_name, identical=5)
        assert {(v.value, v.cause, v.call) for v in store.verdicts()} == {(1.5, "identical", None)}
        assert calls.asked == []

    async def test_an_answer_without_either_name_is_counted_and_has_no_value(
        self, store: Store
    ) -> None:
        def script(text: str) -> Delta:
            return says({"Both": 0.9, "The": 0.1} if "Question 3?" in text else {"m": 1.0})

        calls = Calls(script)
        summary = await judge_pairs(TASK, with_answers(store, *FIVE), calls)
        assert summary == JudgeSummary(TASK.judge_name, judged=4, unusable=1)
        unusable = store.verdict(TASK.judge_name, "pairwise", "ours", "base", 3, 0)
        assert unusable is not None
        assert unusable.value is None
        assert unusable.cause == "neither m nor M among 'Both', 'The'"

    async def test_what_failed_is_tried_again_and_nothing_else(self, store: Store) -> None:
        def failing(text: str) -> Delta:
            if "Question 1?" in text:
                raise Overloaded("busy", model="judge")
            return says({"M": 1.0}) if "Question 2?" not in text else says({"No": 1.0})

        first = await judge_pairs(TASK, with_answers(store, *FIVE), Calls(failing))
        assert first == JudgeSummary(TASK.judge_name, judged=3, unusable=1, failed=1)
        [failure] = store.failures("judge")
        assert (failure.generator, failure.row, failure.cause) == ("ours", 1, "overloaded")
        calls = Calls()
        second = await judge_pairs(TASK, store, calls)
        assert second == JudgeSummary(TASK.judge_name, judged=4, unusable=1, reused=4)
        assert len(calls.prompts()) == 1
        assert "Question 1?" in calls.prompts()[0]
        assert store.failures() == []

    async def test_a_finished_run_asks_nothing(self, store: Store) -> None:
        await judge_pairs(TASK, with_answers(store, *FIVE), Calls())
        calls = Calls()
        assert await judge_pairs(TASK, store, calls) == JudgeSummary(
            TASK.judge_name, judged=5, reused=5
        )
        assert calls.asked == []

    @pytest.mark.parametrize(
        "other",
        [
            replace(TASK, model="another"),
            replace(
                TASK,
                prompt=judge_prompt.parse_prompt("pairwise", "{instruction}{output_1}{output_2}", ()),
            ),
            replace(TASK, identity="other weights"),
        ],
        ids=["model", "prompt", "weights"],
    )
    async def test_another_model_or_prompt_is_another_judge(
        self, store: Store, other: PairwiseTask
    ) -> None:
        await judge_pairs(TASK, with_answers(store, *FIVE), Calls())
        assert await judge_pairs(other, store, Calls()) == JudgeSummary(other.judge_name, judged=5)
        assert len(list(store.verdicts())) == 10

    async def test_a_row_that_one_of_the_two_did_not_answer_waits(self, store: Store) -> None:
        store.add_rows(Row(n, (text,)) for n, text in enumerate(FIVE))
        store.add_generator(Generator("ours", "file", "1"))
        store.add_generator(Generator("base", "file", "2"))
        store.add_answers([Answer("ours", n, 0, "yes") for n in (0, 2)])
        store.add_answers([Answer("base", n, 0, "no") for n in (2, 4)])
        calls = Calls()
        assert await judge_pairs(TASK, store, calls) == JudgeSummary(
            TASK.judge_name, judged=1, missing=4
        )
        assert len(calls.prompts()) == 1

    @pytest.mark.parametrize("in_flight", [1, 3])
    async def test_calls_at_once_reach_their_bound_and_keep_it(
        self, store: Store, in_flight: int
    ) -> None:
        calls = Calls()
        await judge_pairs(replace(TASK, in_flight=in_flight), with_answers(store, *FIVE), calls)
        assert calls.most == in_flight

    async def test_progress_is_reported_after_each_row(self, store: Store) -> None:
        reported: list[JudgeSummary] = []
        summary = await judge_pairs(
            replace(TASK, on_progress=reported.append), with_answers(store, *FIVE), Calls()
        )
        assert [each.judged for each in reported] == [1, 2, 3, 4, 5]
        assert reported[-1] == summary

    async def test_of_a_conversation_only_the_first_turn_is_judged(self, store: Store) -> None:
        system: Message = {"role": "system", "content": "Be brief."}
        store.add_rows([Row(0, ("First?", "Second?"), before=(system,))])
        for name in ("ours", "base"):
            store.add_generator(Generator(name, "file", name))
            store.add_answers(Answer(name, 0, turn, f"{name} {turn}") for turn in (0, 1))
        calls = Calls()
        assert await judge_pairs(TASK, store, calls) == JudgeSummary(TASK.judge_name, judged=1)
        [asked] = calls.prompts()
        assert "system: Be brief.\n\nuser: First?" in asked
        assert "Second?" not in asked
        assert "ours 1" not in asked


class TestRefusal:
    @pytest.mark.parametrize(
        ("whole", "what"),
        [
            (Delta(text="m"), "'judge' returned no top_logprobs with its answer 'm'"),
            (
                Delta(text="m", logprobs=({"token": "m", "logprob": -0.1, "top_logprobs": None},)),
                "returned no top_logprobs",
            ),
            (says({"m": 0.6}), "'judge' listed only 'm' with probability 0.600"),
            (BadRequest("logprobs: unsupported"), "failed at a trial call: logprobs: unsupported"),
            (EngineUnavailable("gone"), "failed at a trial call: gone"),
        ],
    )
    async def test_a_judge_without_logprobs_is_refused_before_any_row(
        self, store: Store, whole: Delta | Exception, what: str
    ) -> None:
        def script(_: str) -> Delta:
            if isinstance(whole, Exception):
                raise whole
            return whole

        calls = Calls(script)
        with pytest.raises(JudgeRefused, match=what):
            await judge_pairs(TASK, with_answers(store, *FIVE), calls)
        assert len(calls.asked) == 1
        assert list(store.verdicts()) == []
        assert store.failures() == []

    async def test_a_mended_judge_is_asked_anew(self, store: Store) -> None:
        bad, good = Calls(lambda _: Delta(text="m")), Calls()
        with pytest.raises(JudgeRefused):
            await judge_pairs(TASK, with_answers(store, AS_IS), bad)
        await judge_pairs(TASK, store, good)
        # With the same prompt the store would return the old answer.
        assert bad.asked[0][1] != good.asked[0][1]


DATA = Path(__file__).parents[4] / "../shared/data/alpaca_eval_805.jsonl"


@pytest.mark.skipif(not DATA.exists(), reason="the AlpacaEval set is not at ../shared/data")
def test_406_of_alpaca_evals_805_pairs_are_switched() -> None:
    """alpaca_eval 0.6.6 draws the same order for each of the pairs."""
    instructions = [json.loads(line)["instruction"] for line in DATA.read_text("utf-8").splitlines()]
    assert (len(instructions), sum(map(is_switched, instructions))) == (805, 406)
