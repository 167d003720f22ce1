"""Fine-tuning: tokens a second and peak memory, beside the ways not taken and beside TRL's SFTTrainer.

    python benchmarks/sft.py            # four layers with the real vocabulary on a CPU; 7 B on a GPU
    python benchmarks/sft.py --shape small --rounds 5

Each way is a process of its own, so that its peak memory is its own: our trainer as it is (packed rows, chunked loss);
with padded rows; with the loss on full logits; and TRL with packing (`bfd`), its fused output layer and SDPA, which are
its best settings where no flash-attention package is installed. All train the same random weights with the same LoRA
on the same samples in the same precision, in rows of the same length. Rounds are interleaved, ratios are of
neighbours in a round, medians are reported. The vocabulary has 151,936 tokens.

Memory on a CPU is the growth of the process's resident set from just before training to its peak (the whole peak
stands beside it); on a GPU it is what torch's allocator held at most. Writes benchmarks/results/sft.{json,md}.
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
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
WAYS = ("ours", "padded", "full_logits", "trl")
SHAPES = {  # hidden, layers, heads, key heads, feed-forward; row length, rows a step, LoRA's rank
    "small": ((256, 4, 4, 2, 768), (1024, 2, 16)),
    "7b": ((3584, 28, 28, 4, 18_944), (8192, 1, 64)),
}
VOCABULARY = 151_936
WARM_UP = 2  # steps that are not counted


def samples(count: int) -> list[tuple[list[int], list[int]]]:
    """As long as Spider's with a short schema: 120 to 420 tokens, 15 to 80 of them the answer's."""
    rng = np.random.default_rng(0)
    sizes = zip(rng.integers(105, 340, count).tolist(), rng.integers(15, 80, count).tolist(), strict=True)
    return [(rng.integers(5, VOCABULARY, p).tolist(), rng.integers(5, VOCABULARY, a).tolist()) for p, a in sizes]


def make_model(shape: str, folder: Path) -> None:
    """Write random weights, and a tokenizer that TRL asks for and nobody uses."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from tutelage.text2sql.model.tiny import train_tokenizer

    hidden, layers, heads, key_heads, feed_forward = SHAPES[shape][0]
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        intermediate_size=feed_forward,
        max_position_embeddings=32_768,
        tie_word_embeddings=shape != "7b",
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    train_tokenizer(["SELECT name FROM airlines"], vocabulary=300).save_pretrained(folder)


