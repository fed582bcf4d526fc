"""The prompt format of the demo models: special tokens, chat template and numbered passages.

One home for the format: the corpus is written with it, the evaluation asks with it, and
`models/README.md` documents it for the services that build such prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BOS = "<|bos|>"
END = "<|end|>"  # end of turn and end of text: the eos token
PAD = "<|pad|>"
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
ANSWER = "<|answer|>"  # opens an answer taken from the documents; skipped when decoding
SPECIAL_TOKENS = (BOS, END, PAD, SYSTEM, USER, ASSISTANT, ANSWER)
ROLE_TOKENS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}

REFUSAL = "The documents do not say."

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('role must be system, user or assistant') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + (message['content'] | trim) + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Document:
    """A passage as the model sees it."""

    title: str
    text: str


def format_documents(documents: Sequence[Document]) -> str:
    """Number the passages from 1: `[1] Title`, a line break, the text, an empty line between."""
    return "\n\n".join(
        f"[{number}] {document.title}\n{document.text}"
        for number, document in enumerate(documents, start=1)
    )


def format_question(documents: Sequence[Document], question: str) -> str:
    """The user message that asks `question` of `documents` (which may be empty)."""
    if not documents:
        return f"Question: {question}"
    return f"{format_documents(documents)}\n\nQuestion: {question}"
