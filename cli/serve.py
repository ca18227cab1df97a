"""The command `slimmoa serve`: serves a recipe, and shows its log, until a signal comes."""

import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cli import stopping
from cli.best_preset import offer_better
from cli.console import busy, err, exit_on_user_error, fail, load_or_fail, with_access
from cli.options import (
    LOCAL_URL,
    ConfigArgument,
    HostOption,
    KeysOption,
    LogOption,
    NoKeysOption,
    PortOption,
    log_shape,
)
from cluster.logs.file import Follower
from cluster.logs.line import Shape
from cluster.logs.setup import log_name
from configs.schema import Recipe, VllmModel
from serve_app.tracing.settings import tracing_variables

if TYPE_CHECKING:
    from serve_app.local_servers import Announcement

DEFAULT = "tiny_cpu"
"""The preset that is served if no recipe is named."""
END_S = 20.0
"""Longest time, in seconds, that the processes get to end once no answer is in work any longer."""


def serve(
    config: ConfigArgument = DEFAULT,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    auto: Annotated[
        bool, typer.Option("--auto", help="Choose the preset that suits this machine best.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Serve on a Ray cluster that runs already: `auto` or HOST:PORT."),
    ] = None,
    verbose: Annotated[bool, typer.Option(help="Show the logs of all processes.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no lines of the log; its file has them.")
    ] = False,
    log: LogOption = None,
    keys_file: KeysOption = None,
    no_keys: NoKeysOption = False,
    otlp_traces_endpoint: Annotated[
        str | None,
        typer.Option(help="Send traces to this URL, such as http://127.0.0.1:4318/v1/traces."),
    ] = None,
) -> None:
    """Serve a recipe as an OpenAI-compatible API until Ctrl-C.

    The command fetches the weights first, with a progress bar. At a second start, the weights are in
    the cache. Give API keys by --keys, or in the environment variable SLIMMOA_API_KEYS, with commas
    between them. Without API keys, only programs on this machine can ask.

    Once the server is ready, the command prints a line for each answer, for each refused request, and
    for each swap of a model.
    """
    from cluster import ray_runtime
    from serve_app.local_servers import Announcement

    if auto:
        config = _choose(config, address)
    recipe = with_access(load_or_fail(config), host, keys_file, no_keys=no_keys)
    with exit_on_user_error():
        shape = log_shape(log)
        tracing_variables(os.environ, otlp_traces_endpoint, "--otlp-traces-endpoint")
        ray_runtime.check_port(host, port)
        announcement = Announcement(host, port)
    try:
        with exit_on_user_error():
            # The replicas of a cluster fetch folders on their own nodes.
            download_missing_weights(recipe, folders=address is None)
        _serve(
            recipe,
            host,
            port,
            address,
            announcement,
            verbose=verbose,
            quiet=quiet,
            log=shape,
            offer=None if auto else config,
            traces=otlp_traces_endpoint,
        )
    finally:
        announcement.remove()


def _serve(
    recipe: Recipe,
    host: str,
    port: int,
    address: str | None,
    announcement: "Announcement",
    *,
    verbose: bool,
    quiet: bool,
    log: Shape,
    offer: str | None,
    traces: str | None,
) -> None:
    """Serve until a signal comes."""
    from cluster import ray_runtime
    from serve_app.local_servers import LocalServer

    app, local = _app_name(recipe, port, address), address is None
    is_up = is_ours = False
    log_lines: Follower | None = None
    try:
        cluster = "Ray to start" if local else f"the Ray cluster at {address}"
        with busy(cluster), exit_on_user_error():
            ray_runtime.connect(address, verbose=verbose)
            _require_free(app)
        is_ours = True
        _deploy(recipe, host, port, app, log, follow_nodes=not local, verbose=verbose, traces=traces)
        is_up = True
        announcement.ready(LocalServer(recipe, app, ray_runtime.this_cluster()))
        _say_ready(recipe, host, port)
        if local and offer is not None:
            offer_better(offer)
        if not (quiet or verbose):  # Ray shows all processes' standard error, where the lines are too
            log_lines = Follower(ray_runtime.log_folder() / log_name(app), _show_lines)
        while True:
            signal.pause()
    except (KeyboardInterrupt, stopping.Terminated):
        if not is_up:
            ray_runtime.leave_at_once(app if is_ours else None, local=local)
            raise
        drain_s = recipe.limits.drain_s
        stopping.in_order(
            drain_s + END_S,
            f"stopping: answers in work have {drain_s:g} s to end; Ctrl-C again ends them now",
        )
        ray_runtime.disconnect(app, local=local)
        if log_lines is not None:
            log_lines.stop()
        raise
    except BaseException:
        ray_runtime.disconnect(app if is_ours else None, local=local)
        raise


