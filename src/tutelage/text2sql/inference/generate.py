"""Answers of a language model to many prompts at once, with a key-value cache.

Prompts about a database begin with its schema, so the keys and values of what prompts share are computed once, for all
its questions and all their samples, and each row goes on from a copy.

A sampled answer is a function of (seed, request, number of the sample), not of what else is in the batch: each row
draws its own uniform numbers, and a token is looked up in the inverse of its distribution.
"""

# R rows of a batch, T tokens, V vocabulary

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, distributed
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

from tutelage.core.errors import ConfigError, RunError
from tutelage.core.randomness import generator
from tutelage.text2sql.prompts.chat import Message
from tutelage.text2sql.prompts.prefixes import LEAST_SHARED, common_prefix, group_by_prefix

if TYPE_CHECKING:
    from tutelage.text2sql.model.language_model import LanguageModel


# Keys and values of each layer [K, T, D], by the tokens of a head.
Kept = dict[tuple[int, ...], list[tuple[Tensor, Tensor]]]
KEPT_BYTES = 2**31  # the most that a head may take between two batches; what is larger is computed again
STANDING = 4  # heads that are kept between calls


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to answer.

    Attributes:
        id: Names the example: with the seed, sampling is a function of it.
        prompt_ids: The prompt as token ids, for a model that is at hand.
        messages: The same prompt as turns, for a server, which has a tokenizer of its own.
    """

    id: str
    prompt_ids: list[int]
    messages: tuple[Message, ...] = ()


class NoAnswer(str):
    """An empty text, and why a server gave none."""

    why: str

    @classmethod
    def because(cls, why: str) -> "NoAnswer":
        """Make one."""
        made = cls("")
        made.why = why
        return made


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are written.

    Attributes:
        kind: ``greedy``; ``beam`` search, whose ``candidates`` best beams are kept; or ``sample``.
        candidates: Answers to each prompt.
        temperature: Sampling temperature; below 1 keeps closer to the likeliest tokens.
        top_p: Sampling takes only the likeliest tokens that together have this probability.
        max_new_tokens: Where an answer is cut off that does not end by itself.
        batch_size: Rows at a time; a prompt takes as many rows as it has candidates.
    """

    kind: Literal["greedy", "beam", "sample"]
    candidates: int
    temperature: float
    top_p: float
    max_new_tokens: int
    batch_size: int

    def __post_init__(self) -> None:
        """Refuse what cannot be decoded."""
        if self.candidates < 1 or (self.kind == "greedy" and self.candidates != 1):
            raise ConfigError(
                "inference.candidates",
                f"{self.candidates} with inference.kind={self.kind}",
                "greedy decoding has one candidate; use inference=beam or inference=majority for more",
            )
        if self.kind == "sample" and (self.temperature <= 0 or not 0 < self.top_p <= 1):
            raise ConfigError(
                "inference.temperature",
                f"temperature {self.temperature} and top_p {self.top_p}",
                "give a temperature above 0 and top_p in (0, 1]; for temperature 0 use inference=greedy",
            )
        if self.max_new_tokens < 1 or self.batch_size < 1:
            raise ConfigError("inference.batch_size", "batch_size or max_new_tokens is below 1", "give 1 or more")


class Engine(Protocol):
    """Whatever writes answers."""

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[list[str]]:
        """Answer each request with ``decoding.candidates`` texts, the likeliest first where that is known."""
        ...


