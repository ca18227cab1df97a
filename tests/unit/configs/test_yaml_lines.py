"""YAML text into data and lines, and the texts that are refused."""

import time

import pytest

from configs.yaml_lines import BadDocument, Document


def refusal(text: str) -> str:
    with pytest.raises(BadDocument) as caught:
        Document(text)
    problem = caught.value.problem
    return f"{problem.line}: {problem.message.removeprefix('unreadable YAML: ')}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: 1\nb: [\n",
            "3: something above is not closed",
        ),
        (
            "a: 1\n\tb: 2",
            "2: indent with spaces, not with tabs",
        ),
        ("a: *b", "1: a text that begins with * needs quotes"),
        ("a: 1\n---\nb: 2", "2: a recipe is one document"),
        ("a: 1\nb: \x00", "2: character U+0000 is not allowed"),
        ("a: 1\n? [b]\n: 2", "2: a key is one text"),
        (
            "a: !!python/object/apply:os.system [x]",
            "1: a text that begins with ! needs quotes",
        ),
        ("a: 2026-13-45", "1: this cannot be read as timestamp (quotes make it text)"),
        ("a: !!bool so", "1: this cannot be read as bool"),
        ("a: " + "1" * 5000, "1: this cannot be read as int"),
        ("a: 0x" + "f" * 5000, "1: this number is out of range"),
        ("a: &a\n  b: *a", "2: this contains itself"),
        ("<<: 5", "1: expected a mapping or list of mappings for merging"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_with_the_line(text: str, expected: str) -> None:
    assert refusal(text).startswith(expected)


def doubling(item: str) -> str:
    """Sixty lines, each of which stands for five times the line before.

    Args:
        item: the form of a line's value; `{}` is where the five aliases go.
    """
    return "a0: &a0 {x: y}\n" + "".join(
        f"a{n}: &a{n} {item.format(','.join([f'*a{n - 1}'] * 5))}\n" for n in range(1, 60)
    )


TOO_MUCH = {
    "lists of lists": (doubling("[{}]"), "6: too large for a recipe"),
    "merges of merges": (doubling("{{<<: [{}]}}"), "6: too large for a recipe"),
    "many keys": ("k: 1\n" * 100_000, "2501: too large for a recipe"),
    "many levels": ("\n[" * 100_000, "too deep for a recipe"),
    "many characters": ("#" * 2_000_000, "1: more than 1000000 characters"),
}


@pytest.mark.parametrize(("text", "expected"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_text_that_stands_for_too_much_is_refused_soon(text: str, expected: str) -> None:
    began = time.process_time()
    assert expected in refusal(text)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("text", ["", "# a comment"])
def test_an_empty_text_is_a_document_without_data(text: str) -> None:
    assert Document(text).data is None


def test_lines_are_those_of_keys_and_items() -> None:
    document = Document("a:\n  - b\n  - c: {d: 1,\n        e: 2}\n")
    wheres = [("a",), ("a", 0), ("a", 1), ("a", 1, "c", "d"), ("a", 1, "c", "e")]
    assert [document.line(where) for where in wheres] == [1, 2, 3, 3, 4]


def test_a_missing_key_has_the_line_of_what_should_hold_it() -> None:
    assert Document("x: 1\na:\n  b: 1\n").line(("a", "missing", "deeper")) == 2


def test_a_merged_key_has_its_own_line_and_an_own_key_beats_it() -> None:
    document = Document("a: &a\n  x: 1\n  y: 1\nb:\n  <<: *a\n  y: 2\n")
    assert document.data["b"] == {"x": 1, "y": 2}
    assert (document.line(("b", "x")), document.line(("b", "y"))) == (2, 6)


def test_each_duplicate_is_found_once_however_often_it_is_used() -> None:
    document = Document("a: &a\n  x: 1\n  x: 2\nb: [*a, *a]\nb: 3\n")
    assert sorted((p.line, p.where) for p in document.duplicates) == [(3, ("a", "x")), (5, ("b",))]


def test_keys_are_texts_however_they_look() -> None:
    assert Document("{1: a, on: b, null: c, 2026-01-01: d, =: e}").data == {
        "1": "a",
        "on": "b",
        "null": "c",
        "2026-01-01": "d",
        "=": "e",
    }
