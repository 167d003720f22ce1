"""A small Qwen2-style decoder and a tokenizer of its own, made on the spot: nothing is downloaded."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tutelage.core.randomness import seed_of
from tutelage.core.store import Store, content_hash

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # Qwen's, so that prompts look alike
# Words without the space before them: a name is then the same token in a question and between SQL's quotes,
# and a small model can copy it. Digits stand alone, as in Qwen.
PIECES = Regex(r"[A-Za-z_]+|\d|\s+|[^A-Za-z_\d\s]")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Tiny:
    """Size of the model (``conf/model/tiny.yaml``). It starts from random weights, so it knows no language at all.

    Attributes:
        vocabulary: Tokens of the byte-level BPE; fewer where the texts hold no more pairs to merge.
        hidden_size: Width.
        layers: Depth.
        heads: Attention heads; each also has its own keys and values.
        context: The longest sequence.
    """

    vocabulary: int
    hidden_size: int
    layers: int
    heads: int
    context: int

    def folder(self, store: Store, *, texts: list[str], seed: int) -> Path:
        """Make the model, or find it in the store: a Hugging Face folder.

        Args:
            store: Where it is kept.
            texts: What the tokenizer is trained on.
            seed: Of the weights.
        """
        inputs = {**asdict(self), "seed": seed, "texts": content_hash({"texts": texts})}
        return store.make("tiny_models", inputs, lambda folder: self._write(folder, texts, seed))

    def _write(self, folder: Path, texts: Iterable[str], seed: int) -> None:
        tokenizer = train_tokenizer(texts, vocabulary=self.vocabulary)
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert isinstance(end, int)
        config = Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            intermediate_size=8 * self.hidden_size // 3 // 16 * 16,  # three matrices then cost as much as two of 4×
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.context,
            tie_word_embeddings=True,
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(seed, "tiny"))
            Qwen2ForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with ChatML's markers; it writes any text, if not in few tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
