"""A call's sampling, then the model's own, then its makers', then ours."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from actors.model_sampling import SamplingOfModel
from actors.replica import Replica
from configs.errors import EngineError
from configs.schema import Model, Sampling

HELLO: Any = [{"role": "user", "content": "hello"}]


def model(**settings: Any) -> Model:
    parsed: Model = TypeAdapter(Model).validate_python(settings)
    return parsed


def folder(path: Path, advice: str) -> Model:
    """A vLLM model whose folder has this generation_config.json."""
    (path / "config.json").write_text("{}")
    (path / "generation_config.json").write_text(advice)
    return model(engine="vllm", weights=[{"path": str(path)}], load_format="dummy")


async def test_without_anything_else_the_call_is_as_it_was() -> None:
    sampling = Sampling(temperature=0.3)
    assert await SamplingOfModel("m", model(engine="scripted")).complete(sampling) is sampling


async def test_the_models_own_sampling_holds_where_the_call_says_nothing() -> None:
    own = model(engine="scripted", sampling={"temperature": 0.2, "top_k": 20})
    asked = await SamplingOfModel("m", own).complete(Sampling(temperature=0.9))
    assert asked.said == {"temperature": 0.9, "top_k": 20}


@pytest.mark.parametrize("where", ["call", "model"])
async def test_checkpoint_comes_below_what_call_and_model_say(tmp_path: Path, where: str) -> None:
    advice = {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
    settings = folder(tmp_path, json.dumps(advice))
    base: dict[str, Any] = {"base": "checkpoint"}
    own = {"top_p": 0.5} | (base if where == "model" else {})
    settings = settings.model_copy(update={"sampling": type(settings.sampling)(**own)})
    call = Sampling(temperature=0.1, **(base if where == "call" else {}))
    asked = await SamplingOfModel("m", settings).complete(call)
    assert asked.said == {"temperature": 0.1, "top_p": 0.5, "top_k": 20}


async def test_a_checkpoint_that_nobody_asks_for_is_not_read(tmp_path: Path) -> None:
    broken = folder(tmp_path, "{")
    assert (await SamplingOfModel("m", broken).complete(Sampling())).said == {}
    with pytest.raises(EngineError, match="cannot read which sampling"):
        await SamplingOfModel("m", broken).complete(Sampling(base="checkpoint"))


@pytest.mark.parametrize(
    "settings",
    [
        {"engine": "scripted"},
        {"engine": "openai_http", "base_url": "http://here/v1", "model": "m"},
        {"engine": "llamacpp", "weights": [{"path": "/nowhere/m.gguf"}]},
    ],
    ids=["scripted", "server", "file not here"],
)
async def test_what_advises_nothing_leaves_the_values_unsaid(settings: dict[str, Any]) -> None:
    asked = await SamplingOfModel("m", model(**settings)).complete(Sampling(base="checkpoint"))
    assert asked.said == {}


async def test_extra_parameters_go_only_to_engines_that_take_them() -> None:
    extra = {"min_tokens": 4, "dry_multiplier": 0.8, "structure": {"json_object": True}}
    weights = [{"path": "/nowhere"}]
    found = {}
    for engine in ("scripted", "llamacpp", "vllm"):
        settings = {"engine": engine} | ({} if engine == "scripted" else {"weights": weights})
        asked = await SamplingOfModel("m", model(**settings)).complete(Sampling(extra=extra))
        found[engine] = sorted(asked.extra)
    assert found == {
        "scripted": [],
        "llamacpp": ["dry_multiplier", "structure"],
        "vllm": ["min_tokens", "structure"],
    }


async def test_a_replica_asks_its_engine_with_the_models_sampling(tmp_path: Path) -> None:
    journal = tmp_path / "calls.jsonl"
    own = {"min_p": 0.1, "repetition_penalty": 1.05}
    settings = model(engine="scripted", first_token_s=0, token_s=0, journal=str(journal), sampling=own)
    replica = Replica("m", settings, 4)
    await replica.start()
    await replica.complete(HELLO, Sampling(top_k=5))
    asked = json.loads(journal.read_text("utf-8"))["sampling"]
    drawing = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens")
    assert [asked[name] for name in drawing] == [0.7, 1.0, 5, 0.1, 1.05, 512]
