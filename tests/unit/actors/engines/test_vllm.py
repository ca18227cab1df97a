"""The vLLM engine without vLLM: what it is given, what becomes of its outputs, how its ends are met.

Real engines are in tests/e2e/test_vllm_cpu.py. Here a stand-in fails in ways that they do not.
"""

import asyncio
import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from actors.engine import Delta, Message, Share
from actors.engines.vllm_arguments import (
    REPLICA,
    engine_arguments,
    environment,
    graph_sizes,
    sampling_arguments,
)
from actors.engines.vllm_processes import child_processes, end_processes
from actors.engines.vllm_text import logprob_objects, token_ends
from actors.weights.folders import fetch_folder, folder_here
from cluster.residency.policy import Policy
from configs.errors import (
    BadRequest,
    ContextTooLong,
    EngineError,
    EngineUnavailable,
    TemplateRefused,
    WeightsError,
)
from configs.schema import Sampling, VllmModel
from configs.weights import HubFolder, LocalFolder
from tests.unit.fake_hub import FakeRepo, checkpoint, point_client_at, serve_hub

SHARE = Share(threads=2, utilization=0.5, kv_cache_memory_bytes=1 << 30)
QUESTION: list[Message] = [{"role": "user", "content": "hi"}]


def model(folder: Path = Path("/models/m"), **settings: Any) -> VllmModel:
    return VllmModel(engine="vllm", weights=(LocalFolder(path=str(folder)),), **settings)


