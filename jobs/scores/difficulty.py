"""The difficulty of instructions, for length control: which difficulty belongs to which row.

AlpacaEval's file has a difficulty for each of its 805 instructions, by their positions. So the rows of
a run, or of a file of judgements, get these difficulties only if they are known to be those
instructions. A file with a column `instruction` has difficulties for any other set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.scores.columns import PreferencesError, read_lines
from jobs.scores.preferences import Preferences
from jobs.sets.known_sets import fingerprint, known_set


@dataclass(frozen=True, slots=True)
class Difficulties:
    """The difficulties of a file."""

    file: str
    """Name of the file, for messages."""
    by_position: Mapping[int, float]
    """The difficulty of AlpacaEval's instructions, by position; empty if the file has instructions."""
    by_prompt: Mapping[str, float]
    """The difficulty of each instruction of the file, by fingerprint; empty for AlpacaEval's file."""

    def of(self, preferences: Preferences) -> dict[int, float]:
        """The difficulty of each row of these judgements.

        Raises:
            PreferencesError: a row is not known to be one of the instructions of the file.
        """
        if preferences.prompts:
            found = dict(zip(preferences.rows, map(self._of_prompt, preferences.prompts), strict=True))
            hard = {row: value for row, value in found.items() if value is not None}
            if unknown := [row for row in found if row not in hard]:
                raise self._refusal(
                    f"{len(unknown)} of {len(found)} rows of {preferences.generator!r} have other "
                    f"instructions, first row {unknown[0]}"
                )
            return hard
        if self.by_prompt or not preferences.are_positions:
            raise self._refusal(
                f"the judgements of {preferences.generator!r} do not tell their instructions: give the "
                "file a column 'instruction'"
            )
        return dict(self.by_position)

    def _of_prompt(self, prompt: str) -> float | None:
        if self.by_prompt:
            return self.by_prompt.get(prompt)
        position = known_set("alpaca_eval").positions.get(prompt)
        return None if position is None else self.by_position.get(position)

    def _refusal(self, why: str) -> PreferencesError:
        whose = "its instructions" if self.by_prompt else "AlpacaEval's 805 instructions"
        return PreferencesError(
            f"--difficulty: {self.file} has the difficulties of {whose}, and {why}; without "
            "--difficulty the win rates are given, which do not need it"
        )


def read_difficulties(path: Path) -> Difficulties:
    """Read a file of difficulties: AlpacaEval's, by position, or one with a column `instruction`.

    Raises:
        PreferencesError: the file cannot be read, or a value is not allowed.
    """
    by_position: dict[int, float] = {}
    by_prompt: dict[str, float] = {}
    for line in read_lines(path, "instruction_difficulty"):
        value = line.real("instruction_difficulty")
        if "instruction" in line.values:
            key, known = f"{line.text('instruction')[:40]!r}", by_prompt
            kept = known.setdefault(fingerprint(line.values["instruction"]), value)
        else:
            if "index" not in line.values:
                raise PreferencesError(f"{path}: no column 'index' among {list(line.values)}")
            key, kept = (
                f"index {line.whole('index')}",
                by_position.setdefault(line.whole("index"), value),
            )
        if kept != value:
            raise line.error("instruction_difficulty", f"{key}'s value above, {kept}")
    return Difficulties(path.name, by_position, by_prompt)
