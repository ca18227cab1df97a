"""Runs a command as a Ray job: submits the job, follows its log, and returns its exit code."""

import asyncio
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cli import stopping
from cli.console import err
from cluster.ray_address import ClusterAddress, NoCluster, ask_cluster, find_address, reach
from configs.urls import is_this_machine

OPTION = "--address"
"""The option that asks for a Ray job. The job's own command must not have this option."""


def submit(address: str, arguments: Sequence[str]) -> int:
    """Run `slimmoa ARGUMENTS` as a job of a cluster, print its log, and return its exit code.

    The job runs in the present folder, which has to exist on the cluster's head node too. Ctrl-C
    leaves the job running, and ends this process.

    Args:
        address: The cluster: http://HOST:8265, or `auto`.
        arguments: The words after `slimmoa`.

    Raises:
        ConnectionError: no cluster takes the job.
    """
    _use_token()
    _keep_from_proxies(address)
    logging.getLogger("ray").setLevel(logging.ERROR)
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    reachable = _reachable(address)
    try:
        client = JobSubmissionClient(reachable)
        job = client.submit_job(entrypoint=entrypoint(arguments))
    except (RuntimeError, ConnectionError, RayError) as error:
        raise ConnectionError(f"--address: cannot submit a job to {address}: {error}") from error
    err.print(f"job {job}: ray job logs {job}, ray job stop {job}", highlight=False)
    try:
        asyncio.run(_follow(client, job))
    except KeyboardInterrupt:
        stopping.leave(f"job {job} goes on")
    done = client.get_job_info(job)
    err.print(f"job {job}: {str(done.status).lower()}", highlight=False)
    return done.driver_exit_code or (0 if str(done.status) == "SUCCEEDED" else 1)


def _reachable(address: str) -> str:
    """The address in the form that Ray takes, once something answers there. Ray itself tries longer.

    Raises:
        NoCluster: nothing answers there, or the address cannot be one.
    """
    if "://" not in address:
        found = find_address(address, OPTION)
        ask_cluster(found, as_driver=False)
        return str(found)
    parts = urlsplit(address)
    try:
        port = parts.port or {"https": 443}.get(parts.scheme, 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise NoCluster(f"{OPTION}: {address!r} takes no jobs; give http://HOST:8265, or auto")
    reach(ClusterAddress(parts.hostname, port, OPTION))
    return address


def _use_token() -> None:
    """Use the cluster's token if this user has one, as the `ray` command does.

    Ray reads `RAY_AUTH_MODE` when Ray is imported, so this function has to run before.
    """
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if "RAY_AUTH_TOKEN" in os.environ or token.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _keep_from_proxies(address: str) -> None:
    """Have Ray's client ask a cluster on this machine without the environment's proxy."""
    if address == "auto" or is_this_machine(address):
        for name in ("no_proxy", "NO_PROXY"):
            known = os.environ.get(name)
            os.environ[name] = ",".join(filter(None, [known, "localhost", "127.0.0.1", "::1"]))


def entrypoint(arguments: Sequence[str]) -> str:
    """The shell command of the job: `slimmoa ARGUMENTS` in the present folder, without `--address`.

    Args:
        arguments: The words after `slimmoa`.
    """
    rest = _without_address(list(arguments))
    # This very Python, if the job's node has it, as on one machine or where all nodes have one image.
    python = f'"$(command -v {shlex.quote(sys.executable)} || echo python)"'
    return f"cd {shlex.quote(os.getcwd())} && exec {python} -m cli {shlex.join(rest)}"


def _without_address(arguments: list[str]) -> list[str]:
    for n, argument in enumerate(arguments):
        if argument == OPTION:
            return arguments[:n] + arguments[n + 2 :]
        if argument.startswith(f"{OPTION}="):
            return arguments[:n] + arguments[n + 1 :]
    return arguments


async def _follow(client: Any, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        print(lines, end="", flush=True)
