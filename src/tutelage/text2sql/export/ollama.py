"""A Modelfile for Ollama, with the chat template in Go's language as far as it can be expressed there.

A chat template is a program (Jinja), and Go's templates are another language. But what most templates do to a plain
conversation is to put something before and after each turn, by role. So conversations are rendered, what stands around
each turn is read off, and the result counts only if it gives every rendering back.
"""

import json

from transformers import PreTrainedTokenizerBase

from tutelage.text2sql.export.folder import Exported
from tutelage.text2sql.prompts.chat import Message

MODELFILE = "Modelfile"
CONVERSATIONS: tuple[tuple[str, ...], ...] = (
    ("system", "user"),
    ("system", "user", "assistant", "user"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)


def modelfile(exported: Exported, *, source: str) -> str:
    """Write a Modelfile.

    Args:
        exported: What was written as a Hugging Face folder.
        source: The GGUF file, or ``.`` for the folder.
    """
    lines = [
        "# ollama create my-sql -f Modelfile",
        f"FROM {source}",
        "PARAMETER temperature 0",
        # What the run's longest prompt and answer need: memory is set aside for as much.
        f"PARAMETER num_ctx {min(exported.context, exported.prompt_tokens + exported.max_new_tokens)}",
        f"PARAMETER num_predict {exported.max_new_tokens}",
        f"PARAMETER stop {json.dumps(exported.end_token, ensure_ascii=False)}",
    ]
    template = go_template(exported.tokenizer)
    if template is None:
        lines.append("# The chat template cannot be expressed in Go: Ollama reads the one in the model's file.")
    else:
        lines.append(f'TEMPLATE """{template}"""')
    return "\n".join(lines) + "\n"


def go_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Express a tokenizer's chat template in Go's language; None where it does more than wrap turns by role."""
    around = wrapping(tokenizer)
    if around is None:
        return None
    turns, answer = around
    texts = [answer, *(text for pair in turns.values() for text in pair)]
    if any('"""' in text for text in texts):
        return None  # it would end the Modelfile's quote
    branches = "".join(
        f'{{{{ {"else " if number else ""}if eq .Role "{role}" }}}}{_go(before)}{{{{ .Content }}}}{_go(after)}'
        for number, (role, (before, after)) in enumerate(turns.items())
    )
    return f"{{{{ range .Messages }}}}{branches}{{{{ end }}}}{{{{ end }}}}{_go(answer)}"


def wrapping(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, tuple[str, str]], str] | None:
    """Read off what stands around each role's turns, and before an answer.

    Returns:
        Both, or None where they do not give every conversation back.
    """
    rendered = {roles: _render(tokenizer, roles, answer=True) for roles in CONVERSATIONS}
    longest = CONVERSATIONS[-1]
    marks = [_mark(number) for number in range(len(longest))]
    pieces: list[str] = []
    rest = rendered[longest]
    for mark in marks:
        before, found, rest = rest.partition(mark)
        if not found:
            return None
        pieces.append(before)
    pieces.append(rest)
    # Between two turns stands the end of one and the beginning of the next. A conversation without an answer to come
    # ends with the end of a turn, which tells the two apart.
    closed = _render(tokenizer, longest, answer=False)
    after_user = closed.rpartition(marks[-1])[2]
    if not rest.startswith(after_user):
        return None
    answer = rest[len(after_user) :]
    between = {(longest[i], longest[i + 1]): pieces[i + 1] for i in range(len(longest) - 1)}
    if not between[("user", "assistant")].startswith(after_user):
        return None
    before_assistant = between[("user", "assistant")][len(after_user) :]
    # How much of what stands between two other turns belongs to the first does not change the rendering, as long as
    # every turn of a role gets the same: the end of the user's turn is the best guess for the others.
    after_assistant = after_user if between[("assistant", "user")].startswith(after_user) else ""
    before_user = between[("assistant", "user")][len(after_assistant) :]
    if not between[("system", "user")].endswith(before_user):
        return None
    after_system = between[("system", "user")].removesuffix(before_user)
    turns = {
        "system": (pieces[0], after_system),
        "user": (before_user, after_user),
        "assistant": (before_assistant, after_assistant),
    }
    for roles, expected in rendered.items():
        found = "".join(turns[role][0] + _mark(number) + turns[role][1] for number, role in enumerate(roles))
        if found + answer != expected:
            return None
    return turns, answer


def _render(tokenizer: PreTrainedTokenizerBase, roles: tuple[str, ...], *, answer: bool) -> str:
    turns: list[Message] = [
        {"role": role, "content": _mark(number)}  # type: ignore[typeddict-item]  # a role is one of three words
        for number, role in enumerate(roles)
    ]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer)  # type: ignore[arg-type]
    assert isinstance(rendered, str)
    return rendered


def _mark(number: int) -> str:
    return f"turn-{number}-of-the-probe"


def _go(text: str) -> str:
    """Write text that Go's template engine leaves as it is."""
    return text.replace("{{", '{{ "{{" }}')
