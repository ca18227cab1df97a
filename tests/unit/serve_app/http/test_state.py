"""GET /v1/state: what the models and their cards are doing."""

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from actors.keeper.card_report import CardReport, MemberReport
from cluster.residency.state import State, TurnState
from serve_app.http.api import create_api
from serve_app.http.state import FRESH_S
from tests.unit.serve_app.conftest import Puppets, recipe

pytestmark = pytest.mark.virtual_time

MEMBER = MemberReport(
    name="one/0",
    slot="0",
    state=State.FALLING_ASLEEP,
    turn=TurnState.CLOSED,
    in_flight=0,
    waiting=3,
    oldest_wait_s=1.5,
    since_s=2.0,
    expected_s=0.5,
    last_step_s=None,
    failure="",
    awake_bytes=100,
    asleep_bytes=10,
    orders={"sleep": 1},
    step_seconds={"asleep": 2.5},
)
CARD = CardReport("n1", (0, 1), "NVIDIA L4", 500, (MEMBER,))


class Keepers:
    """Keepers that answer when they are let."""

    def __init__(self, answer_s: float = 0.0) -> None:
        self.asked = 0
        self._answer_s = answer_s

    async def __call__(self) -> Sequence[CardReport]:
        self.asked += 1
        await asyncio.sleep(self._answer_s)
        return [CARD]


def client(watch: Keepers | None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_api(recipe(quorum=1, grace_s=2), Puppets(), watch=watch))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def test_the_state_has_the_mixture_and_what_its_members_do() -> None:
    async with client(Keepers()) as http:
        state = (await http.get("/v1/state")).json()
    assert state["models"] == ["mix", "one", "two", "writer"]
    mixture = state["mixture"]
    assert (mixture["name"], mixture["layers"], mixture["aggregators"]) == (
        "mix",
        [["one", "two"]],
        ["writer"],
    )
    assert mixture["methods"] == ["merge", "select", "select_or_merge"]
    assert (mixture["quorum"], mixture["grace_s"]) == (1, 2)
    (card,) = state["cards"]
    assert (card["node"], card["gpus"], card["total_bytes"]) == ("n1", [0, 1], 500)
    (member,) = card["members"]
    assert (member["state"], member["turn"]) == ("falling asleep", "closed")
    assert (member["waiting"], member["oldest_wait_s"], member["last_step_s"]) == (3, 1.5, None)
    assert member["orders"] == {"sleep": 1}


async def test_models_at_other_servers_have_no_card() -> None:
    async with client(None) as http:
        assert (await http.get("/v1/state")).json()["cards"] == []


async def test_many_who_ask_cost_the_keepers_one_question() -> None:
    keepers = Keepers(answer_s=0.2)
    async with client(keepers) as http:
        answers = await asyncio.gather(*(http.get("/v1/state") for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        await http.get("/v1/state")
        assert keepers.asked == 1
        await asyncio.sleep(FRESH_S)
        await http.get("/v1/state")
        assert keepers.asked == 2


async def test_a_client_that_leaves_does_not_take_the_question_along() -> None:
    keepers = Keepers(answer_s=0.2)
    async with client(keepers) as http:
        leaver = asyncio.create_task(http.get("/v1/state"))
        stayer = asyncio.create_task(http.get("/v1/state"))
        await asyncio.sleep(0.1)
        leaver.cancel()
        assert (await stayer).status_code == 200
    assert keepers.asked == 1
