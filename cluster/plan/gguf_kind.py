"""Whether a GGUF file holds a model that writes text, told by its header. Pure.

llama.cpp refuses some of these files with words about a missing tensor, and starts others, which then
answer nothing useful.
"""

import re

from cluster.plan.gguf import Header

POOLINGS = {1: "mean", 2: "cls", 3: "last", 4: "rank"}
"""How models of embeddings and rerankers join the states of tokens (`llama_pooling_type`)."""
TYPES = {
    "adapter": "it is a LoRA adapter, which changes another model; llama.cpp's own tool "
    "llama-export-lora makes a whole model of both",
    "mmproj": "it is the part of a model that reads images (mmproj): name the file of the model itself",
    "imatrix": "it is an importance matrix (imatrix), which helps to quantize a model: name the model",
    "vocab": "it holds a vocabulary without weights",
}
"""By `general.type`, what is no model (`GGUFType` in gguf-py)."""
EMBEDDERS = re.compile(r".*bert.*|.*-embed|.*-embedding|t5encoder")
"""The families' names of models that only encode texts. Pangu-Embedded is none of them."""
OTHERS = {
    "clip": TYPES["mmproj"],
    "wavtokenizer-dec": "it makes sound and no text",
    "dream": "it writes by diffusion, which llama.cpp's server cannot",
    "llada": "it writes by diffusion, which llama.cpp's server cannot",
    "llada-moe": "it writes by diffusion, which llama.cpp's server cannot",
    "rnd1": "it writes by diffusion, which llama.cpp's server cannot",
}
"""By family (`general.architecture`), further models that write no text here."""
IMAGES = ("flux", "sd1", "sd3", "sdxl", "aura", "hidream", "cosmos", "ltxv", "hyvid", "wan", "lumina2")
"""Families of models of images and videos, as ComfyUI-GGUF names them."""
EMBEDDINGS = "it is a model of embeddings or a reranker"


def why_no_text(header: Header) -> str | None:
    """Why a file holds no model that writes text, and what to do; None if it may hold one."""
    metadata = header.metadata
    family = str(metadata.get("general.architecture", ""))
    if (why := TYPES.get(str(metadata.get("general.type")))) is not None:
        return why
    pooling = metadata.get(f"{family}.pooling_type", 0)
    if pooling in POOLINGS:
        return f"{EMBEDDINGS} ({POOLINGS[pooling]} pooling), and writes no text"
    if EMBEDDERS.fullmatch(family):
        return f"{EMBEDDINGS} ({family}), and writes no text"
    if family in OTHERS:
        return OTHERS[family]
    if family in IMAGES:
        return f"it is a model of images or videos ({family}), and writes no text"
    if family and not header.tensors:
        return TYPES["vocab"]
    return None
