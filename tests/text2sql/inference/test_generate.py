"""Generation: what is in a batch changes no answer."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tutelage.core.errors import ConfigError, RunError
from tutelage.core.store import Store
from tutelage.text2sql.inference import generate
from tutelage.text2sql.inference.generate import Decoding, Request, SeededSampling, TransformersEngine
from tutelage.text2sql.model.adapters import Full, Lora
from tutelage.text2sql.model.language_model import LanguageModel, Pretrained, load
from tutelage.text2sql.model.tiny import Tiny

TEXTS = [f"SELECT column_{n} FROM table_{n % 7} WHERE name = 'value {n}' ORDER BY id" for n in range(200)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    tiny = Tiny(vocabulary=400, hidden_size=32, layers=2, heads=2, context=512)
    folder = tiny.folder(Store(tmp_path_factory.mktemp("store")), texts=TEXTS, seed=3)
    made = load(Pretrained(str(folder)), adapter=Full(), seed=0)
    with torch.no_grad():  # far from uniform, so that near ties do not hang on rounding
        made.causal.get_input_embeddings().weight.mul_(20)
    return made


@pytest.fixture(scope="module")
def requests(model: LanguageModel) -> list[Request]:
    texts = ["SELECT", "column_1 FROM table_2", "WHERE name = 'value 7' ORDER BY id", "id", "FROM table_3 WHERE"]
    return [Request(f"q{n}", model.tokenizer.encode(text)) for n, text in enumerate(texts)]


def decoding(kind: str = "greedy", *, candidates: int = 1, batch_size: int = 8, temperature: float = 1.0) -> Decoding:
    return Decoding(kind, candidates, temperature, 0.9, max_new_tokens=12, batch_size=batch_size)


def engine(model: LanguageModel, *, seed: int = 0) -> TransformersEngine:
    return TransformersEngine(model, end_token=model.tokenizer.convert_tokens_to_ids("<|im_end|>"), seed=seed)


def test_greedy_is_the_argmax_step_by_step(model: LanguageModel, requests: list[Request]) -> None:
    texts = engine(model).generate(requests, decoding())
    end = model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    for request, (text,) in zip(requests, texts, strict=True):
        ids = list(request.prompt_ids)
        with torch.no_grad():
            for _ in range(12):  # anew each time: no cache, no padding
                following = int(model.causal(torch.tensor([ids])).logits[0, -1].argmax())
                if following == end:
                    break
                ids.append(following)
        assert text == model.tokenizer.decode(ids[len(request.prompt_ids) :], skip_special_tokens=True)


@pytest.mark.parametrize(("kind", "candidates"), [("greedy", 1), ("beam", 3), ("sample", 4)])
def test_batches_change_nothing(model: LanguageModel, requests: list[Request], kind: str, candidates: int) -> None:
    together = engine(model).generate(requests, decoding(kind, candidates=candidates, batch_size=64))
    alone = engine(model).generate(requests, decoding(kind, candidates=candidates, batch_size=1))
    backwards = engine(model).generate(requests[::-1], decoding(kind, candidates=candidates, batch_size=2))
    assert together == alone == backwards[::-1]
    assert [len(texts) for texts in together] == [candidates] * 5


def of_two_schemas(model: LanguageModel) -> list[Request]:
    """Questions about two schemas of more than 64 tokens, and one about nothing, in no order."""
    schemas = ["".join(TEXTS[start : start + 6]) for start in (0, 50)]
    asked = [(0, " id"), (1, " FROM table_3 WHERE"), (0, " name = 'value 9' ORDER"), (1, " SELECT"), (0, " column_5")]
    texts = [schemas[schema] + question for schema, question in asked] + ["SELECT column_1"]
    return [Request(f"q{n}", model.tokenizer.encode(text)) for n, text in enumerate(texts)]


@pytest.mark.parametrize(("kind", "candidates"), [("greedy", 1), ("beam", 3), ("sample", 4)])
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_a_schema_is_read_once_and_answers_stay(
    model: LanguageModel, kind: str, candidates: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = of_two_schemas(model)
    asked = decoding(kind, candidates=candidates, batch_size=batch_size)
    end = model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    expected = TransformersEngine(model, end_token=end, seed=0, share=False).generate(prompts, asked)
    read: list[int] = []
    prefill = LanguageModel.prefill

    def counting(self: LanguageModel, ids: torch.Tensor, **before: Any) -> Any:
        read.append(len(ids))
        return prefill(self, ids, **before)

    monkeypatch.setattr(LanguageModel, "prefill", counting)
    assert engine(model).generate(prompts, asked) == expected
    assert sum(read) == 2  # two schemas, whatever the batches, questions and samples
    monkeypatch.setattr(generate, "KEPT_BYTES", 0)
    assert engine(model).generate(prompts, asked) == expected


def test_samples_of_one_question_share_its_prompt(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    (prompt, *_) = of_two_schemas(model)
    end = model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    asked = decoding("sample", candidates=4)
    expected = TransformersEngine(model, end_token=end, seed=0, share=False).generate([prompt], asked)
    lengths: list[int] = []
    prefill = LanguageModel.prefill

    def measuring(self: LanguageModel, ids: torch.Tensor, **before: Any) -> Any:
        lengths.extend([ids.shape[1]] * len(ids))
        return prefill(self, ids, **before)

    monkeypatch.setattr(LanguageModel, "prefill", measuring)
    assert engine(model).generate([prompt], asked) == expected
    assert lengths == [len(prompt.prompt_ids) - 1]  # the last token's logits are each row's own


def test_samples_are_a_function_of_seed_and_request(model: LanguageModel, requests: list[Request]) -> None:
    asked = decoding("sample", candidates=6, temperature=2.0)
    first = engine(model, seed=1).generate(requests, asked)
    torch.manual_seed(999)
    assert engine(model, seed=1).generate(requests, asked) == first
    assert engine(model, seed=2).generate(requests, asked) != first
    assert len(set(first[0])) > 1  # samples of one request differ
    renamed = [Request("other", request.prompt_ids) for request in requests]
    assert engine(model, seed=1).generate(renamed, asked)[0] != first[0]
    more = engine(model, seed=1).generate(requests[:1], decoding("sample", candidates=8, temperature=2.0))
    assert more[0][:6] == first[0]


def test_sampling_draws_from_the_nucleus_in_its_proportions() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.05, 0.3, 0.15]])).repeat(4000, 1)
    sampling = SeededSampling([(0, "q", n) for n in range(4000)], temperature=1.0, top_p=0.8)
    only = sampling(torch.zeros(4000, 1, dtype=torch.long), logits)
    assert (torch.isfinite(only).sum(-1) == 1).all()
    counts = Counter(only.argmax(-1).tolist())
    # 0.5 and 0.3 together reach 0.8, so the others are out: 5/8 and 3/8 are left.
    assert set(counts) == {0, 2}
    assert counts[0] / 4000 == pytest.approx(0.625, abs=0.03)


def test_sampling_at_a_low_temperature_is_greedy() -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    sampling = SeededSampling([(0, "q", n) for n in range(50)], temperature=1e-4, top_p=1.0)
    assert torch.equal(sampling(torch.zeros(50, 1, dtype=torch.long), logits).argmax(-1), logits.argmax(-1))


def test_a_step_draws_once_a_row() -> None:
    """The second step's token does not hang on how many rows there are."""
    logits = torch.zeros(3, 100)
    ids = torch.zeros(3, 1, dtype=torch.long)
    all_rows = SeededSampling([(0, "q", n) for n in range(3)], temperature=1.0, top_p=1.0)
    last_row = SeededSampling([(0, "q", 2)], temperature=1.0, top_p=1.0)
    both = np.array([all_rows(ids, logits).argmax(-1).tolist() for _ in range(4)])
    one = [last_row(ids[:1], logits[:1]).argmax(-1).item() for _ in range(4)]
    assert both[:, 2].tolist() == one
    assert len(set(one)) > 1


