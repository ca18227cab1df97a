"""Finds out how sure the best member has to be to answer alone (`first.tau`), on questions whose
answers are known.

The mixture answers a set without `first`. Its first proposal is what the best member would have
answered alone, with the probabilities of its tokens. So every tau can be tried without a further call.
Half of the questions choose tau, and the other half say what it is worth.
"""

import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from configs.load import parse
from configs.method_checks import tells_logprobs
from configs.schema import AnswerForm, Layer, Proposer, Recipe
from jobs.atomic_file import write_atomically
from jobs.identity import recipe_identities, to_generator
from jobs.prove.form import whole_number
from jobs.scores.paired import Interval, Split, auroc, share
from jobs.store import Store
from jobs.variants import mixture
from serve_app.mixture.agree import find_answer
from serve_app.mixture.first import mean_logprob

STEPS = 1000
"""Tau is a multiple of 1 / STEPS."""
FEWEST = 20
"""Fewest questions with which a calibration begins."""


class CalibrationError(UserError):
    """A calibration cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One question: how sure the best member was, and who was right."""

    confidence: float | None
    """Mean log-probability of the best member's tokens; None if its engine tells none."""
    first_is_right: bool
    mixture_is_right: bool

    def is_right(self, tau: float) -> bool:
        """Whether the answer is right if the best member answers alone from this tau on."""
        return self.first_is_right if self.is_alone(tau) else self.mixture_is_right

    def is_alone(self, tau: float) -> bool:
        """Whether the best member answers alone."""
        return self.confidence is not None and self.confidence >= tau


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tau does on some questions."""

    questions: int
    alone: float
    """Share of the questions that the best member answers alone."""
    right: Interval
    """Share of right answers with this tau."""
    mixture: Interval
    """Share of right answers if the mixture always answers."""
    best: Interval
    """Share of right answers if the best member always answers alone."""
    loss: Interval
    """How much larger the mixture's share is than that with this tau."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A tau, and what it is worth."""

    tau: float | None
    """None if no tau loses as little as was asked for."""
    chosen_on: Outcome | None
    """The half that chose tau."""
    checked_on: Outcome | None
    """The other half, which knows nothing of the choice."""
    auroc: float | None
    """How well the probabilities tell the best member's right answers from its wrong ones: 0.5 is
    chance, 1 is always."""
    trials: int


def trial_recipe(recipe: Recipe) -> Recipe:
    """The recipe as a calibration asks it: all models always answer, and the best member tells the
    probabilities of its tokens, as it does with `first`."""
    first, *layers = recipe.layers
    best, *others = first.proposers
    asked = best if best.sampling.top_logprobs is not None else _with_logprobs(best)
    changed = Layer(proposers=(asked, *others))
    return recipe.model_copy(update={"first": None, "exit": None, "layers": (changed, *layers)})


def _with_logprobs(proposer: Proposer) -> Proposer:
    sampling = proposer.sampling.model_copy(update={"top_logprobs": 0})
    return proposer.model_copy(update={"sampling": sampling})


def require_logprobs(recipe: Recipe) -> None:
    """Make sure that the best member's engine may tell how sure the member is.

    Raises:
        CalibrationError: it cannot.
    """
    model = recipe.layers[0].proposers[0].model
    if not tells_logprobs(recipe.settings(model).model_dump()):
        raise CalibrationError(
            f"model {model!r} tells no log-probabilities, because llama.cpp gives none while it "
            "speculates, so nobody knows how sure it is; leave its speculation out, or put another "
            "proposer first"
        )


def generator_of(store: Store, recipe: Recipe, seed: int) -> str:
    """The name in the run under which the mixture of a recipe has answered.

    Raises:
        CalibrationError: it has not answered.
    """
    tempered = store.has_temperatures()
    made = to_generator(mixture(recipe), recipe_identities(recipe), seed, row_temperatures=tempered)
    for generator in store.generators():
        if generator.identity == made.identity:
            return generator.name
    raise CalibrationError(f"the run has no answers of {recipe.name!r} with seed {seed}")


def read_trials(store: Store, generator: str, form: AnswerForm) -> list[Trial]:
    """The questions of a run that have a known answer, an answer of the mixture, and a first proposal.

    Args:
        store: the run.
        generator: the mixture's name in the run.
        form: where the answer stands in a text.

    Raises:
        CalibrationError: there are too few of them.
    """
    trials = list(_trials(store, generator, form))
    if len(trials) < FEWEST:
        raise CalibrationError(
            f"{len(trials)} questions have a known answer and answers to compare, and {FEWEST} are "
            "needed; each row of the set needs a field `reference` with its right answer"
        )
    return trials


def _trials(store: Store, generator: str, form: AnswerForm) -> Iterator[Trial]:
    rows = {row.index: row for row in store.rows()}
    for answer in store.answers(generator):
        references = rows[answer.row].right_answers
        first = next((used for used in answer.used if (used.layer, used.place) == (1, 0)), None)
        call = None if first is None else store.call(first.key)
        expected = right_answers(references, form)
        if answer.turn or not expected or call is None:
            continue
        yield Trial(
            mean_logprob(call.whole.logprobs),
            find_answer(call.whole.text, form) in expected,
            find_answer(answer.text, form) in expected,
        )


