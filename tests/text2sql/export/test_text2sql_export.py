"""export.py of a language model: another program loads it and answers in the same way."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tutelage.core.arguments import parse_arguments
from tutelage.core.errors import ConfigError, RunError
from tutelage.text2sql.export import gguf, ollama
from tutelage.text2sql.export.command import USAGE, ExportSettings, export_run
from tutelage.text2sql.inference.generate import Decoding, Request, TransformersEngine
from tutelage.text2sql.model.tiny import train_tokenizer
from tutelage.text2sql.prompts import chat

ROOT = Path(__file__).resolve().parents[3]
LINEAR = ["q_proj", "down_proj"]
QUESTIONS: list[list[chat.Message]] = [
    [{"role": "system", "content": "SQLite"}, {"role": "user", "content": f"How many shops of {city}?"}]
    for city in ("Bonn", "Graz", "Oslo")
]
# Qwen3's and SmolLM3's, with what matters here: thinking that must be turned off, and today's date.
THINKING = """{%- if messages[0].role == 'system' -%}
    {{- '<|im_start|>system\\nToday: ' + strftime_now("%d %B %Y") + '\\n' + messages[0].content + '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' -}}
    {%- elif message.role == 'assistant' -%}
        {{- '<|im_start|>assistant\\n' + message.content + '<|im_end|>\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- if enable_thinking is defined and enable_thinking is false -%}
        {{- '<think>\\n\\n</think>\\n\\n' -}}
    {%- endif -%}
{%- endif -%}"""


def answers_of_plain_transformers(folder: Path) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    answers = []
    for messages in QUESTIONS:
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            written = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        answers.append(tokenizer.decode(written, skip_special_tokens=True))
    return answers


def answers_of_the_run(model: Any, template: chat.Template) -> list[str]:
    engine = TransformersEngine(model, end_token=chat.end_token(model.tokenizer, template), seed=1)
    requests = [
        Request(str(number), chat.prompt_ids(model.tokenizer, messages, template=template))
        for number, messages in enumerate(QUESTIONS)
    ]
    return [text for (text,) in engine.generate(requests, Decoding("greedy", 1, 1.0, 1.0, 24, 4))]


@pytest.mark.parametrize("targets", [LINEAR, ["q_proj", "lm_head"], ["embed_tokens"]], ids=["linear", "head", "embed"])
def test_plain_transformers_gives_the_same_answers(make_run: Callable[..., Any], targets: list[str]) -> None:
    run = make_run(targets=targets)
    export_run(ExportSettings(run=run.folder, gguf="false"))
    exported = run.folder / "export"
    expected = answers_of_the_run(run.model, "chatml")
    assert answers_of_plain_transformers(exported) == expected
    ids = torch.tensor([chat.prompt_ids(run.model.tokenizer, QUESTIONS[0], template="chatml")])
    merged = AutoModelForCausalLM.from_pretrained(exported)
    with torch.no_grad():
        torch.testing.assert_close(
            merged(input_ids=ids).logits, run.model.causal(input_ids=ids).logits, rtol=1e-4, atol=1e-4
        )
    # Tied weights are stored once, unless the adapter changed one of the two.
    tied = targets == LINEAR
    weights = load_file(exported / "model.safetensors")
    assert ("lm_head.weight" in weights) is not tied
    assert json.loads((exported / "config.json").read_text())["tie_word_embeddings"] is tied
    generation = json.loads((exported / "generation_config.json").read_text())
    end = AutoTokenizer.from_pretrained(exported).convert_tokens_to_ids("<|im_end|>")
    assert (generation["eos_token_id"], generation["max_new_tokens"]) == ([end], 24)


def test_a_template_that_thinks_is_exported_without_thinking(make_run: Callable[..., Any]) -> None:
    run = make_run(targets=LINEAR, template="own")
    for folder in (run.folder / "model", Path(run.model.causal.config._name_or_path)):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = THINKING
        tokenizer.save_pretrained(folder)
    run.model.tokenizer.chat_template = THINKING
    export_run(ExportSettings(run=run.folder, gguf="false"))
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "export")
    text = tokenizer.apply_chat_template(QUESTIONS[0], tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nToday: 26 July 2024\nSQLite<|im_end|>\n"
        "<|im_start|>user\nHow many shops of Bonn?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert answers_of_plain_transformers(run.folder / "export") == answers_of_the_run(run.model, "own")


def test_the_card(make_run: Callable[..., Any]) -> None:
    run = make_run(targets=LINEAR)
    export_run(ExportSettings(run=run.folder, gguf="false"))
    _, header, text = (run.folder / "export" / "README.md").read_text().split("---\n", 2)
    # A folder of this machine is no base model that a hub could link to.
    assert yaml.safe_load(header) == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["text-to-sql"]
    }  # fmt: skip
    assert "| this run | 61.7 [51.6, 70.9] |" in text and "(Wilson)" in text
    assert "12 questions that people wrote and 692 explored" in text and "`f00d`" in text
    assert "How much did the shops of Bonn sell?" in text and "shop.city: 'Bonn'" in text
    assert "AutoModelForCausalLM.from_pretrained" in text and "(transductive)" in text
    assert str(run.folder.parent) not in text  # nor any other path of this machine
    assert "{{" not in text and "{%" not in text


# ---- Ollama -----------------------------------------------------------------------------------------------------


def render_go(template: str, turns: list[chat.Message], answer: str = "") -> str:
    """Go's text/template, as much of it as we write."""
    body, _, after = template.removeprefix("{{ range .Messages }}").rpartition("{{ end }}{{ end }}")
    branches = dict(re.findall(r'\{\{ (?:else )?if eq \.Role "(\w+)" \}\}(.*?)(?=\{\{ else if|\Z)', body, re.DOTALL))
    text = "".join(branches[turn["role"]].replace("{{ .Content }}", turn["content"]) for turn in turns)
    return (text + after).replace('{{ "{{" }}', "{{")


@pytest.mark.parametrize(
    "template", [chat.CHATML, chat.PLAIN, THINKING, "{{ '{{' }}" + chat.PLAIN], ids=["chatml", "plain", "thinks", "go"]
)
def test_a_template_in_go_renders_the_same(template: str) -> None:
    tokenizer = train_tokenizer(["SELECT"], vocabulary=300)
    tokenizer.chat_template = template
    tokenizer.chat_template = chat.exported_template(tokenizer, "own")
    written = ollama.go_template(tokenizer)
    assert written is not None
    for turns in (QUESTIONS[0], [*QUESTIONS[0], {"role": "assistant", "content": "x"}, QUESTIONS[1][1]]):
        expected = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert render_go(written, turns) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}",  # turns are numbered
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{{ messages[-1].content }}",
        'a """ b' + chat.PLAIN,
    ],
)
def test_what_go_cannot_express_is_left_out(template: str) -> None:
    tokenizer = train_tokenizer(["SELECT"], vocabulary=300)
    tokenizer.chat_template = template
    assert ollama.go_template(tokenizer) is None


