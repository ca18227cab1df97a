"""What holds for every method, however its models behave."""

import math
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine import Delta
from configs.errors import EngineError, RequestError
from configs.schema import Sampling
from serve_app.mixture.events import AnswerDelta, ProposalDone, ProposalDropped
from tests.unit.scripts import Asked, FakeModels, JumpingLoop, Step
from tests.unit.serve_app.mixture.comparing import is_short, tokens
from tests.unit.serve_app.mixture.conftest import Mixture, Outcome

NAMES = ("a", "b", "c", "d")
DEADLINE_S = 60.0
MERGED = "merged by z"

writes = st.builds(
    lambda wait, n, sure: [wait, _with_logprob(f"I say {n}", sure)],
    st.sampled_from([0.0, 1.0, 9.0, 20.0]),
    st.integers(1, 2),
    st.sampled_from([0.2, 0.9]),
)
behaviours = st.one_of(
    writes,
    writes,
    writes,
    st.just([EngineError("boom")]),
    st.just([None]),
    st.just([]),
    st.just(["no number here"]),
)
shares = st.lists(st.floats(0, 1), min_size=4, max_size=4)
recipes = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["merge", "select", "select_or_merge", "vote"]),
        "guard": st.booleans(),
        "exit": st.sampled_from([None, {"answer": "number"}, {"answer": "number", "judge": True}]),
        "first": st.sampled_from([None, {"tau": -0.5}]),
        "see": st.sampled_from([None, 1, 2]),
        "layers": st.integers(1, 2),
    }
)


def _with_logprob(text: str, probability: float) -> Delta:
    token = {"token": text, "logprob": math.log(probability), "top_logprobs": []}
    return Delta(text=text, logprobs=(token,))


def aggregator(given: Sequence[float], fails: str) -> Any:
    def script(asked: Asked) -> Sequence[Step]:
        if fails == "always" or (fails == "short" and is_short(asked)):
            return [EngineError("boom")]
        if fails == "hangs":
            return [None]
        if not is_short(asked):
            return [MERGED]
        replies = ("yes", "no") if "conclusion?" in asked.text[-80:] else ("1", "2", "3", "4")
        return [
            tokens(
                {reply: share / 4 for reply, share in zip(replies, given, strict=False)} | {"?": 0.01}
            )
        ]

    return script


@settings(max_examples=150)
@given(
    made=recipes,
    scripts=st.lists(behaviours, min_size=4, max_size=4),
    given_shares=shares,
    fails=st.sampled_from(["never", "never", "short", "always", "hangs"]),
    seed=st.sampled_from([None, 3]),
)
def test_no_method_loses_text_time_or_calls(
    made: dict[str, Any],
    scripts: list[list[Any]],
    given_shares: list[float],
    fails: str,
    seed: int | None,
) -> None:
    models = FakeModels(closing_s=0.5)
    mixture = Mixture(models)
    models.scripts |= dict(zip(NAMES, scripts, strict=True)) | {"z": aggregator(given_shares, fails)}
    layers = [{"proposers": [{"model": name} for name in NAMES]}] * made["layers"]
    if made["layers"] == 2 and made["see"]:
        layers[1] = {**layers[1], "see": made["see"]}
    recipe = mixture.recipe(
        *layers,
        aggregator={
            "method": made["method"],
            "guard": made["guard"],
            **({"answer": "number"} if made["method"] == "vote" else {}),
        },
        parts={name: made[name] for name in ("exit", "first") if made[name]},
        deadline_s=DEADLINE_S,
        layer_deadline_s=25,
    )
    with closing(JumpingLoop()) as loop:
        try:
            outcome = loop.run_until_complete(
                mixture.answer(recipe, seed=seed, sampling=Sampling(max_tokens=50))
            )
        except RequestError:  # no proposal came in the first layer
            assert (
                not any(isinstance(step, Delta) for script in scripts for step in script[1:])
                or made["first"]
            )
            return
    holds(outcome, models, recipe.calls_per_answer() + (6 if made["exit"] else 0) * made["layers"])


def holds(outcome: Outcome, models: FakeModels, most_calls: int) -> None:
    answered, summary = outcome.answered, outcome.summary
    proposals = {(e.layer, e.place): e.text for e in outcome.events if isinstance(e, ProposalDone)}
    # No text is lost, and none is made up.
    if answered.chosen is not None:
        assert outcome.text == proposals[answered.chosen.layer, answered.chosen.place]
        assert sum(isinstance(event, AnswerDelta) for event in outcome.events) == 1
    else:
        assert (outcome.text, answered.method) == (MERGED, "merge")
    # The deadline is kept, but for the time that engines take to let go.
    assert outcome.seconds <= DEADLINE_S + 2
    # No more calls than the recipe reckons with, and none is left behind.
    assert len(models.asked) <= most_calls
    assert all(asked.ended for asked in models.asked)
    # What is missing is said, and what was not needed is not missing.
    assert summary.degraded == bool(summary.missing or answered.fallback or answered.cut)
    assert (answered.fallback == "reference") == (answered.method == "stand_in")
    assert all(missing.cause != "not_needed" for missing in summary.missing)
    # Each sample of a layer that ran ends once at least, in one way.
    for number, stage in enumerate(s for s in summary.stages if s.stage.startswith("layer")):
        ended = {
            e.place for e in outcome.events if isinstance(e, ProposalDone) and e.layer == number + 1
        }
        ended |= {
            e.place
            for e in outcome.events
            if isinstance(e, ProposalDropped) and e.missing.layer == number + 1
        }
        assert ended == set(range(4)), stage
    # Every finished call is counted.
    finished = [asked for asked in models.asked if asked.ended == "finished"]
    assert len(summary.calls) <= len(finished)
