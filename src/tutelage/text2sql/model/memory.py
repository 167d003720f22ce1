"""How much of a GPU's memory a training step takes, by calculation: what a config's comment says can be checked."""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from tutelage.text2sql.model.loss import CHUNK_BYTES_ELSEWHERE

CONTEXT = 1e9  # what CUDA and its libraries take for themselves
FOUR_BITS = (4 + 0.127) / 8  # bytes of a weight in NF4, doubly quantised (QLoRA, arXiv 2305.14314, section 3)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one training step on one device.

    Attributes:
        weights: The model, adapter included.
        training: Gradients and AdamW's moments, fp32.
        activations: What the forward pass keeps for the backward pass.
        loss: The logits of a chunk, their gradient and their bf16 copy.
    """

    weights: float
    training: float
    activations: float
    loss: float

    @property
    def total(self) -> float:
        """All of it, and what CUDA takes."""
        return self.weights + self.training + self.activations + self.loss + CONTEXT


def estimate(
    config: PreTrainedConfig, *, tokens: int, checkpointing: bool, rank: int | None = None, four_bits: bool = False
) -> Memory:
    """Count what a Llama-shaped model takes under bf16-mixed precision with weights of bfloat16.

    Args:
        config: The model's.
        tokens: That go through it at once: ``data.micro_batch_tokens``.
        checkpointing: Whether each layer keeps its input alone, and is computed again in the backward pass.
        rank: Of LoRA on all linear layers; None trains all weights.
        four_bits: Whether the linear layers' weights are kept in 4 bits (QLoRA).
    """
    text = config.get_text_config()
    hidden, inner, layers = text.hidden_size, text.intermediate_size, text.num_hidden_layers
    head_size = getattr(text, "head_dim", None) or hidden // text.num_attention_heads
    queries, keys = text.num_attention_heads * head_size, text.num_key_value_heads * head_size
    # inputs and outputs of each linear layer of a decoder layer
    linear = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    linear += [(hidden, inner), (hidden, inner), (inner, hidden)]
    in_layers = layers * sum(i * o for i, o in linear)
    embeddings = text.vocab_size * hidden * (1 if text.tie_word_embeddings else 2)
    if rank is None:
        trained = in_layers + embeddings
        weights, residual = 4.0 * trained, 4
    else:
        trained = layers * sum(rank * (i + o) for i, o in linear)
        weights, residual = in_layers * (FOUR_BITS if four_bits else 2) + 2 * embeddings + 4 * trained, 2
    # Counted by tests/text2sql/model/test_memory.py. The norms keep their input in fp32, attention its inputs and
    # output, the MLP four tensors, and each adapter its input's projection.
    of_token = (16 + 4 * residual) * hidden + 4 * keys + 8 * inner + 4 * text.num_attention_heads + 8
    of_token += 0 if rank is None else 2 * rank * len(linear)
    kept = layers * residual * hidden + of_token if checkpointing else layers * of_token
    return Memory(weights, 12.0 * trained, float(tokens * kept), 2.5 * CHUNK_BYTES_ELSEWHERE)
