"""The command line. Each command reads its arguments, calls the part that does the work, and says in
plain words what went wrong. Heavy libraries are imported by the command that needs them."""

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.table import Table
from rich.text import Text

from cli.bench import bench
from cli.console import err, exit_on_user_error, fail, load_or_fail, out, show, with_access
from configs.load import RecipeError, load
from configs.schema import LlamaCppModel, Recipe

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(
    name="slimmoa",
    help="A self-hosted Mixture-of-Agents runtime scaled down to one GPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

keys = typer.Typer(help="API keys of an endpoint.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(bench, name="bench")

ConfigArgument = Annotated[str, typer.Argument(help="Recipe file, or the name of a preset.")]
UrlOption = Annotated[str, typer.Option(envvar="SLIMMOA_URL", help="API root of a running endpoint.")]
KeyOption = Annotated[
    str, typer.Option(envvar="SLIMMOA_API_KEY", help="API key, if the endpoint wants one.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="A model by name; by default the mixture.")
]
SystemOption = Annotated[str | None, typer.Option(help="System message.")]
ProposalsOption = Annotated[
    bool, typer.Option("--proposals/--no-proposals", help="Show the proposals as they grow.")
]
KeysOption = Annotated[
    Path | None,
    typer.Option("--keys", help="File of API keys as hashes; `slimmoa keys new` makes its lines."),
]
NoKeysOption = Annotated[
    bool, typer.Option("--no-keys", help="Answer everybody who reaches the port, without a key.")
]
LOCAL_URL = "http://127.0.0.1:8000/v1"


@app.command()
def serve(
    config: ConfigArgument = "tiny_cpu",
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8000,
    address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster (`auto` or host:port); by default one is started."),
    ] = None,
    verbose: Annotated[bool, typer.Option(help="Show the logs of all processes.")] = False,
    keys_file: KeysOption = None,
    no_keys: NoKeysOption = False,
) -> None:
    """Serve a recipe behind an OpenAI-compatible endpoint until Ctrl-C.

    Fetches the weights first, with a progress bar; a second start finds them in the cache. API keys
    also come from SLIMMOA_API_KEYS, separated by commas. Without keys it serves this machine only.
    """
    from cluster import ray_runtime

    recipe = with_access(load_or_fail(config), host, keys_file, no_keys=no_keys)
    with exit_on_user_error():
        ray_runtime.check_port(host, port)
        _fetch_weights(recipe)
    try:
        with err.status("starting Ray"), exit_on_user_error():
            ray_runtime.connect(address, verbose=verbose)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # in place of Ray's, which aborts
        _deploy_and_wait(recipe, host, port, follow_nodes=address is not None, verbose=verbose)
    except KeyboardInterrupt:
        err.print("stopping")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # let the children be stopped in peace
        ray_runtime.disconnect(ray_runtime.APP_NAME, local=address is None)


def _deploy_and_wait(
    recipe: Recipe, host: str, port: int, *, follow_nodes: bool, verbose: bool
) -> None:
    from cluster import ray_runtime
    from serve_app.app import BuildArgs, build

    names = ", ".join(recipe.models)
    with err.status(f"starting the models: {names}"):
        with exit_on_user_error():
            graph = build(BuildArgs(recipe=recipe, follow_nodes=follow_nodes))
        try:
            ray_runtime.deploy(graph, ray_runtime.APP_NAME, (host, port))
        except RuntimeError as error:
            hint = "" if verbose else f"\n(the logs are in {ray_runtime.log_folder()})"
            fail(f"{error}{hint}")
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    option = "" if url == LOCAL_URL else f" --url {url}"
    err.print(Text(f"ready: {recipe.name} answers at {url}", style="green"))
    me = "slimmoa" if shutil.which("slimmoa") else sys.argv[0]
    err.print(f'  talk to it:  {me} ask{option} "Why is the sky blue?"', highlight=False)
    err.print(f"  or with any OpenAI client: base_url={url!r}, model={recipe.name!r}", highlight=False)
    err.print(f"  logs: {ray_runtime.log_folder()}   stop: Ctrl-C", highlight=False, soft_wrap=True)
    while True:
        signal.pause()


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question, or - to read standard input.")],
    url: UrlOption = LOCAL_URL,
    api_key: KeyOption = "none",
    model: ModelOption = None,
    system: SystemOption = None,
    proposals: ProposalsOption = True,
    temperature: Annotated[float | None, typer.Option(help="Of the final answer.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of the final answer.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes all sampling and the order.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole response as JSON instead.")
    ] = False,
) -> None:
    """Ask a running endpoint one question; proposals and answer appear as they are written.

    Where the output is no terminal, only the answer is printed.
    """
    text = sys.stdin.read() if question == "-" else question
    sampling = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    options = {name: value for name, value in sampling.items() if value is not None}
    messages = [*_system(system), {"role": "user", "content": text}]
    with exit_on_user_error():
        client = _client(url, api_key)
        request = {"model": model or client.mixture(), "messages": messages} | options
        if as_json:
            print(client.whole(request))
        else:
            client.show(request, proposals=proposals)


@app.command()
def chat(
    url: UrlOption = LOCAL_URL,
    api_key: KeyOption = "none",
    model: ModelOption = None,
    system: SystemOption = None,
    proposals: ProposalsOption = True,
) -> None:
    """Talk with a running endpoint over several turns.

    Ctrl-C stops an answer, /reset forgets the conversation, /exit or Ctrl-D ends it.
    """
    with exit_on_user_error():
        client = _client(url, api_key)
        name = model or client.mixture()
        err.print(Text(f"{name} at {url}   /reset   /exit", style="dim"))
        client.chat(name, _system(system), proposals=proposals)


@app.command()
def check(
    configs: Annotated[list[str], typer.Argument(help="Recipe files, or names of presets.")],
) -> None:
    """Check recipes: prints every error at once, each with its line. Exit code 1 if there are any."""
    failed = False
    for config in configs:
        try:
            recipe = load(config)
        except RecipeError as error:
            err.print(str(error), markup=False, highlight=False, soft_wrap=True)
            failed = True
        else:
            places = [sum(p.samples for p in layer.proposers) for layer in recipe.layers]
            shape = " + ".join(map(str, places))
            aggregator = recipe.aggregator.model
            print(f"{config}: {recipe.name}: {shape} proposals, aggregated by {aggregator}")
    if failed:
        raise typer.Exit(1)


@app.command()
def models(
    config: ConfigArgument = "tiny_cpu",
    fetch: Annotated[bool, typer.Option("--fetch", help="Download the missing weights now.")] = False,
) -> None:
    """List a recipe's models: what each does, and whether its weights are on this machine."""
    recipe = load_or_fail(config)
    if fetch:
        with exit_on_user_error():
            _fetch_weights(recipe)
    table = Table("model", "engine", "does", "context", "at a time", "weights", box=None)
    for name, model in recipe.models.items():
        row = (", ".join(_roles(recipe, name)), f"{model.context_tokens}", f"{model.concurrency}")
        table.add_row(name, model.engine, *row, _where(model))
    out.print(table)


@app.command()
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


@app.command()
def export(
    config: ConfigArgument = "tiny_cpu",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; by default the terminal.")
    ] = None,
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8000,
    ingresses: Annotated[
        int, typer.Option(min=1, help="HTTP entries; several are on different nodes, which all listen.")
    ] = 1,
    keys_file: KeysOption = None,
    no_keys: NoKeysOption = False,
) -> None:
    """Write a recipe as a Ray Serve config file, for `serve run FILE` and `serve deploy FILE`.

    It holds no keys: the file of keys, or SLIMMOA_API_KEYS, has to be where it is deployed.
    """
    from serve_app.serve_config import serve_config

    recipe = with_access(load_or_fail(config), host, keys_file, no_keys=no_keys)
    document = serve_config(recipe, host, port, ingresses=ingresses)
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    if output is None:
        print(text, end="")
    else:
        with exit_on_user_error():
            output.write_text(text, "utf-8")


