"""Says of a difference whether it is shown, in the words of the table. Pure."""

from jobs.prove.compare import Comparison

NOT_SHOWN = "not shown"
MEANING = (
    "In the table, “shown better” and “shown worse” say that this way really is better or worse than "
    "the mixture, or than the best member, on questions like these, as far as the answers can show "
    "it. “Not shown” says that the difference may be chance, so a higher share of right answers is no "
    "victory there."
)
"""What the marks mean."""


def beside_mixture(found: Comparison | None) -> str:
    """Whether a way is shown to be better or worse than the mixture; empty without a comparison."""
    if found is None:
        return ""
    # The comparison is the mixture's, so the way is worse where the mixture is better.
    return {"better": "shown worse", "worse": "shown better", "open": NOT_SHOWN}[found.outcome]


def beside_best(found: Comparison | None) -> str:
    """Whether a way is shown to be better or worse than the best member; empty without a comparison."""
    if found is None:
        return ""
    return {"better": "shown better", "worse": "shown worse", "open": NOT_SHOWN}[found.outcome]
