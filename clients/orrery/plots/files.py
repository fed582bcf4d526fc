"""The file that a picture goes to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from orrery.errors import InvalidRequestError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_matplotlib", "check_plot", "save_plot"]

_FORMATS = (".png", ".svg", ".pdf")


def check_plot(path: Path, option: str) -> None:
    """Whether a picture could be drawn and written, before the work is done.

    `option` is the one of the command that names the file.

    Raises:
        InvalidRequestError: matplotlib is not installed, the file's ending is not known, or it
            cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise _refusal(option, f"expected a file that ends with {', '.join(_FORMATS)}, got {path}")
    if not os.path.isdir(path.parent):  # `Path.is_dir` raises for a name that is too long
        raise _refusal(option, f"there is no folder {path.parent}")
    if not os.access(path if os.path.exists(path) else path.parent, os.W_OK):
        raise _refusal(option, f"{path} cannot be written to")
    check_matplotlib(option, f"leave {option} away")


def check_matplotlib(option: str, otherwise: str) -> None:
    """Raises `InvalidRequestError` where it is not installed; `otherwise` is what else to do."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        needs = "needs matplotlib, which the extra `plots` brings; pip install matplotlib"
        raise _refusal(option, f"{needs}, or {otherwise}") from None


def save_plot(figure: Figure, path: Path, option: str) -> None:
    """Writes a picture. Raises `InvalidRequestError` where the system refuses it."""
    try:
        figure.savefig(path)
    except OSError as error:
        raise _refusal(option, f"{path}: {error.strerror or error}") from error


def _refusal(option: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{option}: {problem}", field=option.lstrip("-"))
