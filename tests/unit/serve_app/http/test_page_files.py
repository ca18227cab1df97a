"""The page at `/`: who gets it, with which headers, and that nothing else is open."""

import gzip
import hashlib
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from configs.schema import Recipe
from serve_app.access.api_keys import Key, generate_key
from serve_app.http.api import create_api
from serve_app.http.page_files import POLICY, TYPES, built_page
from tests.unit.serve_app.conftest import CHAT, HELLO, MIXTURE, Scripted, listening, recipe

ROOT = Path(__file__).parents[4]
HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PLAIN = {"accept-encoding": "identity"}
SCRIPT = "page-Q2AJ7XYZ.js"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small page, as it is built: files and their compressed forms."""
    (tmp_path / "secret.txt").write_text("outside of the page")
    page = tmp_path / "page"
    page.mkdir()
    for name, text in {
        "index.html": f'<!doctype html><script type="module" src="page/{SCRIPT}"></script>',
        SCRIPT: "import './view-0a1b2c3d.js'",
        "view-0a1b2c3d.js": "export {}",
        "view-settings.js": "export {}",
        "page-Q2AJ7XYZ.css": "body { color: red }",
        "notes.py": "never served",
    }.items():
        (page / name).write_text(text)
        (page / f"{name}.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    (page / "icon.svg").write_text("<svg/>")  # nobody has compressed it
    (page / "folder.txt").mkdir()
    (page / "link.txt.gz").symlink_to(tmp_path / "secret.txt")
    return page


@asynccontextmanager
async def browser(
    models: Scripted, folder: Path, keys: tuple[Key, ...] = (), **access: Any
) -> AsyncIterator[httpx.AsyncClient]:
    shown = Recipe.model_validate(recipe().model_dump() | {"access": access})
    api = create_api(shown, models, keys, page=folder)
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_a_browser_gets_the_page_with_all_headers_of_safety(
    scripted: Scripted, folder: Path
) -> None:
    async with browser(scripted, folder) as http:
        got = await http.get("/", headers=HTML)
    assert (got.status_code, got.text) == (200, (folder / "index.html").read_text())
    assert got.headers["content-type"] == "text/html; charset=utf-8"
    assert got.headers["cache-control"] == "no-cache"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["referrer-policy"] == "no-referrer"
    assert got.headers["cross-origin-opener-policy"] == "same-origin"
    assert {"accept", "accept-encoding"} == set(got.headers["vary"].split(", "))
    policy = dict(each.split(" ", 1) for each in got.headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "font-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "dompurify",
    }


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",  # curl, and every client library that says nothing
        "application/json",
        "application/json, text/plain, */*",
        "application/json, text/html;q=0.9",
        "text/html;q=0",
        "text/html;q=none",
        "text/*",
        "",
    ],
)
async def test_whoever_does_not_ask_for_html_reads_where_the_api_is(
    scripted: Scripted, folder: Path, accept: str
) -> None:
    async with browser(scripted, folder) as http:
        got = await http.get("/", headers={"accept": accept})
    assert got.status_code == 404
    message = got.json()["error"]["message"]
    assert message.startswith("GET /: the page here is for browsers (Accept: text/html)")
    assert f"POST {CHAT}, GET /v1/models" in message


@pytest.mark.parametrize(
    "accept", ["text/html", "TEXT/HTML;level=1", "application/json;q=0.1, text/html", "a, text/html"]
)
async def test_whoever_asks_for_html_gets_the_page(
    scripted: Scripted, folder: Path, accept: str
) -> None:
    async with browser(scripted, folder) as http:
        assert (await http.get("/", headers={"accept": accept})).text.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("name", "content_type", "cache"),
    [
        (SCRIPT, "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
        ("view-0a1b2c3d.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
        ("page-Q2AJ7XYZ.css", "text/css; charset=utf-8", "public, max-age=31536000, immutable"),
        ("view-settings.js", "text/javascript; charset=utf-8", "no-cache"),
        ("icon.svg", "image/svg+xml", "no-cache"),
    ],
)
async def test_a_file_is_kept_for_ever_where_its_name_has_a_checksum(
    scripted: Scripted, folder: Path, name: str, content_type: str, cache: str
) -> None:
    async with browser(scripted, folder) as http:
        got = await http.get(f"/page/{name}", headers=PLAIN)
    assert (got.status_code, got.content) == (200, (folder / name).read_bytes())
    assert (got.headers["content-type"], got.headers["cache-control"]) == (content_type, cache)
    assert got.headers["content-security-policy"] == POLICY
    assert got.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("accepted", "is_packed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("br, zstd", False),
        ("", False),
    ],
)
async def test_the_compressed_form_goes_to_those_who_take_it(
    scripted: Scripted, folder: Path, accepted: str, is_packed: bool
) -> None:
    async with browser(scripted, folder) as http:
        got = await http.get(f"/page/{SCRIPT}", headers={"accept-encoding": accepted})
        raw = (folder / (f"{SCRIPT}.gz" if is_packed else SCRIPT)).stat().st_size
        assert got.headers["content-length"] == str(raw)
        assert got.headers.get("content-encoding") == ("gzip" if is_packed else None)
        assert got.headers["vary"] == "accept-encoding"
        assert got.text == (folder / SCRIPT).read_text()
        whole = await http.get("/page/icon.svg", headers={"accept-encoding": accepted})
        assert "content-encoding" not in whole.headers


async def test_an_etag_saves_the_body_and_belongs_to_one_form(scripted: Scripted, folder: Path) -> None:
    async with browser(scripted, folder) as http:
        plain = (await http.get("/", headers=HTML | PLAIN)).headers["etag"]
        packed = (await http.get("/", headers=HTML)).headers["etag"]
        assert plain != packed
        for known, status in [
            (plain, 304),
            (f'"other", W/{plain}', 304),
            ("*", 304),
            (packed, 200),
            (f'"{plain}"', 200),
            ("", 200),
        ]:
            got = await http.get("/", headers={**HTML, **PLAIN, "if-none-match": known})
            assert (got.status_code, not got.content) == (status, status == 304), known
            assert (got.headers["etag"], got.headers["cache-control"]) == (plain, "no-cache")
            assert got.headers["content-security-policy"] == POLICY


@pytest.mark.parametrize("path", ["/", f"/page/{SCRIPT}"])
async def test_head_is_get_without_the_body(scripted: Scripted, folder: Path, path: str) -> None:
    async with browser(scripted, folder) as http:
        got, headed = await http.get(path, headers=HTML), await http.head(path, headers=HTML)
    assert (headed.status_code, headed.content) == (200, b"")
    assert headed.headers == got.headers


@pytest.mark.parametrize(
    "path",
    [
        "/page",
        "/page/",
        "/page/nothing.js",
        "/page/index.html",
        "/page/notes.py",
        f"/page/{SCRIPT}.gz",
        "/page/folder.txt",
        "/page/link.txt",
        "/page/../secret.txt",
        "/page/..%2fsecret.txt",
        "/page/%2e%2e/secret.txt",
        "/page/..\\secret.txt",
        "/page//etc/passwd",
        f"/page//{SCRIPT}",
        f"/page/{SCRIPT}/",
        f"/page/{SCRIPT}%00.js",
        f"/PAGE/{SCRIPT}",
        f"/page/{SCRIPT.lower()}",
    ],
)
async def test_no_other_path_is_a_file_of_the_page(scripted: Scripted, folder: Path, path: str) -> None:
    key = Key("alice", hashlib.sha256(generate_key().encode()).digest())
    async with browser(scripted, folder) as http:
        got = await http.get(httpx.URL(f"http://localhost{path}"), headers=HTML)
        assert got.status_code == 404
        assert "there is nothing here; the base URL" in got.json()["error"]["message"]
    async with browser(scripted, folder, (key,)) as http:
        assert (await http.get(httpx.URL(f"http://localhost{path}"))).status_code == 401


async def test_no_path_leads_out_of_the_folder_over_the_wire_either(
    scripted: Scripted, folder: Path
) -> None:
    async with (
        listening(create_api(recipe(), scripted, page=folder)) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        assert (await http.get("/", headers=HTML)).status_code == 200
        assert (await http.head(f"/page/{SCRIPT}")).status_code == 200
        for path in ("/page/..%2fsecret.txt", "/page/%2e%2e%2fsecret.txt", "/page/..%5csecret.txt"):
            got = await http.get(httpx.URL(f"{url}{path}"))
            assert (got.status_code, b"outside" in got.content) == (404, False)


async def test_the_page_needs_no_key_and_everything_that_it_shows_does(
    scripted: Scripted, folder: Path
) -> None:
    key = Key("alice", hashlib.sha256(generate_key().encode()).digest())
    async with browser(scripted, folder, (key,)) as http:
        assert (await http.get("/", headers=HTML)).status_code == 200
        assert (await http.get(f"/page/{SCRIPT}")).status_code == 200
        for path in ("/v1/models", "/v1/state", "/readyz", "/openapi.json"):
            assert (await http.get(path, headers=HTML)).status_code == 401, path
        assert (await http.post(CHAT, json=MIXTURE)).status_code == 401
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert (await http.request(method, "/", headers=HTML)).status_code == 401, method
            assert (await http.request(method, f"/page/{SCRIPT}")).status_code == 401, method
    assert scripted.asked == []


async def test_without_keys_a_site_that_points_its_name_here_gets_the_empty_page_alone(
    scripted: Scripted, folder: Path
) -> None:
    """DNS rebinding: a page of another site has its own name point to this machine."""
    rebound = {"host": "evil.example:8000"}
    async with browser(scripted, folder) as http:
        assert (await http.get("/", headers=HTML | rebound)).status_code == 200
        assert (await http.get("/v1/state", headers=rebound)).status_code == 403
        assert (await http.post(CHAT, json=MIXTURE, headers=rebound)).status_code == 403
    assert scripted.asked == []


async def test_without_keys_a_page_of_another_site_can_neither_ask_nor_read(
    scripted: Scripted, folder: Path
) -> None:
    """CSRF: a browser sends a request of another site's page without asking first if its content type
    is that of a form, or if it has none. It asks first (a preflight) for every other type."""
    theirs = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    simple = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        None,
    ]
    async with browser(scripted, folder) as http:
        for kind in simple:
            headers = theirs if kind is None else {**theirs, "content-type": kind}
            got = await http.post(CHAT, content=b'{"model": "mix", "messages": []}', headers=headers)
            assert got.status_code == 415, kind
        asks = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type",
        }
        preflight = await http.options(CHAT, headers=theirs | asks)
        read = await http.get("/v1/state", headers=theirs)
        page = await http.get("/", headers=HTML | theirs)
    for got in (preflight, read, page):
        assert not [name for name in got.headers if name.startswith("access-control-")]
    assert page.headers["cross-origin-resource-policy"] == "same-origin"
    assert scripted.asked == []


async def test_a_recipe_turns_the_page_off(scripted: Scripted, folder: Path) -> None:
    async with browser(scripted, folder, page=False) as http:
        assert (await http.get("/", headers=HTML)).status_code == 404
        assert (await http.get(f"/page/{SCRIPT}")).status_code == 404
        body = {"model": "mix", "messages": HELLO}
        assert (await http.post(CHAT, json=body)).status_code == 200


async def test_without_built_files_there_is_no_page(scripted: Scripted, tmp_path: Path) -> None:
    async with browser(scripted, tmp_path / "nowhere") as http:
        assert (await http.get("/", headers=HTML)).status_code == 404


async def test_the_page_is_found_below_the_path_that_the_api_is_mounted_under(
    scripted: Scripted, folder: Path
) -> None:
    transport = httpx.ASGITransport(create_api(recipe(), scripted, page=folder), root_path="/below")
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        assert (await http.get("/below/", headers=HTML)).status_code == 200
        assert (await http.get(f"/below/page/{SCRIPT}")).status_code == 200


class TestThePackagesOwnPage:
    """The files in `serve_app/page`."""

    def test_an_installed_package_has_every_file(self) -> None:
        """A wheel has the files of a package's folder that these patterns find."""
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
        patterns = settings["package-data"]["serve_app"]
        installed = {file for pattern in patterns for file in (ROOT / "serve_app").glob(pattern)}
        files = {Path(str(file)) for file in built_page().iterdir()}
        assert len(files) > 2
        assert files <= installed

    def test_every_file_is_served_and_has_its_compressed_form(self) -> None:
        content = {file.name: file.read_bytes() for file in built_page().iterdir()}
        assert "index.html" in content
        for name in content:
            if not name.endswith(".gz"):
                assert name[name.rfind(".") :] in TYPES, name
                assert gzip.decompress(content[f"{name}.gz"]) == content[name], name
        for name in content:
            assert name.removesuffix(".gz") in content
