"""The bounds of histograms' buckets: vLLM's, so that boards made for vLLM read the same steps.

They are those of vLLM 0.33, `vllm/v1/metrics/buckets.py`.
"""

from collections.abc import Iterator
from itertools import takewhile

LATENCY_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
"""Of whole requests and of their phases: from a wait of a moment to hours."""
FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
"""Of times to the first token: from a tiny prompt's to a long queue's."""
TOKEN_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
"""Of the time of one token."""


def token_counts(most: int) -> tuple[float, ...]:
    """The bounds of counts of tokens, in steps of 1, 2 and 5.

    Args:
        most: the largest context of the recipe's models.
    """
    return tuple(takewhile(lambda bound: bound <= most, _steps()))


def _steps() -> Iterator[float]:
    power = 1
    while True:
        yield from (float(power), 2.0 * power, 5.0 * power)
        power *= 10
