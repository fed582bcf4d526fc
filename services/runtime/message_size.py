"""How large a message between the platform's parts may be."""

from __future__ import annotations

__all__ = ["MAX_CONTENT_BYTES", "MAX_MESSAGE_BYTES"]

# What every replica sends and takes: the launcher sets it for Ray Serve.
MAX_MESSAGE_BYTES = 16 << 20
# What a picture, texts, vectors or hidden states may take of one; the rest is for what is beside.
MAX_CONTENT_BYTES = 15 << 20
