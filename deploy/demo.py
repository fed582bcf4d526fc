"""The guided tour of `make demo`: text from three decoders, what their experts do, answers from
documents, pictures.

It talks to the running platform as any user would, with the `orrery` client and the official
`openai` client, and leaves it running.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from openai import OpenAI
from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress

from deploy import demo_experts, demo_pictures
from deploy.demo_data import (
    COLLECTION,
    DemoFolder,
    Question,
    ingest,
    running_platform,
    tour_questions,
)
from deploy.state import PlatformState
from orrery import Client
from orrery.cli.citations import print_citations
from orrery.cli.picture_display import show_picture
from orrery.cli.routing_display import print_tokens

MODELS = ("orrery-llama", "orrery-gpt", "orrery-moe")
STORY = "The Dorlor"
# Entities the models have never seen: the training text holds none of these names.
DOCUMENTS = """\
[1] Bratarine
The Bratarine sails under captain Camamir Dorland. The Bratarine has a crew of 1277 people.

[2] Dorlor
The yard that built the Dorlor is in Fatobrook. The Dorlor returns each winter to Braster. \
It is 641 metres long. The owner of it is Ritider Foundry.

[3] Morrus
The Morrus first sailed in 1800. The home port of it is Naholm."""
QUESTIONS = (
    "Who is the captain of the Bratarine?",
    "Who owns the Dorlor?",
    "Who owns the Morrus?",  # the documents do not say
)


def main() -> int:
    console = Console()
    running = running_platform(console)
    if running is None:
        return 1
    state, api_key = running.state, running.api_key
    with Client(state.grpc, api_key=api_key) as client:
        base_url = f"http://{state.http}/v1"
        openai = OpenAI(base_url=base_url, api_key=api_key or "not-needed-on-loopback")
        _show_models(console, client)
        for model in MODELS:
            _stream_by_grpc(console, client, model)
        console.print()
        console.print(Panel(DOCUMENTS, title="documents", border_style="dim"), highlight=False)
        for model in MODELS:
            _answer_by_http(console, openai, model)
        _show_cache(console, client)
        openai.close()
        _show_experts(console, client, running.data_dir)
        folder = DemoFolder.below(running.data_dir)
        _ingest(console, client, folder)
        for question in tour_questions(folder):
            _ask(console, client, question)
        pictures = demo_pictures.PictureFolder.below(running.data_dir)
        _make_picture(console, client, pictures)
        _classify_picture(console, client, pictures)
        _find_picture(console, client, pictures)
    _show_urls(console, state)
    return 0


def _show_models(console: Console, client: Client) -> None:
    console.rule("Three decoders of our own, trained by this project")
    for model in client.models():
        console.print(
            f"  {model.name:14} {model.family:6} {model.num_parameters / 1e6:.2f} M parameters, "
            f"context {model.max_model_len}, {model.cache.num_blocks} cache blocks "
            f"of {model.cache.block_size} tokens",
            highlight=False,
        )


def _stream_by_grpc(console: Console, client: Client, model: str) -> None:
    console.rule(f"gRPC, the orrery client: {model} continues a text")
    console.print(STORY, style="bold", end="")
    started = time.perf_counter()
    with client.stream(STORY, model=model, max_tokens=60, temperature=0.7, seed=7) as stream:
        _print_stream(console, started, (event.text for event in stream))


def _answer_by_http(console: Console, openai: OpenAI, model: str) -> None:
    console.rule(f"HTTP, the official openai client: {model} answers from the documents")
    for question in QUESTIONS:
        console.print(f"{question} ", style="bold", end="")
        started = time.perf_counter()
        chunks = openai.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": f"{DOCUMENTS}\n\nQuestion: {question}"}],
            max_completion_tokens=32,
            temperature=0,
            stream=True,
        )
        texts = (chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        _print_stream(console, started, texts)


def _print_stream(console: Console, started: float, texts: Iterator[str]) -> None:
    first: float | None = None
    for text in texts:
        if text and first is None:
            first = time.perf_counter() - started
        console.print(text, end="", highlight=False, markup=False, soft_wrap=True)
    total = time.perf_counter() - started
    first_ms = 1000 * (first if first is not None else total)
    console.print(
        f"\n  [dim]first text after {first_ms:.0f} ms, all after {1000 * total:.0f} ms[/]"
    )


def _show_cache(console: Console, client: Client) -> None:
    console.rule("The prefix cache: the same documents again")
    question = f"{DOCUMENTS}\n\nQuestion: {QUESTIONS[0]}"
    result = client.generate(
        [{"role": "user", "content": question}], model=MODELS[0], max_tokens=8, temperature=0
    )
    console.print(
        f"  {result.usage.cached_tokens} of {result.usage.prompt_tokens} prompt tokens "
        "came from the cache and were not computed again",
        highlight=False,
    )


def _show_experts(console: Console, client: Client, data_dir: Path) -> None:
    console.rule("A mixture of experts: which of them a text's tokens go to")
    analysis, picture = demo_experts.analyze(client, data_dir)
    print_tokens(console, analysis)
    placement = client.moe.placement()
    homes = ", ".join(f"{shard.num_experts} on {shard.shard}" for shard in placement.shards)
    console.print(
        f"  {picture}\n  the experts are processes of their own: {homes}",
        highlight=False,
        soft_wrap=True,
    )


def _ingest(console: Console, client: Client, folder: DemoFolder) -> None:
    console.rule("Documents: a folder of Markdown, HTML, PDF and CSV becomes a collection")
    report = ingest(client, folder)
    console.print(f"  {folder.documents}", highlight=False, soft_wrap=True)
    console.print(
        f"  {report.num_ingested} files, {report.num_chunks} chunks in the collection "
        f"{report.collection!r} after {report.duration_s:.1f} s; "
        f"{len(report.unchanged)} were there already, {len(report.failed)} could not be read",
        highlight=False,
    )


def _ask(console: Console, client: Client, question: Question) -> None:
    console.rule(f"[bold]{question.text}")
    started = time.perf_counter()
    answer = client.ask(question.text, collection=COLLECTION)
    console.print(answer.text, style="yellow" if answer.abstained else "green", highlight=False)
    print_citations(console, answer)
    passages = len(answer.passages.used)
    console.print(
        f"  [dim]{passages} passages read, {1000 * (time.perf_counter() - started):.0f} ms[/]"
    )


def _make_picture(console: Console, client: Client, folder: demo_pictures.PictureFolder) -> None:
    console.rule(f"Latent diffusion: [bold]{demo_pictures.PROMPT}")
    started = time.perf_counter()
    with Progress(console=console, transient=True) as bar:
        tasks = {
            index: bar.add_task(f"picture {index + 1}")
            for index in range(demo_pictures.NUM_CANDIDATES)
        }
        images = demo_pictures.make(
            client,
            folder,
            lambda done: bar.update(
                tasks[done.image_index], completed=done.step, total=done.num_steps
            ),
        )
    seconds = time.perf_counter() - started
    show_picture(images[0])
    recipe = images[0].recipe
    console.print(
        f"  {folder.made}\n"
        f"  the best of {len(images)} by CLIP's similarity ({images[0].similarity:.3f}; the last "
        f"{images[-1].similarity:.3f}), seed {recipe.seed}, {recipe.num_steps} steps of "
        f"{recipe.scheduler}, all after {seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )


def _classify_picture(
    console: Console, client: Client, folder: demo_pictures.PictureFolder
) -> None:
    console.rule("CLIP, without training for these labels, sees in it")
    for label in demo_pictures.classify(client, folder).scores:
        console.print(f"  {label.probability:7.1%}  {label.label}", highlight=False)


def _find_picture(console: Console, client: Client, folder: demo_pictures.PictureFolder) -> None:
    console.rule("A folder of pictures becomes a collection, searched by a sentence")
    report = demo_pictures.index(client, folder)
    console.print(
        f"  {folder.gallery}\n  {report.num_ingested} pictures after {report.duration_s:.1f} s; "
        f"{len(report.unchanged)} were there already",
        highlight=False,
        soft_wrap=True,
    )
    asked = folder.pictures[len(folder.pictures) // 2]
    console.print(asked.caption, style="bold")
    for hit in demo_pictures.find(client, asked.caption).hits:
        is_it = "[green]this is the one[/]" if hit.chunk.file_name == asked.name else ""
        console.print(
            f"  {hit.dense_score:.3f}  {folder.gallery / hit.chunk.file_name}  {is_it}",
            highlight=False,
            soft_wrap=True,
        )


def _show_urls(console: Console, state: PlatformState) -> None:
    lines = [
        f"HTTP, OpenAI-compatible   http://{state.http}/v1",
        f"its reference             http://{state.http}/docs",
        f"gRPC                      {state.grpc}",
        f"metrics                   http://{state.metrics}/metrics",
        "",
        "The command is in .venv/bin:",
        "orrery chat -m orrery-llama     talk to it",
        f'orrery ask -c {COLLECTION} "..."        ask the demo documents',
        "orrery ingest DIR               take in your own; then orrery ask",
        'orrery image "a green star"     make a picture',
        'orrery moe analyze "..."        see where a text is routed',
        "orrery status                   what runs, how much memory",
        "make down                       stop it; what was ingested stays",
    ]
    console.print(Panel("\n".join(lines), title="Orrery is running"), highlight=False)


if __name__ == "__main__":
    sys.exit(main())
