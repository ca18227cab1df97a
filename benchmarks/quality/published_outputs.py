"""Imports published outputs of AlpacaEval, and scores them from published judgements.

    python -m benchmarks.quality.published_outputs FOLDER --set alpaca_eval_805.jsonl \
        --difficulty instruction_difficulty.csv --gamed df_gamed.csv --leaderboard leaderboard.csv

FOLDER is a checkout of AlpacaEval's `results` (`NAME/model_outputs.json`, judgements in
`NAME/weighted_alpaca_eval_gpt4_turbo/annotations.json`), or holds files `outputs_NAME.jsonl.gz`.
Further judgements come from --preferences. Nothing is generated and no judge is asked. The table says
for each model how many rows have an output, and sets its win rates beside those of the leaderboard.
"""

import csv
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from configs.errors import UserError
from jobs.scores.difficulty import Difficulties
from jobs.scores.preferences import OFFICIAL_BASELINE, Gamed, Preferences, read_preferences
from jobs.scores.score import OFFICIAL_JUDGES, Score, score
from jobs.scores.scoring import read_length_control_files
from jobs.sets import load_set
from jobs.sets.outputs import ImportSummary, import_outputs
from jobs.store import Store

JUDGE = OFFICIAL_JUDGES[1]
"""The judge of the published judgements, and the name of their folder."""
FILE = re.compile(r"(?:outputs_|baseline_)(?P<name>.+?)\.jsonl?(?:\.(?:gz|zst|bz2|xz))?")
"""A file of outputs that lies beside others; its name tells the model's."""
WIN_RATE_ERROR = 1e-6
"""Points that a win rate may differ from the leaderboard's."""
LC_ERROR = 0.15
"""Points that a length-controlled win rate may differ from the leaderboard's."""

Official = Mapping[str, tuple[float, float]]
"""Win rate and length-controlled win rate on the leaderboard, by model."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One model of the table."""

    name: str
    done: ImportSummary | None
    """What was imported; None if the file was refused, or if there are only judgements."""
    refusal: str
    """Why the file was refused."""
    score: Score | None
    """The score from published judgements; None without judgements."""

    def line(self, official: Official) -> str:
        """The model as a line of a Markdown table."""
        answers, missing = "no file", ""
        if self.done is not None:
            answers = str(self.done.answered)
            missing = ", ".join(map(str, self.done.missing)) or "none"
        figures = ["", "", "", ""]
        if self.score is not None:
            ours = (self.score.win_rate, self.score.lc)
            theirs: tuple[float | None, ...] = official.get(self.name, (None, None))
            figures = [_number(value) for pair in zip(ours, theirs, strict=True) for value in pair]
        cells = [self.name, answers, missing, *figures, self.refusal]
        return f"| {' | '.join(cells)} |"

    def error(self, official: Official) -> tuple[float, float] | None:
        """How far both win rates are from the leaderboard's, in points; None if one is not known."""
        if self.score is None or self.name not in official:
            return None
        win_rate, lc = official[self.name]
        if self.score.win_rate is None or self.score.lc is None:
            return None
        return abs(self.score.win_rate - win_rate), abs(self.score.lc - lc)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of published outputs.")],
    dataset: Annotated[Path, typer.Option("--set", help="AlpacaEval's prompts.")],
    preferences: Annotated[Path | None, typer.Option(help="Published judgements.")] = None,
    difficulty: Annotated[Path | None, typer.Option(help="instruction_difficulty.csv")] = None,
    gamed: Annotated[Path | None, typer.Option(help="df_gamed.csv")] = None,
    leaderboard: Annotated[
        Path | None, typer.Option(help="Its win rates: name, win_rate and lc.")
    ] = None,
) -> None:
    """Print a Markdown table, and end with exit code 1 if a win rate is not the leaderboard's."""
    began = time.perf_counter()
    official = {} if leaderboard is None else read_leaderboard(leaderboard)
    hard, gamed_rows = read_length_control_files(difficulty, gamed)
    given = {} if preferences is None else _by_name(preferences)
    files = dict(find_outputs(folder))
    with tempfile.TemporaryDirectory() as run, Store.open(Path(run)) as store:
        store.add_rows(load_set(dataset).rows)
        tried = [
            try_model(store, name, files.get(name), given.get(name), hard, gamed_rows)
            for name in sorted(files.keys() | given.keys(), key=str.lower)
        ]
    print("| model | outputs | rows without one | WR | published | LC | published | note |")
    print("| --- | --: | --- | --: | --: | --: | --: | --- |")
    for each in tried:
        print(each.line(official))
    errors = [error for each in tried if (error := each.error(official)) is not None]
    print(summary(tried, errors, time.perf_counter() - began))
    if any(win > WIN_RATE_ERROR or lc > LC_ERROR for win, lc in errors):
        raise typer.Exit(1)


def find_outputs(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of outputs in a folder, by the names of their models."""
    for path in sorted(folder.glob("*/model_outputs.json*")):
        yield path.parent.name, path
    for path in sorted(folder.iterdir()):
        if found := FILE.fullmatch(path.name):
            yield found["name"], path


def try_model(
    store: Store,
    name: str,
    path: Path | None,
    judged: Preferences | None,
    difficulties: Difficulties | None,
    gamed: Gamed | None,
) -> Tried:
    """Import a model's outputs, and score its published judgements."""
    done, refusal = None, ""
    if path is not None:
        try:
            done = import_outputs(store, path, name)
        except UserError as error:
            refusal = str(error)
        annotations = path.parent / JUDGE / "annotations.json"
        if judged is None and annotations.is_file():
            judged = next(iter(_by_name(annotations).values()), None)
    found = None
    if judged is not None:
        try:
            hard = None if difficulties is None else difficulties.of(judged)
            found = score(judged, hard, gamed)
        except UserError as error:
            refusal = "; ".join(filter(None, (refusal, str(error))))
    return Tried(name, done, refusal, found)


def _by_name(path: Path) -> dict[str, Preferences]:
    found = read_preferences(path, judge=JUDGE, baseline=OFFICIAL_BASELINE)
    return {each.generator: each for each in found}


def read_leaderboard(path: Path) -> Official:
    """Win rates of the leaderboard: AlpacaEval's own file, or columns name, win_rate and lc."""
    with path.open(encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    return {
        line.get("name") or line[""]: (
            float(line["win_rate"]),
            float(line.get("lc") or line["length_controlled_winrate"]),
        )
        for line in lines
    }


def summary(tried: list[Tried], errors: list[tuple[float, float]], seconds: float) -> str:
    """What came out, in sentences."""
    files = [each for each in tried if each.done is not None]
    lacking = [each for each in files if each.done is not None and each.done.missing]
    refused = sum(bool(each.refusal) for each in tried)
    scored = sum(each.score is not None for each in tried)
    text = (
        f"\n{len(files)} files of outputs imported, {len(lacking)} of them lack rows, {refused} "
        f"refused; {scored} models scored from published judgements; {seconds:.1f} s."
    )
    if errors:
        worst = (max(win for win, _ in errors), max(lc for _, lc in errors))
        text += (
            f" Against the leaderboard ({len(errors)} models): win rates differ by {worst[0]:.1g} "
            f"points at most, length-controlled ones by {worst[1]:.3f}."
        )
    return text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    typer.run(main)
