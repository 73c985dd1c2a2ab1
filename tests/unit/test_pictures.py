"""Pictures: nothing of a camera leaves, and no file does more harm than to be refused."""

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from worker.content.pictures import COLUMN, PictureError, read

_SECRET = b"SecretCamera"


def _ground(size: tuple[int, int] = (40, 20), mode: str = "RGB") -> Image.Image:
    """A picture whose left half is red and whose right half is blue."""
    made = Image.new(mode, size, "blue")
    made.paste("red", (0, 0, size[0] // 2, size[1]))
    return made


def _saved(picture: Image.Image, form: str, **said: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **said)
    return out.getvalue()


def _exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, _SECRET.decode()
    place = exif.get_ifd(0x8825)
    place[1], place[2] = "N", (43.0, 19.0, 5.0)
    return exif


def _telling(form: str) -> bytes:
    """A picture that tells who made it in every way that its format has."""
    said: dict[str, object] = {"exif": _exif()}
    if form == "JPEG":
        said |= {"comment": _SECRET, "xmp": b"<x:xmpmeta>" + _SECRET, "quality": 90}
    if form == "PNG":
        said["pnginfo"] = PngImagePlugin.PngInfo()
        said["pnginfo"].add_itxt("Author", _SECRET.decode())
    if form == "WEBP":
        said["xmp"] = _SECRET
    if form == "GIF":
        said = {"comment": _SECRET}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return _saved(_ground(), form, icc_profile=profile, **said) + _SECRET


FORMATS = ["JPEG", "PNG", "WEBP", "GIF"]


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_but_pixels_leaves(form: str) -> None:
    """Camera, place, comments, profiles and what hangs behind the end of a file stay at home."""
    raw = _telling(form)
    assert _SECRET in raw
    sent = read("a", raw).data
    assert _SECRET not in sent
    opened = Image.open(io.BytesIO(sent))
    assert not opened.getexif()
    assert not {"exif", "icc_profile", "comment", "xmp", "XML:com.adobe.xmp", "Author"} & opened.info.keys()


@pytest.mark.parametrize(
    ("orientation", "size", "red"),
    [(1, (40, 20), (2, 10)), (3, (40, 20), (37, 10)), (6, (20, 40), (10, 2)), (8, (20, 40), (10, 37))],
)
def test_pictures_stand_upright(orientation: int, size: tuple[int, int], red: tuple[int, int]) -> None:
    """A camera that was held sideways is turned, since the note that says so does not leave."""
    found = read("a", _saved(_ground(), "JPEG", exif=_exif(orientation), quality=95))
    opened = Image.open(io.BytesIO(found.data))
    assert (found.width, found.height) == opened.size == size
    pixel = opened.getpixel(red)
    assert isinstance(pixel, tuple)
    assert pixel[0] > 200
    assert pixel[2] < 60


@pytest.mark.parametrize(
    ("size", "sent", "shown"),
    [
        ((2112, 1000), (1056, 500), (528, 250)),
        ((1056, 500), (1056, 500), (528, 250)),
        ((800, 400), (800, 400), (528, 264)),
        ((100, 40), (100, 40), (100, 40)),
        ((4000, 1), (1056, 1), (528, 1)),
    ],
)
def test_pictures_are_as_large_as_is_seen(
    size: tuple[int, int], sent: tuple[int, int], shown: tuple[int, int]
) -> None:
    """Two pixels for each of the column's, never more, and never blown up; the same file, the same bytes."""
    raw = _saved(_ground(size), "PNG")
    found = read("a", raw)
    assert (found.has, (found.width, found.height), found.resized) == (sent, shown, size != sent)
    assert Image.open(io.BytesIO(found.data)).size == sent
    assert found.width <= COLUMN
    assert read("a", raw) == found


def _bomb() -> bytes:
    """A PNG of a few hundred bytes whose header says a hundred thousand pixels a side."""
    raw = bytearray(_saved(Image.new("1", (8, 8)), "PNG"))
    raw[16:24] = (100_000).to_bytes(4, "big") * 2
    return bytes(raw)


def _moving() -> bytes:
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 255)]
    return _saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


HOSTILE = {
    "bomb": _bomb(),
    "moving": _moving(),
    "drawing": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "page": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "empty": b"",
    "garbage": random.Random(7).randbytes(1_000_000),  # noqa: S311 - the same in every run
    "tower": _saved(Image.new("L", (10, 41)), "PNG"),
    **{f"half a {form}": (raw := _telling(form))[: len(raw) // 3] for form in FORMATS},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str) -> None:
    """What is no picture, or is one that must not go, is one clear error that says what to do."""
    with pytest.raises(PictureError, match=r"^photo ") as caught:
        read("photo", HOSTILE[name])
    assert caught.value.remedy


WHOLE = [_telling(form) for form in FORMATS] + [_saved(_ground(mode="L"), "TIFF"), _saved(_ground(), "BMP")]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0.1, 1),
)
def test_damaged_files_never_surprise(raw: bytes, hits: list[tuple[float, int]], length: float) -> None:
    """However a real file is damaged, it is a picture or it is refused: no decoder's own error gets out."""
    damaged = bytearray(raw)
    for place, octet in hits:
        damaged[int(place * len(damaged))] = octet
    try:
        found = read("photo", bytes(damaged[: int(len(damaged) * length)]))
    except PictureError:
        return
    assert Image.open(io.BytesIO(found.data)).size == found.has
