"""The prompt styles by name."""

from __future__ import annotations

from services.rag.prompts.instruct import InstructStyle
from services.rag.prompts.orrery import OrreryStyle
from services.rag.prompts.style import PromptStyle

__all__ = ["style_named"]


def style_named(name: str) -> PromptStyle:
    """Raises `KeyError` for a name that no style has; settings are validated before."""
    styles: dict[str, PromptStyle] = {"orrery": OrreryStyle(), "instruct": InstructStyle()}
    return styles[name]
