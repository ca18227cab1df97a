"""A file appears whole or not at all."""

from pathlib import Path

import pytest

from jobs.atomic_file import write_atomically


def test_a_file_takes_the_place_of_the_earlier_one_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("earlier")
    with write_atomically(path) as file:
        file.write(b"la")
        assert path.read_text() == "earlier"
        file.write(b"ter")
    assert path.read_text() == "later"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_earlier_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_text("earlier")

    def stop_halfway() -> None:
        with write_atomically(path) as file:
            file.write(b"half of the la")
            raise error

    with pytest.raises(error):
        stop_halfway()
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_atomically(tmp_path / "none" / "file"):
        pass
