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
        copies: bf16 copies of the trained layers' weights, until the backward pass has used them.
        loss: The logits of a chunk, their gradient and their bf16 copy; where the output layer is trained, also its
            bf16 copy and a second gradient of it, before the two are added up.
        update: What AdamW's step takes for itself, when activations and loss are freed: the root of all second
            moments (``foreach``, torch's default on CUDA; Lightning clips no gradients with ``fused``).
    """

    weights: float
    training: float
    activations: float
    copies: float
    loss: float
    update: float

    @property
    def total(self) -> float:
        """The peak of a step, and what CUDA takes."""
        return self.weights + self.training + max(self.activations + self.copies + self.loss, self.update) + CONTEXT


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
        copies = 2.0 * (in_layers / layers if checkpointing else in_layers)
        output_layer = (2 + 4) * text.vocab_size * hidden
    else:
        trained = layers * sum(rank * (i + o) for i, o in linear)
        weights, residual = in_layers * (FOUR_BITS if four_bits else 2) + 2 * embeddings + 4 * trained, 2
        copies, output_layer = 0.0, 0
    # Counted by tests/text2sql/model/test_memory.py. The norms keep their input in fp32, attention its inputs and
    # output, the MLP four tensors, and each adapter its input's projection.
    of_token = (16 + 4 * residual) * hidden + 4 * keys + 8 * inner + 4 * text.num_attention_heads + 8
    of_token += 0 if rank is None else 2 * rank * len(linear)
    kept = layers * residual * hidden + of_token if checkpointing else layers * of_token
    return Memory(
        weights=weights,
        training=12.0 * trained,
        activations=float(tokens * kept),
        copies=copies,
        loss=2.5 * CHUNK_BYTES_ELSEWHERE + output_layer,
        update=4.0 * trained,
    )
