"""Commands that look at a recipe without serving it: `slimmoa check`, `models` and `plan`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.console import (
    err,
    exit_on_user_error,
    load_or_fail,
    out,
    show,
    show_remarks,
    warn,
    write_file,
)
from cli.options import ConfigArgument
from cli.serve import download_missing_weights
from cli.shown_sampling import shown_samplings
from configs.errors import WeightsError
from configs.load import RecipeError, read
from configs.schema import Cards, Model, Recipe


def check(
    configs: Annotated[list[str], typer.Argument(help="Recipe files, or names of presets.")],
) -> None:
    """Check recipes, and print every mistake with its line.

    The exit code is 1 if there are any. It warns of settings that contradict each other where answers
    are still possible.

    Of weights it says what is not here. Those that this machine knows are held against what vLLM can
    run on the recipe's cards, or else on this machine's. `slimmoa plan` asks the Hub for the others.
    """
    from actors.weights.lookup import find_here
    from cluster.cards.detect import detect_cards
    from cluster.plan.runnable import recipe_obstacles, setting_remarks

    failed = False
    with exit_on_user_error():
        cards = detect_cards()
    show_remarks(remark for card in cards for remark in card.remarks)
    for config in configs:
        try:
            loaded = read(config)
        except RecipeError as error:
            err.print(str(error), markup=False, highlight=False, soft_wrap=True)
            failed = True
        else:
            recipe = loaded.recipe
            warn(loaded.cautions)
            shape = " + ".join(map(str, recipe.samples))
            aggregator = recipe.aggregator.model
            print(f"{config}: {recipe.name}: {shape} proposals, aggregated by {aggregator}")
            for line in _weights_remarks(recipe):
                print(f"  {line}")
            with exit_on_user_error():
                for line in shown_samplings(recipe):
                    print(f"  {line}")
                warn(setting_remarks(recipe, cards))
                for line in recipe_obstacles(recipe, cards, find_here):
                    err.print(f"{config}: {line}", markup=False, highlight=False, soft_wrap=True)
                    failed = True
    if failed:
        raise typer.Exit(1)


def models(
    config: ConfigArgument = "tiny_cpu",
    fetch: Annotated[bool, typer.Option("--fetch", help="Download the missing weights now.")] = False,
) -> None:
    """List a recipe's models, and which weights are on this machine.

    It shows what each model does, and how much is to be fetched.
    """
    recipe = load_or_fail(config)
    if fetch:
        with exit_on_user_error():
            download_missing_weights(recipe)
    _learn_sizes(recipe)
    table = Table("model", "engine", "does", "context", "at a time", "weights", box=None)
    for name in recipe.names:
        model = recipe.settings(name)
        row = (", ".join(_roles(recipe, name)), f"{model.context_tokens}", f"{model.concurrency}")
        host = recipe.host(name)
        where = _where(model) if host == name else f"adapter over {host}"
        table.add_row(name, model.engine, *row, where)
    show(table)
    _show_samplings(recipe)


def plan(
    config: ConfigArgument = "tiny_cpu",
    card: Annotated[
        list[str] | None,
        typer.Option(help="Plan for this card, such as L4, instead of this machine's; repeatable."),
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the memory map into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show whether a recipe fits on the cards, and how fast it is.

    It shows which model lives on which card, which stay there and which take turns, their bytes, and
    the predicted speed. If the models do not fit, it prints the sums and what would fit, and the exit
    code is 1. The variable SLIMMOA_CARDS names cards (A100-80GB,A100-80GB) that take
    the place of those of a machine, in `serve` too.
    """
    from actors.weights.lookup import find_weights
    from cluster.cards.catalog import card_by_name
    from cluster.cards.detect import detect_cards
    from cluster.plan import show as plan_show
    from cluster.plan.planner import plan as place
    from cluster.plan.predict import predict, too_slow
    from cluster.plan.runnable import setting_remarks
    from cluster.plan.task import choose_cards, planning_task

    recipe = load_or_fail(config)
    with exit_on_user_error():
        named = [card_by_name(name, n) for n, name in enumerate(card or [])]
        cards = named or choose_cards(recipe, detect_cards())
        task = planning_task(recipe, cards, find_weights)
        warn(setting_remarks(recipe.model_copy(update={"cards": Cards()}), cards))
        placement = place(task)
        prediction = predict(task, placement)
        if svg is not None:
            write_file(svg, plan_show.svg(placement))
    warn(too_slow(recipe, prediction) if prediction is not None else ())
    if as_json:
        document = plan_show.to_json(placement, prediction)
        print(json.dumps(document | _also(recipe), indent=2))
        return
    show(plan_show.table(placement, prediction))
    show(plan_show.memory_map(placement))
    out.print(plan_show.summary(placement, prediction), highlight=False)
    for line in _weights_remarks(recipe):
        out.print(line, highlight=False)
    _show_samplings(recipe)


def _show_samplings(recipe: Recipe) -> None:
    with exit_on_user_error():
        for line in shown_samplings(recipe):
            out.print(line, highlight=False, soft_wrap=True)


def _learn_sizes(recipe: Recipe) -> None:
    """Ask the Hub how large the folders are of which that is not known; say so where it cannot tell."""
    from actors.weights.lookup import learn_size

    for name, model in recipe.models.items():
        try:
            learn_size(name, model)
        except WeightsError as error:
            err.print(error.message, markup=False, highlight=False)


def _where(model: Model) -> str:
    from actors.weights.lookup import weights_state

    state = weights_state(model)
    return getattr(model, "base_url", "none needed") if state is None else str(state)


def _weights_remarks(recipe: Recipe) -> Iterator[str]:
    """Lines about the weights that are not on this machine or have no chat template; else none."""
    from actors.weights.chat_templates import missing_templates
    from actors.weights.download import gigabytes
    from actors.weights.lookup import weights_states, why_not_here

    absent = {name: state for name, state in weights_states(recipe).items() if not state.here}
    to_fetch = [
        f"{name} ({gigabytes(state.size_bytes) if state.size_bytes else 'size unknown'})"
        for name, state in absent.items()
        if state.can_fetch
    ]
    lost = [
        f"{name} ({why_not_here(recipe.models[name])})"
        for name, state in absent.items()
        if not state.can_fetch
    ]
    if to_fetch:
        yield f"not here yet, fetched by `slimmoa models --fetch` and `serve`: {', '.join(to_fetch)}"
    if lost:
        yield f"not here, and the recipe names only paths: {', '.join(lost)}"
    yield from missing_templates(recipe)


def _also(recipe: Recipe) -> dict[str, Any]:
    """What `plan --json` says beside the plan: weights, and samplings from elsewhere."""
    from actors.weights.lookup import weights_states

    states = weights_states(recipe).items()
    with exit_on_user_error():
        samplings = list(shown_samplings(recipe))
    weights = {name: {"here": state.here, "bytes": state.size_bytes} for name, state in states}
    return {"weights": weights} | ({"sampling": samplings} if samplings else {})


def _roles(recipe: Recipe, name: str) -> Iterator[str]:
    for n, layer in enumerate(recipe.layers, 1):
        samples = layer.samples_by_model()[name]
        if samples:
            yield f"proposes in layer {n}" + (f" ({samples} samples)" if samples > 1 else "")
    if name == recipe.aggregator.model:
        yield "aggregates"
    if name in recipe.aggregator.fallbacks:
        yield "aggregates if others fail"