class TestArguments:
    @pytest.mark.parametrize("kind", ["cpu", "gpu"])
    def test_both_memory_settings_are_always_given(self, kind: Any) -> None:
        arguments = engine_arguments(Path("/m"), model(), SHARE, kind)
        assert arguments["gpu_memory_utilization"] == 0.5
        assert arguments["kv_cache_memory_bytes"] == 1 << 30
        assert arguments["enable_sleep_mode"] is (kind == "gpu")

    def test_a_step_holds_at_least_one_token_of_each_sequence(self) -> None:
        arguments = engine_arguments(Path("/m"), model(batch_tokens=32, concurrency=64), SHARE, "gpu")
        assert arguments["max_num_batched_tokens"] == 64

    def test_on_a_cpu_a_step_takes_whole_prompts(self) -> None:
        arguments = engine_arguments(Path("/m"), model(batch_tokens=32), SHARE, "cpu")
        assert arguments["enable_chunked_prefill"] is False
        assert arguments["max_num_batched_tokens"] == model().context_tokens

    @pytest.mark.parametrize(("kind", "tokens"), [("cpu", 32), ("gpu", None)])
    def test_on_a_cpu_a_block_of_the_cache_is_small(self, kind: Any, tokens: int | None) -> None:
        """A call reads up to one block of an early reading anew."""
        assert engine_arguments(Path("/m"), model(), SHARE, kind).get("block_size") == tokens

    @pytest.mark.parametrize(("kind", "eager"), [("cpu", False), ("gpu", True)])
    def test_without_graphs_none_are_named(self, kind: Any, eager: bool) -> None:
        assert "compilation_config" not in engine_arguments(Path("/m"), model(eager=eager), SHARE, kind)

    @pytest.mark.parametrize(
        ("sequences", "sizes"),
        [
            (1, [1]),
            (2, [1, 2]),
            (4, [1, 2, 4]),
            (24, [1, 2, 4, 8, 16, 24]),
            (1024, [1, 2, 4, 8, 16, 32, 64, 128, 256]),
        ],
    )
    def test_graphs_reach_the_concurrency_in_few_steps(self, sequences: int, sizes: list[int]) -> None:
        assert graph_sizes(sequences) == sizes

    def test_a_model_is_split_over_the_gpus_of_its_card(self) -> None:
        share = replace(SHARE, gpus=4)
        arguments = engine_arguments(Path("/m"), model(), share, "gpu")
        assert arguments["tensor_parallel_size"] == 4
        assert arguments["distributed_executor_backend"] == "mp"
        assert arguments["kv_cache_memory_bytes"] == (1 << 30) // 4
        assert arguments["gpu_memory_utilization"] == 0.5
        assert "tensor_parallel_size" not in engine_arguments(Path("/m"), model(), SHARE, "gpu")

    @pytest.mark.parametrize("kind", ["cpu", "gpu"])
    def test_vllm_has_as_long_to_start_as_the_keeper_gives_it(self, kind: Any) -> None:
        seconds = environment(model(), SHARE, kind)["VLLM_ENGINE_READY_TIMEOUT_S"]
        assert float(seconds) == Policy().start_timeout_s == 3600

    def test_on_a_gpu_nothing_is_compiled_with_nvcc_and_gpus_are_numbered_as_nvml_does(self) -> None:
        on_gpu = environment(model(), SHARE, "gpu")
        assert on_gpu["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
        assert on_gpu["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert not {"VLLM_USE_FLASHINFER_SAMPLER", "CUDA_DEVICE_ORDER"} & set(
            environment(model(), SHARE, "cpu")
        )

    @pytest.mark.parametrize("kind", ["cpu", "gpu"])
    def test_encoders_of_images_are_not_loaded(self, kind: Any) -> None:
        assert engine_arguments(Path("/m"), model(), SHARE, kind)["language_model_only"] is True

    @pytest.mark.parametrize(
        ("files", "config_format", "tokenizer_mode"),
        [
            (["config.json", "tokenizer.json"], "hf", "hf"),
            (["config.json", "params.json", "tekken.json", "tokenizer.json"], "hf", "hf"),
            (["config.json", "params.json", "tokenizer.model", "tokenizer.model.v3"], "hf", "hf"),
            (["config.json", "vocab.json", "merges.txt"], "hf", "hf"),
            (["config.json", "params.json", "tekken.json"], "hf", "auto"),  # it has no other tokenizer
            (["params.json", "tekken.json"], "auto", "auto"),
        ],
    )
    def test_a_folder_in_both_formats_is_read_in_hugging_faces(
        self, tmp_path: Path, files: list[str], config_format: str, tokenizer_mode: str
    ) -> None:
        for name in files:
            (tmp_path / name).touch()
        arguments = engine_arguments(tmp_path, model(), SHARE, "gpu")
        assert arguments["config_format"] == config_format
        assert arguments["tokenizer_mode"] == tokenizer_mode

    def test_threads_are_set_on_a_cpu_only(self) -> None:
        assert environment(model(), SHARE, "cpu")["OMP_NUM_THREADS"] == "2"
        assert "OMP_NUM_THREADS" not in environment(model(), SHARE, "gpu")

    @pytest.mark.parametrize(
        ("kind", "eager", "compiles"), [("cpu", True, False), ("cpu", False, True), ("gpu", True, True)]
    )
    def test_an_eager_engine_on_a_cpu_compiles_nothing(
        self, kind: Any, eager: bool, compiles: bool
    ) -> None:
        variables = environment(model(eager=eager), SHARE, kind)
        assert ("TORCH_COMPILE_DISABLE" not in variables) is compiles

    @pytest.mark.parametrize(
        ("seed", "given"), [(None, None), (0, 0), (7, 7), (-1, 2**63 - 1), (-(2**63), 0)]
    )
    def test_every_seed_is_one_that_vllm_takes_for_a_seed(
        self, seed: int | None, given: int | None
    ) -> None:
        assert sampling_arguments(Sampling(seed=seed))["seed"] == given


class TestText:
    @pytest.mark.parametrize(("most", "rivals"), [(0, []), (1, ["b"]), (2, ["b", "é"])])
    def test_logprobs_name_the_likeliest_rivals(self, most: int, rivals: list[str]) -> None:
        def one(text: str, logprob: float, rank: int) -> Any:
            return SimpleNamespace(decoded_token=text, logprob=logprob, rank=rank)

        position = {5: one("é", -float("inf"), 2), 6: one("b", -0.5, 1)}
        (found,) = logprob_objects([position], [5], most)
        assert (found["token"], found["logprob"], found["bytes"]) == ("é", -9999.0, [195, 169])
        assert [rival["token"] for rival in found["top_logprobs"]] == rivals

    @pytest.mark.parametrize(
        ("offsets", "text", "ends"),
        [
            ([(0, 2), (2, 4)], "abcd", [2, 4]),
            ([(0, 1), (0, 1), (0, 1)], "🎉", [0, 0, 1]),  # one character in three tokens
            ([(0, 1), (1, 2), (1, 2), (2, 4)], "a你bc", [1, 1, 2, 4]),
            ([(0, 2), (3, 5)], "ab cd", [2, 5]),  # offsets that leave a space out
            ([], "", []),
        ],
    )
    def test_a_shared_character_ends_with_the_last_of_its_tokens(
        self, offsets: list[tuple[int, int]], text: str, ends: list[int]
    ) -> None:
        class Fast:
            is_fast = True

            def __call__(self, *_: Any, **__: Any) -> Any:
                return {"offset_mapping": offsets}

        assert token_ends(Fast(), text) == ends

    def test_mistrals_tokenizer_that_calls_itself_fast_still_counts_exactly(self) -> None:
        class Mistral:
            is_fast = True

            def __call__(self, _text: str, *, add_special_tokens: bool) -> Any:
                raise AssertionError(add_special_tokens)

            def encode(self, text: str, **_: Any) -> list[str]:
                return text.split()

        assert token_ends(Mistral(), "a bcd") == [2, 5]

    def test_a_tokenizer_without_offsets_still_counts_exactly(self) -> None:
        slow = SimpleNamespace(encode=lambda text, **_: text.split())
        assert token_ends(slow, "a bcd") == [2, 5]


class TestFolders:
    def test_the_first_folder_that_is_there_is_taken(self, tmp_path: Path) -> None:
        here = tmp_path / "here"
        here.mkdir()
        (here / "config.json").touch()
        (here / "model.safetensors").touch()
        sources = (LocalFolder(path=str(tmp_path / "away")), LocalFolder(path=str(here)))
        assert fetch_folder("m", sources) == here

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "m.ckpt", "m.pkl"])
    def test_a_folder_of_pickles_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "config.json").touch()
        (tmp_path / name).write_bytes(b"\x80\x04.")
        sources = (LocalFolder(path=str(tmp_path)),)
        what = f"only safetensors are loaded, and there are none: '{name}' is a pickle"
        with pytest.raises(WeightsError, match=what):
            fetch_folder("m", sources)
        assert fetch_folder("m", sources, weights=False) == tmp_path  # for its shape alone
        (tmp_path / "model.safetensors").touch()
        assert fetch_folder("m", sources) == tmp_path

    @pytest.mark.parametrize("load_format", ["auto", "dummy"])
    def test_vllm_is_never_told_to_load_a_pickle(self, load_format: str) -> None:
        arguments = engine_arguments(Path("/m"), model(load_format=load_format), SHARE, "gpu")
        assert arguments["load_format"] == {"auto": "safetensors"}.get(load_format, load_format)
        assert arguments["trust_remote_code"] is False

    def test_a_folder_outside_of_the_named_places_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside, outside = tmp_path / "in", tmp_path / "out"
        for folder in (inside, outside):
            folder.mkdir()
            (folder / "config.json").touch()
            (folder / "model.safetensors").touch()
        (inside / "link").symlink_to(outside)
        monkeypatch.setenv("SLIMMOA_WEIGHTS", f"/nowhere:{inside}")
        assert fetch_folder("m", (LocalFolder(path=str(inside)),)) == inside
        for path in (outside, inside / "link", inside / ".." / "out", f"{inside}\0"):
            source = LocalFolder(path=str(path))
            assert folder_here([source]) is None
            with pytest.raises(WeightsError, match="SLIMMOA_WEIGHTS names the folders"):
                fetch_folder("m", (source,))

    def test_no_folder_is_an_error_that_names_all(self, tmp_path: Path) -> None:
        sources = tuple(LocalFolder(path=str(tmp_path / name)) for name in ("one", "two"))
        with pytest.raises(
            WeightsError, match=r"'m'.*one: there is no such folder; .*two: "
        ) as failure:
            fetch_folder("m", sources)
        assert failure.value.model == "m"


