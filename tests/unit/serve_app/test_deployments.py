"""What a replica does before its engine exists. Ray is not started: what it tells is made up here."""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from actors.weights import lookup
from configs.schema import LlamaCppModel, Model, ScriptedModel, VllmModel

with warnings.catch_warnings():  # Ray Serve's own models use what Pydantic has deprecated
    warnings.simplefilter("ignore")
    from ray import serve

    from serve_app import deployments
    from serve_app.deployments import ModelReplica

VLLM = VllmModel.model_validate({"engine": "vllm", "weights": [{"hub": "o/n"}]})
LLAMACPP = LlamaCppModel.model_validate({"engine": "llamacpp", "weights": [{"path": "/w.gguf"}]})


class Claimed(Exception):
    """Ends the construction of a replica where it claims a card."""


@pytest.mark.parametrize(
    ("model", "steps"),
    [
        (VLLM, ["fetch", "claim"]),
        (LLAMACPP, ["fetch", "claim"]),
        (ScriptedModel(engine="scripted"), ["claim"]),
    ],
    ids=["vllm", "llamacpp", "scripted"],
)
async def test_weights_are_fetched_before_a_card_is_claimed(
    model: Model, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download takes minutes, and whoever shares the card would wait for it."""
    done: list[str] = []

    async def claim(*_: Any) -> None:
        done.append("claim")
        raise Claimed

    async def on_node(*_: Any) -> list[Any]:
        return []

    context = SimpleNamespace(get_node_id=lambda: "node", current_actor=None)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(app_name="app"))
    monkeypatch.setattr(deployments, "claim_assignment", claim)
    monkeypatch.setattr(lookup, "bring_here", lambda *_: done.append("fetch"))
    monkeypatch.delattr(ModelReplica, "__del__")
    replica: Any = object.__new__(ModelReplica)
    assignments = SimpleNamespace(on_node=on_node)
    with pytest.raises(Claimed):
        await replica.__init__("a", model, 1, assignments, across_nodes=False, drain_s=1)
    assert done == steps
