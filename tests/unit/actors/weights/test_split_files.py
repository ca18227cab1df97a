"""GGUF files in parts, from the Hub and on this machine."""

import hashlib
from pathlib import Path

import pytest

from actors.weights.files import cached, fetch
from actors.weights.lookup import bring_here, find_weights, needs_fetch, weights_state
from configs.errors import WeightsError
from configs.schema import LlamaCppModel
from configs.weights import HubFile, LocalFile, part_names
from tests.unit.fake_hub import FakeHub, FakeRepo

NAMES = part_names("q4/w-00001-of-00003.gguf")
PARTS = [bytes([number]) * 1000 for number in range(3)]
SUMS = tuple(hashlib.sha256(part).hexdigest() for part in PARTS)


@pytest.fixture
def repository(hub: FakeHub) -> FakeRepo:
    """What the Hub has: a repository with all parts."""
    hub.repos["o/n"] = FakeRepo(dict(zip(NAMES, PARTS, strict=True)))
    return hub.repos["o/n"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all parts."""
    for name, part in zip(NAMES, PARTS, strict=True):
        (tmp_path / Path(name).name).write_bytes(part)
    return tmp_path


def content(first: Path) -> list[bytes]:
    """What an engine finds that is given the first part."""
    return [Path(name).read_bytes() for name in part_names(str(first))]


@pytest.mark.parametrize("named", NAMES)
@pytest.mark.parametrize("sums", [None, SUMS], ids=["unchecked", "checked"])
def test_a_split_file_of_the_hub_is_fetched_whole(
    repository: FakeRepo, named: str, sums: tuple[str, ...] | None
) -> None:
    source = HubFile(hub="o/n", file=named, part_sha256=sums)
    assert cached([source]) is None
    file = fetch("m", [source])
    assert file.name == "w-00001-of-00003.gguf"
    assert content(file) == PARTS
    repository.files.clear()
    assert fetch("m", [source]) == cached([source]) == file
    file.unlink()  # the link in the Hub's cache, not what it leads to
    if sums is None:
        assert cached([source]) is None
    else:
        assert content(fetch("m", [source])) == PARTS  # from what is here


def test_a_missing_part_of_the_hub_is_named(repository: FakeRepo) -> None:
    del repository.files[NAMES[1]]
    with pytest.raises(WeightsError, match=r"o/n/q4/w-00002-of-00003\.gguf: it has no 'q4/w-00002-of"):
        fetch("m", [HubFile(hub="o/n", file=NAMES[0])])


def test_a_wrong_part_of_the_hub_is_named(repository: FakeRepo) -> None:
    repository.files[NAMES[2]] = b"wrong"
    with pytest.raises(WeightsError, match=r"o/n/q4/w-00003-of-00003\.gguf: SHA-256 is \w+, not"):
        fetch("m", [HubFile(hub="o/n", file=NAMES[0], part_sha256=SUMS)])


@pytest.mark.usefixtures("hub")
def test_a_split_file_of_this_machine(folder: Path) -> None:
    source = LocalFile(path=str(folder / "w-00002-of-00003.gguf"), part_sha256=SUMS)
    assert cached([source]) is None  # its checksums have not been looked at
    assert content(fetch("m", [source])) == PARTS
    assert cached([source]) == folder / "w-00001-of-00003.gguf"
    model = LlamaCppModel(engine="llamacpp", weights=(source,))
    assert str(weights_state(model)) == "0.0 MB here"
    (folder / "w-00003-of-00003.gguf").write_bytes(b"wrong")
    with pytest.raises(WeightsError, match=r"w-00003-of-00003\.gguf: SHA-256 is"):
        fetch("m", [source])
    assert find_weights("m", model) == folder / "w-00001-of-00003.gguf"  # a plan checks no sums
    (folder / "w-00003-of-00003.gguf").unlink()
    with pytest.raises(WeightsError, match=r"be told: .*w-00003-of-00003\.gguf: there is no such file"):
        find_weights("m", model)
    with pytest.raises(WeightsError, match=r"w-00003-of-00003\.gguf: there is no such file"):
        fetch("m", [source])


def test_a_draft_model_is_fetched_with_its_model(repository: FakeRepo, folder: Path) -> None:
    repository.files["draft.gguf"] = b"draft"
    draft = HubFile(hub="o/n", file="draft.gguf")
    model = LlamaCppModel.model_validate(
        {
            "engine": "llamacpp",
            "weights": [{"path": str(folder / "w-00001-of-00003.gguf")}],
            "speculation": {"method": "draft", "draft": [draft.model_dump()]},
        }
    )
    state = weights_state(model)
    assert state is not None
    assert (state.here, state.can_fetch, needs_fetch(model)) == (False, True, True)
    bring_here("m", model)
    state = weights_state(model)
    assert state is not None
    assert (state.here, state.size_bytes, needs_fetch(model)) == (True, 3005, False)
    assert cached([draft]) is not None