CHILD = "import actors.engines.vllm_child, time; print(1, flush=True); time.sleep(60)"
CORE = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


@pytest.mark.parametrize("child", [CHILD, CORE], ids=["on one GPU", "on several"])
def test_no_process_of_vllm_outlives_the_replica(child: str) -> None:
    replica = (
        "import os, subprocess, sys, time;"
        f"os.environ['{REPLICA}'] = str(os.getpid());"
        f"subprocess.Popen([sys.executable, '-c', {child!r}]);"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", replica], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        process.kill()
        began = time.monotonic()
        assert process.stdout.read() == b""  # at the end of the last process that has the pipe
        assert time.monotonic() - began < 5


STUBBORN = (
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
)


def start_stubborn() -> "subprocess.Popen[bytes]":
    """A process that ignores SIGTERM, and does so already."""
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_process_that_does_not_end_is_killed_and_then_gone() -> None:
    before = child_processes()
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (found,) = child_processes() - before
        assert found.pid == process.pid
        process.terminate()
        assert end_processes([found], end_s=0.2)
        assert process.wait() == -9  # it is left to the one who started it to ask how it ended


def test_a_process_that_ends_in_time_is_not_killed() -> None:
    before = child_processes()
    source = "import sys; print(1, flush=True); sys.stdin.read(); sys.exit(7)"
    command = [sys.executable, "-c", source]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        processes = child_processes() - before
        process.stdin.close()
        assert end_processes(processes, end_s=20)
        assert process.wait() == 7


class Invalid(Exception):
    """Stands for VLLMValidationError."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class Dead(Exception):
    """Stands for EngineDeadError."""


class FakeLLM:
    """Stands for AsyncLLM. answers: tokens of each call in order; an exception is raised."""

    answers: list[list[int] | Exception]
    wakes: Exception | None = None
    health: Exception | None = None
    refusal: Exception | None = None
    knows_system = True
    template_error: type[Exception] = Invalid
    finish = "stop"
    output_handler = None

    def __init__(self) -> None:
        self.renderer = self
        self.asked: list[Any] = []
        self.done: list[str] = []
        self.adapters: list[Any] = []
        self.loras: list[Any] = []
        self.priorities: list[int] = []
        self.vllm_config = SimpleNamespace(
            cache_config=SimpleNamespace(enable_prefix_caching=True, block_size=2),
            model_config=SimpleNamespace(is_hybrid=False),
            scheduler_config=SimpleNamespace(enable_chunked_prefill=True),
        )

    def get_tokenizer(self) -> Any:
        return SimpleNamespace(all_special_tokens=["</s>"])

    async def render_chat_async(self, conversations: list[list[Message]], _: Any) -> Any:
        (messages,) = conversations
        if messages[0]["role"] == "system" and not self.knows_system:
            raise self.template_error("System role not supported")
        if [m["role"] for m in messages] == ["user", "user"]:
            raise self.template_error("Conversation roles must alternate user/assistant")
        if self.refusal is not None and messages == QUESTION:
            raise self.refusal
        return None, (messages,)

    async def add_lora(self, adapter: Any) -> None:
        self.adapters.append(adapter)

    async def generate(
        self, prompt: Any, *_: Any, lora_request: Any = None, priority: int = 0
    ) -> AsyncGenerator[Any]:
        self.asked.append(prompt)
        self.loras.append(lora_request)
        self.priorities.append(priority)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        part = SimpleNamespace(
            token_ids=answer, text="yes", finish_reason=self.finish, stop_reason=None, logprobs=None
        )
        yield SimpleNamespace(
            outputs=[part], prompt_token_ids=[1, 2, 3], num_cached_tokens=2, finished=True
        )

    async def check_health(self) -> None:
        if self.health is not None:
            raise self.health

    async def sleep(self, **options: Any) -> None:
        self.done.append(f"sleep {options['level']} {options['mode']}")

    async def wake_up(self) -> None:
        if self.wakes is not None:
            raise self.wakes
        self.done.append("wake")

    async def abort(self, calls: list[str]) -> None:
        self.done.append(f"abort {len(calls)}")

    def shutdown(self) -> None:
        self.done.append("shutdown")


async def test_a_start_downloads_nothing(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card's lock is held during a start. A replica fetches its weights before that."""
    with serve_hub() as hub:
        hub.repos["o/n"] = FakeRepo(checkpoint())
        point_client_at(hub.url, tmp_path, monkeypatch)
        engine._model = VllmModel(engine="vllm", weights=(HubFolder(hub="o/n"),))
        with pytest.raises(EngineUnavailable, match="the folder of its weights is not here"):
            await engine.start()
        assert hub.requests == []


FAKES: dict[str, dict[str, Any]] = {
    "vllm": {"AsyncEngineArgs": dict, "SamplingParams": dict},
    "vllm.exceptions": {"VLLMValidationError": Invalid},
    "vllm.platforms": {"current_platform": SimpleNamespace(is_cpu=lambda: True)},
    "vllm.lora.request": {"LoRARequest": lambda *about: about},
    "vllm.config.reasoning": {"ReasoningConfig": dict},
    "vllm.renderers": {"ChatParams": dict},
    "vllm.sampling_params": {
        "RequestOutputKind": SimpleNamespace(DELTA=1, FINAL_ONLY=2),
        "StructuredOutputsParams": dict,
    },
    "vllm.v1": {},
    "vllm.v1.engine": {},
    "vllm.v1.engine.async_llm": {"AsyncLLM": None},
    "vllm.v1.engine.exceptions": {"EngineDeadError": Dead},
}


def forget_engine() -> None:
    """Have the modules that use vLLM imported again."""
    for name in ("vllm", "vllm_calls", "vllm_library", "vllm_runner"):
        sys.modules.pop(f"actors.engines.{name}", None)


def load_with(monkeypatch: pytest.MonkeyPatch, load: Callable[[Any], FakeLLM]) -> None:
    """Have vLLM started by this function."""
    module = sys.modules["actors.engines.vllm_runner"]
    monkeypatch.setattr(module, "AsyncLLM", SimpleNamespace(from_engine_args=load))


@pytest.fixture
def llm() -> FakeLLM:
    llm = FakeLLM()
    llm.answers = [[1, 2]]  # of the probe at the start
    return llm


@pytest.fixture
def engine(llm: FakeLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, members in FAKES.items():
        fake = ModuleType(name)
        vars(fake).update(members)
        monkeypatch.setitem(sys.modules, name, fake)
    forget_engine()
    for variable in environment(model(eager=True), SHARE, "cpu"):
        monkeypatch.setenv(variable, "")  # so that it is put back
    module = importlib.import_module("actors.engines.vllm")
    load_with(monkeypatch, lambda _: llm)
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").touch()
    yield module.VllmEngine("m", model(tmp_path), SHARE)
    forget_engine()


async def answer(engine: Any) -> list[Delta]:
    return [delta async for delta in engine.stream(QUESTION, Sampling())]


class TestEngine:
    async def test_after_the_first_sleep_it_must_answer_as_before(
        self, engine: Any, llm: FakeLLM
    ) -> None:
        llm.answers += [[1, 2]]
        await engine.start()
        for _ in range(2):
            await engine.sleep()
            await engine.wake()
        assert llm.done == ["sleep 1 wait", "wake"] * 2
        assert len(llm.asked) == 2  # the probe: at the start, and after the first wake only

    async def test_another_answer_after_sleep_makes_it_unavailable(
        self, engine: Any, llm: FakeLLM
    ) -> None:
        llm.answers += [[1, 3], [4]]
        await engine.start()
        await engine.sleep()
        with pytest.raises(EngineUnavailable, match=r"\[1, 3\], not \[1, 2\]"):
            await engine.wake()
        with pytest.raises(EngineUnavailable, match="answers differently"):
            await engine.check_health()
        with pytest.raises(EngineUnavailable, match="answers differently"):
            await answer(engine)
        await engine.stop()
        assert llm.done[-1] == "shutdown"

    @pytest.mark.usefixtures("engine")
    async def test_the_time_to_start_is_set_before_vllm_is_imported(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """vllm/v1/engine/core_client.py reads the variable once, when it is imported."""
        monkeypatch.setenv("VLLM_ENGINE_READY_TIMEOUT_S", "600")
        seen: dict[str, str] = {}

        class CoreClient(ModuleType):
            def __getattr__(self, name: str) -> Any:
                seen.setdefault(name, os.environ["VLLM_ENGINE_READY_TIMEOUT_S"])
                raise AttributeError(name)

        llm_module = CoreClient("vllm.v1.engine.async_llm")
        monkeypatch.setitem(sys.modules, llm_module.__name__, llm_module)
        forget_engine()
        with pytest.raises(ImportError):
            importlib.import_module("actors.engines.vllm")
        assert seen["AsyncLLM"] == "3600"

    async def test_it_has_stopped_only_when_its_processes_are_gone(
        self, engine: Any, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """vLLM's shutdown gives up on a process that has much to free, and returns."""
        started: list[subprocess.Popen[bytes]] = []
        monkeypatch.setattr("actors.engines.vllm_processes.END_S", 0.2)
        beside = start_stubborn()

        def load(_: Any) -> FakeLLM:
            started.append(start_stubborn())
            return llm

        load_with(monkeypatch, load)
        try:
            await engine.start()
            assert started[0].poll() is None
            await engine.stop()
            assert started[0].poll() == -9
            assert beside.poll() is None  # it is not vLLM's
        finally:
            for process in [beside, *started]:
                process.kill()
                process.communicate()

    async def test_a_start_that_fails_leaves_no_process(
        self, engine: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        started: list[subprocess.Popen[bytes]] = []
        monkeypatch.setattr("actors.engines.vllm_processes.END_S", 0.2)

        def load(_: Any) -> FakeLLM:
            started.append(start_stubborn())
            raise RuntimeError("no kernel image")

        load_with(monkeypatch, load)
        with pytest.raises(EngineUnavailable, match="no kernel image"):
            await engine.start()
        assert started[0].poll() == -9
        started[0].communicate()

    async def test_no_second_engine_starts_beside_one_whose_start_was_cancelled(
        self, engine: Any, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The thread that starts vLLM goes on after a cancellation, until its process is ended."""
        events: list[str] = []
        is_loading = threading.Event()

        def load(_: Any) -> FakeLLM:
            events.append("begins")
            if events.count("begins") == 1:
                process = start_stubborn()
                is_loading.set()
                events.append(f"ends: {process.wait()}")
                process.communicate()
                raise RuntimeError("the engine process died")
            return llm

        load_with(monkeypatch, load)
        first = asyncio.create_task(engine.start())
        await asyncio.to_thread(is_loading.wait)
        first.cancel()
        await asyncio.wait([first])
        await engine.stop()
        assert events == ["begins", "ends: -9"]
        await engine.start()
        assert events == ["begins", "ends: -9", "begins"]

    async def test_an_engine_that_came_up_after_its_start_was_cancelled_is_stopped(
        self, engine: Any, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        is_loading, may_end = threading.Event(), threading.Event()

        def load(_: Any) -> FakeLLM:
            is_loading.set()
            may_end.wait()
            return llm

        load_with(monkeypatch, load)
        start = asyncio.create_task(engine.start())
        await asyncio.to_thread(is_loading.wait)
        start.cancel()
        await asyncio.wait([start])
        stop = asyncio.create_task(engine.stop())
        await asyncio.sleep(0)
        assert llm.done == []
        may_end.set()
        await stop
        assert llm.done == ["abort 0", "shutdown"]

    async def test_an_engine_that_died_asleep_says_so(self, engine: Any, llm: FakeLLM) -> None:
        await engine.start()
        await engine.sleep()
        await engine.check_asleep()
        llm.health = Dead()
        with pytest.raises(EngineUnavailable, match="died"):
            await engine.check_asleep()

    async def test_a_warm_up_comes_after_calls_and_tells_what_it_read(
        self, engine: Any, llm: FakeLLM
    ) -> None:
        assert not engine.can_warm
        await engine.start()
        assert engine.can_warm
        llm.answers += [[5], [5]]
        await answer(engine)
        assert await engine.warm(QUESTION) == 3 - 2
        assert llm.priorities[-2:] == [0, 1]

    async def test_where_a_step_takes_a_whole_prompt_a_warm_up_takes_several_calls(
        self, engine: Any, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that a cancellation can end the warm-up between two calls."""
        llm.vllm_config.scheduler_config.enable_chunked_prefill = False
        await engine.start()
        prompt = {"prompt_token_ids": list(range(300)), "arrival_time": 1.0}

        async def render(*_: Any) -> Any:
            return None, (prompt,)

        monkeypatch.setattr(llm, "render_chat_async", render)
        llm.answers += [[5]] * 9
        assert await engine.warm(QUESTION) == 3 * (3 - 2)
        read = [(len(each["prompt_token_ids"]), each["arrival_time"]) for each in llm.asked[-3:]]
        assert read == [(128, 1.0), (256, 1.0), (300, 1.0)]
        assert await engine.warm(QUESTION) == 0
        await engine.sleep()  # empties the cache
        assert await engine.warm(QUESTION) == 3
        assert llm.priorities[1:] == [1] * 6

    @pytest.mark.parametrize("why", ["hybrid", "no prefix cache"])
    async def test_an_engine_that_keeps_no_prompts_cannot_warm(
        self, engine: Any, llm: FakeLLM, why: str
    ) -> None:
        llm.vllm_config.model_config.is_hybrid = why == "hybrid"
        llm.vllm_config.cache_config.enable_prefix_caching = why == "hybrid"
        await engine.start()
        assert not engine.can_warm

    async def test_a_failed_wake_makes_it_unavailable(self, engine: Any, llm: FakeLLM) -> None:
        llm.wakes = RuntimeError("CUDA out of memory")
        await engine.start()
        await engine.sleep()
        for call in (engine.wake(), engine.check_health(), engine.sleep()):
            with pytest.raises(EngineUnavailable, match="CUDA out of memory") as failure:
                await call
            assert failure.value.model == "m"

    async def test_a_dead_engine_fails_calls_and_checks(self, engine: Any, llm: FakeLLM) -> None:
        llm.answers += [Dead()]
        llm.health = Dead()
        await engine.start()
        for call in (answer(engine), engine.check_health()):
            with pytest.raises(EngineUnavailable, match="died"):
                await call

    async def test_one_failed_call_leaves_the_engine_alone(self, engine: Any, llm: FakeLLM) -> None:
        llm.answers += [RuntimeError("boom"), [5]]
        await engine.start()
        with pytest.raises(EngineError, match="boom"):
            await answer(engine)
        assert (await answer(engine))[-1] == Delta("yes", "", "stop", 3, 1, cached_tokens=2)

    @pytest.mark.parametrize(
        ("finish", "error"), [("abort", EngineUnavailable), ("error", EngineError)]
    )
    async def test_an_answer_that_did_not_finish_is_an_error(
        self, engine: Any, llm: FakeLLM, finish: str, error: type[Exception]
    ) -> None:
        await engine.start()
        llm.finish, llm.answers = finish, [[5]]
        with pytest.raises(error):
            await answer(engine)

    @pytest.mark.parametrize(
        ("refusal", "error"),
        [
            (Invalid("at most 512 tokens", "input_tokens"), ContextTooLong),
            (Invalid("no such token", "bad_words"), BadRequest),
            (Invalid("roles must alternate"), TemplateRefused),  # as vLLM 0.32 raises it, and 0.26:
            (ValueError("roles must alternate"), TemplateRefused),
        ],
    )
    async def test_a_refused_conversation_is_the_callers_fault(
        self, engine: Any, llm: FakeLLM, refusal: Exception, error: type[Exception]
    ) -> None:
        llm.refusal = refusal
        await engine.start()
        with pytest.raises(error, match=str(refusal)) as failure:
            await answer(engine)
        assert type(failure.value) is error
        await engine.check_health()

    @pytest.mark.parametrize("raised", [Invalid, ValueError], ids=["vLLM 0.32", "vLLM 0.26"])
    async def test_a_template_without_system_role_gets_none(
        self, engine: Any, llm: FakeLLM, raised: type[Exception]
    ) -> None:
        llm.knows_system, llm.answers, llm.template_error = False, [[1], [2]], raised
        await engine.start()
        system: Message = {"role": "system", "content": "be brief"}
        assert [d async for d in engine.stream([system, *QUESTION], Sampling())]
        assert llm.asked[-1] == [{"role": "user", "content": "be brief\n\nhi"}]

    async def test_two_turns_of_one_side_are_joined_where_the_template_wants_it(
        self, engine: Any, llm: FakeLLM
    ) -> None:
        llm.answers = [[1], [2]]
        await engine.start()
        again: Message = {"role": "user", "content": "again"}
        assert [d async for d in engine.stream([*QUESTION, again], Sampling())]
        assert llm.asked[-1] == [{"role": "user", "content": "hi\n\nagain"}]

    @pytest.mark.parametrize(("streamed", "texts"), [(True, list("abcd")), (False, ["a", "bcd"])])
    async def test_an_answer_that_nobody_reads_along_comes_in_few_deltas(
        self,
        engine: Any,
        llm: FakeLLM,
        monkeypatch: pytest.MonkeyPatch,
        streamed: bool,
        texts: list[str],
    ) -> None:
        async def generate(*_: Any, **__: Any) -> AsyncGenerator[Any]:
            for text in "abcd":
                part = SimpleNamespace(
                    token_ids=[7],
                    text=text,
                    finish_reason="length" if text == "d" else None,
                    stop_reason=None,
                    logprobs=[{7: SimpleNamespace(decoded_token=text, logprob=-1.0, rank=1)}],
                )
                yield SimpleNamespace(
                    outputs=[part],
                    prompt_token_ids=[1, 2, 3],
                    num_cached_tokens=None,
                    finished=text == "d",
                )

        await engine.start()
        monkeypatch.setattr(llm, "generate", generate)
        monkeypatch.setattr("actors.engines.vllm.PIECE_S", 3600)
        sampling = Sampling(top_logprobs=0)
        deltas = [delta async for delta in engine.stream(QUESTION, sampling, streamed)]
        assert [delta.text for delta in deltas] == texts
        assert [token["token"] for delta in deltas for token in delta.logprobs] == list("abcd")
        assert (deltas[-1].finish_reason, deltas[-1].completion_tokens) == ("length", 4)

    async def test_a_start_that_fails_leaves_nothing_behind(self, engine: Any, llm: FakeLLM) -> None:
        llm.answers = [RuntimeError("no kernel image")]
        with pytest.raises(EngineUnavailable, match="no kernel image"):
            await engine.start()
        assert llm.done == ["abort 0", "shutdown"]
        with pytest.raises(EngineUnavailable):
            await engine.check_health()
