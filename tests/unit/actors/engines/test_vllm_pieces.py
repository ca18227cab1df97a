"""The pieces in which a prompt is read where a step of vLLM takes a whole prompt."""

from itertools import pairwise

import pytest

from actors.engines.vllm_pieces import PIECE_TOKENS, Pieces, same_beginning


def lengths(pieces: Pieces, tokens: list[int], block: int = 32, who: str | None = None) -> list[int]:
    found = list(pieces.of(tokens, block, who))
    assert all(piece == tokens[: len(piece)] for piece in found)
    return [len(piece) for piece in found]


@pytest.mark.parametrize(
    ("tokens", "block", "expected"),
    [
        (0, 32, []),
        (31, 32, []),  # no whole block: nothing would stay in the cache
        (32, 32, [32]),
        (33, 32, [32]),
        (128, 32, [128]),
        (300, 32, [128, 256, 288]),
        (300, 128, [128, 256]),
        (300, 256, [256]),
        (300, 48, [96, 192, 288]),
    ],
)
def test_a_prompt_is_read_in_whole_blocks(tokens: int, block: int, expected: list[int]) -> None:
    assert lengths(Pieces(), list(range(tokens)), block) == expected


def test_each_piece_adds_few_tokens() -> None:
    ends = [0, *lengths(Pieces(), list(range(5000)), 16)]
    assert max(end - begin for begin, end in pairwise(ends)) == PIECE_TOKENS


def test_a_longer_prompt_goes_on_behind_what_was_read() -> None:
    pieces = Pieces()
    assert lengths(pieces, list(range(300))) == [128, 256, 288]
    assert lengths(pieces, list(range(300))) == []
    assert lengths(pieces, list(range(500))) == [416, 480]


def test_another_prompt_begins_where_it_differs() -> None:
    pieces = Pieces()
    lengths(pieces, list(range(300)))
    assert lengths(pieces, [*range(100), *[-1] * 200]) == [224, 288]
    assert lengths(pieces, [-2] * 64) == [64]


def test_a_piece_that_was_given_up_is_read_again() -> None:
    pieces = Pieces()
    reading = pieces.of(list(range(300)), 32, None)
    assert [len(next(reading)) for _ in range(2)] == [128, 256]
    assert lengths(pieces, list(range(300))) == [256, 288]


def test_adapters_and_the_model_itself_keep_their_own() -> None:
    pieces = Pieces()
    lengths(pieces, list(range(300)))
    assert lengths(pieces, list(range(300)), who="poet") == [128, 256, 288]
    assert lengths(pieces, list(range(300))) == []


def test_an_empty_cache_is_read_from_the_start() -> None:
    pieces = Pieces()
    lengths(pieces, list(range(300)))
    pieces.forget()
    assert lengths(pieces, list(range(300))) == [128, 256, 288]


@pytest.mark.parametrize(
    ("some", "others", "same"), [([], [], 0), ([1], [], 0), ([1, 2], [1, 3], 1), ([1, 2], [1, 2, 3], 2)]
)
def test_tokens_that_two_prompts_have_in_common(some: list[int], others: list[int], same: int) -> None:
    assert same_beginning(some, others) == same_beginning(others, some) == same
