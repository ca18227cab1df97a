"""Names of models as people have them: with the owner's name and a tag, `Qwen/Qwen3-8B`,
`llama3:8b`."""

from pathlib import Path

import httpx
import pytest

from configs.load import RecipeError, parse
from configs.schema import Recipe
from jobs.app_choice import require_models
from jobs.variants import alone, mixture, without
from serve_app.deployment_names import deployment_name
from serve_app.http.api import create_api
from tests.unit.serve_app.conftest import CHAT, HELLO, Scripted

TEXT = """
name: me/mix:v1
models:
  Qwen/Qwen3-8B: {engine: scripted, first_token_s: 0, token_s: 0, text: from qwen}
  llama3:8b: {engine: scripted, first_token_s: 0, token_s: 0, text: from llama}
layers: [{proposers: [{model: Qwen/Qwen3-8B}, {model: "llama3:8b"}]}]
aggregator: {model: llama3:8b, fallbacks: [Qwen/Qwen3-8B]}
access: {allowance: {models: [me/mix:v1, Qwen/Qwen3-8B, "llama3:8b"]}}
"""
NAMES = ["me/mix:v1", "Qwen/Qwen3-8B", "llama3:8b"]


def read() -> Recipe:
    return parse(TEXT, folder=Path("/f"))


async def test_they_are_listed_described_and_asked() -> None:
    models = Scripted(read())
    await models.start()
    transport = httpx.ASGITransport(create_api(read(), models))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        listed = [card["id"] for card in (await client.get("/v1/models")).json()["data"]]
        described = [(await client.get(f"/v1/models/{name}")).json()["id"] for name in NAMES]
        quoted = (await client.get("/v1/models/Qwen%2FQwen3-8B")).json()["id"]
        unknown = await client.get("/v1/models/Qwen/Qwen3")
        asked = {
            name: (await client.post(CHAT, json={"model": name, "messages": HELLO})).json()
            for name in NAMES
        }
    assert listed == described == NAMES
    assert quoted == "Qwen/Qwen3-8B"
    assert unknown.status_code == 404
    assert {n: a["choices"][0]["message"]["content"] for n, a in asked.items()} == {
        "me/mix:v1": "from llama",
        "Qwen/Qwen3-8B": "from qwen",
        "llama3:8b": "from llama",
    }


def test_names_of_deployments_can_be_names_of_files_and_never_meet() -> None:
    names = ["a/b", "a:b", "a-b", "a/b:c", "a:b/c", "a_b", "a.b"]
    made = [deployment_name(name) for name in names]
    assert len(set(made)) == len(names)
    assert not any(set("/:#") & set(name) for name in made)
    assert deployment_name("qwen3-8b") == "model-qwen3-8b"
    require_models(read(), "slimmoa", [deployment_name(name) for name in read().models])


def test_a_benchs_variants_may_have_them() -> None:
    recipe = read()
    assert mixture(recipe).name == "me/mix:v1"
    assert alone(recipe, "llama3:8b").name == "llama3:8b"
    assert without(recipe, "llama3:8b").name == "me/mix:v1-without-llama3:8b"


@pytest.mark.parametrize(
    "name", ["/a", "a/", "a//b", "a:", ":a", "a/../b", "a/.b", "a b", "a/b/", "-a"]
)
def test_other_names_are_refused_in_words(name: str) -> None:
    with pytest.raises(RecipeError, match=r"may join parts \(Qwen/Qwen3-8B, llama3:8b\)"):
        parse(TEXT.replace("name: me/mix:v1", f"name: '{name}'"), folder=Path("/f"))
