"""Which proposals have the same answer. Pure.

An answer is what stands in a proposal where the recipe says that it stands. Two answers are the same if
they differ in case, spaces, marks around them or the form of a number only: `$1,200.00` is `1200`.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from configs.schema import AnswerForm
from serve_app.mixture.events import ProposalDone

NUMBER = r"[-+]?(?:\d{1,3}(?:\.\d{3})+,\d+|\d[\d,]*(?:\.\d+)?|\.\d+)"
"""A number, with marks between thousands perhaps: `1,200.50` or `1.200,50`."""
THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\[,!;:]|['’\u00a0\u2009\u202f])(?=\d{3}(?!\d))")
"""What may stand between thousands besides commas: thin spaces, apostrophes, and the commas and spaces
of LaTeX."""
WORDS = r"(?i:answer(?:\s+is)?)"
"""The words before a final answer."""
NUMBERS = (
    re.compile(rf"####\D{{0,12}}?({NUMBER})"),
    re.compile(rf"\\boxed\s*\{{[^{{}}\d]{{0,24}}?({NUMBER})"),
    re.compile(rf"{WORDS}[^\d\n]{{0,48}}?({NUMBER})"),
    re.compile(rf"({NUMBER})"),
)
"""Where a number stands, the surest places first. The last match of the first place that has any
counts."""
LETTER = r"([A-Za-z])(?![\w'’])"
SURE_LETTER = r"([A-Z](?![\w'’])|[a-z](?=[*_)\"'.]{0,4}\s*$|\)))"
"""A letter behind words. A small one counts only if a bracket or the end of the line follows, because
`a` is a word too."""
OPTION = r"(?:(?i:option|choice|letter)[\s:*_(\"'$]{1,12})?"
LETTERS = (
    re.compile(rf"####[\s*(]{{0,12}}{LETTER}"),
    re.compile(rf"\\boxed\s*\{{(?:\\(?:text|mathrm|mathbf|textbf)\s*\{{)?[\s(]{{0,12}}{LETTER}"),
    re.compile(rf"{WORDS}[\s:*_(\"'$]{{0,12}}{OPTION}{SURE_LETTER}", re.MULTILINE),
    re.compile(r"\A[\s*_(\"']{0,12}([A-Z])[*_)\"']{0,4}(?:[.:,)]|\s*$)", re.MULTILINE),
    re.compile(r"\A[\s*_(\"']{0,12}([a-z])(?:\)|[*_)\"'.]{0,4}\s*\Z)"),
    re.compile(r"^[\s*_(\"']{0,12}([A-Za-z])[*_)\"'.]{0,4}\s*\Z", re.MULTILINE),
)
"""Where a letter stands, the surest places first."""
DECIMAL_COMMA = re.compile(r"[-+]?(?:0,\d+|\d+,(?:\d{1,2}|\d{4,})|\d{1,3}(?:\.\d{3})+,\d+)")
"""A number whose comma stands before the decimals, as much of the world writes numbers. A comma with
three digits behind it is read as a mark between thousands."""
BOX = re.compile(r"\\boxed\s*\{")
MINUS = str.maketrans({"−": "-", "–": "-", "﹣": "-"})


def find_answer(text: str, form: AnswerForm) -> str | None:
    """The answer in a text, in its plain form; None if there is none."""
    if form == "number":
        joined = THOUSANDS.sub("", text)
        return _number(_last_of(NUMBERS, unicodedata.normalize("NFKC", joined).translate(MINUS)))
    if form == "letter":
        found = _last_of(LETTERS, unicodedata.normalize("NFKC", text))
        return None if found is None else found.upper()
    if form == "boxed":
        return _plain(_last_box(text))
    found = None
    for match in re.finditer(form.regex, text):
        # An expression such as `.*` finds the whole text, and then an empty text at its end.
        found = match[match.re.groups] or found
    return _plain(found)


def _last_of(places: Sequence[re.Pattern[str]], text: str) -> str | None:
    for place in places:
        if found := place.findall(text):
            return str(found[-1])
    return None


def _last_box(text: str) -> str | None:
    r"""What stands in the last `\boxed{}`, with the braces in it."""
    *_, begin = [None, *BOX.finditer(text)]
    if begin is None:
        return None
    depth = 1
    for end in range(begin.end(), len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if not depth:
            return text[begin.end() : end]
    return None


def _plain(found: str | None) -> str | None:
    """An answer without what makes no difference."""
    if found is None:
        return None
    text = unicodedata.normalize("NFKC", found).translate(MINUS).casefold()
    text = re.sub(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[,;! ]|[*$`\"']", "", text)
    text = " ".join(text.split()).strip(" .,:;!()")
    without_unit = re.fullmatch(rf"({NUMBER})\s*\\?%?", text)
    return (_number(without_unit[1]) if without_unit else text) or None


def _number(found: str | None) -> str | None:
    """A number in its shortest form: `1,200.50` and `1.200,50` are `1200.5`, and `4,5` is `4.5`."""
    if found is None:
        return None
    if DECIMAL_COMMA.fullmatch(found):
        found = found.replace(".", "").replace(",", ".")
    try:
        number = Decimal(found.replace(",", ""))
    except InvalidOperation:
        return None
    plain = format(number, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "+0", "") else plain.removeprefix("+")


@dataclass(frozen=True, slots=True)
class Group:
    """Proposals that have the same answer."""

    proposals: tuple[ProposalDone, ...]
    """The proposals, the most trusted first."""

    @property
    def models(self) -> int:
        """How many models they come from."""
        return len({proposal.model for proposal in self.proposals})


def groups(proposals: Sequence[ProposalDone], form: AnswerForm) -> list[Group]:
    """The proposals that have an answer, by their answers: the largest group first, and of groups of
    the same size the one with the most trusted proposal. A lower place is more trusted."""
    found: dict[str, list[ProposalDone]] = {}
    for proposal in sorted(proposals, key=lambda each: each.place):
        if (answer := find_answer(proposal.text, form)) is not None:
            found.setdefault(answer, []).append(proposal)
    return by_size(Group(tuple(same)) for same in found.values())


def by_size(found: Iterator[Group]) -> list[Group]:
    """The groups, in the order that `groups` says."""
    return sorted(found, key=lambda group: (-len(group.proposals), group.proposals[0].place))
