"""Short tasks that chat clients give by themselves: who answers them, and what is not taken for one."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from configs.schema import Recipe, Sampling
from serve_app.access.api_keys import Key
from serve_app.http.api import create_api
from serve_app.http.asked_sampling import asked_sampling
from serve_app.http.helper_prompts import KNOWN
from serve_app.http.request import ChatRequest, parse
from serve_app.http.routes import Router, recognised
from tests.unit.serve_app.conftest import CHAT, Scripted, recipe

HISTORY = "### Chat History:\n<chat_history>\nUSER: Why?\nASSISTANT: Because.\n</chat_history>"
TITLE = (
    "### Task:\nGenerate a concise title summarizing the chat history.\n### Guidelines:\n- Be short."
    '\n### Output:\nJSON format: { "title": "your concise title here" }\n' + HISTORY
)
OPEN_WEBUI_OTHERS = {
    '{ "tags": ["tag1"] }': "tags",
    '{ "follow_ups": ["Suggested next message 1"] }': "follow_ups",
    '{\n  "queries": ["query1", "query2"]\n}': "search_queries",
    '{\n    "prompt": "Your detailed description here."\n}': "image_prompt",
    '{"title": "in den Worten einer Verwalterin"}': "title",
}
LOBE_TRANSLATES = """You are a professional translator. Translate the input text to German.

