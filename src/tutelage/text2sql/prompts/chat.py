"""Turns of a conversation to token ids.

``chatml`` is rendered here and not by the tokenizer's own template, so that ids do not change with a
tokenizer's version: Qwen2.5's template, for one, inserts a system turn of its own when none is given.
"""

import re
from datetime import date
from typing import TYPE_CHECKING, Literal, TypedDict

from tutelage.core.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["chatml", "own", "plain"]

# Templates such as Llama 3.2's and SmolLM3's write today's date, and a prompt must not change from day to day. This is
# the date that Llama 3.2's own template falls back to.
TODAY = date(2024, 7, 26)
CHATML = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
PLAIN = "{%- for message in messages -%}{{ message['content'] + '\\n\\n' }}{%- endfor -%}"


class Message(TypedDict):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str


def check_template(tokenizer: "PreTrainedTokenizerBase", template: Template) -> None:
    """Refuse a tokenizer that lacks what the template needs.

    Raises:
        ConfigError: ChatML's markers are no single tokens, there is no template, or no end-of-text token.
    """
    if template == "chatml":
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in ("<|im_start|>", "<|im_end|>") if token not in vocabulary]
        if missing:
            raise ConfigError(
                "prompt.template",
                f"chatml, but this tokenizer has no token {' and no '.join(missing)}",
                "use prompt.template=own for a model with a chat template of its own, or plain for a base model",
            )
    elif template == "own" and not tokenizer.chat_template:
        raise ConfigError(
            "prompt.template",
            "own, but this tokenizer comes without a chat template",
            "use prompt.template=plain, or chatml if the model knows <|im_start|>",
        )
    if template != "chatml" and tokenizer.eos_token_id is None:
        raise ConfigError(
            "prompt.template",
            f"{template}, but this tokenizer names no end-of-text token, so an answer could not end",
            "point model.path at a folder whose tokenizer_config.json names eos_token",
        )


def end_token(tokenizer: "PreTrainedTokenizerBase", template: Template) -> int:
    """The id that ends an answer: learned with it, and where generation stops."""
    if template == "chatml":
        return _id(tokenizer, "<|im_end|>")
    assert isinstance(tokenizer.eos_token_id, int), "check_template comes first"
    return tokenizer.eos_token_id


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", messages: list[Message], *, template: Template) -> list[int]:
    """Token ids of the conversation up to where the assistant begins to answer."""
    if template == "chatml":
        start, end, newline = _id(tokenizer, "<|im_start|>"), _id(tokenizer, "<|im_end|>"), text_ids(tokenizer, "\n")
        ids: list[int] = []
        for message in messages:
            turn = text_ids(tokenizer, f"{message['role']}\n{message['content']}")
            ids += [start, *turn, end, *newline]
        return [*ids, start, *text_ids(tokenizer, "assistant\n")]
    if template == "own":
        return _own_ids(tokenizer, messages)
    text = "\n\n".join(message["content"] for message in messages) + "\n\n"
    beginning = tokenizer.encode("", add_special_tokens=True)  # a begin-of-text token where the model wants one
    return [*beginning, *text_ids(tokenizer, text)]


def _own_ids(tokenizer: "PreTrainedTokenizerBase", messages: list[Message]) -> list[int]:
    """Token ids as the tokenizer's own template gives them; a marker in the text of a turn stays text.

    Once a template is rendered, its markers look like those of the text. So each of the text's is rendered as a
    character that occurs nowhere, and put back as the ids of plain text.
    """
    text = "".join(message["content"] for message in messages)
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    special = sorted({*added, *map(str, tokenizer.all_special_tokens)}, key=len, reverse=True)
    found = list(dict.fromkeys(re.findall("|".join(map(re.escape, special)), text))) if special else []
    unused = (char for char in map(chr, range(0xE000, 0xF8FF)) if char not in text)
    marker_of = dict(zip(unused, found, strict=False))

    def hide(content: str) -> str:
        for char, marker in marker_of.items():
            content = content.replace(marker, char)
        return content

    turns = [{"role": str(message["role"]), "content": hide(message["content"])} for message in messages]
    rendered = tokenizer.apply_chat_template(
        turns,
        tokenize=False,
        add_generation_prompt=True,
        chat_template=exported_template(tokenizer, "own"),
    )
    assert isinstance(rendered, str)
    if not marker_of:
        return list(tokenizer.encode(rendered, add_special_tokens=False))
    ids: list[int] = []
    for piece in re.split(f"([{''.join(marker_of)}])", rendered):
        if piece in marker_of:
            ids += text_ids(tokenizer, marker_of[piece])
        elif piece:
            ids += tokenizer.encode(piece, add_special_tokens=False)
    return ids


def exported_template(tokenizer: "PreTrainedTokenizerBase", template: Template) -> str:
    """Write the chat template (Jinja) that renders what :func:`prompt_ids` encodes, also for programs of others.

    Thinking and the date are fixed in it. A marker in the text of a turn is a marker for them.
    """
    if template == "chatml":
        return CHATML
    if template == "plain":
        begins = tokenizer.encode("", add_special_tokens=True) == [tokenizer.bos_token_id]
        return f"{{{{- bos_token -}}}}{PLAIN}" if begins else PLAIN
    own = tokenizer.get_chat_template()
    dated = re.sub(r"""strftime_now\((["'])(.*?)\1\)""", lambda match: f'"{_today(match.group(2))}"', own)
    # Qwen3, SmolLM3 and others can think first, and a query is asked for. A template that cannot ignores this.
    fixed = f'{{%- set enable_thinking = false -%}}{{%- set date_string = "{_today("%d %b %Y")}" -%}}'
    return dated if dated.startswith(fixed) else fixed + dated


def _today(form: str) -> str:
    return TODAY.strftime(form)


def text_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of plain text: a marker such as ``<|im_end|>`` in a database's value stays text."""
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def _id(tokenizer: "PreTrainedTokenizerBase", token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int), "check_template comes first"
    return found