def test_the_modelfile(make_run: Callable[..., Any]) -> None:
    run = make_run(targets=LINEAR)
    export_run(ExportSettings(run=run.folder, gguf="false"))
    lines = (run.folder / "export" / "Modelfile").read_text().splitlines()
    assert lines[1:6] == [
        "FROM .", "PARAMETER temperature 0", "PARAMETER num_ctx 512", "PARAMETER num_predict 24",
        'PARAMETER stop "<|im_end|>"',
    ]  # fmt: skip
    assert lines[6] == 'TEMPLATE """{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system'


# ---- GGUF -------------------------------------------------------------------------------------------------------

CONVERTER = """
import sys
from pathlib import Path
folder, _, out, _, kind = sys.argv[1:]
assert (Path(folder) / "model.safetensors").is_file() and (Path(folder) / "tokenizer.json").is_file()
{code}
Path(out).write_bytes(b"GGUF " + kind.encode())
"""


def converter(path: Path, code: str = "") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(CONVERTER.format(code=code))
    return path


def test_a_converter_is_used_where_there_is_one(
    make_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(targets=LINEAR)
    export_run(ExportSettings(run=run.folder, converter=converter(tmp_path / "own.py"), gguf_type="q8_0"))
    assert (run.folder / "export" / "model.gguf").read_bytes() == b"GGUF q8_0"
    assert "FROM ./model.gguf" in (run.folder / "export" / "Modelfile").read_text()
    found = converter(tmp_path / "bin" / "convert_hf_to_gguf.py")
    monkeypatch.setenv("PATH", str(found.parent))
    assert gguf.find_converter(None) == gguf.find_converter(found.parent) == found


def test_a_converter_that_is_missing_or_fails(
    make_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(targets=LINEAR)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"converter is not on PATH\. Install it"):
        export_run(ExportSettings(run=run.folder, gguf="true"))
    with pytest.raises(ConfigError, match=r"converter: no file .*nowhere\.py"):
        export_run(ExportSettings(run=run.folder, converter=tmp_path / "nowhere.py"))
    assert not (run.folder / "export").exists()
    fails = converter(tmp_path / "fails.py", "raise NotImplementedError('Architecture X not supported')")
    with pytest.raises(RunError, match=r"fails\.py failed with exit code 1: .*Architecture X not supported"):
        export_run(ExportSettings(run=run.folder, converter=fails))
    assert (run.folder / "export" / "README.md").is_file()
    assert not list((run.folder / "export").glob("*.gguf*"))
    assert "FROM .\n" in (run.folder / "export" / "Modelfile").read_text()
    export_run(ExportSettings(run=run.folder))
    assert "No GGUF file: llama.cpp's converter is not on PATH. Install it (pip install" in capsys.readouterr().out


# ---- the script -------------------------------------------------------------------------------------------------


def test_the_script_tells_runs_apart(make_run: Callable[..., Any]) -> None:
    found = importlib.util.spec_from_file_location("export_script", ROOT / "export.py")
    assert found is not None and found.loader is not None
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    run = make_run(targets=LINEAR)
    assert script.trains_language_models([f"run={run.folder}", "out=x"])
    config = run.folder / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("text2sql.task.Text2SqlTask", "multilabel.task.MultilabelTask"))
    assert not script.trains_language_models([f"run={run.folder}"])
    assert not script.trains_language_models(["out=x"])  # which the parser then refuses
    with pytest.raises(ConfigError, match="onnx: no such key"):
        parse_arguments(["run=a", "onnx=false"], ExportSettings, usage=USAGE)


@pytest.mark.slow  # a process that imports everything
def test_the_script(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(targets=LINEAR)
    command = [sys.executable, str(ROOT / "export.py"), f"run={run.folder}", "gguf=false", "out=elsewhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0 and "elsewhere/model.safetensors" in done.stdout, done.stderr


def test_what_is_no_finished_run_is_refused(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(targets=LINEAR)
    with pytest.raises(ConfigError, match="holds no finished run"):
        export_run(ExportSettings(run=tmp_path))
    (run.folder / "model").rename(run.folder / "gone")
    with pytest.raises(ConfigError, match="holds no model"):
        export_run(ExportSettings(run=run.folder))
    config = run.folder / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("text2sql.task.Text2SqlTask", "multilabel.task.MultilabelTask"))
    with pytest.raises(ConfigError, match="is no run of task=text2sql"):
        export_run(ExportSettings(run=run.folder))
