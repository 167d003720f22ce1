"""Shared prefixes: samples trained on a second, and questions answered a second, with and without.

    TUTELAGE_DATA=… python benchmarks/shared_prefix.py                      # the shape of Qwen2.5-Coder-0.5B
    TUTELAGE_DATA=… python benchmarks/shared_prefix.py --layers 2 --databases superhero --samples 16   # to try it

TUTELAGE_DATA holds spider/, bird/ and qwen2.5-coder-tokenizer/. Random weights with LoRA, prompt ddl, the databases'
own questions. Training: forward and backward of the same samples, as trees of at most 16 branches and one by one in
packed rows; each way in a process of its own, so that its peak memory is its own. Answering: at most so many new
tokens, with the schema read once, and with batches that share nothing. Rounds are interleaved and ratios are of
neighbours in a round. The bound beside each is of tokens: seen by samples ÷ computed, n(P + s) ÷ (P + ns) for n samples
with a prefix of P tokens. Where trl is installed, its SFTTrainer packs the same samples (`bfd`). Writes
benchmarks/results/shared_prefix.{json,md}.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
SPIDER = ("concert_singer", "flight_2", "world_1", "student_transcripts_tracking")
NEW_TOKENS = 24


def make_model(arguments: argparse.Namespace, folder: Path) -> None:
    """Write random weights of Qwen2.5-Coder-0.5B's shape, beside its tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        num_hidden_layers=arguments.layers,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4864,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(Path(arguments.data) / "qwen2.5-coder-tokenizer").save_pretrained(folder)


def questions(arguments: argparse.Namespace, database: str, folder: Path) -> list[Any]:
    """The database's questions as token ids, spread over its list."""
    from transformers import AutoTokenizer

    from tutelage.core.store import Store
    from tutelage.text2sql.data.bird import Bird
    from tutelage.text2sql.data.spider import Spider
    from tutelage.text2sql.database.values import ValueIndex
    from tutelage.text2sql.prompts.ddl import Ddl
    from tutelage.text2sql.training.packing import Sample

    data = Path(arguments.data)
    source: Any = (
        Bird(root=str(data / "bird")) if database == "superhero" else Spider(root=str(data / "spider"), test="dev")
    )
    tokenizer = AutoTokenizer.from_pretrained(data / "qwen2.5-coder-tokenizer")
    prompt = Ddl(template="chatml", comments=True, samples=2, max_values=6, max_tokens=6144)
    examples = [example for example in source.split("test") if example.db_id == database]
    step = max(1, len(examples) // arguments.samples)
    catalog = source.catalog(database)
    values = ValueIndex.open(catalog, store=Store(folder / "store"))
    found = []
    for example in examples[::step][: arguments.samples]:
        matches = values.match(f"{example.question} {example.evidence}")
        encoded = prompt.encode(tokenizer, example, catalog, matches=matches)
        found.append(Sample(encoded.prompt_ids, encoded.answer_ids))
    return found


def child(arguments: argparse.Namespace) -> dict[str, Any]:
    """One way with one database: seconds, tokens and memory."""
    import numpy as np
    import torch

    from tutelage.text2sql.inference.generate import Decoding, Request, TransformersEngine
    from tutelage.text2sql.model.adapters import Lora
    from tutelage.text2sql.model.language_model import Pretrained, load
    from tutelage.text2sql.training.packing import Tree, first_fit_decreasing, grow, pack, plan_trees

    folder, way = Path(arguments.folder), arguments.child
    samples = questions(arguments, arguments.databases[0], folder)
    model = load(Pretrained(str(folder), dtype=arguments.dtype), adapter=Lora(rank=16, alpha=32), seed=1)
    arithmetic = torch.autocast("cpu", torch.bfloat16, enabled=arguments.dtype == "bfloat16")  # as trainer.precision
    shared = way.endswith("shared")
    if way.startswith("answer"):
        kind = "sample" if "majority" in way else "greedy"
        asked = Decoding(kind, 8 if kind == "sample" else 1, 0.8, 0.95, NEW_TOKENS, batch_size=16)
        some = samples[: arguments.questions]
        requests = [Request(str(n), list(sample.prompt_ids)) for n, sample in enumerate(some)]
        engine = TransformersEngine(model, end_token=151_645, seed=0, share=shared)
        begin = time.perf_counter()
        with arithmetic:
            engine.generate(requests, asked)
        return {"per_s": len(requests) / (time.perf_counter() - begin), "peak": _peak()}
    capacity = max(8192, *(sample.length for sample in samples))
    trees = [Tree((), (sample,)) for sample in samples]
    if shared:
        planned, _ = plan_trees(samples, branches=16, capacity=capacity, rng=np.random.default_rng(0))
        trees = [tree for members in planned for tree in grow([samples[i] for i in members])]
    rows = first_fit_decreasing([tree.length for tree in trees], capacity=capacity)
    before = _resident()
    begin = time.perf_counter()
    for row in rows:
        batch = pack([trees[index] for index in row], answers_in_step=1)
        with arithmetic:
            loss = model(batch) / len(samples)
        loss.backward()
    seconds = time.perf_counter() - begin
    return {
        "per_s": len(samples) / seconds,
        "peak": _peak(),
        "memory": _peak() - before,
        "computed": sum(tree.length for tree in trees),
        "seen": sum(tree.seen for tree in trees),
        "gradient": float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()),
    }