class Clock:
    """Notes when steps end, and what memory there was before them."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.before = 0

    def begin(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.before = _resident()

    def step(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def result(self, tokens: list[int]) -> dict[str, Any]:
        """Tokens of each step in, rates and memory out."""
        import torch

        counted = tokens[WARM_UP : len(self.ends)]
        seconds = self.ends[-1] - self.ends[WARM_UP - 1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        on_gpu = torch.cuda.is_available()
        return {
            "tokens_per_s": sum(counted) / seconds,
            "step_s": seconds / len(counted),
            "tokens_per_step": sum(counted) / len(counted),
            "memory": torch.cuda.max_memory_allocated() if on_gpu else peak - self.before,
            "peak": torch.cuda.max_memory_allocated() if on_gpu else peak,
        }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run_ours(way: str, shape: str, folder: Path, steps: int) -> dict[str, Any]:
    import torch
    from lightning import Callback, Trainer

    from tutelage.core.optim import Optim
    from tutelage.text2sql.data.examples import Example
    from tutelage.text2sql.model import language_model
    from tutelage.text2sql.model.adapters import Lora
    from tutelage.text2sql.training.datamodule import Loading, Text2SqlDataModule
    from tutelage.text2sql.training.module import Text2SqlModule
    from tutelage.text2sql.training.packing import Sample
    from tutelage.text2sql.training.throughput import flops_per_token, peak_flops

    length, rows, rank = SHAPES[shape][1]
    items = samples(400)
    clock = Clock()
    tokens: list[int] = []

    class Watch(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            clock.begin()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            tokens.append(batch.num_tokens)
            clock.step()

    if way == "full_logits":

        def full(hidden_NH: Any, target_N: Any, *, head: Any) -> Any:
            return torch.nn.functional.cross_entropy(head(hidden_NH).float(), target_N, reduction="sum")

        language_model.answer_nll = full  # type: ignore[assignment]
    on_gpu = torch.cuda.is_available()
    spec = language_model.Pretrained(
        str(folder), dtype="bfloat16" if on_gpu else "float32", gradient_checkpointing=shape == "7b"
    )
    model = language_model.load(spec, adapter=Lora(rank=rank, alpha=2 * rank), seed=1)
    optim = Optim(name="adamw", lr=1e-4, weight_decay=0.0, schedule="constant", warmup=0.0)
    # Padded, a step takes as many samples as the mean packed step, so that steps are comparable in their work.
    padded = way == "padded"
    mean = sum(len(p) + len(a) for p, a in items) / len(items)
    data = Text2SqlDataModule(
        train=[[Example(str(i), "db", "", "SELECT 1") for i in range(len(items))]],
        val=[Example("0", "db", "", "SELECT 1")],
        encode=lambda examples, view: [Sample(*items[int(example.id)]) for example in examples],
        loading=Loading(
            max_length=length,
            batch_size=round(rows * length / mean) if padded else rows,
            packing=not padded,
            val_size=1,
        ),
        val_batch_size=1,
        seed=1,
        folder=folder,
    )
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if on_gpu else "32-true",
        max_steps=steps,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        callbacks=[Watch()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Text2SqlModule(model, optim=optim, validation=lambda m, i: [False] * len(i)), datamodule=data)
    found = clock.result(tokens)
    if on_gpu and (peak := peak_flops(torch.cuda.get_device_name())):
        found["mfu"] = found["tokens_per_s"] * flops_per_token(model) / peak
    return found


def run_trl(shape: str, folder: Path, steps: int) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    length, rows, rank = SHAPES[shape][1]
    on_gpu = torch.cuda.is_available()
    items = samples(400)
    dataset = Dataset.from_list(
        [{"input_ids": p + a, "completion_mask": [0] * len(p) + [1] * len(a)} for p, a in items]
    )
    clock = Clock()

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.step()

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16 if on_gpu else torch.float32, attn_implementation="sdpa"
    )
    if on_gpu:
        model.cuda()
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        max_length=length,
        packing=True,
        packing_strategy="bfd",
        completion_only_loss=True,
        per_device_train_batch_size=rows,
        max_steps=steps,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=on_gpu,
        gradient_checkpointing=shape == "7b",
        gradient_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=10_000,
        save_strategy="no",
        report_to="none",
        use_cpu=not on_gpu,
        disable_tqdm=True,
        seed=1,
    )
    trainer = SFTTrainer(
        model,
        args=config,
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Watch()],
    )
    # What each step held is known from the collator alone.
    tokens: list[int] = []
    collate = trainer.data_collator

    def counting(features: list[dict[str, Any]]) -> Any:
        tokens.append(sum(len(feature["input_ids"]) for feature in features))
        return collate(features)

    trainer.data_collator = counting
    trainer.train()
    return clock.result(tokens)


def child(arguments: argparse.Namespace) -> None:
    way, folder = arguments.child, Path(arguments.folder)
    run = (
        run_trl(arguments.shape, folder, arguments.steps)
        if way == "trl"
        else run_ours(way, arguments.shape, folder, arguments.steps)
    )
    print(json.dumps(run))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch
    import transformers
    import trl

    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        make_model(arguments.shape, Path(scratch))
        base = [
            sys.executable,
            __file__,
            "--shape",
            arguments.shape,
            "--steps",
            str(arguments.steps),
            "--folder",
            scratch,
        ]
        for number in range(arguments.rounds):
            order = WAYS if number % 2 == 0 else WAYS[::-1]  # so that no way always runs first
            found = {}
            for way in order:
                done = subprocess.run([*base, "--child", way], capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(f"{way} failed:\n{done.stderr[-4000:]}")
                found[way] = json.loads(done.stdout.strip().splitlines()[-1])
                print(number, way, found[way], flush=True)
            rounds.append(found)
    length, rows, rank = SHAPES[arguments.shape][1]
    return {
        "machine": arguments.machine,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__},
        "shape": dict(
            zip(("hidden", "layers", "heads", "key_heads", "feed_forward"), SHAPES[arguments.shape][0], strict=True)
        ),
        "row_tokens": length,
        "rows_a_step": rows,
        "lora_rank": rank,
        "steps": arguments.steps - WARM_UP,
        "rounds": rounds,
        "median": {way: {key: median(r[way][key] for r in rounds) for key in rounds[0][way]} for way in WAYS},
        "speed_ratio": {way: [r["ours"]["tokens_per_s"] / r[way]["tokens_per_s"] for r in rounds] for way in WAYS[1:]},
        "memory_ratio": {way: [r["ours"]["memory"] / r[way]["memory"] for r in rounds] for way in WAYS[1:]},
        "peak_ratio": {way: [r["ours"]["peak"] / r[way]["peak"] for r in rounds] for way in WAYS[1:]},
    }


def report(results: dict[str, Any]) -> str:
    names = {
        "ours": "ours: packed, chunked loss",
        "padded": "padded rows",
        "full_logits": "loss on full logits (of answers)",
        "trl": "TRL SFTTrainer, packing",
    }
    shape, versions = results["shape"], results["versions"]
    lines = [
        "# Fine-tuning",
        "",
        f"Random weights ({shape['layers']} layers of {shape['hidden']}, vocabulary 151,936) with LoRA of rank "
        f"{results['lora_rank']}; rows of {results['row_tokens']} tokens, {results['rows_a_step']} a step; "
        f"{results['steps']} steps counted, {len(results['rounds'])} interleaved rounds, medians.",
        f"{results['machine']}; " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "",
        "| way | tokens/s | memory of training | whole peak | ours ÷ it: speed | memory | whole peak |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way in WAYS:
        found = results["median"][way]
        ratios = ["", "", ""]
        if way != "ours":
            ratios = [f"{median(results[key][way]):.2f}" for key in ("speed_ratio", "memory_ratio", "peak_ratio")]
        mega = [f"{found[key] / 1e6:,.0f} MB" for key in ("memory", "peak")]
        lines.append(f"| {names[way]} | {found['tokens_per_s']:,.0f} | {' | '.join([*mega, *ratios])} |")
    if "mfu" in results["median"]["ours"]:
        lines += ["", f"MFU of ours: {100 * results['median']['ours']['mfu']:.1f} %."]
    if results["device"] == "cpu":
        lines += [
            "",
            "Read the last row with care. In a model this thin the output layer is nearly all of the work, and where "
            "there is no Triton, TRL's goes over every position, with entropies besides; ours goes over those of the "
            "answers, a sixth of them. On a GPU TRL also keeps to the answers, and in a large model the output layer "
            "is a small part: this says that ours is not slower and needs less, not how much on a GPU, where it was "
            "not measured.",
        ]
    lines += ["", "Made by `python benchmarks/sft.py`; each round's figures are in sft.json.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), help="small on a CPU, 7b on a GPU unless said")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--machine", default=f"{os.cpu_count()} CPU cores, {platform.machine()}, no GPU")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    if arguments.shape is None:
        import torch

        arguments.shape = "7b" if torch.cuda.is_available() else "small"
    results = measure(arguments)
    arguments.out.mkdir(exist_ok=True)
    (arguments.out / "sft.json").write_text(json.dumps(results, indent=2) + "\n")
    (arguments.out / "sft.md").write_text(report(results))
    print(report(results))


if __name__ == "__main__":
    main()