Rules:
- Output ONLY the translated text, no explanations or additional context
- Preserve technical terms"""
CHERRY_TITLE = (
    "Summarize the conversation into a title in en-us within 10 words ignoring instructions and "
    "without punctuation or symbols. Output only the title string without anything else."
)
ZED = (
    "Generate a concise 3-7 word title for this conversation, omitting punctuation. Go straight to it."
)


def user(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def told(system: str, *texts: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, *user(*texts)]


def asked(messages: list[dict[str, str]], **fields: Any) -> ChatRequest:
    return parse(json.dumps({"model": "mix", "messages": messages} | fields).encode())


def mixture(routes: Any = None, **more: Any) -> Recipe:
    plain = recipe().model_dump(mode="json") | {"routes": routes} | more
    return Recipe.model_validate(plain)


@pytest.mark.parametrize(
    ("messages", "client", "task"),
    [
        (user(TITLE), "Open WebUI", "title"),
        *[
            (user(f"### Task:\nDo it.\n\n### Output:\nJSON: {form}\n\n{HISTORY}\n"), "Open WebUI", task)
            for form, task in OPEN_WEBUI_OTHERS.items()
        ],
        (
            user("### Task:\nYou are an autocompletion system. Continue the text in `<text>` as"),
            "Open WebUI",
            "autocomplete",
        ),
        (told(LOBE_TRANSLATES, "hello"), "LobeHub", "translation"),
        (
            told(
                "You are a language expert proficient in all world languages. Identify the language of",
                *("{你好}", "zh-CN", "{hello}", "en-US", "{hallo}"),
            ),
            "LobeHub",
            "language",
        ),
        (told(CHERRY_TITLE, "[]"), "Cherry Studio", "title"),
        (user("a question", "an answer", ZED), "Zed", "title"),
        (
            [*told("You are Anna.", "hi", "ho"), {"role": "system", "content": (
                "Ignore previous instructions. Summarize the most important facts and events in the "
                "story so far. Limit the summary to 200 words or less."
            )}],
            "SillyTavern",
            "summary",
        ),
        (
            user("Analyze this conversation and provide:\n1. The detected language of it\n2. A title"),
            "LibreChat",
            "title",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_prompts_of_clients_are_recognised(
    messages: list[dict[str, str]], client: str, task: str
) -> None:
    assert recognised(asked(messages).conversation()) == (client, task)


@pytest.mark.parametrize("place", KNOWN)
def test_every_known_prompt_is_recognised_where_it_stands(place: str) -> None:
    for client, tasks in KNOWN[place].items():  # type: ignore[index]
        for begins, task in tasks.items():
            prompt = f"{begins.replace('*', 'x y')} and so on".upper()
            around = {
                "alone": user(prompt),
                "system": told(prompt, "text"),
                "examples": told(prompt, "a", "b", "c"),
                "last": user("a", "b", prompt),
            }
            found = recognised(asked(around[place]).conversation())
            assert found == (client, task)
            assert recognised(asked(user(f"What does this do? {prompt}")).conversation()) is None


@pytest.mark.parametrize(
    "messages",
    [
        user("Give me a title for my essay about rain."),
        user(f"What does this prompt do?\n\n{TITLE}"),
        user(f"{TITLE}\n\nWhy does this prompt fail?"),
        user("Why?", "Because.", TITLE),
        user("### Task:\nWrite a poem about a <chat_history>"),
        user(f"### Task:\nFix this bug.\n{HISTORY}"),
        user(
            "### Task:\nRespond to the user query using the provided context.\n<context>a</context>\nb"
        ),
        told("You are a professional translator. Translate the input text to rap.", "hello"),
        told(LOBE_TRANSLATES, "hello", "hallo", "and why is it so?"),
        told(CHERRY_TITLE, "[]", "A title", "now a poem"),
        [*user("a", "b"), {"role": "user", "content": "go on"}],
        [*user(TITLE), {"role": "assistant", "content": '{ "title": "'}],
        told("You are a title generator for novels.", "hello"),
        user("Generate a concise 3-7 word title for this conversation between Anna and Ben."),
    ],
)
def test_questions_of_people_are_not(messages: list[dict[str, str]]) -> None:
    assert recognised(asked(messages).conversation()) is None
    assert Router(mixture()).route(asked(messages)) is None


@pytest.mark.parametrize(
    ("routes", "model"),
    [
        (None, "writer"),
        ([], None),
        ([{"model": "one"}], "one"),
        ([{"model": "mix"}], None),
        ([{"model": "one", "tasks": ["tags"]}], None),
        ([{"model": "one", "tasks": ["tags"]}, {"model": "two"}], "two"),
        ([{"model": "mix", "tasks": ["title"]}, {"model": "two"}], None),
        ([{"model": "one", "begins": ["write a commit message"]}], None),
        ([{"model": "one", "begins": ["### task: GENERATE a concise"]}, {"model": "two"}], "one"),
    ],
    ids=str,
)
def test_the_first_route_of_the_recipe_counts(routes: Any, model: str | None) -> None:
    routed = Router(mixture(routes)).route(asked(user(TITLE)))
    assert (routed and routed.model) == model


@pytest.mark.parametrize(
    "fields",
    [
        {"moa": {"routes": False}},
        {"moa": {"events": True}},
        {"model": "one"},
        {"logprobs": True},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"max_tokens": 9000},
    ],
    ids=str,
)
def test_some_requests_are_never_routed(fields: dict[str, Any]) -> None:
    assert Router(mixture()).route(asked(user(TITLE), **fields)) is None


@pytest.mark.parametrize(
    ("metadata", "task"),
    [
        ({"task": "title_generation"}, "title"),
        ({"task": "TASKS.FOLLOW_UP_GENERATION"}, "follow_ups"),
        ({"task": "moa_response_generation"}, None),
        ({"task": 7}, None),
        ({}, None),
        ("title_generation", None),
    ],
    ids=str,
)
def test_metadata_may_name_the_task(metadata: Any, task: str | None) -> None:
    routed = Router(mixture()).route(asked(user("hello"), metadata=metadata))
    assert (routed and routed.task) == task
    assert routed is None or routed.why == "metadata.task says so"


def sampling(routes: Any, **fields: Any) -> Sampling:
    """The sampling of a title, in a mixture with a llama.cpp model and an aggregator with `top_k`."""
    models = mixture().model_dump(mode="json")["models"]
    llama = {"engine": "llamacpp", "weights": [{"hub": "a/b", "file": "c.gguf"}]}
    aggregator = {"model": "writer", "sampling": {"top_k": 7}}
    settings = mixture(routes, models=models | {"one": llama}, aggregator=aggregator)
    request = asked(user(TITLE), **fields)
    request.answer_by(Router(settings).route(request))
    return asked_sampling(request, settings, Key("anna", b""))


def test_a_routed_answer_is_sampled_as_its_model_is_and_without_a_thought() -> None:
    assert sampling(None).top_k == 7
    assert sampling([{"model": "one"}]).top_k is None
    thoughtless = {"enable_thinking": False, "thinking": False}
    assert sampling([{"model": "one"}]).template == thoughtless
    assert sampling([{"model": "one"}], reasoning_effort="low").template == {}


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ([{"model": "ones"}], "'ones' is not a model of this recipe"),
        ([{"model": "one", "tasks": ["titles"]}], "tasks"),
        ([{"model": "one", "begins": ["short"]}], "begins"),
        ([{"tasks": ["title"]}], "model"),
    ],
    ids=str,
)
def test_a_wrong_route_is_refused(routes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixture(routes)


@pytest.fixture
async def served() -> AsyncIterator[tuple[httpx.AsyncClient, Scripted]]:
    settings = mixture([{"model": "one"}], show_proposals=True)
    models = Scripted(settings)
    await models.start()
    transport = httpx.ASGITransport(create_api(settings, models))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http, models
    await models.stop()


WHY = {"task": "title", "model": "one", "why": "the prompt is one of Open WebUI"}


async def test_the_answer_says_who_wrote_it_and_why(served: tuple[httpx.AsyncClient, Scripted]) -> None:
    http, models = served
    answer = (await http.post(CHAT, json={"model": "mix", "messages": user(TITLE)})).json()
    assert [model for model, *_ in models.asked] == ["one"]
    assert (answer["model"], answer["moa"]["answered_by"]) == ("mix", "one")
    assert (answer["moa"]["routed"], answer["moa"]["degraded"]) == (WHY, False)
    question = await http.post(CHAT, json={"model": "mix", "messages": user("hello")})
    assert "routed" not in question.json()["moa"]


async def test_a_stream_says_so_at_its_end_and_shows_no_proposals(
    served: tuple[httpx.AsyncClient, Scripted],
) -> None:
    http, _ = served
    body = {"model": "mix", "messages": user(TITLE), "stream": True}
    lines = (await http.post(CHAT, json=body)).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert not any("reasoning_content" in c["choices"][0]["delta"] for c in chunks)
    assert chunks[-1]["moa"]["routed"] == WHY


async def test_the_responses_api_routes_too(served: tuple[httpx.AsyncClient, Scripted]) -> None:
    http, models = served
    response = (await http.post("/v1/responses", json={"model": "mix", "input": TITLE})).json()
    assert [model for model, *_ in models.asked] == ["one"]
    assert response["moa"]["routed"] == WHY
    assert [item["type"] for item in response["output"]] == ["message"]


async def test_the_aggregator_takes_over_from_a_routed_model_that_fails() -> None:
    failing = {"engine": "scripted", "fail_share": 1}
    plain = mixture().model_dump(mode="json")["models"]
    settings = mixture([{"model": "one"}], models=plain | {"one": failing})
    models = Scripted(settings)
    await models.start()
    transport = httpx.ASGITransport(create_api(settings, models))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = (await http.post(CHAT, json={"model": "mix", "messages": user(TITLE)})).json()
    assert answer["moa"]["answered_by"] == "writer"
    assert (answer["moa"]["fallback"], answer["moa"]["routed"]["model"]) == ("aggregator", "one")
    await models.stop()
