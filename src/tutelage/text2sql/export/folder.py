"""A trained model as a Hugging Face folder that plain transformers loads, and that answers in the same way."""

from dataclasses import dataclass, replace
from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from tutelage.core.errors import RunError
from tutelage.text2sql.model.language_model import Pretrained
from tutelage.text2sql.model.saved import ADAPTER, merged_network
from tutelage.text2sql.prompts import chat

# A conversation as they come: also with an answer that failed, and a second try.
PROBE: list[chat.Message] = [
    {"role": "system", "content": "You write SQL."},
    {"role": "user", "content": "CREATE TABLE t (\n  a TEXT -- 'x'\n);\n\nHow many?"},
    {"role": "assistant", "content": "```sql\nSELECT 1\n```"},
    {"role": "user", "content": "This query fails."},
]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        tokenizer: With the chat template that renders the run's prompts.
        end_token: What ends an answer.
        architecture: The model's class in transformers.
        parameters: Numbers in its weights; tied ones count once.
        dtype: Of the weights.
        context: The most tokens that it attends to.
        prompt_tokens: The most tokens of a prompt of the run.
        max_new_tokens: Where an answer is cut off.
        adapted: Whether an adapter was merged into the base model.
        base: The model that was trained.
        revision: The base model's, on the hub.
    """

    tokenizer: PreTrainedTokenizerBase
    end_token: str
    architecture: str
    parameters: int
    dtype: str
    context: int
    prompt_tokens: int
    max_new_tokens: int
    adapted: bool
    base: str
    revision: str | None


def write_folder(
    spec: Pretrained, saved: Path, out: Path, *, template: chat.Template, prompt_tokens: int, max_new_tokens: int
) -> Exported:
    """Write weights, tokenizer and generation settings, and check that the tokens of a prompt stay the same.

    Args:
        spec: The model that was trained.
        saved: What the run saved: an adapter, or a whole model.
        out: Made where it is missing.
        template: How the run rendered its turns.
        prompt_tokens: The most tokens of a prompt of the run.
        max_new_tokens: Where the run cut answers off.

    Raises:
        DataError: The base model's weights cannot be had.
        RunError: Another tokenizer would see other tokens.
    """
    adapted = (saved / ADAPTER).is_file()
    source = spec if adapted else replace(spec, path=str(saved), revision=None)
    source.fetch()
    network = merged_network(spec, adapter_folder=saved) if adapted else source.network()
    tokenizer = source.tokenizer()
    expected = chat.prompt_ids(tokenizer, PROBE, template=template)
    end = chat.end_token(tokenizer, template)
    end_text = tokenizer.convert_ids_to_tokens(end)
    assert isinstance(end_text, str)
    tokenizer.chat_template = chat.exported_template(tokenizer, template)
    tokenizer.eos_token = end_text  # servers stop at it
    network.config.get_text_config().eos_token_id = end
    network.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=[end],
        pad_token_id=end if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    out.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))
    reread = AutoTokenizer.from_pretrained(str(out))
    assert isinstance(reread, PreTrainedTokenizerBase)
    rendered = reread.apply_chat_template(PROBE, tokenize=False, add_generation_prompt=True)  # type: ignore[arg-type]
    assert isinstance(rendered, str)
    if reread.encode(rendered, add_special_tokens=False) != expected:
        raise RunError(
            "prompt.template",
            f"the tokenizer in {out} renders {rendered!r}, and the run {tokenizer.decode(expected)!r}",
            "this chat template cannot be written down; train with prompt.template=chatml or plain",
        )
    text = network.config.get_text_config()
    return Exported(
        tokenizer=reread,
        end_token=end_text,
        architecture=type(network).__name__,
        parameters=network.num_parameters(),
        dtype=str(network.dtype).removeprefix("torch."),
        context=text.max_position_embeddings,
        prompt_tokens=prompt_tokens,
        max_new_tokens=max_new_tokens,
        adapted=adapted,
        base=spec.path,
        revision=spec.revision,
    )
