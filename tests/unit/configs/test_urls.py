"""The URL of an API in the forms that people type."""

import re

import pytest

from configs.urls import BadUrl, api_root, is_this_machine


@pytest.mark.parametrize(
    ("typed", "root"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("localhost", "http://localhost:8000/v1"),
        ("localhost:", "http://localhost:8000/v1"),
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/", "http://host:8000/v1"),
        ("http://host:8000/v1/", "http://host:8000/v1"),
        ("http://host:8000//v1//", "http://host:8000/v1"),
        ("HTTP://HOST:8000/V1", "http://host:8000/v1"),
        ("https://host", "https://host/v1"),
        ("host:443", "https://host:443/v1"),
        ("https://host/prefix", "https://host/prefix/v1"),
        ("https://host/prefix/v1/chat/completions", "https://host/prefix/v1"),
        ("127.0.0.1:8000/v1/models", "http://127.0.0.1:8000/v1"),
        ("::1", "http://[::1]:8000/v1"),
        ("[::1]:8000", "http://[::1]:8000/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000/v1"),
        ("http://[::]:8000", "http://[::1]:8000/v1"),
        ("  http://host/v1\n", "http://host/v1"),
        ("'http://host/v1'", "http://host/v1"),
        ("<http://host/v1>", "http://host/v1"),
        ("https://host/v1beta/openai", "https://host/v1beta/openai"),
    ],
)
def test_forms_that_people_type_are_understood(typed: str, root: str) -> None:
    assert api_root(typed, "--url") == root
    assert api_root(root, "--url") == root


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "the URL is empty"),
        ("a b", "has a space in it"),
        ("ftp://host/v1", "begins with ftp://, and only http:// and https:// are known"),
        ("http:/host", "the scheme is written http:// or https://"),
        ("http//host", "the scheme is written http:// or https://"),
        ("http://", "it has no host"),
        ("/v1", "it has no host"),
        ("host:99999", "the port is a number from 1 to 65535"),
        ("host:http", "the port is a number from 1 to 65535"),
        ("http://host:0", "the port is a number from 1 to 65535"),
        ("http://::1:8000/v1", "an address of IPv6 stands in brackets"),
        ("http://[::1/v1", "an address of IPv6 stands in brackets"),
        ("http://host/v1?key=x", "give only the root"),
        ("http://host/v1#x", "give only the root"),
    ],
)
def test_what_cannot_be_an_api_is_refused_with_an_example(typed: str, words: str) -> None:
    with pytest.raises(BadUrl, match=r"^--url: ") as caught:
        api_root(typed, "--url")
    assert words in str(caught.value)
    assert re.search(r"such as http://(127\.0\.0\.1|\[::1\]):8000/v1", str(caught.value))


def test_a_password_is_never_repeated() -> None:
    for typed in ("http://me:secret@host/v1", "me:secret@host:x", "http://me:secret@host:99999"):
        with pytest.raises(BadUrl) as caught:
            api_root(typed, "--url")
        assert "secret" not in str(caught.value)


def test_the_path_of_somebody_elses_api_is_kept() -> None:
    assert api_root("https://host/openai", "--judge-url", adds_version=False) == "https://host/openai"
    assert api_root("https://host", "--judge-url", adds_version=False) == "https://host/v1"


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://127.8.0.1/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://0.0.0.0:1/v1", True),
        ("http://10.0.0.1/v1", False),
        ("http://localhost.example.org/v1", False),
        ("http://[", False),
    ],
)
def test_this_machine_is_told_from_others(url: str, here: bool) -> None:
    assert is_this_machine(url) is here
