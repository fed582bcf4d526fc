"""`orrery image`: makes or edits pictures, with a bar of the steps, and shows them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from orrery.cli.assignments import read_assignments
from orrery.cli.image_files import PictureFiles
from orrery.cli.image_progress import follow
from orrery.cli.options import ApplicationOption
from orrery.cli.picture_display import show_picture
from orrery.cli.session import (
    EXIT_USAGE,
    JsonOption,
    TargetOption,
    TimeoutOption,
    connect,
    fail,
    printable,
    read_text,
    write_json,
)
from orrery.client import Client
from orrery.errors import InvalidRequestError
from orrery.image_streams import ImageStream
from orrery.requests.images import (
    DiffusionScheduler,
    EditSource,
    ImageOptions,
    build_generate_images,
)
from orrery.results import GeneratedImage, GeneratedImages

__all__ = ["image"]

_NS_PER_S = 1e9
_SIZE = re.compile(r"(\d{1,9})(?:x(\d{1,9}))?", re.ASCII)


def image(
    prompt: Annotated[
        str | None, typer.Argument(help="What shall be seen; - or nothing = standard input.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write the PNG: a file, a folder, or - for standard output. "
            "Default: image-SEED.png.",
        ),
    ] = None,
    n: Annotated[int | None, typer.Option("-n", help="Number of pictures.")] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="WIDTHxHEIGHT", help="In pixels; 64 = 64x64.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="More take longer.")] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="How closely to follow the text; 1 = least.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Same seed, same picture.")] = None,
    scheduler: Annotated[
        DiffusionScheduler | None, typer.Option("--scheduler", help="How noise is taken away.")
    ] = None,
    negative: Annotated[
        str | None, typer.Option("--negative", metavar="TEXT", help="What should not be seen.")
    ] = None,
    rank: Annotated[
        bool, typer.Option("--rank", help="The best first, as CLIP sees it, with its score.")
    ] = False,
    edit: Annotated[
        Path | None, typer.Option("--edit", metavar="PICTURE", help="Change this picture.")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option("--mask", metavar="PICTURE", help="With --edit: white is painted anew."),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option("--strength", help="With --edit: how far from the picture, to 1."),
    ] = None,
    previews: Annotated[
        Path | None,
        typer.Option("--previews", metavar="DIR", help="Write pictures in the making there."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any option by name, its value as JSON: --set eta=0.5 --set karras_sigmas=true "
            "--set preview_every=2. May be repeated.",
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show/--no-show", help="Show them in a terminal that can.")
    ] = True,
    stats: Annotated[bool, typer.Option("--stats", help="Times on stderr at the end.")] = False,
    as_json: JsonOption = False,
    application: ApplicationOption = None,
    timeout_s: TimeoutOption = 600.0,
    target: TargetOption = None,
) -> None:
    """Make pictures of what a text says, or edit one.

    orrery image "a red circle left of a blue square" -o out.png
    """
    options = _options(
        set_,
        **_size(size),
        n=n,
        num_steps=steps,
        guidance_scale=guidance,
        seed=seed,
        scheduler=scheduler,
        negative_prompt=negative,
        rank_by_similarity=rank or None,
    )
    files = PictureFiles.checked(output, previews)
    _check_previews(options, files)
    if files.to_stdout and (as_json or 1 not in (options.get("n", 1), options.get("top_n"))):
        fail("--output -: expected one picture, and nothing else", EXIT_USAGE)
    source = _source(edit, mask, strength)
    text = read_text(prompt, "prompt")
    with (
        connect(target, timeout_s) as client,
        _open(client, text, source, options, application) as stream,
    ):
        result = follow(stream, files, bar=sys.stderr.isatty() and not as_json)
    paths = files.write(result)
    if as_json:
        write_json(_summary(result, paths))
    elif not files.to_stdout:
        for picture, path in zip(result.images, paths, strict=True):
            typer.echo(printable(_line(picture, path)))
            if show:
                show_picture(picture)
    if stats:
        typer.echo(_statistics(result), err=True)


def _options(assignments: list[str] | None, **flags: Any) -> ImageOptions:
    """Flags (None = not given) and `--set` assignments together, of the right types."""
    options = read_assignments(assignments, flags, ImageOptions.__annotations__, "option")
    try:
        build_generate_images("", options, previews=None)
    except TypeError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from None
    except InvalidRequestError as error:
        fail(error.message, EXIT_USAGE)
    return cast(ImageOptions, options)


def _size(size: str | None) -> dict[str, int]:
    if size is None:
        return {}
    found = _SIZE.fullmatch(size)
    if found is None:
        fail(f"--size: expected WIDTHxHEIGHT in pixels, got {size!r}", EXIT_USAGE)
    return {"width": int(found[1]), "height": int(found[2] or found[1])}


def _check_previews(options: ImageOptions, files: PictureFiles) -> None:
    asked = options.keys() & {"preview_every", "preview_kind"}
    if files.previews is None and asked:
        fail(f"{min(asked)}: previews are written to the folder of --previews", EXIT_USAGE)
    if files.previews is not None:
        if options.get("preview_kind", "decoded") != "decoded":
            fail("preview_kind: --previews writes pictures, not latents", EXIT_USAGE)
        options["preview_kind"] = "decoded"


def _source(edit: Path | None, mask: Path | None, strength: float | None) -> EditSource | None:
    if edit is not None:
        return EditSource(edit, mask, strength)
    if mask is not None or strength is not None:
        fail("--mask and --strength go with --edit", EXIT_USAGE)
    return None


def _open(
    client: Client,
    prompt: str,
    source: EditSource | None,
    options: ImageOptions,
    application: str | None,
) -> ImageStream:
    if source is None:
        return client.images.stream(prompt, application=application, **options)
    return client.images.edit_stream(
        prompt,
        source.image,
        mask=source.mask,
        strength=source.strength,
        application=application,
        **options,
    )


def _line(picture: GeneratedImage, path: Path) -> str:
    """Where it is, and how to make it again."""
    recipe = picture.recipe
    parts = [
        str(path),
        f"{picture.width}x{picture.height}",
        f"seed {recipe.seed}",
        f"{recipe.num_steps} steps of {recipe.scheduler}",
        f"guidance {recipe.guidance_scale:g}",
    ]
    if recipe.strength is not None:
        parts.append(f"strength {recipe.strength:g}")
    if picture.similarity is not None:
        parts.append(f"similarity {picture.similarity:.3f}")
    return "  ".join(parts)


def _statistics(result: GeneratedImages) -> str:
    """One line on what the pictures took."""
    timing = result.timing
    stages = (
        ("waited", timing.queue_ns),
        ("steps", timing.denoise_ns),
        ("decoding", timing.decode_ns),
        ("ranking", timing.rank_ns),
        ("all", timing.total_ns),
    )
    told = ", ".join(f"{what} {ns / _NS_PER_S:.3f} s" for what, ns in stages if ns)
    return f"{result.prompt_tokens} prompt tokens; {told}"


def _summary(result: GeneratedImages, paths: list[Path]) -> dict[str, Any]:
    """The result as JSON, with files instead of bytes."""
    return {
        "request_id": result.request_id,
        "model": result.model,
        "images": [
            {
                "path": str(path),
                "width": picture.width,
                "height": picture.height,
                "recipe": picture.recipe,
                "similarity": picture.similarity,
            }
            for picture, path in zip(result.images, paths, strict=True)
        ],
        "timing": result.timing,
        "prompt_tokens": result.prompt_tokens,
    }
