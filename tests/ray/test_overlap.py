"""The aggregator's only replica is killed while it reads proposals early. The answer still comes."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from configs.schema import Recipe
from tests.conftest import Serving
from tests.e2e.processes import kill, replicas, until

DEADLINE_S = 40
READ_S = 30.0
"""Seconds that the aggregator needs to read a whole prompt: far longer than the test lasts."""


def test_a_replica_killed_in_a_warm_up_costs_no_answer(serving: Serving) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "mix",
            "models": {
                "quick": {"engine": "scripted", "tokens": 80},
                "slow": {"engine": "scripted", "first_token_s": 2, "tokens": 8},
                "writer": {"engine": "scripted", "first_token_s": READ_S, "tokens": 8},
            },
            "layers": [{"proposers": [{"model": "quick"}, {"model": "slow"}]}],
            # The replica that replaces the dead replica has read nothing, so another model answers.
            "aggregator": {"model": "writer", "fallbacks": ["quick"], "first_token_timeout_s": 2},
            "references": {"order": "arrival"},
            "limits": {"deadline_s": DEADLINE_S, "layer_deadline_s": 10, "keepalive_s": 0.2},
        }
    )
    question: Any = [{"role": "user", "content": "hello"}]
    with serving(recipe) as served:
        until(lambda: len(replicas("model-writer")) == 1)
        (writer,) = replicas("model-writer")
        began = time.monotonic()
        chunks = []
        with ThreadPoolExecutor() as pool:
            stream = served.client().chat.completions.create(
                model="mix", messages=question, stream=True, extra_body={"moa": {"events": True}}
            )
            for chunk in stream:
                chunks.append(chunk)
                moa = getattr(chunk, "moa", None)
                if moa and moa["type"] == "proposal.done" and moa["model"] == "quick":
                    until(lambda: served.stats("writer").warming == 1)
                    assert served.stats("writer").in_flight == 0  # a warm-up is no call
                    pool.submit(kill, writer).result()
        assert time.monotonic() - began < DEADLINE_S
        *_, end = (chunk.moa for chunk in chunks if getattr(chunk, "moa", None))
        assert (end["type"], end["answered_by"], end["fallback"]) == ("summary", "quick", "aggregator")
        assert len(end["stages"][-1]["references"]) == 2
