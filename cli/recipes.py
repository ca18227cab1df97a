"""Commands that look at a recipe without serving it: `slimmoa check`, `models` and `plan`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.console import err, exit_on_user_error, load_or_fail, out, show
from cli.options import ConfigArgument
from cli.serve import download_missing_weights
from configs.load import RecipeError, load
from configs.schema import LlamaCppModel, Recipe


def check(
    configs: Annotated[list[str], typer.Argument(help="Recipe files, or names of presets.")],
) -> None:
    """Check recipes: prints every error at once, each with its line. Exit code 1 if there are any.

    Weights that are here are held against what vLLM can run on the recipe's cards, or else on this
    machine's.
    """
    from actors.weights.lookup import find_weights
    from cluster.cards.detect import detect_cards
    from cluster.plan.runnable import recipe_obstacles

    failed = False
    for config in configs:
        try:
            recipe = load(config)
        except RecipeError as error:
            err.print(str(error), markup=False, highlight=False, soft_wrap=True)
            failed = True
        else:
            shape = " + ".join(map(str, recipe.samples))
            aggregator = recipe.aggregator.model
            print(f"{config}: {recipe.name}: {shape} proposals, aggregated by {aggregator}")
            with exit_on_user_error():
                for line in recipe_obstacles(recipe, detect_cards(), find_weights):
                    err.print(f"{config}: {line}", markup=False, highlight=False, soft_wrap=True)
                    failed = True
    if failed:
        raise typer.Exit(1)


def models(
    config: ConfigArgument = "tiny_cpu",
    fetch: Annotated[bool, typer.Option("--fetch", help="Download the missing weights now.")] = False,
) -> None:
    """List a recipe's models: what each does, and whether its weights are on this machine."""
    recipe = load_or_fail(config)
    if fetch:
        with exit_on_user_error():
            download_missing_weights(recipe)
    table = Table("model", "engine", "does", "context", "at a time", "weights", box=None)
    for name, model in recipe.models.items():
        row = (", ".join(_roles(recipe, name)), f"{model.context_tokens}", f"{model.concurrency}")
        table.add_row(name, model.engine, *row, _where(model))
    show(table)


def plan(
    config: ConfigArgument = "tiny_cpu",
    card: Annotated[
        list[str] | None,
        typer.Option(help="Plan for this card, not for those that are here; once for each card."),
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the memory map into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show what lives where: slots, who is resident and who takes turns, bytes, and predicted speed.

    Exit code 1, with the sums and what would fit, if the models do not fit. SLIMMOA_CARDS names cards
    (A100-80GB,A100-80GB) that take the place of those of a machine, in `serve` too.
    """
    from actors.weights.lookup import find_weights
    from cluster.cards.catalog import card_by_name
    from cluster.cards.detect import detect_cards
    from cluster.plan import show as plan_show
    from cluster.plan.planner import plan as place
    from cluster.plan.predict import predict
    from cluster.plan.task import choose_cards, planning_task

    recipe = load_or_fail(config)
    with exit_on_user_error():
        named = [card_by_name(name, n) for n, name in enumerate(card or [])]
        task = planning_task(recipe, named or choose_cards(recipe, detect_cards()), find_weights)
        placement = place(task)
        prediction = predict(task, placement)
        if svg is not None:
            svg.write_text(plan_show.svg(placement), "utf-8")
    if as_json:
        print(json.dumps(plan_show.to_json(placement, prediction), indent=2))
        return
    show(plan_show.table(placement, prediction))
    show(plan_show.memory_map(placement))
    out.print(plan_show.summary(placement, prediction), highlight=False)


def _where(model: Any) -> str:
    from actors.weights.files import cached

    if not isinstance(model, LlamaCppModel):
        return getattr(model, "base_url", "none needed")
    path = cached(model.weights)
    return f"{path.stat().st_size / 1e6:,.0f} MB here" if path else "not here yet"


def _roles(recipe: Recipe, name: str) -> Iterator[str]:
    for n, layer in enumerate(recipe.layers, 1):
        samples = layer.samples_by_model()[name]
        if samples:
            yield f"proposes in layer {n}" + (f" ({samples} samples)" if samples > 1 else "")
    if name == recipe.aggregator.model:
        yield "aggregates"
    if name in recipe.aggregator.fallbacks:
        yield "aggregates if others fail"
