"""Answers a second of our batched generation, beside plain one-by-one generation with the same model.

    python benchmarks/generate.py                     # random weights: 20 M on a CPU, 7 B on a GPU
    python benchmarks/generate.py --model FOLDER      # real weights: a Hugging Face folder or a .gguf file

The plain way is `model.generate` on one prompt after the other, with its cache. Ours takes prompts of like length
together. Both answer the same questions about the embedded flights database, greedily; rounds are interleaved, each
ratio is of neighbours in a round, and medians are reported. How many answers are equal, text for text, is part of the
result: left padding changes the order of sums, so a near tie may fall the other way.
Without --model weights are random: no answer ends by itself, so all have the full length, and batches waste nothing on
answers that ended early. Writes benchmarks/results/generate.{json,md}.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from transformers import Qwen2Config, Qwen2ForCausalLM

from tutelage.text2sql.data.flights import Flights
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.inference.answer import Answerer, Inference
from tutelage.text2sql.inference.generate import Request, TransformersEngine
from tutelage.text2sql.model.adapters import Full
from tutelage.text2sql.model.language_model import LanguageModel, Pretrained, load
from tutelage.text2sql.model.tiny import train_tokenizer
from tutelage.text2sql.prompts.brief import Brief
from tutelage.text2sql.prompts.chat import end_token

RESULTS = Path(__file__).parent / "results"
PROMPT = Brief(template="chatml", comments=False, samples=0, max_values=2, max_tokens=2048)
SHAPES = {  # hidden, layers, heads, key heads, feed-forward, vocabulary
    "20m": (384, 8, 6, 6, 1024, 16_384),
    "135m": (576, 30, 9, 3, 1536, 49_152),  # SmolLM2-135M
    "7b": (3584, 28, 28, 4, 18_944, 151_936),  # Qwen2.5-7B
}


def random_model(shape: str, *, device: str, texts: list[str]) -> LanguageModel:
    hidden, layers, heads, key_heads, feed_forward, vocabulary = SHAPES[shape]
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        intermediate_size=feed_forward,
        max_position_embeddings=4096,
        tie_word_embeddings=shape != "7b",
    )
    torch.manual_seed(0)
    with torch.device(device):
        network = Qwen2ForCausalLM(config)
    if device == "cuda":
        network.bfloat16()
    return LanguageModel(network, train_tokenizer(texts, vocabulary=4096))


def one_by_one(model: LanguageModel, requests: list[Request], *, end: int, new_tokens: int) -> list[str]:
    """What a first script does."""
    texts = []
    for request in requests:
        ids = torch.tensor([request.prompt_ids], device=model.causal.device)
        out = model.causal.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )
        texts.append(model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = arguments.shape or ("7b" if device == "cuda" else "20m")
    inference = Inference("transformers", "greedy", 1, 1.0, 1.0, "first", 0, arguments.new_tokens, arguments.batch_size)
    source = Flights(store=str(arguments.store or scratch / "store"))
    examples = source.split("test")[: arguments.questions]
    if arguments.model:
        model = load(Pretrained(arguments.model), adapter=Full(), seed=0).eval().to(device)
    else:
        written = [PROMPT.messages(e, source.catalog(e.db_id), matches={})[1]["content"] for e in examples]
        model = random_model(shape, device=device, texts=[*written, *(str(e.sql) for e in examples)]).eval()
    end = end_token(model.tokenizer, PROMPT.template)
    with Executor(workers=0, limits=Limits()) as executor:
        answerer = Answerer(source, prompt=PROMPT, inference=inference, executor=executor, store=None)
        requests = [Request(e.id, answerer.encode(model.tokenizer, e).prompt_ids) for e in examples]
    engine = TransformersEngine(model, end_token=end, seed=0)

    # Of one thread, CPU seconds are what an idle core would take; wall time on a shared machine is not.
    by_cpu_time = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if by_cpu_time else time.perf_counter

    def timed(run: Any) -> tuple[float, list[str]]:
        start = clock()
        texts = run()
        if device == "cuda":
            torch.cuda.synchronize()
        return clock() - start, texts

    def plain() -> list[str]:
        with torch.no_grad():
            return one_by_one(model, requests, end=end, new_tokens=arguments.new_tokens)

    def ours() -> list[str]:
        return [text for (text,) in engine.generate(requests, inference.decoding())]

    one_by_one(model, requests[:1], end=end, new_tokens=4)  # warms up
    rounds = []
    for _ in range(arguments.rounds):
        plain_seconds, plain_texts = timed(plain)
        our_seconds, our_texts = timed(ours)
        rounds.append((plain_seconds, our_seconds))
    tokens = sorted(len(request.prompt_ids) for request in requests)
    count = len(requests)
    return {
        "machine": arguments.machine,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "model": arguments.model or f"random weights, {shape}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.causal.dtype),
        "questions": count,
        "prompt_tokens": {"least": tokens[0], "median": tokens[count // 2], "most": tokens[-1]},
        "new_tokens": arguments.new_tokens,
        "batch_size": arguments.batch_size,
        "rounds": arguments.rounds,
        "clock": "CPU seconds" if by_cpu_time else "seconds",
        "plain_answers_per_s": round(median(count / p for p, _ in rounds), 3),
        "our_answers_per_s": round(median(count / o for _, o in rounds), 3),
        "ratio": round(median(p / o for p, o in rounds), 2),
        "ratios": [round(p / o, 2) for p, o in rounds],
        "equal_answers": sum(a == b for a, b in zip(plain_texts, our_texts, strict=True)),
    }


def report(results: dict[str, Any]) -> str:
    prompts = results["prompt_tokens"]
    lines = [
        "# Generation",
        "",
        f"{results['questions']} questions about the embedded flights database, prompts of {prompts['least']} to "
        f"{prompts['most']} tokens, at most {results['new_tokens']} new ones, greedy; {results['model']} "
        f"({results['parameters'] / 1e6:.0f} M parameters, {results['dtype']}); {results['machine']}, "
        f"threads: {results['threads']}. Medians of {results['rounds']} interleaved "
        f"rounds, by {results['clock']}.",
        "",
        "| way | answers/s | × plain |",
        "|---|---|---|",
        f"| one by one | {results['plain_answers_per_s']} | 1.00 |",
        f"| ours, batches of {results['batch_size']} | {results['our_answers_per_s']} | {results['ratio']:.2f} |",
        "",
        f"Equal answers: {results['equal_answers']} of {results['questions']}. Ratios of the rounds: "
        f"{', '.join(f'{ratio:.2f}' for ratio in results['ratios'])}.",
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a Hugging Face folder or .gguf file; random weights without it")
    parser.add_argument("--shape", choices=SHAPES, help="of random weights")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", type=Path, help="where the embedded database is kept between calls")
    parser.add_argument("--machine", default=f"{os.cpu_count()}-core {platform.machine()}, no GPU")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(arguments, Path(scratch))
    arguments.out.mkdir(exist_ok=True)
    (arguments.out / "generate.json").write_text(json.dumps(results, indent=2) + "\n")
    (arguments.out / "generate.md").write_text(report(results))
    print(report(results))


if __name__ == "__main__":
    main()