def test_the_models_own_generation_settings_do_not_leak(model: LanguageModel, requests: list[Request]) -> None:
    before = engine(model).generate(requests, decoding())
    settings = model.causal.generation_config
    settings.repetition_penalty, settings.temperature, settings.do_sample, settings.max_length = 5.0, 0.1, True, 3
    try:
        assert engine(model).generate(requests, decoding()) == before
    finally:
        settings.repetition_penalty, settings.temperature, settings.do_sample, settings.max_length = 1.0, 1.0, False, 20


def test_beams_come_best_first(model: LanguageModel, requests: list[Request]) -> None:
    (beams,) = engine(model).generate(requests[:1], decoding("beam", candidates=4))
    assert len(set(beams)) == 4

    def log_likelihood(text: str) -> float:
        ids = model.tokenizer.encode(text)
        assert model.tokenizer.decode(ids) == text
        prompt = requests[0].prompt_ids
        with torch.no_grad():
            scores = model.causal(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        return sum(float(scores[len(prompt) + n - 1, token]) for n, token in enumerate(ids)) / len(ids)

    (greedy,) = engine(model).generate(requests[:1], decoding())[0]
    assert log_likelihood(beams[0]) >= log_likelihood(greedy) - 1e-4


def test_the_models_mode_is_put_back(model: LanguageModel, requests: list[Request]) -> None:
    model.train()
    engine(model).generate(requests[:1], decoding())
    assert model.training
    model.eval()
    engine(model).generate(requests[:1], decoding())
    assert not model.training


def test_nothing_asked_nothing_answered(model: LanguageModel) -> None:
    assert engine(model).generate([], decoding()) == []


def test_an_answer_stops_at_its_end_token(model: LanguageModel) -> None:
    made = engine(model)
    assert made._text([5, 6, made.end_token, 7]) == model.tokenizer.decode([5, 6])


def test_out_of_memory_says_what_to_lower(
    model: LanguageModel, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(LanguageModel, "generate", full)
    with pytest.raises(RunError, match=r"out of memory while answering 5 prompts .* Lower inference\.batch_size"):
        engine(model).generate(requests, decoding())


@pytest.mark.parametrize(
    ("kind", "candidates", "temperature"), [("greedy", 2, 1.0), ("sample", 2, 0.0), ("beam", 0, 1.0)]
)
def test_decoding_that_cannot_be(kind: str, candidates: int, temperature: float) -> None:
    with pytest.raises(ConfigError, match=r"inference\."):
        decoding(kind, candidates=candidates, temperature=temperature)


def test_an_adapter_answers_too(tmp_path: Path) -> None:
    """Generation goes through the adapter's layers."""
    tiny = Tiny(vocabulary=300, hidden_size=32, layers=1, heads=2, context=64)
    folder = tiny.folder(Store(tmp_path), texts=TEXTS, seed=0)
    plain = load(Pretrained(str(folder)), adapter=Full(), seed=0)
    adapted = load(Pretrained(str(folder)), adapter=Lora(rank=4, alpha=8, dropout=0.0), seed=0)
    asked = [Request("q", plain.tokenizer.encode("SELECT"))]
    assert engine(plain).generate(asked, decoding()) == engine(adapted).generate(asked, decoding())
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 3)
    assert engine(plain).generate(asked, decoding()) != engine(adapted).generate(asked, decoding())
