"""Errors of the operating system, of texts and of values, in words that say what to do."""

import errno
import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

PARTIAL = re.compile(r"^\.(?P<name>.+?)(\.\d+)?(\.partial)?$")
"""The name of a file that is being written: the file's own name, with a number behind it."""
WORDS = {
    errno.ENOENT: "there is no such file or folder",
    errno.EACCES: "you may not read or write it (look at its permissions with `ls -l`)",
    errno.EPERM: "this is not permitted (look at its permissions with `ls -l`)",
    errno.EISDIR: "this is a folder, and a file is needed",
    errno.ENOTDIR: "a part of this path is a file and no folder",
    errno.EEXIST: "this exists already; give another name",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk is used up",
    errno.EROFS: "this disk is read-only; give a path elsewhere",
    errno.ENAMETOOLONG: "this name is too long",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "too many files are open; raise the limit (`ulimit -n`)",
    errno.ENFILE: "too many files are open on this machine",
    errno.EIO: "the disk or device reports an error; look at it with `dmesg`, or give another path",
    errno.EINVAL: "the system cannot read or write this",
    errno.ENODEV: "the system cannot read or write this",
    errno.ETXTBSY: "a program is running from this file",
    errno.ECONNREFUSED: "nothing listens there",
    errno.EADDRINUSE: "another program has this port; give another with --port",
}
"""What is said of each cause."""


def os_error_words(error: OSError) -> str:
    """What went wrong with which file, without Python's number of the error."""
    if error.errno is None:
        return str(error)
    words = WORDS.get(error.errno, (error.strerror or os.strerror(error.errno)).lower())
    folder = os.path.dirname(_own_name(error.filename)) if error.errno == errno.ENOENT else ""
    if folder and not os.path.lexists(folder):
        words = f"there is no folder {folder}"
    if error.filename is None:
        return "cannot write the output: the disk is full" if error.errno == errno.ENOSPC else words
    return f"{_own_name(error.filename)}: {words}"


def _own_name(name: object) -> str:
    """The path as a person knows it, for a file that is being written under another name first."""
    path = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)
    folder, base = os.path.split(path)
    found = PARTIAL.fullmatch(base)
    if found is not None and re.search(r"\.(\d+|partial)$", base):
        return os.path.join(folder, found["name"])
    return path


def unicode_words(error: UnicodeError) -> str:
    """What is said of a text that is not UTF-8, or that cannot be printed."""
    if isinstance(error, UnicodeEncodeError):
        return "a text has characters that cannot be written here; set PYTHONUTF8=1 or use UTF-8"
    return "the input is not UTF-8 text; save it as UTF-8, or give another file"


def refused_values(error: "ValidationError") -> str:
    """The values that a class of settings refuses, one in each line, in our words."""
    from configs.schema import Recipe
    from configs.sentences import problems

    return "\n".join(map(str, problems(error, Recipe)))


def option_words(message: str) -> str:
    """What is said of an option's value, without the words of the library that reads it."""
    for pattern, words in OPTIONS:
        message = re.sub(pattern, words, message)
    return message


OPTIONS = (
    (r"Input should be a valid integer.*", "this has to be a whole number"),
    (r"Input should be a valid number.*", "this has to be a number"),
    (r"Input should be a finite number.*", "this has to be a number other than inf and nan"),
    (r"Input should be greater than or equal to (\S+)", r"this has to be at least \1"),
    (r"Input should be less than or equal to (\S+)", r"this has to be at most \1"),
    (r"Unable to parse input string as an integer.*", "this has to be a whole number"),
    (r"Input should be", "this has to be"),
)
"""Typer's words about a value, and ours."""


def printable(text: str) -> str:
    """A message without Python's words in causes that it quotes, and without what no terminal can show:
    bytes of a name that are no text."""
    text = re.sub(r"\[Errno -?\d+\] ", "", text)
    text = re.sub(r"'utf-8(-sig)?' codec can't decode [^;\n]*", "it is not UTF-8 text", text)
    text = re.sub(r"'utf-8' codec can't encode [^;\n]*", "a name has bytes that are not UTF-8", text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def discard_output() -> None:
    """Throw away what is still to be written to standard output, because it cannot be written."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
