"""Token counts as OpenAI's API spells them."""

from __future__ import annotations

from pydantic import BaseModel, Field

__all__ = ["PromptTokensDetails", "Usage"]


class PromptTokensDetails(BaseModel):
    cached_tokens: int = Field(description="Prompt tokens that the prefix cache spared.")


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