class TransformersEngine:
    """Batched generation by the model that is at hand, such as the one in training."""

    def __init__(self, model: "LanguageModel", *, end_token: int, seed: int, share: bool = True) -> None:
        """Keep the model; its mode (training or not) is put back after each use.

        Args:
            model: On its device. Where its weights are spread over processes, which have to put the same number of
                passes through it, nothing is shared.
            end_token: What ends an answer.
            seed: Seed for sampling.
            share: Whether what prompts begin with is computed once.
        """
        self.model, self.end_token, self.seed = model, end_token, seed
        self.share = share and not model.sharded
        self._standing: Kept = {}  # of :meth:`keep`

    def keep(self, head: Sequence[int]) -> None:
        """Compute what prompts begin with, and keep it between calls, until others have taken its place."""
        tokens = tuple(head)
        if not self.share or len(tokens) < LEAST_SHARED:
            return
        if tokens in self._standing:
            self._standing[tokens] = self._standing.pop(tokens)  # the last one to go
            return
        with _answering(self.model):
            self._standing |= self._computed([tokens])
        while len(self._standing) > 1 and (
            len(self._standing) > STANDING or sum(map(_bytes, self._standing.values())) > KEPT_BYTES
        ):
            del self._standing[next(iter(self._standing))]

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[list[str]]:
        """Answer requests, prompts that begin alike together, and those of like length.

        Raises:
            RunError: Out of memory.
        """
        rows_of_one = 1 if decoding.kind == "greedy" else decoding.candidates
        size = max(1, decoding.batch_size // rows_of_one)
        heads = self._heads(requests, rows_of_one=rows_of_one)
        # Longest first: if memory does not suffice, that shows at once.
        order = sorted(range(len(requests)), key=lambda i: (-len(heads[i]), heads[i], -len(requests[i].prompt_ids)))
        kept: Kept = {}
        answers: list[list[str]] = [[] for _ in requests]
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        fillers = most_batches(self.model, len(batches)) - len(batches)
        with _answering(self.model):
            for batch in batches:
                try:
                    texts = self._batch([(requests[index], heads[index]) for index in batch], decoding, kept)
                except torch.OutOfMemoryError as error:
                    tokens = len(requests[batch[0]].prompt_ids)
                    raise RunError(
                        "inference",
                        f"out of memory while answering {len(batch)} prompts of up to {tokens} tokens",
                        "lower inference.batch_size, inference.candidates or prompt.max_tokens",
                    ) from error
                for index, found in zip(batch, texts, strict=True):
                    answers[index] = found
            for _ in range(fillers):
                self._batch([(Request("filler", [self.end_token]), ())], decoding, kept)
        return answers

    def _heads(self, requests: Sequence[Request], *, rows_of_one: int) -> list[tuple[int, ...]]:
        """The tokens that each request's prompt shares with others', or with its own other rows."""
        heads: list[tuple[int, ...]] = [()] * len(requests)
        if not self.share:
            return heads
        for group, shared in group_by_prefix([np.array(request.prompt_ids) for request in requests]):
            for index in group:
                prompt = requests[index].prompt_ids
                own = len(prompt) - 1 if rows_of_one > 1 and len(prompt) > LEAST_SHARED else 0
                standing = () if shared or own else self._standing_head_of(prompt)
                heads[index] = standing or tuple(prompt[: shared or own])
        return heads

    def _standing_head_of(self, prompt: Sequence[int]) -> tuple[int, ...]:
        """The longest head kept between calls that a prompt begins with."""
        fitting = [head for head in self._standing if len(head) < len(prompt) and head == tuple(prompt[: len(head)])]
        return max(fitting, key=len, default=())

    def _batch(self, batch: list[tuple[Request, tuple[int, ...]]], decoding: Decoding, kept: Kept) -> list[list[str]]:
        samples = decoding.candidates if decoding.kind == "sample" else 1
        requests = [request for request, _ in batch]
        prompts = [(head, request.prompt_ids[len(head) :]) for request, head in batch for _ in range(samples)]
        # Heads are filled up on the right, as their keys and values are; the rest on the left, so that all answers
        # begin at the same position.
        longest_head, longest_rest = (max(len(prompt[part]) for prompt in prompts) for part in (0, 1))
        longest = longest_head + longest_rest
        rows, mask = [], []
        for head, rest in prompts:
            filler = longest - len(head) - len(rest)
            rows.append([*head, *[self.end_token] * filler, *rest])
            mask.append([*[1] * len(head), *[0] * filler, *[1] * len(rest)])
        device = self.model.causal.device
        processors = LogitsProcessorList()
        if decoding.kind == "sample":
            keys = [(self.seed, request.id, sample) for request in requests for sample in range(samples)]
            processors.append(SeededSampling(keys, temperature=decoding.temperature, top_p=decoding.top_p))
        beams = decoding.candidates if decoding.kind == "beam" else 1
        continued_RT = self.model.generate(
            torch.tensor(rows, device=device),
            attention_mask_BT=torch.tensor(mask, device=device),
            config=self._config(decoding, beams=beams),
            logits_processor=processors,
            cache=self._cache([head for head, _ in prompts], kept, beams=beams) if longest_head else None,
        )
        texts = [self._text(row) for row in continued_RT[:, longest:].tolist()]
        each = beams * samples
        return [texts[start : start + each] for start in range(0, len(texts), each)]

    def _cache(self, heads: list[tuple[int, ...]], kept: Kept, *, beams: int) -> DynamicCache:
        """Lay out keys and values of each row's head; those of a head that was not in the last batch are computed."""
        distinct = list(dict.fromkeys(head for head in heads if head))
        for head in [head for head in kept if head not in distinct]:
            del kept[head]
        if new := [head for head in distinct if head not in kept]:
            kept |= self._computed(new)
        longest = max(map(len, heads))
        cache = DynamicCache()
        for number, (some_keys, some_values) in enumerate(kept[distinct[0]]):
            empty = some_keys[:, :0], some_values[:, :0]
            for_rows = [kept[head][number] if head else empty for head in heads]
            keys, values = (
                torch.stack([F.pad(row[part], (0, 0, 0, longest - row[part].shape[1])) for row in for_rows])
                for part in (0, 1)
            )
            cache.update(keys.repeat_interleave(beams, 0), values.repeat_interleave(beams, 0), number)
        # Most of a sorted batch's heads are not asked for again; the last may be, unless it is too large to stay.
        for head in distinct[:-1]:
            del kept[head]
        if _bytes(kept[distinct[-1]]) > KEPT_BYTES:
            del kept[distinct[-1]]
        return cache

    def _computed(self, heads: Sequence[tuple[int, ...]]) -> Kept:
        """Compute keys and values of heads, from where they leave one that is kept between calls."""
        start, before = 0, None
        for standing in self._standing:
            common = min(common_prefix([standing, head]) for head in heads)
            if common >= max(LEAST_SHARED, start + 1):
                start, before = common, standing
        cache = DynamicCache()
        if before is not None:
            for number, kept in enumerate(self._standing[before]):
                keys, values = (part[:, :start].expand(len(heads), -1, -1, -1) for part in kept)
                cache.update(keys, values, number)
        longest = max(map(len, heads))
        ids = [[*head[start:], *[self.end_token] * (longest - len(head))] for head in heads]
        # A causal model never looks to the right, so the filler changes nothing.
        found = self.model.prefill(torch.tensor(ids, device=self.model.causal.device), cache=cache)
        computed: Kept = {head: [] for head in heads}
        for row, head in enumerate(heads):
            for layer in found.layers:
                assert isinstance(layer, DynamicLayer), "check_support lets full attention through and nothing else"
                assert isinstance(layer.keys, Tensor) and isinstance(layer.values, Tensor)
                keys, values = (part[row, :, : len(head)].clone() for part in (layer.keys, layer.values))
                computed[head].append((keys, values))
        return computed

    def _config(self, decoding: Decoding, *, beams: int) -> GenerationConfig:
        # What is not said here would be filled in from the model's own file: a repetition penalty, for one, which
        # makes a query shy of naming a column twice.
        return GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=decoding.max_new_tokens,
            max_length=None,
            eos_token_id=self.end_token,
            pad_token_id=self.end_token,
            use_cache=True,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            length_penalty=1.0,
            early_stopping=False,
        )

    def _text(self, ids: list[int]) -> str:
        if self.end_token in ids:
            ids = ids[: ids.index(self.end_token)]
        text = self.model.tokenizer.decode(ids, skip_special_tokens=True)
        assert isinstance(text, str)
        return text