@keys.command("new")
def new_key(
    name: Annotated[str, typer.Option(help="Whose key it is; limits are counted by it.")],
) -> None:
    """Make a key. It is shown once, on the terminal; the line with its hash is printed, so that
    `slimmoa keys new --name alice >> keys.yaml` lets it in.
    """
    from serve_app.access.api_keys import KeysError, line_of
    from serve_app.access.api_keys import new_key as fresh

    key = fresh()
    with exit_on_user_error(KeysError):
        line = line_of(name, key)
    err.print(f"the key, for its owner; it is kept nowhere:\n{key}", highlight=False, markup=False)
    print(line)


def _fetch_weights(recipe: Recipe) -> None:
    from actors.weights.files import cached, fetch
    from cli.answer_view import DownloadBars

    missing = {
        name: model.weights
        for name, model in recipe.models.items()
        if isinstance(model, LlamaCppModel) and cached(model.weights) is None
    }
    if missing:
        with DownloadBars(err) as bars:
            for name, sources in missing.items():
                fetch(name, sources, bars.report)


def _where(model: Any) -> str:
    from actors.weights.files import cached

    if not isinstance(model, LlamaCppModel):
        return getattr(model, "base_url", "none needed")
    path = cached(model.weights)
    return f"{path.stat().st_size / 1e6:,.0f} MB here" if path else "not here yet"


def _roles(recipe: Recipe, name: str) -> Iterator[str]:
    for n, layer in enumerate(recipe.layers, 1):
        samples = sum(p.samples for p in layer.proposers if p.model == name)
        if samples:
            yield f"proposes in layer {n}" + (f" ({samples} samples)" if samples > 1 else "")
    if name == recipe.aggregator.model:
        yield "aggregates"
    if name in recipe.aggregator.fallbacks:
        yield "aggregates if others fail"


def _client(url: str, api_key: str) -> "Client":
    from cli.client import Client

    return Client(url, api_key, err, out)


def _system(text: str | None) -> list[dict[str, str]]:
    return [{"role": "system", "content": text}] if text else []


def main() -> None:
    """Entry point."""
    app()
