"""Examples as token ids, for the loader."""

from collections.abc import Sequence
from typing import Any

from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.inference.answer import Answerer
from tutelage.text2sql.prompts import View
from tutelage.text2sql.training.packing import Sample


class Encoder:
    """Examples of one database to samples; also in loader processes."""

    def __init__(self, answerer: Answerer, tokenizer: Any, *, steady: bool, longest: int) -> None:
        """Keep what encoding needs.

        Args:
            answerer: Writes the prompts.
            tokenizer: The model's.
            steady: Whether prompts are the same in each view, so that each is written once.
            longest: The most tokens of a prompt and its answer.
        """
        self.answerer, self.tokenizer, self.steady, self.longest = answerer, tokenizer, steady, longest
        self._known: dict[str, Sample] = {}

    def __call__(self, examples: Sequence[Example], view: View | None) -> list[Sample]:
        """Write a group of examples with the same view of their database; None for the whole schema."""
        if not self.steady:
            return self._write(examples, view)
        if new := [example for example in examples if example.id not in self._known]:
            self._known |= dict(zip((example.id for example in new), self._write(new, None), strict=True))
        return [self._known[example.id] for example in examples]

    def _write(self, examples: Sequence[Example], view: View | None) -> list[Sample]:
        encoded = self.answerer.encode_group(self.tokenizer, examples, view=view, longest=self.longest)
        return [Sample(prompt.prompt_ids, prompt.answer_ids) for prompt in encoded]
