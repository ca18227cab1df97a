"""YAML text -> plain data that remembers the line of each key.

The text is untrusted: whatever it holds, reading it ends soon, in data of bounded size or in a
BadDocument. Keys are taken as they are written, so `1:` and `on:` are the texts "1" and "on".
"""

from collections.abc import Iterator
from typing import Any, cast

import yaml

from configs.cross_checks import Problem, Where

MOST_CHARACTERS = 1_000_000
MOST_NODES = 5_000  # with every alias written out
DEEPEST = 32
MERGE = "tag:yaml.org,2002:merge"
TEXT = "tag:yaml.org,2002:str"


class BadDocument(ValueError):
    """Text that cannot be read at all; `problem` says why, and in which line."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Document:
    """data: plain Python data; duplicates: keys that stand in one mapping twice.

    Raises:
        BadDocument: the text is not YAML, not one document, or beyond the limits above.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise BadDocument(Problem((), f"more than {MOST_CHARACTERS} characters", 1))
        survey = _Survey()
        self.data: Any = None
        self.duplicates = survey.duplicates
        try:
            loader = _Loader(text)
            self._root: yaml.Node | None = loader.get_single_node()
            if self._root is not None:
                survey.measure(self._root)
                self.data = loader.construct_document(self._root)
        except yaml.YAMLError as error:
            raise BadDocument(_problem(error, text)) from error

    def line(self, where: Where) -> int:
        """The line of a key or item; of the nearest one around it if there is none."""
        line, node = 1, self._root
        for key in where:
            if isinstance(node, yaml.MappingNode):
                # The last one counts: merged keys come before a mapping's own.
                found = next(((k, v) for k, v in reversed(node.value) if k.value == key), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
                node = node.value[key]
                line = node.start_mark.line + 1
        return line


class _Loader(yaml.SafeLoader):
    """The safe loader, which still exhausts the stack or raises other errors on some texts."""

    _depth = 0
    _nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        self._nodes += 1
        if self._depth > DEEPEST or self._nodes > MOST_NODES:
            what = "deep" if self._depth > DEEPEST else "large"
            raise _too(what, self.peek_event())  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
            kind = node.tag.rpartition(":")[2]
            raise _at(node, f"this cannot be read as {kind} (quotes make it text)") from error
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise _at(node, "this number is out of range")
        return value


class _Survey:
    """What is learned of the nodes on one walk, before they become data."""

    def __init__(self) -> None:
        self.duplicates: list[Problem] = []
        self._known: dict[yaml.Node, tuple[int, int] | None] = {}

    def measure(self, node: yaml.Node, where: Where = ()) -> tuple[int, int]:
        """Nodes and levels of what `node` stands for. Each is walked once, however many aliases
        name it, so a few lines that stand for billions are refused without counting to billions."""
        if node in self._known:
            known = self._known[node]
            if known is None:
                raise _at(node, "this contains itself")
            return known
        self._known[node] = None
        below = [self.measure(child, inner) for child, inner in self._children(node, where)]
        size = 1 + sum(size for size, _ in below)
        depth = 1 + max((depth for _, depth in below), default=0)
        if size > MOST_NODES or depth > DEEPEST:
            raise _too("large" if size > MOST_NODES else "deep", node)
        self._known[node] = size, depth
        return size, depth

    def _children(self, node: yaml.Node, where: Where) -> Iterator[tuple[yaml.Node, Where]]:
        if isinstance(node, yaml.SequenceNode):
            yield from ((value, (*where, n)) for n, value in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    key.tag = key.tag if key.tag == MERGE else TEXT
                    inner = (*where, key.value)
                    if key.value in seen:
                        line = key.start_mark.line + 1
                        self.duplicates.append(Problem(inner, "this key stands here twice", line))
                    seen.add(key.value)
                    yield value, inner


def _at(node: Any, message: str) -> yaml.YAMLError:
    return cast("yaml.YAMLError", yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark))


def _too(what: str, node: Any) -> yaml.YAMLError:
    return _at(node, f"too {what} for a recipe")


def _problem(error: yaml.YAMLError, text: str) -> Problem:
    line = None
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        what = f"character U+{ord(text[error.position]):04X} is not allowed"
    else:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        what = getattr(error, "problem", None) or str(error)
    return Problem((), f"unreadable YAML: {what}", line)
