"""Examples as token ids, for the loader."""

from typing import Any

from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.inference.answer import Answerer
from tutelage.text2sql.training.packing import Sample


class Encoder:
    """Examples to samples; also in loader processes."""

    def __init__(self, answerer: Answerer, tokenizer: Any, *, steady: bool) -> None:
        self.answerer, self.tokenizer, self.steady = answerer, tokenizer, steady
        self._known: dict[str, Sample] = {}

    def __call__(self, example: Example, view: tuple[int, int] | None) -> Sample:
        if self.steady and example.id in self._known:
            return self._known[example.id]
        encoded = self.answerer.encode(self.tokenizer, example, view=None if self.steady else view)
        sample = Sample(encoded.prompt_ids, encoded.answer_ids)
        if self.steady:
            self._known[example.id] = sample
        return sample
