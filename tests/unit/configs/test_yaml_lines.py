"""YAML text into data and lines, above all text that means harm."""

import re
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
            "3: expected the node content, but found '<stream end>'",
        ),
        (
            "a: 1\n\tb: 2",
            "2: found character '\\t' that cannot start any token",
        ),
        ("a: *b", "1: found undefined alias 'b'"),
        ("a: 1\n---\nb: 2", "2: but found another document"),
        ("a: 1\nb: \x00", "2: character U+0000 is not allowed"),
        ("a: 1\n? [b]\n: 2", "2: found unhashable key"),
        (
            "a: !!python/object/apply:os.system [x]",
            "1: could not determine a con",
        ),
        ("a: 2026-13-45", "1: this cannot be read as timestamp"),
        ("a: !!bool so", "1: this cannot be read as bool"),
        ("a: " + "1" * 5000, "1: this cannot be read as int"),
        ("a: 0x" + "f" * 5000, "1: this number is out of range"),
        ("a: &a\n  b: *a", "1: this contains itself"),
        ("<<: 5", "1: expected a mapping or list of mappings for merging"),
    ],
)
def test_text_that_cannot_be_read_is_told_with_its_line(text: str, expected: str) -> None:
    assert refusal(text).startswith(expected)


def doubling(item: str) -> str:
    """Sixty lines, each of which stands for the one before, several times."""
    return "a0: &a0 {x: y}\n" + "".join(
        f"a{n}: &a{n} {item.format(','.join([f'*a{n - 1}'] * 5))}\n" for n in range(1, 60)
    )


HOSTILE = {
    "lists of lists": doubling("[{}]"),
    "merges of merges": doubling("{{<<: [{}]}}"),
    "a chain of aliases": "a0: &a0 [x]\n"
    + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000)),
    "open brackets": "[" * 100_000,
    "open braces": "{a: " * 100_000,
    "open dashes": "- " * 100_000,
    "many keys": "\n".join(f"k{n}: 1" for n in range(100_000)),
    "many characters": "#" * 2_000_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_refused_soon(text: str) -> None:
    began = time.process_time()
    assert re.search("too (large|deep) for a recipe|more than 1000000 characters", refusal(text))
    assert time.process_time() - began < 2


@pytest.mark.parametrize("text", ["", "# a comment"])
def test_nothing_is_a_document_without_data(text: str) -> None:
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