def right_answers(references: Sequence[str], form: AnswerForm) -> frozenset[str]:
    """All right answers to one question, in the form of answers that are found in texts.

    Args:
        references: the row's reference answers to its first turn (`Row.right_answers`).
        form: where the answer stands in a text.
    """
    found = (known_answer(reference, form) for reference in references)
    return frozenset(answer for answer in found if answer is not None)


def known_answer(reference: str, form: AnswerForm) -> str | None:
    """The right answer that a set gives, in the form of an answer that is found in a text. A set may
    give a whole solution, or the answer alone, perhaps with a unit."""
    if form == "number" and (number := whole_number(reference)) is not None:
        reference = number
    found = find_answer(reference, form)
    if found is None and form not in ("number", "letter"):
        found = find_answer(f"\\boxed{{{reference}}}", "boxed")
    return found


def calibrate(trials: Sequence[Trial], epsilon: float, seed: int = 0) -> Calibration:
    """Choose tau on half of the questions, and check it on the others.

    Of all tau with which the share of right answers is at most `epsilon` below the mixture's, the one
    is chosen with which the best member answers most questions alone.

    Args:
        trials: the questions.
        epsilon: the largest loss.
        seed: decides the halves.

    Raises:
        CalibrationError: the best member's engine tells no probabilities.
    """
    known = [(t.confidence, t.first_is_right) for t in trials if t.confidence is not None]
    if not known:
        raise CalibrationError(
            "the engine of the first proposer told no log-probabilities, so nobody knows how sure it "
            "is; put another proposer first"
        )
    order = list(trials)
    random.Random(seed).shuffle(order)
    half = (len(order) + 1) // 2
    chosen, checked = order[:half], order[half:]
    tau = _choose(chosen, epsilon)
    return Calibration(
        tau,
        None if tau is None else outcome(chosen, tau),
        None if tau is None else outcome(checked, tau),
        auroc([confidence for confidence, _ in known], [right for _, right in known]),
        len(trials),
    )


def _choose(trials: Sequence[Trial], epsilon: float) -> float | None:
    mixture = sum(trial.mixture_is_right for trial in trials)
    best = None
    for confidence in sorted({t.confidence for t in trials if t.confidence is not None}, reverse=True):
        tau = _down(confidence)
        if mixture - sum(trial.is_right(tau) for trial in trials) <= epsilon * len(trials):
            best = tau
    return best


def _down(confidence: float) -> float:
    """The next lower multiple of 1 / STEPS. It is never above 0."""
    return min(0.0, math.floor(confidence * STEPS) / STEPS)


def outcome(trials: Sequence[Trial], tau: float) -> Outcome:
    """What a tau does on these questions."""
    right = [trial.is_right(tau) for trial in trials]
    mixture = [trial.mixture_is_right for trial in trials]
    return Outcome(
        questions=len(trials),
        alone=sum(trial.is_alone(tau) for trial in trials) / len(trials),
        right=share(right),
        mixture=share(mixture),
        best=share([trial.first_is_right for trial in trials]),
        loss=Split.of(mixture, right).difference,
    )


def write_tau(file: Path, tau: float, set_name: str) -> None:
    """Write `first:` into a recipe file, in place of one that is there. All other lines stay.

    Raises:
        CalibrationError: the file has `first` in a form that this function cannot replace. The file
            stays as it is.
        OSError: the file cannot be read or written.
    """
    text = file.read_bytes().decode("utf-8-sig")
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    begin = next((n for n, line in enumerate(lines) if re.match(r"""(["']?)first\1\s*:""", line)), None)
    begin = len(lines) if begin is None else begin
    end = begin + 1
    while end < len(lines) and (not lines[end].strip() or lines[end][0] in " \t#"):
        end += 1
    while begin < end <= len(lines) and (not lines[end - 1].strip() or lines[end - 1][0] == "#"):
        end -= 1  # blank lines and comments belong to what follows
    quoted = json.dumps(set_name, ensure_ascii=False)
    block = ["first:", f"  tau: {tau:g}", f"  calibrated_on: {quoted}"]
    if begin == len(lines):
        block = ["", *block]
    made = newline.join([*lines[:begin], *block, *lines[end:]]) + newline
    if not _has_tau(file, made, tau):
        raise CalibrationError(
            f"--write: {file} is written in a form into which `first` cannot be put; write it there "
            f"yourself: {{tau: {tau:g}}}"
        )
    with write_atomically(file) as new:
        new.write(made.encode())


def _has_tau(file: Path, text: str, tau: float) -> bool:
    """Whether the text of a recipe is sound and has this tau."""
    try:
        first = parse(text, folder=file.parent, name=str(file)).first
    except UserError:
        return False
    return first is not None and first.tau == tau
