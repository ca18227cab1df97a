"""What a person writes to name a model: an id of the Hub, an address of a page, a path of this machine.

Pure. `named_models.py` looks the name up.
"""

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from configs.errors import WeightsError

PREFIX = re.compile(r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)(?:models/)?", re.I)
"""How addresses of the Hub begin, as browsers and other programs write them."""
ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
QUANTIZATION = re.compile(r"(?i)(?<![a-z0-9])(?:UD-)?(?:I?Q\d\w*|TQ\d_\d|MXFP4\w*|BF16|FP?16|F32)")
"""The name of a quantization within the name of a GGUF file."""
BESIDE = re.compile(r"(?i)mmproj|imatrix")
"""Parts of the names of GGUF files that hold no model of text."""
PREFERRED = ("Q4_K_M", "UD-Q4_K_XL", "Q4_K_XL", "Q4_0", "MXFP4", "Q4_K_S", "IQ4_XS", "Q5_K_M", "Q8_0")
"""Quantizations in the order in which one is chosen if nothing is said."""
PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
"""Ends the name of a part of a split file."""


@dataclass(frozen=True, slots=True)
class HubName:
    """A name taken apart."""

    hub: str
    """Repository, `owner/name`."""
    file: str | None = None
    """Path of a file in the repository."""
    quantization: str | None = None
    """Name of a quantization, which chooses a file."""
    revision: str = "main"


def parse_hub_name(text: str) -> HubName | None:
    """Take a name apart: `owner/name`, `owner/name@revision`, `owner/name:Q4_K_M`,
    `owner/name/file.gguf`, or the address of the repository's or file's page at the Hub. None if the
    text is no such name.
    """
    is_address = PREFIX.match(text) is not None
    path = PREFIX.sub("", text, count=1)
    if is_address:
        path = unquote(re.split(r"[?#]", path, maxsplit=1)[0])
    owner, _, rest = path.strip("/").partition("/")
    name, _, inside = rest.partition("/")
    quantization = revision = None
    if not inside:
        name, _, quantization = name.partition(":")
    name, _, revision = name.partition("@")
    if is_address and (page := re.match(r"(?:blob|resolve|tree)/([^/]+)(?:/(.*))?$", inside)):
        revision, inside = page[1], page[2] or ""
    if not ID.fullmatch(f"{owner}/{name}"):
        return None
    return HubName(f"{owner}/{name}", inside or None, quantization or None, revision or "main")


def choose_gguf(names: Collection[str], name: HubName) -> str:
    """The GGUF file among `names` that a name means.

    Raises:
        WeightsError: none or several are meant; the message names those that there are.
    """
    files = sorted(n for n in names if n.lower().endswith(".gguf") and not BESIDE.search(n))
    if name.file is not None:
        return _named_file(files, name.file, name.hub)
    if not files:
        raise WeightsError(f"{name.hub} has no GGUF file")
    wanted = [name.quantization] if name.quantization else PREFERRED
    for quantization in wanted:
        found = [n for n in files if (quantization_of(n) or "").casefold() == quantization.casefold()]
        if found:
            return _only(found, name.hub)
    known = list(dict.fromkeys(q for n in files if (q := quantization_of(n))))
    if name.quantization:
        near = nearest(name.quantization, known)
        has = ", ".join(known) or "files without a quantization in their names"
        raise WeightsError(f"{name.hub} has no {name.quantization} (it has {has}){near}")
    return _only(files, name.hub)


def quantization_of(file: str) -> str | None:
    """The quantization that the name of a GGUF file ends with; None if it names none."""
    found = QUANTIZATION.findall(PART.sub(".gguf", file).rpartition("/")[2].removesuffix(".gguf"))
    return str(found[-1]) if found else None


def nearest(text: str, known: Collection[str]) -> str:
    """`; did you mean X?` for the nearest of the known names, or "" if none is near."""
    by_name = {k.casefold(): k for k in known}
    found = difflib.get_close_matches(text.casefold(), by_name, n=1, cutoff=0.75)
    return f"; did you mean {by_name[found[0]]}?" if found else ""


def _named_file(files: Sequence[str], wanted: str, hub: str) -> str:
    for file in files:
        if wanted.casefold() in (file.casefold(), f"{file.casefold()}.gguf"):
            return file
    near = nearest(wanted, files)
    listed = f"; it has {', '.join(files[:8]) or 'no GGUF file'}"
    raise WeightsError(f"{hub} has no file {wanted}{near or listed}")


def _only(files: Sequence[str], hub: str) -> str:
    """The only one of `files`; of a split file, the first part."""
    wholes = {PART.sub("", file) for file in files}
    if len(wholes) > 1:
        raise WeightsError(f"{hub} has several such files, name one of them: {', '.join(files[:8])}")
    return files[0]
