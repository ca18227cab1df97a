"""The command `slimmoa new`: writes a recipe from models that a person names."""

import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cli.console import busy, err, exit_on_user_error, fail, show_remarks
from configs.errors import UserError

if TYPE_CHECKING:
    from actors.weights.named_models import NamedModel
    from cluster.cards.card import Card
    from cluster.plan.draft import Draft

DEFAULT_FILE = "mixture.yaml"
SELF_SAMPLES = 3
"""Proposals of a model that is the only one: it then aggregates its own proposals (Self-MoA)."""


def new(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE] MODEL...",
            help="First the file to write, whose name ends in .yaml (by default mixture.yaml). Then "
            "the proposers: owner/name, owner/name:Q4_K_M or owner/name/file.gguf of the Hugging Face "
            "Hub, or paths.",
        ),
    ] = None,
    aggregator: Annotated[
        str | None,
        typer.Option(
            "--aggregator",
            "-a",
            help="The model that writes the final answer; by default the last proposer.",
        ),
    ] = None,
    card: Annotated[
        list[str] | None,
        typer.Option(help="Plan for this GPU, such as L4, in place of this machine. May be repeated."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=32,
            help="How many proposals each model writes; by default 1, or 3 if there is only one model.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a recipe of models that you name.

    The recipe has comments, and it is checked and planned for this machine. Models in folders of
    safetensors run in vLLM, and GGUF files run in llama.cpp. Only the headers of the weights are
    fetched now. If you name a model twice, it writes two proposals. A file is replaced only with
    --force, and nothing is written if the models do not fit.
    """
    names = names or []
    is_file = bool(names) and names[0].casefold().endswith((".yaml", ".yml"))
    file, asked = (Path(names[0]), names[1:]) if is_file else (Path(DEFAULT_FILE), names)
    if not asked and aggregator is None:
        fail(f"name at least one model: slimmoa new {file} owner/name other/name")
    with exit_on_user_error():
        _require_writable(file, force=force)
        found = _find_models([*asked, *([aggregator] if aggregator else [])])
        drafted, cards = _draft(file, found, asked, aggregator, card or [], samples)
        _write(file, drafted.text, force=force)
    _report(file, drafted, cards, chosen=aggregator is not None, named=bool(card))


def _find_models(asked: Sequence[str]) -> "dict[str, NamedModel]":
    """The models by what was asked, each looked up once."""
    from actors.weights.named_models import find_model

    found = {}
    for name in dict.fromkeys(asked):
        with busy(f"the Hub, for {name},"):
            found[name] = find_model(name)
    return found


def _draft(
    file: Path,
    found: "dict[str, NamedModel]",
    proposers: Sequence[str],
    aggregator: str | None,
    card: Sequence[str],
    samples: int | None,
) -> "tuple[Draft, Sequence[Card]]":
    from actors.weights.download import gigabytes
    from cluster.cards.catalog import card_by_name
    from cluster.cards.detect import detect_cards
    from cluster.plan.draft import draft
    from configs.new_recipe import Choices, NewModel, against_thinking, model_name

    cards = [card_by_name(name, n) for n, name in enumerate(card)] or detect_cards()
    show_remarks(remark for each in cards for remark in each.remarks)
    counts = Counter(proposers or list(found))
    if len(counts) == 1 and len(found) == 1 and samples is None:
        samples = SELF_SAMPLES
    names: dict[str, str] = {}
    models = []
    for asked, model in found.items():
        names[asked] = model_name(model.label, names.values())
        models.append(
            NewModel(
                name=names[asked],
                engine="llamacpp" if model.is_gguf else "vllm",
                source=model.source.model_dump(exclude_defaults=True),
                comment=gigabytes(model.checkpoint.weight_bytes),
                template=against_thinking(model.template),
                most_tokens=model.checkpoint.most_tokens,
                samples=counts[asked] * (samples or 1),
            )
        )
    choices = Choices(
        name=_recipe_name(file),
        aggregator=names[aggregator or list(found)[-1]],
        gpu=any(each.kind == "gpu" for each in cards),
        concurrency=1,
        deadline_s=300,
        header=(
            "Written by `slimmoa new`. Every setting is in docs/recipe.md; the licences of the weights",
            "are on their pages at the Hub.",
        ),
    )
    checkpoints = {names[asked]: model.checkpoint for asked, model in found.items()}
    return draft(models, choices, checkpoints, cards), cards


def _recipe_name(file: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._")
    return name[:64] or "mixture"


def _require_writable(file: Path, *, force: bool) -> None:
    if os.path.lexists(file):
        if not file.is_file():
            raise UserError(f"{file} exists and is no file: give another name")
        if not force:
            raise UserError(f"{file} exists: give another name, or --force to replace it")
    if not file.absolute().parent.is_dir():
        raise UserError(f"cannot write {file}: there is no folder {file.absolute().parent}")


def _write(file: Path, text: str, *, force: bool) -> None:
    """Write the whole file or nothing."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_text(text, "utf-8")
        _require_writable(file, force=force)  # somebody may have written it meanwhile
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _report(
    file: Path, drafted: "Draft", cards: "Sequence[Card]", *, chosen: bool, named: bool
) -> None:
    from actors.engines.installed import missing_engines

    recipe = drafted.recipe
    shape = ", ".join(
        f"{each.model}{f' ({each.samples} times)' if each.samples > 1 else ''}"
        for each in recipe.proposers()
    )
    why = "" if chosen else " (the last one; --aggregator chooses another)"
    lines = [
        f"{file} is written. Proposers: {shape}. Aggregator: {recipe.aggregator.model}{why}.",
        f"planned on {' + '.join(card.name for card in cards)}: {drafted.verdict.words} (predicted)",
    ]
    if not named:
        gpu = any(card.kind == "gpu" for card in cards)
        lines += [f"it needs {each}" for each in missing_engines(recipe, gpu=gpu)]
    me = "slimmoa" if not sys.argv[0].endswith("__main__.py") else "python -m cli"
    lines += [f'next: `{me} serve {shlex.quote(str(file))}`, then `{me} ask "Why is the sky blue?"`']
    for line in lines:
        err.print(Text(line))
