"""Texts without visible characters."""

import pytest

from actors.text.visible import is_blank


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t\r\x0b",
        "\u00a0\u3000\u2028",
        "\u200b\u200d\u2060\ufeff",
        "\u202e\u2066",
        "\x00\x07",
        "\ufe0f\U000e0101",
        "\U000e0041\U000e0042",
        "\u115f\u3164\uffa0",
        "\u2800",
    ],
    ids=ascii,
)
def test_a_text_of_unseen_characters_is_blank(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(f"{text}x{text}")


@pytest.mark.parametrize("text", [".", "0", "…", "👍🏽", "é", "中", "\ue000", "\u0301"], ids=ascii)
def test_a_text_of_one_seen_character_is_not_blank(text: str) -> None:
    assert not is_blank(text)