def trl(arguments: argparse.Namespace) -> dict[str, Any]:
    """TRL's SFTTrainer with packing (`bfd`) on the same samples: a step is all of them."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    folder = Path(arguments.folder)
    samples = questions(arguments, arguments.databases[0], folder)
    rows = [
        {
            "input_ids": [*sample.prompt_ids, *sample.answer_ids],
            "completion_mask": [0] * len(sample.prompt_ids) + [1] * len(sample.answer_ids),
        }
        for sample in samples
    ]
    marks: list[float] = []

    class Watch(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            marks.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            marks.append(time.perf_counter())

    config = SFTConfig(
        output_dir=str(folder / "trl"),
        max_length=8192,
        packing=True,
        packing_strategy="bfd",
        completion_only_loss=True,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1_000,
        num_train_epochs=1,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=arguments.dtype == "bfloat16",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", dtype=arguments.dtype),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Watch()],
    )
    before = _resident()
    trainer.train()
    return {"per_s": len(samples) / (marks[1] - marks[0]), "peak": _peak(), "memory": _peak() - before}


def default_dtype() -> str:
    """As trainer.precision=auto chooses it."""
    from tutelage.core.precision import has_bf16

    return "bfloat16" if has_bf16("cpu") else "float32"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(arguments: argparse.Namespace) -> None:
    """Measure each database and write the table anew after it: the whole takes hours."""
    import torch
    import transformers

    ways = ["train", "train shared", "answer", "answer shared", "answer majority", "answer majority shared"]
    if find_spec("trl") and not arguments.no_trl:
        ways.insert(2, "trl")
    found: dict[str, Any] = {}
    results = {
        "machine": arguments.machine,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "layers": arguments.layers,
        "dtype": arguments.dtype,
        "samples": arguments.samples,
        "questions": arguments.questions,
        "rounds": arguments.rounds,
        "new_tokens": NEW_TOKENS,
        "databases": found,
    }
    with tempfile.TemporaryDirectory() as scratch:
        make_model(arguments, Path(scratch))
        for database in arguments.databases:
            rounds = []
            for number in range(arguments.rounds):
                one = {}
                for way in ways if number % 2 == 0 else ways[::-1]:  # so that no way always runs first
                    command = [sys.executable, __file__, "--child", way, "--folder", scratch, "--databases", database]
                    command += [
                        "--dtype",
                        arguments.dtype,
                        "--samples",
                        str(arguments.samples),
                        "--questions",
                        str(arguments.questions),
                    ]
                    done = subprocess.run(
                        [*command, "--data", arguments.data], capture_output=True, text=True, check=False
                    )
                    if done.returncode:
                        sys.exit(f"{way} failed:\n{done.stderr[-4000:]}")
                    one[way] = json.loads(done.stdout.strip().splitlines()[-1])
                    print(database, number, way, one[way], flush=True)
                rounds.append(one)
            found[database] = rounds
            (RESULTS / "shared_prefix.json").write_text(json.dumps(results, indent=2) + "\n")
            (RESULTS / "shared_prefix.md").write_text(report(results))
    print(report(results))


def report(results: dict[str, Any]) -> str:
    lines = [
        "# Shared prefixes",
        "",
        f"Random weights of Qwen2.5-Coder-0.5B's shape with {results['layers']} of its 24 layers, LoRA of rank 16, "
        f"{results['dtype']}, prompt ddl, {results['samples']} samples a database, at most 16 branches; "
        f"{results['questions']} questions "
        f"answered with {results['new_tokens']} new tokens. {results['machine']}, threads: {results['threads']}; "
        + ", ".join(f"{name} {version}" for name, version in results["versions"].items())
        + ". Medians of rounds.",
        "",
        "| database | samples/s | alone | ratio | bound | memory ratio | × TRL | greedy ratio | majority of 8 ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for database, rounds in results["databases"].items():

        def ratio(one: str, other: str, key: str = "per_s", rounds: list[Any] = rounds) -> float:
            return median(r[one][key] / r[other][key] for r in rounds)

        shared = rounds[0]["train shared"]
        peer = f"{ratio('train shared', 'trl'):.2f}" if "trl" in rounds[0] else "not installed"
        lines.append(
            f"| {database} | {median(r['train shared']['per_s'] for r in rounds):.3f} "
            f"| {median(r['train']['per_s'] for r in rounds):.3f} | {ratio('train shared', 'train'):.2f} "
            f"| {shared['seen'] / shared['computed']:.2f} | {ratio('train shared', 'train', 'memory'):.2f} | {peer} "
            f"| {ratio('answer shared', 'answer'):.2f} | {ratio('answer majority shared', 'answer majority'):.2f} |"
        )
    lines += ["", "Made by `python benchmarks/shared_prefix.py`; each round's figures are in shared_prefix.json.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("TUTELAGE_DATA", ""), help="the folder of real data")
    parser.add_argument("--databases", nargs="+", default=[*SPIDER, "superhero"])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--questions", type=int, default=16, help="that are answered")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", default=default_dtype(), help="of frozen weights, and of the arithmetic")
    parser.add_argument("--no-trl", action="store_true")
    parser.add_argument("--machine", default=f"{os.cpu_count()} CPU cores, {platform.machine()}, no GPU")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(trl(arguments) if arguments.child == "trl" else child(arguments)))
        return
    measure(arguments)


if __name__ == "__main__":
    main()
