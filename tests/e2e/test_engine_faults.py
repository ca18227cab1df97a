"""Real engines killed at each step, and their keeper, in RAM that holds one of three at a time.

The engines are llama.cpp, which cannot sleep: they are stopped between their turns. SIGKILL to the
processes themselves, questions over HTTP. After each: the other models answer, so the card's lock is
free; the killed one answers again; no process is left over.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import openai
import pytest
import ray
from ray.exceptions import RayError

from actors.keeper.ray_keeper import keepers
from benchmarks.speed.turns import three_models
from cluster.ray_runtime import APP_NAME
from cluster.residency.messages import Snapshot, Verb
from cluster.residency.state import State
from tests.conftest import Endpoint, Serving
from tests.e2e import processes
from tests.e2e.processes import WAIT_S, until

pytestmark = pytest.mark.weights

FIRST, SECOND, WRITER = MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b", "writer")
KEEPER = "keeper"
SWAPS = 8
"""Most swaps in which a replica is to be met while it stops."""
HELLO: Any = [{"role": "user", "content": "Say hello."}]
STORY: Any = [{"role": "user", "content": "Write a very long story about a lighthouse."}]
SETTLED = {State.RESIDENT, State.STOPPED}


class Slot:
    """The three models behind an endpoint, and what their keeper believes of them."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.pids: dict[str, int] = {}

    def is_whole(self) -> bool:
        """Each model and the keeper has one process; `pids` then has them."""
        found = {f"model-{model}": processes.replicas(f"model-{model}") for model in MODELS}
        found[KEEPER] = processes.keepers()
        self.pids = {name: pids[0] for name, pids in found.items() if len(pids) == 1}
        return len(self.pids) == len(found)

    def kill(self, deployment: str) -> None:
        processes.kill(self.pids[deployment])

    def kill_in(self, state: State) -> str | None:
        """Kill the first replica that is seen in this state; return its model's name.

        The step takes some hundredths of a second, and its end is told to the keeper alone. So this
        looks at the keeper without a pause.
        """
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            for model, found in self.states().items():
                if found is state:
                    self.kill(f"model-{model}")
                    return model
        return None

    def ask(self, model: str, messages: Any = HELLO, tokens: int = 2) -> Any:
        return self.endpoint.client().chat.completions.create(
            model=model, messages=messages, max_tokens=tokens, timeout=WAIT_S
        )

    def states(self) -> dict[str, State]:
        """Empty while there is no keeper."""
        try:
            (keeper,) = keepers(APP_NAME).values()
            found: dict[str, Snapshot] = ray.get(keeper.snapshots.remote(), timeout=WAIT_S)
        except RayError:
            return {}
        return {member.partition("/")[0]: snapshot.state for member, snapshot in found.items()}

    def state(self, model: str) -> State | None:
        return self.states().get(model)

    def in_flight(self, model: str) -> int:
        return self.endpoint.stats(model).in_flight

    def answers_again(self, model: str) -> bool:
        try:
            return bool(self.ask(model).choices)
        except (openai.APIStatusError, openai.APIConnectionError):
            return False


@pytest.fixture(scope="module")
def endpoint(serving: Serving) -> Iterator[Endpoint]:
    with serving(three_models()) as served:
        yield served


@pytest.fixture
def slot(endpoint: Endpoint) -> Iterator[Slot]:
    """FIRST is awake, the others are stopped; in the end all answer, each from one process."""
    slot = Slot(endpoint)
    slot.ask(FIRST)
    until(slot.is_whole)
    yield slot
    for model in (SECOND, WRITER, FIRST):  # the next test finds FIRST awake
        until(lambda model=model: slot.answers_again(model))  # type: ignore[misc]
    until(lambda: [state in SETTLED for state in slot.states().values()] == [True] * len(MODELS))
    until(slot.is_whole)


def test_each_engine_has_started_before_the_first_question_and_one_of_them_is_awake(
    endpoint: Endpoint,
) -> None:
    (keeper,) = keepers(APP_NAME).values()
    orders = ray.get(keeper.order_counts.remote(), timeout=WAIT_S)
    started = {member.partition("/")[0] for member, verb in orders if verb is Verb.START}
    assert started == set(MODELS)
    states = sorted(Slot(endpoint).states().values())
    assert states == [State.RESIDENT, State.STOPPED, State.STOPPED]


def test_killed_stopped_the_others_go_on_answering(slot: Slot) -> None:
    assert slot.state(SECOND) is State.STOPPED
    slot.kill(f"model-{SECOND}")
    assert slot.ask(FIRST).choices
    assert slot.ask(WRITER).choices


def test_killed_starting_the_call_fails_and_the_others_go_on_answering(slot: Slot) -> None:
    with ThreadPoolExecutor() as pool:
        lost = pool.submit(slot.ask, SECOND)
        until(lambda: slot.state(SECOND) is State.STARTING)
        other = pool.submit(slot.ask, WRITER)
        slot.kill(f"model-{SECOND}")
        with pytest.raises(openai.APIStatusError) as told:
            lost.result()
        assert told.value.status_code == 503
        assert other.result().choices
    assert slot.ask(FIRST).choices


def test_killed_stopping_only_its_own_calls_are_lost(slot: Slot) -> None:
    killed = Event()

    def ask_in_turn() -> set[str]:
        """The models whose calls were lost, of all that were asked until the kill."""
        asked = [MODELS[n % 2] for n in range(SWAPS)]
        return {model for model in asked if not killed.is_set() and not slot.answers_again(model)}

    with ThreadPoolExecutor() as pool:
        answers = pool.submit(ask_in_turn)
        victim = slot.kill_in(State.STOPPING)
        killed.set()
        assert victim in (FIRST, SECOND)
        lost = answers.result()
    assert lost <= {victim}
    assert slot.ask(WRITER).choices


def test_killed_awake_the_slot_passes_on(slot: Slot) -> None:
    until(lambda: slot.state(FIRST) is State.RESIDENT)
    slot.kill(f"model-{FIRST}")
    assert slot.ask(SECOND).choices
    assert slot.ask(WRITER).choices


def test_killed_while_it_serves_a_proposer_is_missing_and_the_mixture_still_answers(slot: Slot) -> None:
    with ThreadPoolExecutor() as pool:
        question = pool.submit(slot.ask, slot.endpoint.recipe.name, STORY, 16)
        until(lambda: slot.in_flight(SECOND) > 0)
        slot.kill(f"model-{SECOND}")
        answer = question.result()
    assert answer.choices[0].message.content
    assert answer.moa["degraded"] is True
    assert [missing["model"] for missing in answer.moa["missing"]] == [SECOND]


def test_a_killed_keeper_ends_no_call_and_the_turns_go_on(slot: Slot) -> None:
    with ThreadPoolExecutor() as pool:
        serving = pool.submit(slot.ask, FIRST, STORY, 100)
        until(lambda: slot.in_flight(FIRST) > 0)
        other = pool.submit(slot.ask, WRITER)
        slot.kill(KEEPER)
        assert serving.result().usage.completion_tokens == 100
        assert other.result().choices