def _show_lines(lines: str) -> None:
    """Print lines of the log as they are: programs may read them."""
    if sys.stdout is not None:
        sys.stdout.write(lines)
        sys.stdout.flush()


def _app_name(recipe: Recipe, port: int, address: str | None) -> str:
    """The name of the Serve application. Each server that joins a cluster has one of its own."""
    from cluster.ray_runtime import APP_NAME, SERVED

    if address is None:
        return APP_NAME
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_.") else "-" for c in recipe.name)
    return f"{SERVED}{name}-{port}"


def _require_free(app: str) -> None:
    """Raise an error if the cluster runs an application of this name: it would be replaced.

    Raises:
        AppTaken: the cluster runs it.
    """
    from cluster import ray_runtime

    if app in ray_runtime.run(ray_runtime.applications):
        raise ray_runtime.AppTaken(
            f"the cluster runs the application {app} already, for another `slimmoa serve` of this "
            "recipe on this port; end it, or take another --port"
        )


def _choose(config: str, address: str | None) -> str:
    """The preset that `--auto` takes; says which one, and why."""
    from cli.best_preset import choose_preset

    if config != DEFAULT:
        fail(f"--auto chooses a recipe itself, and {config!r} names one: leave out one of the two")
    if address is not None:
        fail("--auto looks at this machine alone: with --address, name a recipe")
    with exit_on_user_error(), busy("the Hub, for the best preset,"):
        chosen = choose_preset()
    err.print(Text(chosen.why))
    return chosen.name


def _deploy(
    recipe: Recipe,
    host: str,
    port: int,
    app: str,
    log: Shape,
    *,
    follow_nodes: bool,
    verbose: bool,
    traces: str | None,
) -> None:
    """Start the models, and make sure that the endpoint answers."""
    from cluster import ray_runtime
    from serve_app.app import BuildArgs, build
    from serve_app.local_servers import own_url_failure, wait_for_models

    def deploy() -> None:
        args = BuildArgs(
            recipe=recipe,
            app=app,
            follow_nodes=follow_nodes,
            host=host,
            port=port,
            ingress_node=ray_runtime.this_node(),
            log=log,
            otlp_traces_endpoint=traces,
        )
        ray_runtime.deploy(build(args), app)

    names = ", ".join(recipe.names)
    with busy(f"the models to start: {names},"), exit_on_user_error():
        try:
            ray_runtime.run(deploy)
        except RuntimeError as error:
            hint = "" if verbose else f"\n(the logs are in {ray_runtime.log_folder()})"
            fail(f"{error}{hint}")
    with busy("the endpoint to answer"):
        failure = own_url_failure(host, port)
        if failure is None:
            wait_for_models(host, port)
    if failure is not None:
        fail(f"the models are up, and nothing answers at {_root(host, port)}: {failure}")


def _root(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def _page(host: str, port: int) -> str:
    """The address of the page. Where the server listens on every interface, that of this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return _root(host, port).removesuffix("v1")


def _say_ready(recipe: Recipe, host: str, port: int) -> None:
    from cluster import ray_runtime

    url = _root(host, port)
    option = "" if url == LOCAL_URL else f" --url {url}"
    err.print(Text(f"ready: {recipe.name} answers at {url}", style="green"))
    me = "slimmoa" if shutil.which("slimmoa") else sys.argv[0]
    if recipe.access.page:
        err.print(f"  in a browser:  {_page(host, port)}", highlight=False)
    err.print(f'  talk to it:  {me} ask{option} "Why is the sky blue?"', highlight=False)
    err.print(f"  or with any OpenAI client: base_url={url!r}, model={recipe.name!r}", highlight=False)
    err.print(f"  logs: {ray_runtime.log_folder()}   stop: Ctrl-C", highlight=False, soft_wrap=True)


def download_missing_weights(recipe: Recipe, *, folders: bool = True) -> None:
    """Download the weights that are not on this machine yet, with progress bars.

    Says first how much the folders need, and begins nothing if the disk has no room for them.

    Args:
        recipe: the recipe.
        folders: whether vLLM's folders are fetched too, and not only the files of llama.cpp.

    Raises:
        WeightsError: weights cannot be found, fetched or verified.
    """
    from actors.weights.chat_templates import missing_templates
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
    for line in missing_templates(recipe):
        err.print(line, markup=False, highlight=False)


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
