"""llama.cpp with real weights: what the contract of all engines does not cover."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from actors.engine import Message, Share
from actors.engines.llamacpp import LlamaCppEngine
from actors.weights.files import fetch
from configs.errors import EngineUnavailable, RequestError, TemplateRefused
from configs.load import load
from configs.schema import LlamaCppModel, Sampling
from configs.weights import LocalFile

pytestmark = pytest.mark.weights

SMOLLM = load("tiny_cpu").models["smollm2-135m"]
TEMPLATE_KEY = b"tokenizer.chat_template"


def user(content: str) -> list[Message]:
    return [{"role": "user", "content": content}]


def make(threads: int = 2, **changes: object) -> LlamaCppEngine:
    assert isinstance(SMOLLM, LlamaCppModel)
    return LlamaCppEngine("smollm", SMOLLM.model_copy(update=changes), Share(threads=threads))


@pytest.fixture
async def engine() -> AsyncIterator[LlamaCppEngine]:
    engine = make()
    await engine.start()
    yield engine
    await engine.stop()


async def answer(engine: LlamaCppEngine, messages: list[Message], **sampling: Any) -> str:
    settings = {"max_tokens": 8, "temperature": 0} | sampling
    return "".join([d.text async for d in engine.stream(messages, Sampling(**settings))])


def listening_ports() -> set[str]:
    """TCP ports on which this process listens."""
    sockets = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            sockets.add(os.readlink(descriptor))
        except FileNotFoundError:  # the one of this very listing
            continue
    rows = [line.split() for name in ("tcp", "tcp6") for line in _table(name)]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def _table(name: str) -> list[str]:
    return Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]


@pytest.mark.parametrize("threads", [1, 2])
async def test_a_long_prefill_is_cancelled_within_a_second(threads: int) -> None:
    engine = make(threads)
    await engine.start()
    call = asyncio.create_task(answer(engine, user("word " * 3500)))
    done, _ = await asyncio.wait([call], timeout=0.5)
    assert not done  # the prefill takes seconds
    began = time.perf_counter()
    call.cancel()
    await asyncio.wait([call])
    print(f"cancelled with {threads} threads after {time.perf_counter() - began:.3f} s")
    assert time.perf_counter() - began < 1
    assert await asyncio.wait_for(answer(engine, user("hi")), 10)
    await engine.stop()


async def test_its_server_listens_on_a_private_keyed_socket_and_on_no_port() -> None:
    before = listening_ports()
    engine = make()
    await engine.start()
    assert listening_ports() == before
    assert engine._folder is not None
    folder = engine._folder.path
    assert folder.stat().st_mode & 0o777 == 0o700
    connector = aiohttp.UnixConnector(str(folder / "llama.sock"))
    async with aiohttp.ClientSession("http://llama", connector=connector) as stranger:
        for path in ("/tokenize", "/apply-template", "/v1/chat/completions", "/completion"):
            async with stranger.post(path, json={"content": "hi", "messages": []}) as response:
                assert response.status == 401
    await engine.stop()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "it is empty"), (b"<html>", "it is a web page"), (b"GGUF", "cannot load")],
)
async def test_a_file_that_holds_no_model_is_refused_by_name(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    engine = make(weights=(LocalFile(path=str(file)),))
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match=said) as failure:
            await engine.start()
        assert "model.gguf" in failure.value.message
        assert engine._folder is None
        with pytest.raises(EngineUnavailable):
            await engine.check_health()


async def test_two_engines_live_in_one_process(engine: LlamaCppEngine) -> None:
    other = make()
    await other.start()
    alone = await answer(engine, user("Name a river."))
    both = await asyncio.gather(*[answer(e, user("Name a river.")) for e in (engine, other)])
    assert both == [alone, alone]
    await other.stop()
    assert await answer(engine, user("Name a river.")) == alone


@pytest.mark.parametrize("limit", range(20, 26))
async def test_characters_of_several_tokens_are_never_broken(
    engine: LlamaCppEngine, limit: int
) -> None:
    """The limit falls within a character of an answer that is all emoji."""
    question = user("Write three emoji and the Chinese word for hello.")
    deltas = [
        delta async for delta in engine.stream(question, Sampling(max_tokens=limit, temperature=0))
    ]
    text = "".join(delta.text for delta in deltas)
    assert not text.isascii()
    assert all("\ufffd" not in delta.text for delta in deltas)
    assert text.encode().decode() == text
    assert deltas[-1].completion_tokens == limit


async def test_more_places_than_tokens_of_a_prefill_step() -> None:
    engine = make(concurrency=16, prefill_tokens=8, context_tokens=128)
    await engine.start()
    texts = await asyncio.gather(*[answer(engine, user("Name a river.")) for _ in range(16)])
    assert all(texts)
    await engine.stop()


def with_template(template: bytes, target: Path) -> Path:
    """SmolLM2 with another chat template, of the same length so that nothing else moves."""
    assert isinstance(SMOLLM, LlamaCppModel)
    data = bytearray(fetch("smollm", SMOLLM.weights).read_bytes())
    start = data.index(TEMPLATE_KEY) + len(TEMPLATE_KEY) + 4  # the value's type comes first
    length = int.from_bytes(data[start : start + 8], "little")
    assert len(template) <= length
    data[start + 8 : start + 8 + length] = template.ljust(length)
    target.write_bytes(data)
    return target


STRICT = (
    b"{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    b"{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}|{% endfor %}"
)
NEVER = b"{% if messages[0].content == 'no' %}{{ raise_exception('not with me') }}{% endif %}hi"


async def test_a_conversation_takes_the_form_that_the_template_wants(tmp_path: Path) -> None:
    file = with_template(STRICT, tmp_path / "strict.gguf")
    engine = make(weights=(LocalFile(path=str(file)),))
    await engine.start()
    system: list[Message] = [{"role": "system", "content": "Be brief."}]
    joined = user("hi\n\nagain")
    for chat, taken in (
        ([*user("hi"), *user("again")], joined),
        # llama.cpp itself joins a system message to the user's, where the template has no such role.
        ([*system, *user("hi"), *user("again")], user("Be brief.\nhi\n\nagain")),
    ):
        assert await answer(engine, chat) == await answer(engine, taken)
        assert await engine.token_ends(chat) == await engine.token_ends(taken)
    await engine.stop()


async def test_a_template_that_refuses_a_conversation_says_why(tmp_path: Path) -> None:
    file = with_template(NEVER, tmp_path / "never.gguf")
    engine = make(weights=(LocalFile(path=str(file)),))
    await engine.start()
    for call in (answer(engine, user("no")), engine.token_ends(user("no"))):
        with pytest.raises(TemplateRefused, match=r"\(Jinja exception: not with me\)$") as no:
            await asyncio.wait_for(call, 10)
        assert (no.value.model, no.value.status) == ("smollm", 400)
    await engine.stop()


async def test_an_answer_keeps_to_the_form_that_it_is_asked_for(engine: LlamaCppEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer"}},
        "required": ["age"],
        "additionalProperties": False,
    }
    forms: list[tuple[dict[str, Any], str]] = [
        ({"choice": ['ye"s', "nö\n"]}, r'ye"s|nö\n'),
        ({"grammar": "root ::= [0-9]{3}"}, r"\d{3}"),
        ({"json_schema": schema}, r'\{\s*"age"\s*:\s*-?\d+\s*\}'),
    ]
    for form, pattern in forms:
        text = await answer(engine, user("How old are you?"), max_tokens=30, extra={"structure": form})
        assert re.fullmatch(pattern, text), (form, text)
    with pytest.raises(RequestError):
        await answer(engine, user("hi"), extra={"structure": {"grammar": "root ::= [0-9"}})


async def test_samplers_bound_what_is_drawn(engine: LlamaCppEngine) -> None:
    greedy = await answer(engine, user("Name a colour."))
    hot = {"temperature": 2.0, "seed": 7}
    assert await answer(engine, user("Name a colour."), top_k=1, **hot) == greedy
    assert await answer(engine, user("Name a colour."), min_p=1.0, **hot) == greedy
    assert await answer(engine, user("Name a colour."), **hot) != greedy
    ended = await engine_tokens(engine, max_tokens=40, extra={"ignore_eos": True})
    assert ended == 40


async def engine_tokens(engine: LlamaCppEngine, **sampling: Any) -> int:
    """How many tokens an answer to a greeting has."""
    settings = Sampling(**({"temperature": 0} | sampling))
    return sum([d.completion_tokens async for d in engine.stream(user("Say OK."), settings)])
