"""API keys: how they are generated, read, recognised and read again."""

import hashlib
import hmac
import logging
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.access import Allowance, is_loopback
from serve_app.access import api_keys
from serve_app.access.api_keys import (
    Key,
    KeyFile,
    KeysError,
    find_key,
    generate_key,
    key_line,
    parse_environment,
    parse_keys,
)

HEX = hashlib.sha256(b"the key").hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()
NAME_RULE = re.escape(api_keys.NAME_RULE)


def test_a_generated_key_is_valid_by_its_line_which_does_not_contain_it() -> None:
    key = generate_key()
    line = key_line("alice", key)
    (kept,) = parse_keys(line, "keys.yaml")
    assert find_key([kept], key.encode()) is kept
    assert key not in line
    assert key not in repr(kept)


def test_generated_keys_differ_and_have_256_random_bits() -> None:
    keys = {generate_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key.removeprefix(api_keys.PREFIX)) for key in keys} == {43}


@pytest.mark.parametrize("name", ["", "a b", "sk-slimmoa-x", "a" * 65, "a: b", ".a"])
def test_a_name_that_could_not_be_read_back_gets_no_line(name: str) -> None:
    with pytest.raises(KeysError, match=f"{NAME_RULE}: {re.escape(repr(name)[:80])}"):
        key_line(name, generate_key())


def test_every_key_is_compared_in_constant_time_even_after_the_right_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def note(one: bytes, two: bytes) -> bool:
        compared.append(one)
        return compare(one, two)

    monkeypatch.setattr(hmac, "compare_digest", note)
    known = [Key(str(n), hashlib.sha256(b"%d" % n).digest()) for n in range(5)]
    assert find_key(known, b"0") is known[0]
    assert compared == [key.digest for key in known]


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_key_is_recognised_by_itself_alone(one: bytes, two: bytes) -> None:
    key = Key("one", hashlib.sha256(one).digest())
    assert (find_key([key], two) is key) == (one == two)


def test_a_line_may_have_limits() -> None:
    text = f"alice: sha256:{HEX}\nbob: {{key: 'sha256:{OTHER}', concurrency: 2, models: [mix]}}\n"
    alice, bob = parse_keys(text, "keys.yaml")
    assert alice == Key("alice", bytes.fromhex(HEX))
    assert bob.allowance == Allowance(concurrency=2, models=("mix",))


def test_a_line_without_a_limit_has_the_recipes() -> None:
    base = Allowance(concurrency=4, max_tokens=100)
    assert Allowance(concurrency=2).over(base) == Allowance(concurrency=2, max_tokens=100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "k:1: a file of keys is a mapping"),
        ("- a", "k:1: a file of keys is a mapping"),
        ("alice: [", "k:1: this is not readable YAML"),
        ("\nalice: sk-slimmoa-secret", "k:2: alice: this has to be the key's hash"),
        (f"alice: {HEX}", "k:1: alice: this has to be the key's hash"),
        (f"alice: sha256:{HEX.upper()}", "k:1: alice: this has to be the key's hash"),
        (f"alice: sha256:{HEX}0", "k:1: alice: this has to be the key's hash"),
        ("alice: 5", "k:1: alice: "),
        ("alice:", "k:1: alice: "),
        ("alice: {concurrency: 1}", "k:1: alice.key: this key is required"),
        (f"alice: {{key: 'sha256:{HEX}', concurrency: 0}}", "k:1: alice.concurrency: this has to be"),
        (f"alice: {{key: 'sha256:{HEX}', speed: 1}}", "k:1: alice.speed: this key is not known here"),
        (f"\na b: sha256:{HEX}", f"k:2: {NAME_RULE}$"),
        (f"\nsk-slimmoa-secret: sha256:{HEX}", f"k:2: {NAME_RULE}$"),
        (f"a: sha256:{HEX}\na: sha256:{OTHER}", "k:2: a: this key stands here twice"),
        (f"a: sha256:{HEX}\nb: sha256:{HEX}", "k:2: b: is the same key as a"),
    ],
)
def test_each_problem_of_a_file_has_its_line_and_quotes_no_value(text: str, message: str) -> None:
    with pytest.raises(KeysError, match=f"^{message}") as error:
        parse_keys(text, "k")
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None


