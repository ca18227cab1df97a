"""A GGUF file at the Hub is planned by its header: few bytes, kept on this machine."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.weights import gguf_headers
from actors.weights.gguf_headers import fetch_gguf, fetch_header, gguf_known
from cluster.plan.checkpoint import from_gguf
from configs.errors import WeightsError
from configs.weights import HubFile
from tests.unit.fake_hub import FakeHub, FakeRepo, gguf_file, point_client_at, serve_hub

SOURCE = HubFile(hub="o/g", file="w.gguf")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve_hub() as hub:
        point_client_at(hub.url, tmp_path, monkeypatch)
        monkeypatch.setattr("actors.weights.hub._unreachable", {})
        yield hub


def test_the_header_tells_what_the_whole_file_tells(hub: FakeHub, tmp_path: Path) -> None:
    body = gguf_file()
    hub.repos["o/g"] = FakeRepo({"w.gguf": body})
    (tmp_path / "w.gguf").write_bytes(body)
    assert gguf_known([SOURCE]) is None
    assert fetch_gguf(SOURCE) == from_gguf(tmp_path / "w.gguf")
    hub.requests.clear()
    assert gguf_known([SOURCE]) == fetch_gguf(SOURCE) == from_gguf(tmp_path / "w.gguf")
    assert hub.requests == []


def test_only_the_start_of_a_large_file_is_fetched(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = len(gguf_file()) - 3200
    monkeypatch.setattr(gguf_headers, "STARTS", (100, header + 1, 10_000_000))
    hub.repos["o/g"] = FakeRepo({"w.gguf": gguf_file() + bytes(1_000_000)})
    found = fetch_header(SOURCE)
    assert found.tensors[0].stored_bytes == 1_003_200
    assert sum(hub.sent.values()) == 100 + header + 1


@pytest.mark.parametrize(
    "body",
    [b"<html>" * 200, b"GGUF" + struct.pack("<I", 9) + bytes(2000), gguf_file()[:100]],
    ids=["html", "version", "cut"],
)
def test_what_is_no_gguf_is_refused_in_one_line(hub: FakeHub, body: bytes) -> None:
    hub.repos["o/g"] = FakeRepo({"w.gguf": body})
    with pytest.raises(WeightsError) as caught:
        fetch_gguf(SOURCE)
    assert caught.value.message.startswith("o/g/w.gguf cannot be understood: ")
    assert gguf_known([SOURCE]) is None


def test_the_parts_of_a_split_file_are_one_checkpoint(hub: FakeHub) -> None:
    names = ("w-00001-of-00002.gguf", "w-00002-of-00002.gguf")
    hub.repos["o/g"] = FakeRepo(dict.fromkeys(names, gguf_file()) | {"w.gguf": gguf_file()})
    split = HubFile(hub="o/g", file=names[0])
    assert fetch_header(split).tensors == 2 * fetch_header(SOURCE).tensors
    assert gguf_known([split]) == fetch_gguf(split)
