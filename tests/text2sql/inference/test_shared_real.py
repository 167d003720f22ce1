"""On real weights, answers with a schema read once are those of questions asked one by one.

Where ``TUTELAGE_QWEN`` names Qwen2.5-Coder-0.5B's model.gguf (or folder) and TUTELAGE_DATA holds Spider::

    TUTELAGE_QWEN=… pytest -n 0 -m slow -s tests/text2sql/inference/test_shared_real.py

``TUTELAGE_QUESTIONS`` sets how many of Spider's dev questions are asked (50).
"""

import os
from pathlib import Path

import pytest
import torch

from tutelage.text2sql.data.spider import Spider
from tutelage.text2sql.database.values import ValueIndex
from tutelage.text2sql.inference.generate import Decoding, Request, TransformersEngine
from tutelage.text2sql.model.adapters import Full
from tutelage.text2sql.model.language_model import LanguageModel, Pretrained, load
from tutelage.text2sql.prompts.chat import end_token
from tutelage.text2sql.prompts.ddl import Ddl

NEAR = 0.02  # nats between two tokens that rounding may turn round


def gap(model: LanguageModel, prompt: list[int], one: str, other: str) -> tuple[float, str, str]:
    """How far apart the tokens at which two answers part are, asked of the model without any cache."""
    first, second = (model.tokenizer.encode(text, add_special_tokens=False) for text in (one, other))
    first, second = ([*ids, end_token(model.tokenizer, "chatml")] for ids in (first, second))
    at = next(n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    with torch.no_grad():
        scores = model.causal(torch.tensor([prompt + first[:at]])).logits[0, -1].log_softmax(-1)
    a, b = first[at], second[at]
    return abs(float(scores[a] - scores[b])), model.tokenizer.decode([a]), model.tokenizer.decode([b])


@pytest.mark.slow
def test_greedy_answers_equal_one_by_one(shared_data: Path) -> None:
    named = os.environ.get("TUTELAGE_QWEN")
    if not named:
        pytest.skip("TUTELAGE_QWEN names no model")
    model = load(Pretrained(named), adapter=Full(), seed=0).eval()
    source = Spider(root=str(shared_data / "spider"))
    prompt = Ddl(template="chatml", comments=True, samples=2, max_values=6, max_tokens=6144)
    examples = source.split("test")
    count = int(os.environ.get("TUTELAGE_QUESTIONS", "50"))
    requests = []
    for example in examples[:: len(examples) // count][:count]:
        catalog = source.catalog(example.db_id)
        matches = ValueIndex.open(catalog, store=None).match(example.question)
        encoded = prompt.encode(model.tokenizer, example, catalog, matches=matches)
        requests.append(Request(example.id, encoded.prompt_ids))
    end = end_token(model.tokenizer, "chatml")
    shared, alone = (
        TransformersEngine(model, end_token=end, seed=0, share=share).generate(
            requests, Decoding("greedy", 1, 1.0, 1.0, 96, batch_size=size)
        )
        for share, size in ((True, 16), (False, 1))
    )
    parted = [
        (request, one, other) for request, (one,), (other,) in zip(requests, shared, alone, strict=True) if one != other
    ]
    print(f"{count - len(parted)} of {count} answers are equal")
    for request, one, other in parted:
        nats, a, b = gap(model, request.prompt_ids, one, other)
        print(f"{request.id}: {a!r} and {b!r} are {nats:.5f} nats apart\n  shared: {one}\n  alone:  {other}")
        assert nats < NEAR
