"""Evaluate the demo models through Orrery's own engine: `python -m training.eval_demo`.

Free greedy decoding on questions about held-out entities. Prints one table for the models, writes
`evaluation.json` into each model folder and renders the model card from it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from tqdm import tqdm

from services.engine import LLM, SamplingParams
from training.architectures import MODEL_NAMES
from training.card import write_card
from training.expert_shares import ExpertCounts, write_shares
from training.prompt import REFUSAL
from training.questions import Case, QuestionType, held_out_cases
from training.shares import wilson_interval
from training.validate import render_case

MODELS = Path(__file__).parent.parent / "models"
MAX_REPLY_TOKENS = 48


@dataclass(frozen=True)
class Figure:
    """One row of the evaluation: a type of question and how many passages come with it."""

    name: str
    title: str
    type: QuestionType
    num_passages: int
    target: float | None = None  # what orrery-llama must reach


FIGURES = (
    Figure("answered_of_3", "right passage among 3: exact match", QuestionType.ANSWERED, 3, 0.92),
    Figure(
        "missing_of_3", "passage missing, 3 others: abstains", QuestionType.PASSAGE_MISSING, 3, 0.90
    ),
    Figure(
        "absent_of_3", "entity there, fact absent, 3: abstains", QuestionType.FACT_ABSENT, 3, 0.80
    ),
    Figure("answered_of_1", "right passage alone: exact match", QuestionType.ANSWERED, 1),
    Figure("missing_of_1", "another passage alone: abstains", QuestionType.PASSAGE_MISSING, 1),
    Figure("absent_of_1", "fact absent from the passage: abstains", QuestionType.FACT_ABSENT, 1),
    Figure("missing_of_0", "no passages: abstains", QuestionType.PASSAGE_MISSING, 0),
)


@dataclass(frozen=True)
class Result:
    """What became of the questions of one figure: exactly right, refused in vain, or wrong."""

    num_questions: int
    correct: int
    needless_refusals: int

    @property
    def share(self) -> float:
        return self.correct / self.num_questions

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of the share."""
        return wilson_interval(self.correct, self.num_questions)


@dataclass(frozen=True)
class Evaluation:
    """What a model made of all questions, and for a mixture of experts who worked at it."""

    results: dict[str, Result]  # by the figure's name
    expert_shares: list[list[float]]  # by layer and expert; empty without experts


def evaluate(folder: Path, num_questions: int) -> Evaluation:
    """Ask the model in `folder` every figure's questions."""
    llm = LLM(str(folder))
    counts = ExpertCounts(llm.engine.model.decoder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    results = {}
    for figure in tqdm(FIGURES, desc=folder.name):
        cases = held_out_cases(figure.type, num_questions, num_passages=figure.num_passages)
        results[figure.name] = _grade(cases, _replies(llm, tokenizer, cases))
    return Evaluation(results, counts.shares)


def _replies(llm: LLM, tokenizer: Tokenizer, cases: Sequence[Case]) -> list[str]:
    prompts = [
        tokenizer.encode(render_case(case)[0], add_special_tokens=False).ids for case in cases
    ]
    outputs = llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=MAX_REPLY_TOKENS))
    return [output.outputs[0].text.strip() for output in outputs]


def _grade(cases: Sequence[Case], replies: Sequence[str]) -> Result:
    expected = [case.question.answer or REFUSAL for case in cases]
    correct = sum(reply == right for reply, right in zip(replies, expected, strict=True))
    needless = sum(
        reply == REFUSAL != right for reply, right in zip(replies, expected, strict=True)
    )
    return Result(len(cases), correct, needless)


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Record the figures in the model folder and render its card."""
    results = evaluation.results
    figures = {
        figure.name: {
            "title": figure.title,
            "num_questions": results[figure.name].num_questions,
            "share": round(results[figure.name].share, 4),
            "interval": [round(bound, 4) for bound in results[figure.name].interval],
            "needless_refusals": results[figure.name].needless_refusals,
            "target": figure.target,
        }
        for figure in FIGURES
    }
    (folder / "evaluation.json").write_text(json.dumps(figures, indent=1) + "\n")
    if evaluation.expert_shares:
        write_shares(folder, evaluation.expert_shares)
    write_card(folder)


def _table(results: dict[str, dict[str, Result]]) -> Table:
    table = Table(title="Held-out entities, greedy decoding")
    table.add_column("figure")
    table.add_column("target", justify="right")
    for model in results:
        table.add_column(model, justify="right")
    for figure in FIGURES:
        target = f">= {figure.target:.0%}" if figure.target else ""
        table.add_row(
            figure.title, target, *(_cell(rows[figure.name]) for rows in results.values())
        )
    return table


def _cell(result: Result) -> str:
    low, high = result.interval
    return f"{result.share:.1%} ({low:.1%} to {high:.1%})"


def main() -> None:
    """Parse the command line, evaluate, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=int, default=500, help="questions per figure")
    parser.add_argument("--model", choices=MODEL_NAMES, action="append", help="only this model")
    parser.add_argument("--no-write", action="store_true", help="leave the model folders alone")
    arguments = parser.parse_args()
    evaluations = {}
    for name in arguments.model or MODEL_NAMES:
        folder = MODELS / f"orrery-{name}"
        evaluation = evaluations[folder.name] = evaluate(folder, arguments.questions)
        if not arguments.no_write:
            write_evaluation(folder, evaluation)
    console = Console()
    console.print(_table({model: each.results for model, each in evaluations.items()}))
    for model, each in evaluations.items():
        for layer, shares in enumerate(each.expert_shares):
            console.print(
                f"{model}, layer {layer}: an expert gets {min(shares):.1%} to {max(shares):.1%}"
            )


if __name__ == "__main__":
    main()
