"""Says how far the judge of a proof can be trusted. Pure."""

from jobs.prove.facts import Proof


def judge_dangers(proof: Proof) -> list[str]:
    """What speaks against trusting the judge."""
    judge = proof.judge
    if judge is None:
        return []
    said = [
        f"No right answers are known for these questions, so a model, {judge.name}, judged which of "
        "two answers is better. It was not told who wrote which. It saw each pair twice, with the "
        "other answer first the second time. A question counts for a side only if both times say the "
        "same.",
    ]
    if judge.is_member:
        said.append(
            f"{judge.name} takes part in the mixture itself. Models like their own way of writing, so "
            "this judge is partial, and a small model is a weak judge. Give another judge with --judge "
            "and --judge-url before you pay for anything."
        )
    if judge.pairs:
        agreed = judge.agreed / judge.pairs
        said.append(
            f"It gave the same verdict both times for {judge.agreed} of {judge.pairs} pairs "
            f"({100 * agreed:.0f}%). A judge that throws a coin does so for half of the pairs."
            + (" So its verdicts say next to nothing." if agreed < 0.6 else "")
        )
        said.append(
            f"It preferred the answer that stood first in {100 * judge.first:.0f}% of verdicts."
        )
    if judge.longer is not None:
        said.append(
            f"Where it was sure, it preferred the longer answer in {100 * judge.longer:.0f}% of pairs. "
            "Judges tend to like length as such."
        )
    return said
