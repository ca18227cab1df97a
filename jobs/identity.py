"""What a model is, and what determines a call, as hashes.

A key covers all that an engine is given, so whatever built the prompt (the recipe's prompt text, the
code that puts references into it) is in it through the messages that came out. What only changes how
fast or where a model runs (threads, concurrency, residency, context) is not in it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.engine import Message
from configs.schema import LlamaCppModel, Model, OpenAIHttpModel, Sampling, ScriptedModel, VllmModel
from configs.weights import FolderSource, LocalFile, LocalFolder, WeightsSource

KEY_BYTES, QUESTION_BYTES = 16, 4
VLLM_SETTINGS = ("quantization", "dtype", "kv_cache_dtype", "load_format", "reasoning_parser")
SCRIPT_SETTINGS = ("text", "tokens")


def call_key(model: str, identity: str, messages: Sequence[Message], sampling: Sampling) -> bytes:
    """The key of an engine call. identity: the model's; sampling: its seed included.

    It begins with a hash of the first question alone, so that the calls of a row lie side by side in
    the store's index: they then change one of its pages instead of several.
    """
    said = [[message["role"], message["content"]] for message in messages]
    question = next((content for role, content in said if role == "user"), "")
    whole = [model, identity, said, sampling.model_dump(mode="json")]
    return (_hash(question).digest()[:QUESTION_BYTES] + _hash(whole).digest())[:KEY_BYTES]


def model_identity(model: Model) -> str:
    """Hash of what a model answers with: its weights, and the settings that change its answers.

    Weights are told apart by their checksum where a source has one. A Hub revision is taken at its
    word; a local file or folder without a checksum counts as another one when it is changed.
    """
    match model:
        case LlamaCppModel():
            what: Any = _file(model.weights)
        case VllmModel():
            settings = {name: getattr(model, name) for name in VLLM_SETTINGS}
            what = [_folder(model.weights), settings]
        case OpenAIHttpModel():
            what = [model.base_url, model.model]
        case ScriptedModel():
            what = {name: getattr(model, name) for name in SCRIPT_SETTINGS}
    return short_hash([model.engine, what])


def short_hash(value: Any) -> str:
    """Hash of a JSON value, for people to compare: 32 hexadecimal digits."""
    return _hash(value).hexdigest()[:32]


def _hash(value: Any) -> "hashlib._Hash":
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass"))


def _file(sources: Sequence[WeightsSource]) -> Any:
    known = next((source.sha256 for source in sources if source.sha256 is not None), None)
    if known is not None:
        return known
    source = sources[0]
    if isinstance(source, LocalFile):
        return _as_it_is(Path(source.path))
    return source.model_dump(mode="json")


def _folder(sources: Sequence[FolderSource]) -> Any:
    source = sources[0]
    if isinstance(source, LocalFolder):
        return [_as_it_is(file) for file in sorted(Path(source.path).glob("*"))]
    return source.model_dump(mode="json")


def _as_it_is(file: Path) -> Mapping[str, Any]:
    """A file by name, size and time of change: hashing 40 GB would take a minute at each start."""
    if not file.is_file():
        return {"name": file.name}
    stat = file.stat()
    return {"name": file.name, "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
