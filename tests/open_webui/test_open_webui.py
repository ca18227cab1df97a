"""A real Open WebUI in a real browser, in front of the embedded default: what a person sees, and when.

    make test-open-webui

Open WebUI comes from the package registry into the user's cache (3 GB), or is the one whose command the
environment variable OPEN_WEBUI names. A relay between Open WebUI and the server notes when what goes
over the wire. Screenshots stay in the folder that SHOTS names, else in pytest's temporary folder.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from configs.load import load
from tests.clients.conftest import python_with
from tests.conftest import HOST, Endpoint, Serving, free_port, user_environment
from tests.e2e.browser.installed import install_browser

HERE = Path(__file__).parent
QUESTION = "Why is the sky blue? Answer in two sentences."
SEEN_S = 2.0
"""Longest time from the first reasoning on the wire until a person reads proposals in the fold."""
LONGEST_S = 240.0
TASKS = {"title", "tags", "follow_ups"}
"""The helper tasks that Open WebUI asks for in the background, beside the question."""
TASKS_S = 60.0
"""Most seconds from the last look at the page until the tasks are done."""
SETTINGS = {
    "WEBUI_AUTH": "False",
    "WEBUI_SECRET_KEY": "test",
    "ENABLE_OLLAMA_API": "False",
    "ENABLE_VERSION_UPDATE_CHECK": "False",
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "RAG_EMBEDDING_ENGINE": "openai",  # or it fetches a model for embeddings
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "true",
    "OPENAI_API_KEY": "none",
}


def precede() -> None:
    """Give this process precedence over the engines, where the system allows that. The processes are
    Open WebUI and its browser, which users run on another machine. Here the engines take all cores."""
    with suppress(PermissionError):
        os.nice(-15)


@dataclass
class Asked:
    """A request of Open WebUI, and what came back, with the moments of the clock."""

    prompt: str
    began: float
    ended: float = 0.0
    first_reasoning: float = 0.0
    first_text: float = 0.0
    headings: list[float] = field(default_factory=list)
    """When each proposal's heading came; the second one comes when the first proposal has ended."""
    moa: dict[str, Any] = field(default_factory=dict)

    def take(self, message: dict[str, Any]) -> None:
        self.moa = message.get("moa") or self.moa
        for choice in message.get("choices", ()):
            said = choice.get("delta") or choice.get("message") or {}
            if said.get("reasoning_content"):
                self.first_reasoning = self.first_reasoning or time.time()
                self.headings += [time.time()] * said["reasoning_content"].count("(proposal ")
            if said.get("content"):
                self.first_text = self.first_text or time.time()


def task_of(asked: Asked) -> str | None:
    """The helper task of an answer; None for other answers, and until the answer has ended."""
    task: str | None = asked.moa.get("routed", {}).get("task")
    return task