def test_an_empty_mapping_has_no_keys() -> None:
    assert parse_keys("{}", "k") == ()


def test_the_environment_holds_keys_in_plain() -> None:
    one, two = parse_environment(f" {'a' * 20} , {'b' * 30}")
    assert find_key([one, two], b"a" * 20) is one
    assert find_key([one, two], b"b" * 30) is two


@pytest.mark.parametrize("text", [",", "short", f"{'a' * 20},", f"{'a' * 20},b", "ä" * 20, "a " * 20])
def test_keys_that_are_too_short_or_cannot_be_sent_are_refused_unquoted(text: str) -> None:
    message = r"key \d has \d+ characters; a key has at least 20 ASCII characters without spaces"
    with pytest.raises(KeysError, match=message) as error:
        parse_environment(text)
    assert "short" not in str(error.value)


def test_without_the_variable_there_are_no_keys_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(api_keys.VARIABLE, " ")
    assert api_keys.read_environment_keys() == ()
    monkeypatch.setenv(api_keys.VARIABLE, "a" * 20)
    assert len(api_keys.read_environment_keys()) == 1


class TestKeyFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "keys.yaml"
        path.write_text(f"alice: sha256:{HEX}")
        return path

    def names(self, file: KeyFile, now: float) -> list[str]:
        return [key.name for key in file.current(now)]

    def test_a_change_is_seen_after_the_interval_and_not_looked_for_before(self, path: Path) -> None:
        file = KeyFile(path, reload_s=5)
        assert self.names(file, 100) == ["alice"]
        path.write_text(f"alice: sha256:{HEX}\nbob: sha256:{OTHER}")
        assert self.names(file, 104.9) == ["alice"]
        assert self.names(file, 105) == ["alice", "bob"]
        path.write_text("{}")
        assert self.names(file, 110) == []

    def test_a_file_of_the_same_size_put_in_its_place_is_seen(self, path: Path) -> None:
        file = KeyFile(path, reload_s=5)
        stamp = path.stat()
        other = path.with_name("other")
        other.write_text(f"clara: sha256:{HEX}")
        os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        other.replace(path)
        assert self.names(file, 0) == ["clara"]

    @pytest.mark.parametrize("broken", ["alice: [", "alice: sk-slimmoa-secret", None])
    def test_a_broken_file_leaves_the_keys_as_they_were_and_is_logged_once(
        self, path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
    ) -> None:
        file = KeyFile(path, reload_s=5)
        if broken is None:
            path.unlink()
        else:
            path.write_text(broken)
        assert self.names(file, 0) == self.names(file, 5) == ["alice"]
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert str(path) in record.getMessage()
        assert "secret" not in caplog.text
        caplog.set_level(logging.INFO)
        path.write_text(f"bob: sha256:{HEX}")
        assert self.names(file, 10) == ["bob"]
        assert f"1 keys read from {path}" in caplog.text

    def test_a_file_that_everybody_may_write_is_refused(self, path: Path) -> None:
        path.chmod(0o660)
        assert self.names(KeyFile(path, reload_s=5), 0) == ["alice"]
        path.chmod(0o602)
        with pytest.raises(KeysError, match="everybody on this machine may write it"):
            KeyFile(path, reload_s=5)

    def test_a_file_that_is_not_there_is_refused_at_first(self, tmp_path: Path) -> None:
        with pytest.raises(KeysError, match=r"cannot read the file of keys .*there is no such file"):
            KeyFile(tmp_path / "nowhere", reload_s=5)

    def test_a_file_that_is_no_text_is_refused(self, path: Path) -> None:
        path.write_bytes(b"\xff")
        with pytest.raises(KeysError, match="not UTF-8"):
            KeyFile(path, reload_s=5)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("127.0.0.1.example.org", False),
        ("localhost.example.org", False),
        ("example.org", False),
        ("0177.0.0.1", False),
    ],
)
def test_only_addresses_that_can_be_no_other_machine_are_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