def _bytes(layers: list[tuple[Tensor, Tensor]]) -> int:
    return sum(part.numel() * part.element_size() for layer in layers for part in layer)


class SeededSampling(LogitsProcessor):
    """Leaves one token a row, drawn by the row's own generator: greedy decoding then takes it."""

    def __init__(self, keys: Sequence[tuple[int, str, int]], *, temperature: float, top_p: float) -> None:
        """Make the rows' generators.

        Args:
            keys: What names each row: (seed, request, sample).
            temperature: Divides the logits.
            top_p: Probability of the nucleus (Holtzman et al., arXiv 1904.09751).
        """
        self.draws = [generator(*key) for key in keys]
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Draw a token for each row of ``scores`` [R, V]."""
        sorted_RV, tokens_RV = torch.sort(
            torch.softmax(scores.float() / self.temperature, -1), descending=True, stable=True
        )
        mass_RV = sorted_RV.cumsum(-1)
        # A token is of the nucleus if those before it do not yet have its probability; the first always is.
        nucleus_R1 = ((mass_RV - sorted_RV) < self.top_p).sum(-1, keepdim=True)
        total_R1 = mass_RV.gather(-1, nucleus_R1 - 1)
        uniform_R1 = torch.from_numpy(np.array([[rng.random()] for rng in self.draws])).to(mass_RV)
        chosen_R1 = torch.searchsorted(mass_RV, uniform_R1 * total_R1, right=True)
        token_R1 = tokens_RV.gather(-1, torch.minimum(chosen_R1, nucleus_R1 - 1))
        only_RV: Tensor = torch.full_like(scores, -torch.inf).scatter_(-1, token_R1, 0.0)
        return only_RV  # type: ignore[return-value]  # a FloatTensor is not a type of its own any more


def most_batches(model: "LanguageModel", batches: int) -> int:
    """Say how many batches the process with the most has; those of a sharded model have to answer in step."""
    if not model.sharded:
        return batches
    most = torch.tensor(batches, device=model.causal.device)
    distributed.all_reduce(most, op=distributed.ReduceOp.MAX)
    return int(most)


@contextmanager
def _answering(model: "LanguageModel") -> Iterator[None]:
    """Without dropout, and with the cache, which checkpointing in training mode would turn off."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