@asynccontextmanager
async def relay(target: str) -> AsyncIterator[tuple[str, list[Asked]]]:
    """A server that passes everything on, and notes the requests for answers."""
    asked: list[Asked] = []
    port = free_port()

    async def pass_on(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        noted = Asked("", time.time())
        if request.method == "POST":
            noted.prompt = json.loads(body)["messages"][-1]["content"]
            asked.append(noted)
        headers = _plain(request.headers)
        async with (
            aiohttp.ClientSession(target) as http,
            http.request(request.method, request.path, data=body, headers=headers) as got,
        ):
            reply = web.StreamResponse(status=got.status)
            reply.content_type = got.content_type
            await reply.prepare(request)
            async for line in got.content:
                data = line.removeprefix(b"data: ").strip()
                if data.startswith(b"{"):
                    noted.take(json.loads(data))
                await reply.write(line)
            noted.ended = time.time()
            return reply

    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    yield f"http://{HOST}:{port}", asked
    await runner.cleanup()


def _plain(headers: Any) -> dict[str, str]:
    names = ("Authorization", "Content-Type")
    return {name: headers[name] for name in names if name in headers}


@asynccontextmanager
async def open_webui(server: str, folder: Path) -> AsyncIterator[str]:
    """A running Open WebUI that knows one server."""
    command = os.environ.get("OPEN_WEBUI")
    if command is None:
        python = await asyncio.to_thread(python_with, str(HERE / "requirements"))
        command = str(Path(python).parent / "open-webui")
    port = free_port()
    environment = user_environment(**SETTINGS, DATA_DIR=str(folder), OPENAI_API_BASE_URL=f"{server}/v1")
    with (folder / "open-webui.log").open("wb") as log:
        program = await asyncio.create_subprocess_exec(
            command, "serve", "--host", HOST, "--port", str(port),
            env=environment, cwd=folder, stdout=log, stderr=log, preexec_fn=precede,
        )  # fmt: skip
    url = f"http://{HOST}:{port}"
    try:
        async with asyncio.timeout(240), aiohttp.ClientSession() as http:
            while True:
                try:
                    async with http.get(f"{url}/health") as response:
                        if response.status == 200:
                            break
                except aiohttp.ClientError:
                    assert program.returncode is None, (folder / "open-webui.log").read_text()[-2000:]
                await asyncio.sleep(0.5)
        yield url
    finally:
        program.terminate()
        await program.wait()


async def look(url: str, browser: Path, shots: Path) -> dict[str, Any]:
    """What `look.mjs` sees."""
    (browser / "look_open_webui.mjs").write_text((HERE / "look.mjs").read_text("utf-8"), "utf-8")
    program = await asyncio.create_subprocess_exec(
        "node", "look_open_webui.mjs", url, QUESTION, shots, str(LONGEST_S),
        cwd=browser, env=os.environ | {"TMPDIR": str(browser)}, stdout=asyncio.subprocess.PIPE,
        preexec_fn=precede,
    )  # fmt: skip
    output, _ = await program.communicate()
    assert program.returncode == 0, output.decode()[-2000:]
    seen: dict[str, Any] = json.loads(output)
    return seen


@pytest.fixture(scope="module")
def endpoint(serving: Serving) -> Any:
    with serving(load("tiny_cpu")) as served:
        yield served


@pytest.mark.timeout(600)
async def test_a_person_reads_the_proposals_in_the_fold_and_then_the_answer(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    browser = await asyncio.to_thread(install_browser)
    shots = Path(os.environ.get("SHOTS", tmp_path))
    async with (
        relay(endpoint.base_url) as (server, asked),
        open_webui(server, tmp_path) as url,
    ):
        seen = await look(url, browser, shots)
        until = time.monotonic() + TASKS_S
        while missing := TASKS - {task_of(each) for each in asked}:
            assert time.monotonic() < until, f"not asked, or not answered: {missing}"
            await asyncio.sleep(0.2)
    (answer,) = (each for each in asked if each.first_reasoning)
    tasks = [each for each in asked if each is not answer]
    reasoning, began = answer.first_reasoning, answer.began
    figures = {
        "first reasoning on the wire": reasoning - began,
        "fold seen, after that": seen["fold_at"] - reasoning,
        "proposals read, after that": seen["proposals_at"] - reasoning,
        "headings of the proposals on the wire": [at - began for at in answer.headings],
        "answer's first text on the wire": answer.first_text - began,
        "answer seen, after that": seen["answer_at"] - answer.first_text,
        "answer whole": answer.ended - began,
        "looks at which the fold had grown": len(seen["grown"]),
        "title": seen.get("title"),
        "helper tasks": {
            task_of(task): {"began": task.began - began, "took": task.ended - task.began}
            for task in tasks
        },
    }
    print(json.dumps(figures, indent=2))
    assert seen["problems"] == []
    assert seen["proposals_at"] - reasoning < SEEN_S
    assert reasoning < answer.first_text
    assert seen["proposals_at"] < seen["answer_at"]
    assert len(seen["grown"]) > 3
    assert "(proposal 1 of 2)" in seen["proposals"]
    assert "(proposal 2 of 2)" in seen["proposals"]
    assert seen["answer"]
    assert "(proposal" not in seen["answer"]
