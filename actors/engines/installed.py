"""Which engines this Python has, told without loading the large ones."""

from collections.abc import Iterator
from importlib.util import find_spec

from configs.schema import LlamaCppModel, Recipe, VllmModel


def missing_engines(recipe: Recipe, *, gpu: bool) -> Iterator[str]:
    """What has to be installed before the recipe can run here, each as words that complete "needs ...".

    Args:
        recipe: the recipe.
        gpu: whether llama.cpp is to run on a GPU.
    """
    models = recipe.models.values()
    if any(isinstance(model, VllmModel) for model in models) and find_spec("vllm") is None:
        yield "vLLM, which is not installed"
    if any(isinstance(model, LlamaCppModel) for model in models):
        if find_spec("xllamacpp") is None:
            yield "xllamacpp, which is not installed"
        elif gpu and not _llamacpp_sees_gpu():
            yield "llama.cpp built for the GPU (the installed xllamacpp is for CPUs)"


def _llamacpp_sees_gpu() -> bool:
    """Whether this build of llama.cpp finds a GPU. To ask it, its library is loaded."""
    from actors.engines.llamacpp_params import has_gpu_backend

    return has_gpu_backend()
