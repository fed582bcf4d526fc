"""How much the engine takes on at once, and for how long.

Knows nothing of where the numbers come from.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EngineLimits"]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds on the running batch and on the line before it.

    `max_pixels_per_call` bounds one call of the model, in latent pixels: rows times latent height
    times latent width. A guided picture is two rows. Pictures of one size that do not fit into one
    call take turns; one picture alone is always let through. A step, or the preparing or decoding
    of one picture, that takes longer than `stuck_after_s` will not end any more.
    """

    max_running: int = 8  # pictures, of all sizes together
    max_waiting: int = 64  # pictures
    max_pixels_per_call: int = 16 * 64 * 64
    stuck_after_s: float = 300.0

    def __post_init__(self) -> None:
        for name in ("max_running", "max_waiting", "max_pixels_per_call"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
