"""Reads YAML text into plain data, and finds the line of each key and item.

The text is a recipe or a file of API keys. Mostly the operator wrote it, so the errors name mistakes
and their lines. A stranger may have written it too: PyYAML's safe loader reads the text and builds only
plain data, and two limits, on the length of the text and on the number of nodes, keep the time and
memory of a check small. A mapping's keys are texts as they are written: `1:` and `on:` are the keys "1"
and "on".
"""

from typing import Any, cast

import yaml

from configs.problem import Problem, Where

MOST_CHARACTERS = 1_000_000
"""A recipe has a few thousand characters. A text this long is another kind of file."""
MOST_NODES = 5_000
"""Most keys, values and items of a text. An alias counts as many nodes as it stands for. Without this
limit, the check of a recipe of 1,212 characters, whose lists name one alias 80 times at three levels,
took 3 s and 290 MB. Both grow with the third power of the number of aliases."""
MERGE = "tag:yaml.org,2002:merge"
"""YAML's tag of the key `<<`, which merges another mapping into this mapping."""
TEXT = "tag:yaml.org,2002:str"
"""YAML's tag of a text."""


HINTS = {
    "'\\t'": "indent with spaces, not with tabs",
    "cannot start any token": "a text that begins with @, ` or % needs quotes",
    "alphabetic or numeric character": "a text that begins with * or & needs quotes",
    "undefined alias": "a text that begins with * needs quotes",
    "constructor for the tag": "a text that begins with ! needs quotes",
    "unhashable key": "a key is one text, and not a list or a mapping",
    "<block end>, but found '<scalar>'": "a text follows a quotation mark that closes another; a text "
    "with quotation marks in it stands as a whole between those of the other kind",
    "<block end>": "the lines of one mapping or list begin in the same column, and either all of them "
    "or none with `- `",
    "',' or ']'": "a [ above is not closed by ]",
    "',' or '}'": "a { above is not closed by }",
    "expected ':'": "a key is followed by a colon and a space",
    "mapping values are not allowed": "a text with a colon and a space in it needs quotes; if this is "
    "a key, it begins in the same column as the key above",
    "<stream end>": "something above is not closed: a bracket or a quotation mark",
    "end of stream": "a quotation mark above is not closed",
    "another document": "a recipe is one document: leave out the --- between them",
}
"""What a person has to change, by a part of PyYAML's message, whose words are for programmers."""


class BadDocument(ValueError):
    """The text cannot be read at all; `problem` says why, and in which line."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Document:
    """A YAML text as data.

    Raises:
        BadDocument: the text is not YAML, has several documents, or is over a limit of this module.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise BadDocument(Problem((), f"more than {MOST_CHARACTERS} characters", 1))
        self.data: Any = None
        """Plain Python data; None if the text has no data."""
        try:
            loader = _Loader(text)
            self._root: yaml.Node | None = loader.get_single_node()
            if self._root is not None:
                self.data = loader.construct_document(self._root)
        except yaml.YAMLError as error:
            raise BadDocument(_problem(error, text)) from error
        except RecursionError as error:
            raise BadDocument(Problem((), "too deep for a recipe", loader.line + 1)) from error
        self.duplicates: list[Problem] = loader.duplicates
        """A problem for each key that its mapping has already had."""

    def line(self, where: Where) -> int:
        """The line of a key or item, from 1. If there is none, the line of the nearest key around it.

        Args:
            where: the path to the key or item: keys of mappings and positions in lists.
        """
        line, node = 1, self._root
        for key in where:
            if isinstance(node, yaml.MappingNode):
                # Of equal keys the last counts: merged keys come before the mapping's own keys.
                found = next(((k, v) for k, v in reversed(node.value) if k.value == key), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
                node = node.value[key]
                line = node.start_mark.line + 1
        return line


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader. Keys become texts, MOST_NODES holds, and every error is a YAMLError."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[Problem] = []
        self._where: Where = ()
        """The path of keys to the node that is being read."""
        self._nodes = 0
        self._sizes: dict[yaml.Node, int] = {}
        """For each finished node, how many nodes it stands for: itself and all nodes inside it."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        where, nodes = self._where, self._nodes
        if index is not None:  # None is the whole text, or a key
            self._where = (*where, index.value if isinstance(index, yaml.Node) else index)
        node = super().compose_node(parent, index)
        self._where = where
        assert node is not None
        if isinstance(event, yaml.AliasEvent):
            if node not in self._sizes:  # the node that the alias names is still being read
                raise _at(event, "this contains itself")
            self._nodes += self._sizes[node]
        else:
            self._nodes += 1
            self._sizes[node] = self._nodes - nodes
        if self._nodes > MOST_NODES:
            raise _at(event, "too large for a recipe")
        return node

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        mapping = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in mapping.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # construct_object refuses it
            if key.tag != MERGE:
                key.tag = TEXT
            if key.value in seen:
                where, line = (*self._where, key.value), key.start_mark.line + 1
                self.duplicates.append(
                    Problem(where, "this key stands here twice; leave one out", line)
                )
            seen.add(key.value)
        return mapping

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
            kind = node.tag.rpartition(":")[2]
            raise _at(node, f"this cannot be read as {kind} (quotes make it text)") from error
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise _at(node, "this number is out of range")
        return value


def _at(node: Any, message: str) -> yaml.YAMLError:
    return cast("yaml.YAMLError", yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark))


def _problem(error: yaml.YAMLError, text: str) -> Problem:
    line = None
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        what = f"character U+{ord(text[error.position]):04X} is not allowed"
    else:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        what = getattr(error, "problem", None) or str(error)
        what = next((hint for part, hint in HINTS.items() if part in what), what)
    return Problem((), f"unreadable YAML: {what}", line)
