"""An aggregator by script that compares proposals, whose choice is known."""

import math
import re
from collections.abc import Callable, Mapping, Sequence

from actors.engine import Delta
from tests.unit.scripts import Asked, Step

RESPONSE = re.compile(r"<response (\d+)>\n(.*?)\n</response \1>", re.DOTALL)


def is_short(asked: Asked) -> bool:
    """Whether a call asks which proposal is best, or whether two agree."""
    return asked.text.rstrip().endswith(("or 2.", "or 3.", "or 4.", "or 5.", "or 6.", "no alone."))


def tokens(shares: Mapping[str, float]) -> Delta:
    """One token as an engine tells it, with the probabilities of the likeliest ones."""
    top = [{"token": token, "logprob": math.log(share)} for token, share in shares.items() if share]
    best = max(top, key=lambda each: float(str(each["logprob"])))
    return Delta(text=str(best["token"]), logprobs=({**best, "top_logprobs": top},))


def chooser(
    worth: Callable[[str], float], bias: Sequence[float] = (), merged: str = "merged"
) -> Callable[[Asked], Sequence[Step]]:
    """A model that picks the better proposals more probably, and that also likes some places.

    Args:
        worth: how good a text is, in logits.
        bias: what it adds for each place.
        merged: what it writes when it is not asked to pick.
    """

    def script(asked: Asked) -> Sequence[Step]:
        if not is_short(asked):
            return [merged]
        logits = {}
        for number, text in RESPONSE.findall(asked.messages[-1]["content"]):
            place = int(number) - 1
            logits[number] = worth(text) + (bias[place] if place < len(bias) else 0.0)
        total = sum(map(math.exp, logits.values()))
        return [tokens({number: math.exp(value) / total for number, value in logits.items()})]

    return script
