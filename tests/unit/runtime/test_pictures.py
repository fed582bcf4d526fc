"""Whatever the bytes are: a picture, or `InvalidRequest` that names the field."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import services
from services.runtime.errors import InvalidRequest
from services.runtime.pictures import (
    PictureLimits,
    decode_picture,
    decode_transparency,
    ignore_pillow_warnings,
    inspect_picture,
)

LIMITS = PictureLimits(max_bytes=1 << 20, max_pixels=1 << 20)
FIELD = "images[0].data"
FORMATS = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
SIZE = (23, 17)
SERVICES = Path(services.__file__).parent


def pixels(seed: int = 0, size: tuple[int, int] = SIZE, channels: int = 3) -> np.ndarray:
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def sample(kind: str) -> bytes:
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    return encoded(Image.fromarray(pixels()), kind, **options)


def decode(data: bytes, **options: Any) -> np.ndarray:
    return np.asarray(decode_picture(data, LIMITS, FIELD, **options))


def refused(data: bytes, limits: PictureLimits = LIMITS, **options: Any) -> str:
    """Both ways of reading it say the same; the message."""
    with pytest.raises(InvalidRequest) as inspected:
        inspect_picture(data, limits, FIELD, **options)
    with pytest.raises(InvalidRequest) as decoded:
        decode_picture(data, limits, FIELD, **options)
    assert inspected.value.message == decoded.value.message
    assert inspected.value.field == FIELD
    assert inspected.value.message.startswith(f"{FIELD}: ")
    return inspected.value.message


def survives(data: bytes) -> None:
    """A picture as large as it says, or a refusal; of the header alone, too."""
    with warnings.catch_warnings():
        ignore_pillow_warnings()
        info = unless_refused(inspect_picture, data)
        for read in (decode_picture, decode_transparency):
            picture = unless_refused(read, data)
            if picture is not None:
                assert info is not None
                assert picture.size == (info.width, info.height)


def unless_refused(read: Callable[..., Any], data: bytes) -> Any:
    """None where it was refused, or had nothing to say."""
    try:
        return read(data, LIMITS, FIELD)
    except InvalidRequest as error:
        field = error.field
    assert field == FIELD
    return None


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_header(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)


def with_chunks(*chunks: bytes) -> bytes:
    """A PNG with chunks between its header and its pixels."""
    data = sample("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


# --- pictures as they should be ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_a_lossless_picture_is_read_pixel_for_pixel(kind: str) -> None:
    np.testing.assert_array_equal(decode(sample(kind)), pixels())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_says_its_size_and_type_before_it_is_decoded(kind: str) -> None:
    info = inspect_picture(sample(kind), LIMITS, FIELD)
    assert (info.width, info.height, info.media_type) == (*SIZE, FORMATS[kind])
    assert decode_picture(sample(kind), LIMITS, FIELD).mode == "RGB"


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("claimed", ["", "right", "upper", "wrong"])
def test_a_media_type_has_to_be_that_of_the_bytes(kind: str, claimed: str) -> None:
    right = FORMATS[kind]
    wrong = "image/png" if kind != "PNG" else "image/jpeg"
    names = {"": "", "right": f"{right}; charset=x", "upper": right.upper(), "wrong": wrong}
    if claimed == "wrong":
        assert right in refused(sample(kind), media_type=wrong)
    else:
        assert inspect_picture(sample(kind), LIMITS, FIELD, media_type=names[claimed])


def test_jpeg_and_bmp_go_by_their_other_names() -> None:
    decode(sample("JPEG"), media_type="image/jpg")
    decode(sample("BMP"), media_type="image/x-ms-bmp")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_put_upright_as_its_exif_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(pixels()), kind, exif=exif, **options)
    want = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    picture = decode_picture(data, LIMITS, FIELD)
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(want))
    info = inspect_picture(data, LIMITS, FIELD)
    assert picture.size == (info.width, info.height)
    assert (info.width > info.height) == (orientation < 5)


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0", b"Exif\0\0II", b"Exif\0\0" + b"\xff" * 99, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"],
)
def test_exif_that_is_damaged_turns_nothing(exif: bytes) -> None:
    ignore_pillow_warnings()
    for kind in ("JPEG", "PNG", "WEBP"):
        picture = decode_picture(encoded(Image.fromarray(pixels()), kind, exif=exif), LIMITS, FIELD)
        assert picture.size == SIZE


def test_what_is_transparent_lies_on_white() -> None:
    rgba = pixels(channels=4)
    rgba[:, :5, 3], rgba[:, 5:10, 3] = 0, 255
    got = decode(encoded(Image.fromarray(rgba), "PNG")).astype(int)
    share = rgba[..., 3:].astype(float) / 255
    want = rgba[..., :3] * share + 255 * (1 - share)
    assert np.abs(got - want).max() <= 1
    assert (got[:, :5] == 255).all()
    np.testing.assert_array_equal(got[:, 5:10], rgba[:, 5:10, :3])
    alpha = decode_transparency(encoded(Image.fromarray(rgba), "PNG"), LIMITS, FIELD)
    np.testing.assert_array_equal(np.asarray(alpha), rgba[..., 3])


def test_a_palette_may_have_transparent_colours() -> None:
    image = Image.fromarray(np.array([[0, 1, 2, 3]] * 4, dtype=np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    by_index = decode(encoded(image, "PNG", transparency=1))
    assert by_index[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255], [9, 9, 9]]
    by_table = decode(encoded(image, "PNG", transparency=bytes([255, 0, 255, 255])))
    np.testing.assert_array_equal(by_table, by_index)
    gif = decode(encoded(image, "GIF", transparency=1))
    np.testing.assert_array_equal(gif, by_index)


def test_one_colour_may_stand_for_nothing() -> None:
    image = Image.new("RGB", SIZE, (10, 20, 30))
    image.putpixel((0, 0), (1, 2, 3))
    got = decode(encoded(image, "PNG", transparency=(10, 20, 30)))
    assert got[0, 0].tolist() == [1, 2, 3]
    assert (got[1:] == 255).all()


def test_a_picture_without_transparency_says_so() -> None:
    assert decode_transparency(sample("PNG"), LIMITS, FIELD) is None
    assert decode_transparency(sample("JPEG"), LIMITS, FIELD) is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P"])
def test_grey_and_few_colours_become_rgb(mode: str) -> None:
    image = Image.fromarray(pixels()).convert(mode)
    want = image.convert("RGBA").convert("RGB")
    np.testing.assert_array_equal(decode(encoded(image, "PNG")), np.asarray(want))


def test_of_16_bits_the_upper_8_are_kept() -> None:
    deep = np.array([[0, 255, 256, 32_768, 65_280, 65_535]] * 2, dtype=np.uint16)
    got = decode(encoded(Image.fromarray(deep), "PNG"))
    assert np.abs(got[..., 0].astype(int) - deep / 257).max() <= 1
    assert (got[..., 0] == got[..., 1]).all()
    assert decode_transparency(encoded(Image.fromarray(deep), "PNG"), LIMITS, FIELD) is None


def test_16_bits_of_colour_are_read() -> None:
    rows = b"".join(b"\0" + struct.pack(">3H", 65_535, 32_896, 0) * 4 for _ in range(4))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    got = decode(png_header(4, 4, bits=16) + body)
    assert (got == [255, 128, 0]).all()


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    got = decode(encoded(image, "JPEG", quality=95))
    assert np.abs(got.astype(int) - [255, 0, 0]).max() <= 8


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "green", "blue")]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    assert (decode(data) == [255, 0, 0]).all()


def test_of_several_pictures_in_a_jpeg_the_first_is_taken() -> None:
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert inspect_picture(data, LIMITS, FIELD, media_type="image/jpeg").media_type == "image/jpeg"
    assert np.abs(decode(data).astype(int) - [254, 0, 0]).max() <= 3


def test_a_progressive_jpeg_is_read() -> None:
    image = Image.fromarray(pixels())
    progressive = decode(encoded(image, "JPEG", progressive=True, quality=90))
    np.testing.assert_array_equal(progressive, decode(encoded(image, "JPEG", quality=90)))


# --- what is no picture of ours ------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"hello",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'></svg>",
        b"<?xml version='1.0'?><svg/>",
        b"%PDF-1.7\n",
        b"PK\x03\x04",
        b"P6 2 2 255 " + b"\0" * 12,
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"RIFF\x04\0\0\0WEBP",
        b"BM",
    ],
)
def test_what_is_no_picture_of_a_known_kind_is_refused(data: bytes) -> None:
    assert "expected a PNG, JPEG, WebP, GIF or BMP picture" in refused(data)


@pytest.mark.parametrize("kind", ["TIFF", "EPS", "ICO", "PPM", "TGA", "PCX", "SGI", "JPEG2000"])
def test_other_kinds_of_picture_are_refused_whatever_they_are_called(kind: str) -> None:
    data = encoded(Image.fromarray(pixels()), kind)
    for media_type in ("", "image/png", "image/tiff"):
        assert "expected a PNG" in refused(data, media_type=media_type)


# --- too large -----------------------------------------------------------------------------------


def test_more_bytes_than_allowed_are_refused_unread() -> None:
    limits = PictureLimits(max_bytes=len(sample("PNG")) - 1)
    assert "expected at most" in refused(sample("PNG"), limits)
    exactly = PictureLimits(max_bytes=len(sample("PNG")), max_pixels=SIZE[0] * SIZE[1])
    assert decode_picture(sample("PNG"), exactly, FIELD)


def header_of(kind: str, width: int, height: int) -> bytes:
    """A file of a few bytes that says it is so large."""
    data = bytearray(sample(kind))
    if kind == "PNG":
        return png_header(width, height) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    if kind == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    if kind == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    if kind == "WEBP":
        bits = (width - 1) | (height - 1) << 14
        body = b"VP8L" + struct.pack("<I", 10) + b"\x2f" + struct.pack("<I", bits) + b"\0" * 5
        return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    return bytes(data)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("side", [1025, 12_000, 50_000])
def test_a_header_of_too_many_pixels_is_refused_before_they_are_decoded(
    kind: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        pytest.fail("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    side = min(side, 16_000) if kind == "WEBP" else side  # more has no place in its header
    assert "expected at most 1048576" in refused(header_of(kind, side, side))


def test_a_bomb_within_the_bytes_is_refused_by_its_pixels() -> None:
    data = encoded(Image.new("RGB", (4000, 4000)), "PNG")
    assert len(data) < LIMITS.max_bytes
    assert "4000 x 4000 pixels" in refused(data)


def test_pixels_beyond_those_announced_are_left_where_they_are() -> None:
    bomb = chunk(b"IDAT", zlib.compress(bytes(1 << 24), 9)) + chunk(b"IEND", b"")
    assert decode(png_header(8, 8) + bomb).shape == (8, 8, 3)


def test_texts_that_unpack_to_more_than_fits_are_refused() -> None:
    megabyte = zlib.compress(bytes((1 << 20) - 1), 9)
    texts = [chunk(b"zTXt", b"k%d\0\0" % number + megabyte) for number in range(80)]
    assert "expected a PNG" in refused(with_chunks(*texts))
    too_long = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 24), 9))
    survives(with_chunks(too_long))
    survives(with_chunks(chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1 << 26), 9))))


def test_many_small_texts_are_no_matter() -> None:
    texts = [chunk(b"tEXt", b"k%d\0x" % number) for number in range(5000)]
    np.testing.assert_array_equal(decode(with_chunks(*texts)), pixels())


def test_a_jpeg_that_goes_over_its_pixels_without_end_is_refused() -> None:
    data = encoded(Image.fromarray(pixels()), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    assert decode(data[:-2] + last_scan * 20 + data[-2:]).shape == (SIZE[1], SIZE[0], 3)
    assert "more parts" in refused(data[:-2] + last_scan * 200 + data[-2:])


def test_a_thumbnails_end_is_not_the_end_of_the_jpeg() -> None:
    thumbnail = encoded(Image.fromarray(pixels()), "JPEG")
    data = encoded(
        Image.fromarray(pixels()), "JPEG", progressive=True, exif=b"Exif\0\0" + thumbnail
    )
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    assert "more parts" in refused(data[:-2] + last_scan * 200 + data[-2:])


@pytest.mark.parametrize("progressive", [False, True])
def test_a_film_behind_a_jpeg_is_not_looked_at(progressive: bool) -> None:
    options = {"progressive": progressive, "restart_marker_rows": 1}
    data = encoded(Image.fromarray(pixels()), "JPEG", **options)
    film = b"\xff\xda\0\x0c" * 200 + pixels(size=(300, 200)).tobytes()
    np.testing.assert_array_equal(decode(data + film), decode(data))


def test_a_jpeg_of_very_many_empty_parts_is_refused() -> None:
    data = sample("JPEG")
    assert "more parts" in refused(data[:2] + b"\xff\xe2\0\2" * 5000 + data[2:])


def test_a_jpeg_of_very_many_pieces_of_exif_is_refused() -> None:
    data = sample("JPEG")
    piece = b"\xff\xe1" + struct.pack(">H", 9) + b"Exif\0\0x"
    assert "more parts" in refused(data[:2] + piece * 1000 + data[2:])


def test_nothing_is_remembered_of_what_pillow_warns_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        ignore_pillow_warnings()
        for side in range(9600, 9610):
            refused(header_of("PNG", side, side))
    remembered = vars(Image).get("__warningregistry__", {})
    assert not [key for key in remembered if str(9600 * 9600) in str(key)]


@pytest.mark.parametrize("app", sorted(SERVICES.glob("*/app.py")), ids=lambda app: app.parent.name)
def test_every_process_that_reads_pictures_ignores_what_pillow_warns_of(app: Path) -> None:
    sources = [path.read_text() for path in app.parent.rglob("*.py") if path != app]
    reads = any("from services.runtime.pictures import" in source for source in sources)
    assert ("ignore_pillow_warnings()" in app.read_text()) == reads


# --- damaged -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_cut_in_the_middle_of_its_pixels_is_refused(kind: str) -> None:
    data = sample(kind)
    with pytest.raises(InvalidRequest, match=r"images\[0\].data: "):
        decode_picture(data[: len(data) * 2 // 3], LIMITS, FIELD)


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1))
def test_a_picture_cut_anywhere_is_read_or_refused(kind: str, share: float) -> None:
    data = sample(kind)
    survives(data[: int(share * len(data))])


def interesting() -> list[bytes]:
    """One picture of each structure that has code of its own."""
    image = Image.fromarray(pixels())
    frames = [Image.fromarray(pixels(seed)) for seed in (1, 2)]
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = image.convert("P")
    return [
        *map(sample, FORMATS),
        encoded(image, "JPEG", progressive=True, exif=exif, icc_profile=b"icc" * 20),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "MPO", save_all=True, append_images=frames),
        encoded(image, "PNG", exif=exif, transparency=(1, 2, 3)),
        encoded(image.convert("LA"), "PNG"),
        encoded(palette, "PNG", transparency=bytes(range(200))),
        encoded(Image.fromarray(pixels(channels=1).astype(np.uint16) * 99), "PNG"),
        encoded(image, "PNG", save_all=True, append_images=frames),
        encoded(palette, "GIF", save_all=True, append_images=frames, transparency=3, interlace=1),
        encoded(image, "WEBP", save_all=True, append_images=frames, exif=exif),
        encoded(image.convert("RGBA"), "WEBP", quality=50),
        encoded(palette, "BMP"),
        encoded(image.convert("1"), "BMP"),
    ]


PICTURES = st.sampled_from(interesting())


@settings(max_examples=400, deadline=None)
@given(
    data=PICTURES,
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6)), min_size=1, max_size=8),
)
def test_changed_bytes_are_read_or_refused(data: bytes, changes: list[tuple[float, bytes]]) -> None:
    changed = bytearray(data)
    for share, new in changes:
        at = int(share * len(changed))
        changed[at : at + len(new)] = new
    survives(bytes(changed))


@settings(max_examples=200, deadline=None)
@given(
    data=PICTURES,
    start=st.floats(0, 1),
    stop=st.floats(0, 1),
    paste=st.floats(0, 1),
)
def test_parts_left_out_or_put_elsewhere_are_read_or_refused(
    data: bytes, start: float, stop: float, paste: float
) -> None:
    low, high = sorted((int(start * len(data)), int(stop * len(data))))
    left = data[:low] + data[high:]
    at = int(paste * len(left))
    survives(left)
    survives(left[:at] + data[low:high] + left[at:])


@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"RIFF\xff\0\0\0WEBPVP8L"]
    ),
    rest=st.binary(max_size=300),
)
def test_any_bytes_are_read_or_refused(start: bytes, rest: bytes) -> None:
    survives(start + rest)


@settings(max_examples=200, deadline=None)
@given(
    kinds=st.lists(
        st.tuples(
            st.sampled_from([b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"tEXt",
                             b"acTL", b"fcTL", b"fdAT", b"gAMA", b"pHYs", b"cHRM", b"IDAT",
                             b"IHDR", b"IEND", b"sRGB", b"prVt"]),
            st.binary(max_size=40),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_any_chunks_in_a_png_are_read_or_refused(kinds: list[tuple[bytes, bytes]]) -> None:
    survives(with_chunks(*(chunk(kind, content) for kind, content in kinds)))


def test_an_error_of_any_reader_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(error: Exception) -> Callable[..., None]:
        def load(*_: object) -> None:
            raise error

        return load

    for error in (struct.error(), zlib.error(), MemoryError(), RecursionError(), TypeError()):
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", failing(error))
        with pytest.raises(InvalidRequest):
            decode_picture(sample("PNG"), LIMITS, FIELD)
