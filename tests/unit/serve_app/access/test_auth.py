"""Authentication, tried from outside: which requests are admitted, refused and logged."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from configs.schema import Recipe
from serve_app.access.api_keys import Key, KeysError, generate_key
from serve_app.error_response import DefectMiddleware
from serve_app.http.api import create_api
from tests.unit.serve_app.conftest import (
    CHAT,
    HELLO,
    MIXTURE,
    SCOPE,
    Exchange,
    Puppets,
    Scripted,
    recipe,
)

Client = Callable[..., httpx.AsyncClient]
ALICE, BOB = generate_key(), generate_key()
EVERY_PATH = ["/v1/models", "/v1/models/one", "/readyz", "/openapi.json", "/docs", "/nowhere", "/"]


def hashed(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def with_access(**access: Any) -> Recipe:
    """The recipe with these settings of `access`."""
    return Recipe.model_validate(recipe().model_dump() | {"access": access})


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(f"alice: {hashed(ALICE)}\nbob: {hashed(BOB)}\n")
    return path


@pytest.fixture
def with_keys(scripted: Scripted, keys_file: Path) -> Client:
    """Opens a client of an API that has the keys of alice and bob."""

    def opened(**access: Any) -> httpx.AsyncClient:
        api = create_api(with_access(**{"keys_file": str(keys_file), **access}), scripted)
        return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://api")

    return opened


def require_refusal(response: httpx.Response, message: str) -> None:
    """Fails unless the response is a 401 whose message has these words."""
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="slimmoa"'
    error = response.json()["error"]
    assert message in error["message"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")


@pytest.mark.parametrize("path", EVERY_PATH)
async def test_without_a_key_nothing_is_seen_but_that_the_ingress_lives(
    with_keys: Client, path: str
) -> None:
    async with with_keys() as client:
        require_refusal(await client.get(path), "an API key is needed")
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get(path, headers=bearer(ALICE))).status_code != 401


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        (f"Bearer {generate_key()}", "not known here"),
        (f"Bearer {ALICE[:-1]}", "not known here"),
        (f"Bearer {ALICE}x", "not known here"),
        (f"Bearer {ALICE.upper()}", "not known here"),
        (f"Bearer {hashed(ALICE)}", "not known here"),
        ("Bearer none", "not known here"),
        ("Bearer", "has to be: Bearer KEY"),
        ("Bearer ", "has to be: Bearer KEY"),
        (ALICE, "has to be: Bearer KEY"),
        (f"Basic {ALICE}", "has to be: Bearer KEY"),
        (f"Bearer {ALICE}, Bearer {BOB}", "has to be: Bearer KEY"),
        (f"Bearer {ALICE} {BOB}", "has to be: Bearer KEY"),
        (f"Bearer\t{ALICE}", "has to be: Bearer KEY"),
        ("", "has to be: Bearer KEY"),
        (f"Bearer {'x' * 60_000}", "not known here"),
    ],
    ids=[str(number) for number in range(15)],  # keys differ in each process of a parallel run
)
async def test_a_wrong_key_is_refused_and_not_repeated(
    with_keys: Client, authorization: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with with_keys() as client:
        response = await client.get("/v1/models", headers={"authorization": authorization})
    require_refusal(response, message)
    for sent in authorization.split():
        assert len(sent) < 8 or (sent not in response.text and sent not in caplog.text)


async def test_a_key_outside_of_its_header_is_not_read(with_keys: Client) -> None:
    async with with_keys() as client:
        for headers in ({"x-api-key": ALICE}, {"api-key": ALICE}, {"cookie": f"Authorization={ALICE}"}):
            require_refusal(await client.get("/v1/models", headers=headers), "an API key is needed")
        require_refusal(await client.get(f"/v1/models?api_key={ALICE}"), "an API key is needed")


@pytest.mark.parametrize("both", [(ALICE, ALICE), (ALICE, BOB), (ALICE, "wrong"), ("wrong", ALICE)])
async def test_two_authorization_headers_are_refused_whatever_they_say(
    with_keys: Client, both: tuple[str, str]
) -> None:
    headers = [("Authorization", f"Bearer {key}") for key in both]
    async with with_keys() as client:
        require_refusal(
            await client.get("/v1/models", headers=headers),
            "there are 2 Authorization headers; send one",
        )


async def test_the_scheme_is_read_in_any_case(with_keys: Client) -> None:
    async with with_keys() as client:
        for scheme in ("bearer", "BEARER"):
            response = await client.get("/v1/models", headers={"authorization": f"{scheme} {ALICE}"})
            assert response.status_code == 200


@pytest.mark.parametrize(
    "path",
    ["//healthz", "/healthz/", "/healthz/../v1/models", "/v1/models/../../healthz", "/HEALTHZ"],
)
async def test_no_other_spelling_of_the_open_path_is_open(
    scripted: Scripted, keys_file: Path, path: str
) -> None:
    api = create_api(with_access(keys_file=str(keys_file)), scripted)
    assert await status(api, path=path, method="GET") == 401


async def test_the_open_path_is_open_below_the_path_that_the_api_is_mounted_under(
    scripted: Scripted, keys_file: Path
) -> None:
    api = create_api(with_access(keys_file=str(keys_file)), scripted)
    below = {"root_path": "/below", "method": "GET"}
    assert await status(api, path="/below/healthz", **below) == 200
    assert await status(api, path="/below/v1/models", **below) == 401


async def status(api: Any, **fields: Any) -> int:
    """The status for a request that no client library would send.

    Args:
        fields: of the ASGI scope.
    """
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await api(SCOPE | fields, receive, send)
    return int(sent[0]["status"])


async def test_a_refused_request_costs_no_engine_and_no_byte_of_its_body_is_read(
    scripted: Scripted, keys_file: Path
) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await create_api(with_access(keys_file=str(keys_file)), scripted)(SCOPE.copy(), receive, send)
    assert sent[0]["status"] == 401
    assert scripted.asked == []


async def test_a_websocket_is_closed(scripted: Scripted) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await create_api(recipe(), scripted)({"type": "websocket", "path": "/v1"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_keys_of_the_environment_and_of_the_file_are_both_valid(
    scripted: Scripted, keys_file: Path
) -> None:
    theirs = generate_key()
    key = Key("env", hashlib.sha256(theirs.encode()).digest())
    api = create_api(with_access(keys_file=str(keys_file)), scripted, [key])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://api") as client:
        for good in (theirs, ALICE):
            assert (await client.get("/v1/models", headers=bearer(good))).status_code == 200
        require_refusal(await client.get("/v1/models"), "an API key is needed")


def change(keys_file: Path, text: str) -> None:
    keys_file.write_text(text)


async def test_keys_change_while_the_server_runs(with_keys: Client, keys_file: Path) -> None:
    async with with_keys(reload_s=1e-6) as client:
        assert (await client.get("/v1/models", headers=bearer(ALICE))).status_code == 200
        change(keys_file, f"bob: {hashed(BOB)}")
        require_refusal(await client.get("/v1/models", headers=bearer(ALICE)), "not known here")
        change(keys_file, "bob: [")
        assert (await client.get("/v1/models", headers=bearer(BOB))).status_code == 200


def test_an_api_whose_keys_cannot_be_read_does_not_start(scripted: Scripted, tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="cannot read"):
        create_api(with_access(keys_file=str(tmp_path / "nowhere")), scripted)


class TestWithoutKeys:
    @pytest.mark.parametrize("header", ["X-Forwarded-For", "x-real-ip"])
    async def test_the_client_of_a_proxy_on_this_machine_may_not_ask(
        self, scripted: Scripted, header: str
    ) -> None:
        request: dict[str, Any] = {"path": "/v1/models", "method": "GET"}
        for said, expected in [
            ("203.0.113.7", 403),
            ("127.0.0.1, 203.0.113.7", 403),
            ("unknown", 403),
            ("127.0.0.1", 200),
        ]:
            headers = [(b"host", b"localhost"), (header.lower().encode(), said.encode())]
            answered = await status(create_api(recipe(), scripted), **request, headers=headers)
            assert answered == expected

    @pytest.mark.parametrize(
        ("server", "client", "host"),
        [
            ("10.0.0.5", "10.0.0.9", "10.0.0.5:8000"),
            ("10.0.0.5", "10.0.0.5", "10.0.0.5:8000"),
            ("127.0.0.1", "203.0.113.7", "localhost"),  # a proxy on this machine names its client
            ("127.0.0.1", "127.0.0.1", "evil.example.org:8000"),  # DNS rebinding
            ("127.0.0.1", "127.0.0.1", "127.0.0.1.example.org"),
            ("127.0.0.1", "127.0.0.1", ""),
            (None, "127.0.0.1", "localhost"),
            ("127.0.0.1", None, "localhost"),
        ],
    )
    async def test_only_this_machine_may_ask(
        self, scripted: Scripted, server: str | None, client: str | None, host: str
    ) -> None:
        request = {
            "server": server and (server, 8000),
            "client": client and (client, 50_000),
            "headers": [(b"host", host.encode())],
            "path": "/v1/models",
            "method": "GET",
        }
        assert await status(create_api(recipe(), scripted), **request) == 403
        assert await status(create_api(with_access(open=True), scripted), **request) == 200
        key = Key("env", b"\0" * 32)
        assert await status(create_api(recipe(), scripted, [key]), **request) == 401

    @pytest.mark.parametrize(
        "host", ["localhost", "LocalHost:8000", "127.0.0.1:8000", "[::1]:8000", "moa.localhost"]
    )
    async def test_this_machine_is_admitted_by_each_of_its_names(
        self, scripted: Scripted, host: str
    ) -> None:
        headers = [(b"host", host.encode())]
        api = create_api(recipe(), scripted)
        assert await status(api, headers=headers, path="/v1/models", method="GET") == 200

    @pytest.mark.parametrize(
        ("client", "url", "why"),
        [
            (("10.0.0.9", 5), "http://10.0.0.5", "and this request came over another interface"),
            (
                ("127.0.0.1", 5),
                "http://evil.example.org",
                "under a name such as localhost, not 'evil.example.org'",
            ),
        ],
    )
    async def test_the_refusal_says_why_and_what_to_do(
        self, scripted: Scripted, client: tuple[str, int], url: str, why: str
    ) -> None:
        async def local(scope: Any, receive: Any, send: Any) -> None:
            await create_api(recipe(), scripted)(scope | {"server": ("127.0.0.1", 80)}, receive, send)

        transport = httpx.ASGITransport(local, client=client)
        async with httpx.AsyncClient(transport=transport, base_url=url) as http:
            error = (await http.post(CHAT, json=MIXTURE)).json()["error"]
        assert error["message"].startswith("without API keys only this machine may ask (access.open")
        assert error["message"].endswith(why)
        assert error["code"] == "permission_denied"


PREFLIGHT = {
    "origin": "https://chat.example.org",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}


class TestOtherOrigins:
    async def test_by_default_no_web_page_may_ask(self, with_keys: Client) -> None:
        async with with_keys() as client:
            for response in (
                await client.options(CHAT, headers=PREFLIGHT),
                await client.get("/v1/models", headers=PREFLIGHT | bearer(ALICE)),
            ):
                assert not [name for name in response.headers if name.startswith("access-control")]

    async def test_a_named_origin_may_ask_and_still_needs_a_key(self, with_keys: Client) -> None:
        async with with_keys(cors_origins=["https://chat.example.org"]) as client:
            allowed = await client.options(CHAT, headers=PREFLIGHT)
            assert allowed.status_code == 200
            assert allowed.headers["access-control-allow-origin"] == "https://chat.example.org"
            assert "authorization" in allowed.headers["access-control-allow-headers"]
            assert "access-control-allow-credentials" not in allowed.headers
            refused = await client.post(CHAT, json=MIXTURE, headers=PREFLIGHT)
            require_refusal(refused, "an API key is needed")
            # Without this header the page could not read why.
            assert refused.headers["access-control-allow-origin"] == "https://chat.example.org"
            other = await client.options(
                CHAT, headers=PREFLIGHT | {"origin": "https://evil.example.org"}
            )
            assert other.status_code == 400
            assert "access-control-allow-origin" not in other.headers


MARK = "marked-text"
ASKED = {"model": "mix", "messages": [{"role": "user", "content": MARK}]}


def is_in_a_log(text: str, caplog: pytest.LogCaptureFixture) -> bool:
    """Whether a log record contains the text: in its message, arguments or traceback."""
    assert caplog.records  # httpx's own at least
    records = [str(vars(record)) for record in caplog.records]
    return text in "\n".join([*records, caplog.text])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": "one"},
        {"model": MARK},
        {"temperature": MARK},
        {"messages": [*HELLO, {"role": MARK}]},
        {"messages": [{"role": "user", "content": f"{MARK} " * 9000}]},
        {MARK: MARK},
    ],
    ids=lambda fields: ",".join(fields)[:20],
)
async def test_nothing_that_is_asked_or_answered_is_logged(
    keys_file: Path, caplog: pytest.LogCaptureFixture, fields: dict[str, Any], stream: bool
) -> None:
    caplog.set_level(0)
    settings = with_access(keys_file=str(keys_file)).model_dump()
    for model in settings["models"].values():
        model["text"] = f"{MARK} as an answer"
    mixture = Recipe.model_validate(settings)
    models = Scripted(mixture)
    await models.start()
    transport = httpx.ASGITransport(create_api(mixture, models))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        body = {**ASKED, "stream": stream, **fields}
        answer = await client.post(CHAT, json=body, headers=bearer(ALICE))
    assert "marked" in answer.text or MARK not in fields.values()
    assert not is_in_a_log(MARK, caplog)
    assert not is_in_a_log(ALICE, caplog)


@pytest.mark.parametrize("failing", ["one", "writer", "direct"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_defect_that_quotes_a_prompt_is_logged_without_its_message(
    puppets: Puppets, caplog: pytest.LogCaptureFixture, failing: str, stream: bool
) -> None:
    caplog.set_level(0)
    direct = failing == "direct"
    body = ASKED | {"stream": stream, "model": "one" if direct else "mix"}
    exchange = Exchange(create_api(recipe(), puppets), body)
    if not direct:
        await puppets.answer("two")
    if failing == "writer":
        await puppets.answer("one")
    call = await puppets.call("writer" if failing == "writer" else "one")
    if stream and failing != "one":
        call.say("text")
    call.fail(ValueError(MARK))
    if failing == "one":
        await puppets.answer("writer")
    await exchange.app
    assert "builtins.ValueError at" in caplog.text
    assert not is_in_a_log(MARK, caplog)


async def test_a_defect_after_the_response_began_is_the_servers_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError(MARK)

    async def sent(_message: Any) -> None:
        pass

    with pytest.raises(RuntimeError, match="ValueError after the response had begun") as error:
        await DefectMiddleware(app)(SCOPE.copy(), sent, sent)  # type: ignore[arg-type]
    assert error.value.__suppress_context__
    assert "ValueError at" in caplog.text
    assert MARK not in caplog.text
