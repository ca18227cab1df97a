"""Prompts that fit into a model's context: properties over any lengths and any tokenizer."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine import NONE, Message
from configs.errors import ContextTooLong
from configs.schema import Recipe
from serve_app.mixture.context_budget import (
    FittedPrompt,
    PromptTask,
    check_conversation,
    even_length,
    fit,
    token_bound,
)
from serve_app.mixture.references import with_references
from tests.unit.scripts import FakeModels

pytestmark = pytest.mark.virtual_time

RESERVE = 512
TOKENIZERS: dict[str, Callable[[str], list[int]]] = {
    "words": lambda text: [m.end() for m in re.finditer(r"\s*\S+|\s+$", text)],
    "characters": lambda text: list(range(1, len(text) + 1)),
    # Tokens that depend on the text before them, as merges do: a cut changes their number.
    "merges": lambda text: [m.end() for m in re.finditer(r"(?s)(ab)+|(.)\2*|.", text)],
    # A token is a byte, and several of them end with the same character.
    "bytes": lambda text: [n for n, c in enumerate(text, 1) for _ in c.encode()],
}


class Counter(FakeModels):
    """Models with this tokenizer. `counted`: how many calls counted tokens."""

    def __init__(self, token_ends: Callable[[str], list[int]]) -> None:
        super().__init__()
        self._token_ends = token_ends
        self.counted = 0

    async def count_tokens(
        self, _model: str, messages: Sequence[Message], _template: Mapping[str, Any] = NONE
    ) -> int:
        self.counted += 1
        return sum(4 + len(self._token_ends(m["content"])) for m in messages)

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:  # noqa: ARG002
        return [self._token_ends(text) for text in texts]


def recipe(context_tokens: int, style: str = "system") -> Recipe:
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": {"m": {"engine": "scripted", "context_tokens": context_tokens}},
            "layers": [{"proposers": [{"model": "m"}]}],
            "aggregator": {"model": "m"},
            "references": {"prompt": "Merge:", "item": "[{number}] {text}", "style": style},
        }
    )


@given(st.lists(st.integers(0, 60), max_size=8), st.integers(-20, 400))
def test_even_length_is_the_largest_that_fits(lengths: list[int], budget: int) -> None:
    def total(length: int) -> int:
        return sum(min(length, n) for n in lengths)

    fitting = [n for n in range(max(lengths, default=0) + 1) if total(n) <= budget]
    assert even_length(lengths, budget) == max(fitting, default=0)


TEXT = st.text("ab <é\n", max_size=400)


def prompt_task(
    recipe: Recipe, messages: Sequence[Message], references: Sequence[str] = ()
) -> PromptTask:
    return PromptTask(recipe, "m", messages, references, RESERVE)


async def try_to_fit(task: PromptTask, counter: Counter) -> FittedPrompt | ContextTooLong:
    try:
        return await fit(task, counter)
    except ContextTooLong as error:
        return error


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@settings(deadline=None)
@given(
    conversation=TEXT,
    references=st.lists(TEXT, max_size=5),
    room=st.integers(128, 900),
    style=st.sampled_from(["system", "tail"]),
)
async def test_whatever_is_fitted_fits(
    tokenizer: str, conversation: str, references: list[str], room: int, style: str
) -> None:
    counter, tight = Counter(TOKENIZERS[tokenizer]), recipe(room + RESERVE, style)
    messages = [Message(role="user", content=conversation)]
    whole = with_references(messages, references, tight.references)
    fits_whole = await counter.count_tokens("m", whole) <= room
    task = prompt_task(tight, messages, references)
    outcome = await try_to_fit(task, counter)
    if isinstance(outcome, ContextTooLong):
        assert not fits_whole
        assert int(re.findall(r": (\d+) too many for", outcome.message)[0]) > 0
        with pytest.raises(ContextTooLong):  # or it would be refused after the proposers' work
            await check_conversation(task, counter)
        return
    assert await counter.count_tokens("m", outcome.messages) <= room
    assert (outcome.tokens_removed == 0) == fits_whole == (outcome.messages == whole)
    assert outcome.messages[-1]["content"].startswith(conversation)
    [_, *texts] = re.split(r"\n\[\d\] ", outcome.messages[0]["content"])
    assert len(texts) == len(references)
    for text, reference in zip(texts, references, strict=True):
        assert reference.startswith(text)


async def fitted(context_tokens: int, references: list[str]) -> tuple[str, int]:
    """The first message of the prompt for a model whose tokens are words, and how many were trimmed.

    The first estimate is right for such a model: the prompt is counted once before it is cut and once
    after.
    """
    counter = Counter(TOKENIZERS["words"])
    messages = [Message(role="user", content="Hello")]
    done = await fit(prompt_task(recipe(context_tokens), messages, references), counter)
    assert counter.counted <= 2
    return done.messages[0]["content"], done.tokens_removed


async def test_long_references_are_cut_to_one_length_and_short_ones_left_whole() -> None:
    # 5 for the question, 4 + 1 + 3 for the frame, 40 + 100 + 100 for the references
    prompt, removed = await fitted(RESERVE + 253, [" s" * 40, " m" * 300, " l" * 500])
    assert [prompt.count(word) for word in (" s", " m", " l")] == [40, 100, 100]
    assert removed == 200 + 400


async def test_references_that_fit_are_left_whole() -> None:
    assert (await fitted(RESERVE + 252, [" m" * 120, " l" * 120]))[1] == 0


async def test_references_that_would_be_too_short_to_be_of_use_are_refused() -> None:
    with pytest.raises(ContextTooLong, match="48 in references"):
        await fitted(RESERVE + 59, [" m" * 200, " l" * 200])


class Stubborn(Counter):
    """Counts one token more than there is room for, until references are at their shortest."""

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        return 128 if await super().count_tokens(model, messages, template) <= 9 + 3 + 24 else 129


async def test_a_tokenizer_that_defies_every_estimate_still_ends_in_the_shortest_cut() -> None:
    messages = [Message(role="user", content="Hello")]
    stubborn, tight = Stubborn(TOKENIZERS["words"]), recipe(RESERVE + 128)
    done = await fit(prompt_task(tight, messages, [" m" * 120]), stubborn)
    assert done.messages[0]["content"].count(" m") == 24


async def test_counting_is_spared_where_even_one_token_a_byte_would_fit() -> None:
    messages = [Message(role="user", content="é" * 100)]
    bound = token_bound(messages)
    assert bound == 256 + 16 + 200
    for room, counted in ((bound, 0), (bound - 1, 1)):
        counter = Counter(TOKENIZERS["words"])
        await check_conversation(prompt_task(recipe(room + RESERVE), messages), counter)
        assert counter.counted == counted


async def test_the_arguments_of_the_chat_template_count(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter(TOKENIZERS["words"])
    asked: list[dict[str, Any]] = []
    count = counter.count_tokens

    async def noted(model: str, messages: Sequence[Message], template: Mapping[str, Any]) -> int:
        asked.append(dict(template))
        return await count(model, messages)

    monkeypatch.setattr(counter, "count_tokens", noted)
    question = [Message(role="user", content="word " * 200)]
    task = PromptTask(recipe(2000), "m", question, ["word " * 2000], 32, {"enable_thinking": False})
    await fit(task, counter)
    assert asked
    assert set(map(str, asked)) == {str({"enable_thinking": False})}
