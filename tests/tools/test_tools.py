"""Evaluation tools and load generators of others, unmodified, against the default recipe.

Not a part of `make test`: `make test-tools` installs 2.5 GB once, and takes some minutes. With the
environment variable TOOLS_URL, the tools ask the server of `slimmoa serve tiny_cpu` that runs there.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Endpoint
from tests.tools.conftest import Run

HERE = Path(__file__).parent
ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (HERE / "rows.jsonl").read_text("utf-8").splitlines()
]
MIXTURE = "slimmoa-tiny"
JUDGE = "qwen2.5-coder-0.5b"
LM_EVAL = "lm-eval[api]==0.4.13"
ALPACA_EVAL = "alpaca-eval==0.6.6"
GUIDELLM = "torch==2.13.0+cpu guidellm==0.8.1"

pytestmark = pytest.mark.timeout(1500)  # with the first installation


def lm_eval(run: Run, endpoint: Endpoint, task: str, out: Path, *, fails: bool = False) -> str:
    where = f"model={MIXTURE},base_url={endpoint.base_url}/v1/chat/completions,num_concurrent=2"
    return run(
        LM_EVAL,
        *("lm-eval", "run", "--model", "local-chat-completions", "--model_args", where),
        *("--tasks", task, "--include_path", str(HERE), "--apply_chat_template"),
        *("--log_samples", "--output_path", str(out)),
        cwd=HERE,
        fails=fails,
    )


def test_lm_evaluation_harness_generates(run: Run, endpoint: Endpoint, tmp_path: Path) -> None:
    lm_eval(run, endpoint, "slimmoa_generation", tmp_path)
    (results,) = tmp_path.rglob("results_*.json")
    scores = json.loads(results.read_text())["results"]["slimmoa_generation"]
    assert 0 < scores["exact_match,word"] <= 1  # Qwen knows some of these answers
    (samples,) = tmp_path.rglob("samples_*.jsonl")
    answers = [json.loads(line)["resps"][0][0] for line in samples.read_text("utf-8").splitlines()]
    assert len(answers) == len(ROWS)
    assert all(answers)


def test_lm_evaluation_harness_finds_no_log_likelihoods(
    run: Run, endpoint: Endpoint, tmp_path: Path
) -> None:
    said = lm_eval(run, endpoint, "slimmoa_choice", tmp_path, fails=True)
    assert "Loglikelihood is not supported for chat completions" in said  # its own words


def test_alpaca_eval_answers_and_judges(run: Run, endpoint: Endpoint, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("<|im_start|>user\n{instruction}\n<|im_end|>\n")
    for name, model in (("model", MIXTURE), ("reference", JUDGE), ("judge", JUDGE)):
        text = (HERE / ("judge.yaml" if name == "judge" else "model.yaml")).read_text()
        (tmp_path / name).mkdir()
        asked = str(HERE / "judge.txt") if name == "judge" else str(prompt)
        written = text.replace("NAME", model).replace("PROMPT", asked)
        (tmp_path / name / "configs.yaml").write_text(written)
    own = [{"instruction": r["question"], "output": r["answer"], "generator": "x"} for r in ROWS]
    (tmp_path / "set.json").write_text(json.dumps(own))
    client = f"default: [{{api_key: none, base_url: '{endpoint.base_url}/v1'}}]\n"
    (tmp_path / "clients.yaml").write_text(client)
    said = run(
        ALPACA_EVAL,
        *("alpaca_eval", "evaluate_from_model"),
        f"--model_configs={tmp_path}/model/configs.yaml",
        f"--reference_model_configs={tmp_path}/reference/configs.yaml",
        f"--evaluation_dataset={tmp_path}/set.json",
        f"--annotators_config={tmp_path}/judge/configs.yaml",
        f"--output_path={tmp_path}/out",
        *("--precomputed_leaderboard=None", "--is_cache_leaderboard=False"),
        "--fn_metric=get_winrate",
        "--sort_by=win_rate",
        cwd=tmp_path,
        OPENAI_CLIENT_CONFIG_PATH=str(tmp_path / "clients.yaml"),
        OPENAI_MAX_CONCURRENCY="2",
        IS_ALPACA_EVAL_2="False",
    )
    answered = json.loads((tmp_path / "out" / "model_outputs.json").read_text())
    assert [row["instruction"] for row in answered] == [row["question"] for row in ROWS]
    assert all(row["output"].strip() for row in answered)
    assert "win_rate" in said
    annotations = json.loads(next((tmp_path / "out").rglob("annotations.json")).read_text())
    preferences = [row["preference"] for row in annotations]
    assert len(preferences) == len(ROWS)
    assert all(1 <= preference <= 2 for preference in preferences)


def test_guidellm_measures(run: Run, endpoint: Endpoint, tmp_path: Path) -> None:
    rows = [{"prompt": row["question"], "output_tokens_count": 24} for row in ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(
        GUIDELLM,
        *("guidellm", "run", "--backend"),
        f"kind=openai_http,target={endpoint.base_url},model={MIXTURE}",
        *("--profile", "kind=concurrent,streams=2"),
        *("--constraint", f"kind=max_requests,count={len(ROWS)}"),
        *("--data", "kind=json_file,path=rows.jsonl"),
        *("--output", "kind=json,path=report.json", "--disable-progress"),
        cwd=tmp_path,
    )
    (measured,) = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    done = measured["requests"]["successful"]
    assert len(done) == len(ROWS)
    assert not measured["requests"]["errored"]
    for request in done:
        # The first token is the answer's: the proposals come before it.
        assert 0 < request["time_to_first_token_ms"] / 1000 < request["request_latency"]
        assert 0 < request["output_tokens"] <= 24
        assert request["prompt_tokens"] > 0
