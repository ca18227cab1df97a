"""Says which models a mixture has, and what each of them does in it. Pure."""

from configs.schema import Layer, Recipe

METHODS = {
    "merge": "reads all proposals and writes one answer from them (method merge)",
    "select": "says which proposal is the best, and that proposal is the answer (method select)",
    "select_or_merge": "says which proposal is the best, and that proposal is the answer; where it is "
    "not sure, it writes one answer from the best two (method select_or_merge)",
}
"""What the aggregator does, by its method. The sentence of a vote is in `_aggregator`."""


def describe(recipe: Recipe) -> tuple[str, ...]:
    """Sentences that name the proposers, how often each of them answers, and the aggregator."""
    return (*_proposers(recipe.layers), _aggregator(recipe), *_early(recipe))


def _proposers(layers: tuple[Layer, ...]) -> list[str]:
    if len(layers) == 1:
        return [f"For each question, {_side_by_side(layers[0])}."]
    said = [f"The models propose in {len(layers)} rounds, one after another."]
    for number, layer in enumerate(layers, 1):
        reads = "" if number == 1 else f", with the proposals of round {number - 1} in sight"
        said.append(f"In round {number}, {_side_by_side(layer)}{reads}.")
    return said


def _side_by_side(layer: Layer) -> str:
    written: dict[str, int] = {}
    for each in layer.proposers:
        written[each.model] = written.get(each.model, 0) + each.samples
    parts = [f"{model} writes {_proposals(count)}" for model, count in written.items()]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _proposals(count: int) -> str:
    return "1 proposal" if count == 1 else f"{count} proposals"


def _aggregator(recipe: Recipe) -> str:
    model, method = recipe.aggregator.model, recipe.aggregator.method
    if method == "vote":
        return (
            "The proposals vote, and the answer that wins the vote is the answer (method vote). The "
            f"aggregator, {model}, merges the proposals only if no answer is found in any of them."
        )
    return f"Then the aggregator, {model}, {METHODS[method]}."


def _early(recipe: Recipe) -> list[str]:
    said = []
    if recipe.exit is not None:
        said.append("An answer ends early if enough proposals agree (setting exit).")
    if recipe.first is not None:
        said.append("The first proposer answers alone where it is sure (setting first).")
    return said
