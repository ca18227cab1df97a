import asyncio

import pytest

from actors.engine import Message
from actors.engines.scripted import ScriptedEngine
from configs.errors import EngineError
from configs.schema import Sampling, ScriptedModel

MESSAGES: list[Message] = [{"role": "user", "content": "hello"}]


async def started(name: str = "small", **script: object) -> ScriptedEngine:
    quick = {"engine": "scripted", "first_token_s": 0, "token_s": 0}
    engine = ScriptedEngine(name, ScriptedModel.model_validate(quick | script))
    await engine.start()
    return engine


async def answer(engine: ScriptedEngine, **sampling: object) -> str:
    stream = engine.stream(MESSAGES, Sampling.model_validate(sampling))
    return "".join([delta.text async for delta in stream])


@pytest.mark.parametrize("text", ["one", " one  two\n", "\n", "", "é 你好 👩‍👩‍👧‍👦"])
async def test_it_writes_its_text_to_the_letter(text: str) -> None:
    assert await answer(await started(text=text)) == text


async def test_drawn_texts_differ_by_model_seed_and_length() -> None:
    texts = {
        await answer(await started(name, tokens=tokens), seed=seed)
        for name, tokens, seed in [("a", 8, 1), ("b", 8, 1), ("a", 8, 2), ("a", 9, 1)]
    }
    assert len(texts) == 4
    assert await answer(await started("a", tokens=8), seed=1) in texts


async def test_an_empty_answer_still_ends_and_counts() -> None:
    engine = await started(tokens=0)
    (delta,) = [delta async for delta in engine.stream(MESSAGES, Sampling())]
    assert (delta.text, delta.finish_reason, delta.completion_tokens) == ("", "stop", 0)
    assert delta.prompt_tokens == 2


@pytest.mark.virtual_time
@pytest.mark.parametrize(("streamed", "deltas"), [(True, 22), (False, 4)])
async def test_an_answer_takes_the_scripts_time_in_however_few_deltas(
    streamed: bool, deltas: int
) -> None:
    engine = await started(tokens=21, first_token_s=5, token_s=0.01)
    loop = asyncio.get_running_loop()
    began = loop.time()
    stream = engine.stream(MESSAGES, Sampling(), streamed)
    first = await anext(stream)
    assert loop.time() - began == pytest.approx(5)
    assert len(first.text.split()) == 1
    assert len([first, *[delta async for delta in stream]]) == deltas
    assert loop.time() - began == pytest.approx(5.2)


async def outcomes(fail_share: float, hang_share: float, calls: int) -> str:
    """The outcomes of the calls, a letter each: A for answered, F for failed, H for hanging."""
    engine = await started(tokens=1, fail_share=fail_share, hang_share=hang_share)
    letters = ""
    for _ in range(calls):
        call = asyncio.create_task(answer(engine))
        for _ in range(50):  # a call without a fault ends within these turns of the event loop
            await asyncio.sleep(0)
        if not call.done():
            call.cancel()
            letters += "H"
        else:
            letters += "F" if isinstance(call.exception(), EngineError) else "A"
    return letters


async def test_faults_come_in_their_share_and_the_same_in_each_run() -> None:
    first = await outcomes(0.2, 0.05, 200)
    assert 25 <= first.count("F") <= 55
    assert 4 <= first.count("H") <= 18
    assert first == await outcomes(0.2, 0.05, 200)


@pytest.mark.parametrize(("fail_share", "hang_share", "letter"), [(1, 0, "F"), (0, 1, "H")])
async def test_a_whole_share_takes_every_call(
    fail_share: float, hang_share: float, letter: str
) -> None:
    assert await outcomes(fail_share, hang_share, 3) == letter * 3


async def test_an_answer_that_reaches_the_end_of_the_context_is_cut_there() -> None:
    engine = await started(tokens=500, context_tokens=128)
    last = [delta async for delta in engine.stream(MESSAGES, Sampling(max_tokens=400))][-1]
    assert last.finish_reason == "length"
    assert last.prompt_tokens + last.completion_tokens == 128
