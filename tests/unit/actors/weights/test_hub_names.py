"""What people write to name a model, and which GGUF file they mean."""

import pytest

from actors.weights.hub_names import HubName, choose_gguf, nearest, parse_hub_name, quantization_of
from configs.errors import WeightsError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("o/n", HubName("o/n")),
        ("o/n/", HubName("o/n")),
        ("o/n@v1", HubName("o/n", revision="v1")),
        ("o/n@v1:Q4_0", HubName("o/n", quantization="Q4_0", revision="v1")),
        ("o/n:Q4_0", HubName("o/n", quantization="Q4_0")),
        ("o/n/d/f.gguf", HubName("o/n", "d/f.gguf")),
        ("hf://o/n", HubName("o/n")),
        ("HTTPS://HuggingFace.co/o/n?x=1#y", HubName("o/n")),
        ("https://huggingface.co/o/n/tree/v2", HubName("o/n", revision="v2")),
        (
            "https://huggingface.co/o/n/resolve/v2/d/f%20g.gguf",
            HubName("o/n", "d/f g.gguf", None, "v2"),
        ),
        ("n", None),
        ("", None),
        ("o/", None),
        ("/n", None),
        ("o/n with spaces", None),
        ("https://example.com/o/n", None),
    ],
)
def test_a_name_is_taken_apart(text: str, expected: HubName | None) -> None:
    assert parse_hub_name(text) == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("Qwen3-4B-Instruct-2507-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "q4_k_m"),
        ("x-UD-Q4_K_XL-00001-of-00003.gguf", "UD-Q4_K_XL"),
        ("gemma-4-E4B_q4_0-it.gguf", "q4_0"),
        ("d-Q8_0/x-IQ4_XS.gguf", "IQ4_XS"),
        ("gpt-oss-20b-mxfp4.gguf", "mxfp4"),
        ("SmolLM2.BF16.gguf", "BF16"),
        ("model.gguf", None),
    ],
)
def test_the_quantization_is_read_from_a_files_name(file: str, expected: str | None) -> None:
    assert quantization_of(file) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a-Q8_0.gguf", "a-Q4_K_M.gguf", "mmproj-Q4_K_M.gguf"), "a-Q4_K_M.gguf"),
        (("a-Q8_0.gguf", "a-Q2_K.gguf"), "a-Q8_0.gguf"),
        (("strange.gguf", "README.md"), "strange.gguf"),
        (("a-Q4_K_M-00002-of-00002.gguf", "a-Q4_K_M-00001-of-00002.gguf"),) * 2,
    ],
)
def test_a_usual_quantization_is_chosen_if_none_is_named(
    names: tuple[str, ...], expected: str | tuple[str, ...]
) -> None:
    chosen = choose_gguf(names, HubName("o/n"))
    assert chosen == (expected if isinstance(expected, str) else expected[1])


@pytest.mark.parametrize(
    ("names", "name", "message"),
    [
        (("a.txt",), HubName("o/n"), "o/n has no GGUF file"),
        (
            ("a-Q4_0.gguf", "b-Q4_0.gguf"),
            HubName("o/n"),
            "o/n has several such files, name one of them",
        ),
        (("a-Q3_K.gguf", "b-Q2_K.gguf"), HubName("o/n"), "o/n has several such files"),
        (("a.gguf",), HubName("o/n", None, "Q4_0"), "o/n has no Q4_0 (it has files without a "),
    ],
)
def test_a_choice_that_is_not_clear_is_an_error(
    names: tuple[str, ...], name: HubName, message: str
) -> None:
    with pytest.raises(WeightsError) as caught:
        choose_gguf(names, name)
    assert caught.value.message.startswith(message)


def test_only_a_name_that_is_near_is_suggested() -> None:
    assert nearest("o/Modl", ["o/model", "o/other"]) == "; did you mean o/model?"
    assert nearest("x/y", ["o/model"]) == ""
