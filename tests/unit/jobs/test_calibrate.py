"""The choice of tau, on scripted members whose sureness tells their right answers."""

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine import Delta
from configs.load import load
from jobs.calibrate import (
    CalibrationError,
    Trial,
    calibrate,
    known_answer,
    outcome,
    read_trials,
    trial_recipe,
    write_tau,
)
from jobs.records import Row
from jobs.variants import mixture
from tests.unit.jobs.answering import Bench, question, recipe
from tests.unit.scripts import Asked, Step


def trials(count: int, seed: int = 1) -> list[Trial]:
    """A member that is right with the probability of its tokens, beside a mixture that is right in
    80%."""
    drawn = random.Random(seed)
    made = []
    for _ in range(count):
        sure = drawn.uniform(0.2, 1)
        made.append(Trial(math.log(sure), drawn.random() < sure, drawn.random() < 0.8))
    return made


def test_a_tau_is_found_that_loses_little_on_questions_that_did_not_choose_it() -> None:
    found = calibrate(trials(4000), epsilon=0.01)
    assert found.tau is not None
    assert found.chosen_on is not None
    assert found.checked_on is not None
    assert found.chosen_on.questions == found.checked_on.questions == 2000
    assert found.chosen_on.mixture.value - found.chosen_on.right.value < 0.0101
    assert found.checked_on.mixture.value - found.checked_on.right.value <= 0.04
    # The true rule: alone above 60%, where its questions are right in 80% on the mean.
    assert 0.4 < found.checked_on.alone < 0.65
    assert found.auroc == pytest.approx(0.78, abs=0.05)


def test_an_epsilon_of_one_lets_the_member_always_answer() -> None:
    found = calibrate(trials(100), epsilon=1)
    assert found.chosen_on is not None
    assert found.chosen_on.alone == 1


def test_a_member_that_is_always_wrong_never_answers_alone() -> None:
    wrong = [Trial(-0.1, first_is_right=False, mixture_is_right=True)] * 40
    found = calibrate(wrong, epsilon=0)
    assert (found.tau, found.chosen_on, found.checked_on) == (None, None, None)


def test_an_engine_without_probabilities_is_named() -> None:
    with pytest.raises(CalibrationError, match="told no log-probabilities"):
        calibrate([Trial(None, first_is_right=True, mixture_is_right=True)] * 40, epsilon=0)


@given(st.lists(st.tuples(st.floats(-9, 0), st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_tau_is_one_that_a_recipe_takes(made: list[tuple[float, bool, bool]]) -> None:
    found = calibrate([Trial(*each) for each in made], epsilon=1)
    assert found.tau is not None
    assert -100 <= found.tau <= 0
    assert outcome([Trial(*each) for each in made], found.tau).questions == len(made)


@pytest.mark.virtual_time
@pytest.mark.usefixtures("written_at_once")
async def test_a_run_tells_who_was_right_and_how_sure(bench: Bench) -> None:
    def member(asked: Asked) -> list[Step]:
        if asked.sampling.top_logprobs is None:
            return ["no probabilities were asked for"]
        number = int(question(asked).split()[-1])
        token = {"token": "x", "logprob": -float(number), "top_logprobs": []}
        return [Delta(text=f"It is {number % 2}.", logprobs=(token,))]

    bench.models.scripts |= {"a": member, "b": ["no idea"], "z": ["The answer is 1"]}
    rows = [Row(n, (f"Odd? {n}",), references=(f"#### {n % 2}",)) for n in range(24)]
    bench.store.add_rows([*rows, Row(24, ("No answer is known. 3",))])
    asked = trial_recipe(recipe(first={"tau": -1}, exit={"answer": "number"}))
    assert (asked.first, asked.exit) == (None, None)
    await bench.run(mixture(asked))
    found = read_trials(bench.store, "mix", "number")
    assert len(found) == 24
    assert found[5] == Trial(-5.0, first_is_right=True, mixture_is_right=True)
    assert found[4] == Trial(-4.0, first_is_right=True, mixture_is_right=False)
    with pytest.raises(CalibrationError, match="needs a field `reference`"):
        read_trials(bench.store, "mix", "letter")


@pytest.mark.parametrize(
    ("reference", "form", "answer"),
    [("so 5 * 2 = 10\n#### 10", "number", "10"), ("B", "letter", "B"), ("1/2", "boxed", "1/2")],
)
def test_a_set_gives_a_solution_or_the_answer_alone(reference: str, form: str, answer: str) -> None:
    assert known_answer(reference, form) == answer  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "old",
    [
        "",
        "first:\n  tau: -9  # by hand\n\n",
        "first: {tau: -9}\n",
        '"first":\n# by hand\n  tau: -9\n',
    ],
)
def test_tau_is_written_into_a_recipe_that_keeps_its_comments(tmp_path: Path, old: str) -> None:
    text = "name: mix  # a comment\nmodels:\n  a: {engine: scripted}\n"
    rest = "layers:\n  - proposers: [{model: a}]\n\n# the last stage\naggregator: {model: a}\n"
    file = tmp_path / "mix.yaml"
    file.write_text(text + old + rest)
    for tau in (-0.5, -0.125):
        write_tau(file, tau, 'my "set"')
    made = load(str(file))
    assert made.first is not None
    assert (made.first.tau, made.first.calibrated_on) == (-0.125, 'my "set"')
    written = file.read_text()
    assert written.count("first:") == 1
    assert all(line in written for line in ("# a comment", "# the last stage"))


def test_a_recipe_into_which_tau_cannot_be_written_stays_as_it_is(tmp_path: Path) -> None:
    text = (
        "{name: mix, models: {a: {engine: scripted}}, layers: [{proposers: [{model: a}]}], "
        "aggregator: {model: a}}\n"
    )
    file = tmp_path / "mix.yaml"
    file.write_text(text)
    with pytest.raises(CalibrationError, match=r"write it there yourself: \{tau: -0.5\}"):
        write_tau(file, -0.5, "set")
    assert file.read_text() == text


def test_the_line_ends_of_a_recipe_stay(tmp_path: Path) -> None:
    text = "name: mix\nmodels: {a: {engine: scripted}}\nlayers:\n- proposers: [{model: a}]\n"
    file = tmp_path / "mix.yaml"
    file.write_bytes((text + "aggregator: {model: a}\n").replace("\n", "\r\n").encode())
    write_tau(file, -0.5, "set")
    assert file.read_bytes().count(b"\r\n") == file.read_bytes().count(b"\n") == 9
