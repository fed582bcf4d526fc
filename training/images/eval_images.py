"""Evaluate the picture models: `python -m training.images.eval_images` (`make eval-images`).

`orrery-clip` by zero-shot labels and search, `orrery-diffusion` through Orrery's own engine by the
pixel checker, both on combinations that training never drew. Prints the figures, writes
`evaluation.json` and the card into each model folder, and the first pictures with their captions
as `samples.png`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from training.images import clip_card, export_diffusion
from training.images.engine_pictures import engine_generate
from training.images.eval_clip import FolderEncoder, evaluate
from training.images.eval_diffusion import Answer, answer, grid, questions, shares
from training.shares import Share

MODELS = Path(__file__).parents[2] / "models"
CLIP = MODELS / "orrery-clip"
DIFFUSION = MODELS / "orrery-diffusion"
GRID_PICTURES = 64
PICTURES_AT_ONCE = 64
NUM_CAPTIONS = 510


def evaluate_clip(folder: Path, count: int = NUM_CAPTIONS) -> dict[str, Share]:
    """Zero-shot and search figures of the CLIP folder."""
    return evaluate(FolderEncoder(folder), count)


def evaluate_diffusion(
    folder: Path, count: int = NUM_CAPTIONS
) -> tuple[dict[str, Share], list[Answer]]:
    """The checker's figures of the diffusers folder, and the pictures they are of."""
    generate = engine_generate(folder)
    asked = questions(count)
    answers: list[Answer] = []
    for first in tqdm(range(0, count, PICTURES_AT_ONCE), desc=folder.name):
        answers += answer(generate, asked[first : first + PICTURES_AT_ONCE])
    return shares(answers), answers


def record_diffusion(folder: Path, figures: Mapping[str, Share], answers: list[Answer]) -> None:
    """Write figures and card into the folder, and the first pictures as a grid."""
    write_evaluation(folder, figures)
    export_diffusion.write_card(folder)
    grid(answers[:GRID_PICTURES]).save(folder / "samples.png", optimize=True)


def write_evaluation(folder: Path, figures: Mapping[str, Share]) -> None:
    """Record the figures in the model folder."""
    record = {
        name: {
            "title": share.title,
            "share": round(share.value, 4),
            "interval": [round(bound, 4) for bound in share.interval],
            "num_questions": share.total,
            "target": share.target,
        }
        for name, share in figures.items()
    }
    (folder / "evaluation.json").write_text(json.dumps(record, indent=1) + "\n")


def figures_table(title: str, figures: Mapping[str, Share]) -> Table:
    """One row per figure, with its interval and its target."""
    table = Table(title=title)
    for column in ("figure", "target", "share", "95 % interval", "questions"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for share in figures.values():
        low, high = share.interval
        target = "" if share.target is None else f">= {share.target:.0%}"
        interval = f"{low:.1%} to {high:.1%}"
        table.add_row(share.title, target, f"{share.value:.1%}", interval, str(share.total))
    return table


def main() -> None:
    """Parse the command line, evaluate, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--count", type=int, default=NUM_CAPTIONS, help="held-out captions per figure"
    )
    parser.add_argument("--model", choices=("clip", "diffusion"), help="only this one")
    parser.add_argument("--no-write", action="store_true", help="leave the model folders alone")
    parser.add_argument("--grid", type=Path, metavar="PNG", help="the pictures to this file, too")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    console = Console()
    if arguments.model != "diffusion":
        figures = evaluate_clip(CLIP, arguments.count)
        console.print(figures_table("orrery-clip on held-out pictures", figures))
        if not arguments.no_write:
            write_evaluation(CLIP, figures)
            clip_card.write_card(CLIP)
    if arguments.model != "clip":
        started = time.monotonic()
        figures, answers = evaluate_diffusion(DIFFUSION, arguments.count)
        console.print(figures_table("orrery-diffusion, judged by pixels", figures))
        console.print(f"{time.monotonic() - started:.0f} s")
        if arguments.grid:
            grid(answers[:GRID_PICTURES]).save(arguments.grid, optimize=True)
        if not arguments.no_write:
            record_diffusion(DIFFUSION, figures, answers)
            console.print(f"pictures: {DIFFUSION / 'samples.png'}")


if __name__ == "__main__":
    main()
