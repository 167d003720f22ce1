"""An exploration asks a model that is at hand: on a GPU where there is one, with the schema's keys and values kept."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tutelage.core.errors import ConfigError, RunError
from tutelage.text2sql.api.journal import Replies, Reply
from tutelage.text2sql.explore.door import Ask, Sampling
from tutelage.text2sql.explore.pair import Json
from tutelage.text2sql.inference.generate import Decoding, Request, TransformersEngine
from tutelage.text2sql.model.adapters import Full
from tutelage.text2sql.model.language_model import Pretrained
from tutelage.text2sql.model.saved import load_untrained
from tutelage.text2sql.model.tiny import Tiny
from tutelage.text2sql.prompts.chat import Template, check_template, end_token, prompt_ids
from tutelage.text2sql.prompts.prefixes import common_prefix


@dataclass(slots=True)
class _Job:
    """A reply that is not known yet."""

    place: tuple[int, int]  # of the prompt, and of the reply among its replies
    key: str
    request: Request


class LocalDoor:
    """A pretrained model; loaded when it is first asked something that it was not asked before."""

    def __init__(
        self,
        *,
        model: Pretrained | Tiny | None,
        template: Template,
        batch_size: int,
        top_p: float,
        max_replies: int | None,
        replies: str,
        seed: int = 1,
    ) -> None:
        """Load nothing yet.

        Args:
            model: The model; a tiny one has random weights, and nothing to say.
            template: How turns are marked.
            batch_size: Rows that are written at once.
            top_p: Probability that the tokens sampled from have together.
            max_replies: The most replies to write in one run; what was written is kept. None for no limit.
            replies: The folder that keeps them.
            seed: Of sampling.

        Raises:
            ConfigError: No pretrained model.
        """
        if not isinstance(model, Pretrained):
            what = "no model is named" if model is None else "model=tiny starts from random weights, and knows nothing"
            raise ConfigError(
                "model", what, "give one: model=qwen2_5_coder_0_5b, and model.path=<folder or .gguf> to take it from"
            )
        self._spec, self._template, self._batch_size, self._top_p, self._seed = (
            model,
            template,
            batch_size,
            top_p,
            seed,
        )
        self._replies = Replies(Path(replies) / "replies.jsonl")
        self._left = max_replies
        self._engine: TransformersEngine | None = None
        self._counts: Counter[str] = Counter()

    def ask(self, asks: Sequence[Ask], *, stage: str, sampling: Sampling) -> list[list[Reply]]:
        """See ``explore.door.Door``."""
        found: list[list[Reply | None]] = [[None] * sampling.count for _ in asks]
        jobs: list[_Job] = []
        for index, ask in enumerate(asks):
            for number in range(sampling.count):
                key = self._key(ask, stage, sampling, number)
                known = self._replies.find(key)
                found[index][number] = known
                if known is None:
                    jobs.append(_Job((index, number), key, Request(f"{stage}/{ask.name}", [], ask.messages)))
        self._counts["cached"] += len(asks) * sampling.count - len(jobs)
        if jobs:
            self._write(jobs, sampling, found)
        return [[reply for reply in of_one if reply is not None] for of_one in found]

    def _write(self, jobs: list[_Job], sampling: Sampling, found: list[list[Reply | None]]) -> None:
        """Write the replies that are not known, some prompts at a time, so that a kill loses little."""
        missing = dict.fromkeys(job.place[0] for job in jobs)
        keys = {job.place: job.key for job in jobs}
        requests = {job.place[0]: job.request for job in jobs}
        engine = self._loaded()
        tokenizer = engine.model.tokenizer
        order = sorted(missing)
        prompts = {
            index: prompt_ids(tokenizer, list(requests[index].messages), template=self._template) for index in order
        }
        if len(order) > 1:
            engine.keep(prompts[order[0]][: common_prefix([prompts[index] for index in order])])
        kind = "sample" if sampling.temperature else "greedy"
        decoding = Decoding(
            "sample" if kind == "sample" else "greedy",
            sampling.count,
            sampling.temperature or 1.0,
            self._top_p,
            sampling.max_tokens,
            self._batch_size,
        )
        at_once = max(1, 2 * self._batch_size // sampling.count)
        for start in range(0, len(order), at_once):
            part = order[start : start + at_once]
            if self._left is not None and self._left < len(part) * sampling.count:
                raise RunError(
                    "synthesizer.door.max_replies",
                    f"{self._counts['written']} replies are written, and no more may be",
                    "what was done is kept: run it again for more, or take the pairs that are there",
                )
            texts = engine.generate(
                [Request(requests[index].id, prompts[index], requests[index].messages) for index in part], decoding
            )
            for index, of_one in zip(part, texts, strict=True):
                for number, text in enumerate(of_one):
                    # A reply that ended by itself is shorter than the limit, as text of other lengths is not.
                    length = len(tokenizer.encode(text, add_special_tokens=False))
                    reply = Reply(
                        text, "length" if length >= sampling.max_tokens else "stop", len(prompts[index]), length
                    )
                    found[index][number] = reply
                    if (key := keys.get((index, number))) is not None:
                        self._replies.keep(key, reply)
                        self._counts["written"] += 1
                        self._counts["tokens"] += length
            if self._left is not None:
                self._left -= len(part) * sampling.count

    def _key(self, ask: Ask, stage: str, sampling: Sampling, number: int) -> str:
        turns = [{"role": str(turn["role"]), "content": turn["content"]} for turn in ask.messages]
        parameters: dict[str, Json] = {
            "stage": stage,
            "name": ask.name,
            "number": number,
            "seed": self._seed,
            "top_p": self._top_p,
            "template": self._template,
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
        }
        spec = {name: value for name, value in asdict(self._spec).items() if name != "gradient_checkpointing"}
        return Replies.key(repr(spec), turns, parameters)

    def _loaded(self) -> TransformersEngine:
        if self._engine is None:
            self._spec.fetch()
            model = load_untrained(self._spec, adapter=Full()).eval()
            check_template(model.tokenizer, self._template)
            if torch.cuda.is_available():
                model.cuda()
            end = end_token(model.tokenizer, self._template)
            self._engine = TransformersEngine(model, end_token=end, seed=self._seed)
        return self._engine

    def summary(self) -> dict[str, Json]:
        """See ``explore.door.Door``."""
        counts = self._counts
        return {
            "replies_written": counts["written"],
            "replies_from_cache": counts["cached"],
            "tokens_written": counts["tokens"],
        }

    def close(self) -> None:
        """Forget the weights: training wants the memory."""
        self._engine = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
