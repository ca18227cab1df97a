"""Commands that serve a recipe or write it as a Ray Serve config: `slimmoa serve` and `export`."""

import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.text import Text

from cli.best_preset import offer_better
from cli.console import err, exit_on_user_error, fail, load_or_fail, with_access, write_file
from cli.options import LOCAL_URL, ConfigArgument, HostOption, KeysOption, NoKeysOption, PortOption
from configs.schema import Recipe, VllmModel

DEFAULT = "tiny_cpu"
"""The preset that is served if no recipe is named."""


def serve(
    config: ConfigArgument = DEFAULT,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    auto: Annotated[
        bool, typer.Option("--auto", help="Take the best preset for this machine (`slimmoa presets`).")
    ] = False,
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

    if auto:
        config = _choose(config, address)
    recipe = with_access(load_or_fail(config), host, keys_file, no_keys=no_keys)
    with exit_on_user_error():
        ray_runtime.check_port(host, port)
        # The replicas of a cluster fetch folders on their own nodes.
        download_missing_weights(recipe, folders=address is None)
    try:
        with err.status("starting Ray"), exit_on_user_error():
            ray_runtime.connect(address, verbose=verbose)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # in place of Ray's, which aborts
        _deploy(recipe, host, port, follow_nodes=address is not None, verbose=verbose)
        if address is None and not auto:
            offer_better(config)
        while True:
            signal.pause()
    except KeyboardInterrupt:
        wait = f"answers in work have {recipe.limits.drain_s:g} s to end"
        err.print(f"stopping: {wait}; Ctrl-C again ends them now", highlight=False)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # let the children be stopped in peace
        try:
            ray_runtime.disconnect(ray_runtime.APP_NAME, local=address is None)
        except KeyboardInterrupt:
            ray_runtime.abandon()


def _choose(config: str, address: str | None) -> str:
    """The preset that `--auto` takes; says which one, and why."""
    from cli.best_preset import choose_preset

    if config != DEFAULT:
        fail(f"--auto chooses a recipe, and {config!r} is one: give one of the two")
    if address is not None:
        fail("--auto looks at this machine alone: with --address, name a recipe")
    with exit_on_user_error(), err.status("looking for the best preset"):
        chosen = choose_preset()
    err.print(Text(chosen.why))
    return chosen.name


def _deploy(recipe: Recipe, host: str, port: int, *, follow_nodes: bool, verbose: bool) -> None:
    from cluster import ray_runtime
    from serve_app.app import BuildArgs, build

    names = ", ".join(recipe.names)
    with err.status(f"starting the models: {names}"):
        with exit_on_user_error():
            here = ray_runtime.this_node()
            args = BuildArgs(
                recipe=recipe, follow_nodes=follow_nodes, host=host, port=port, ingress_node=here
            )
            graph = build(args)
        try:
            ray_runtime.deploy(graph, ray_runtime.APP_NAME)
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


def export(
    config: ConfigArgument = "tiny_cpu",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; by default the terminal.")
    ] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
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
            write_file(output, text)


def download_missing_weights(recipe: Recipe, *, folders: bool = True) -> None:
    """Download the weights that are not on this machine yet, with progress bars.

    Says first how much the folders need, and begins nothing if the disk has no room for them.

    Args:
        recipe: the recipe.
        folders: whether vLLM's folders are fetched too, and not only the files of llama.cpp.

    Raises:
        WeightsError: weights cannot be found, fetched or verified.
    """
    from actors.weights.lookup import bring_here, is_whole, needs_fetch
    from cli.answer_view import DownloadBars

    missing = [name for name, model in recipe.models.items() if needs_fetch(model)]
    if folders:
        missing += _announce_folders(recipe)
        missing += [  # an adapter, or what guesses tokens
            name
            for name, model in recipe.models.items()
            if isinstance(model, VllmModel) and name not in missing and not is_whole(model)
        ]
    if missing:
        with DownloadBars(err) as bars:
            for name in missing:
                bring_here(name, recipe.models[name], bars.report)


def _announce_folders(recipe: Recipe) -> list[str]:
    """Say which folders are to be fetched and how large they are; return the names of their models.

    Raises:
        WeightsError: a folder cannot be had, or the disk has no room for all of them.
    """
    from actors.weights.download import gigabytes
    from actors.weights.lookup import find_downloads

    found = find_downloads(recipe)
    for name, download in found.items():
        size = gigabytes(download.missing_bytes)
        err.print(f"{name} needs {size} from the Hub ({download.source.hub})", highlight=False)
    return list(found)
