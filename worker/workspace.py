"""The files of a workspace: appeals, look and pages; its own where it has them, else those that ship.

Owns where template files are found and how a workspace is made. Refuses: parsing them, and overwriting
anything that is there.
"""

import importlib.resources
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path

from worker import settings
from worker.content.additions import ATTACHMENTS, PICTURES
from worker.errors import Refused, Unavailable, WrongUse
from worker.sealing import Keyring
from worker.settings import Settings

#: Larger than any template; a file beyond it is not one.
_FILE_MOST = 1_000_000
#: Octets of a picture or an attachment that are read at all.
_ENCLOSED_MOST = 20_000_000


def shipped() -> Traversable:
    """Return the folder of what ships: inside an installed package, or the checkout itself."""
    package = importlib.resources.files("worker")
    inside = package / "_shipped"
    return inside if inside.is_dir() else Path(str(package)).parent


def read_folder(own: Path, *parts: str) -> Mapping[str, str]:
    """Return the texts of a template folder by file name: the workspace's own, else the shipped one's."""
    folder: Traversable = own.joinpath(*parts)
    if not folder.is_dir():
        folder = shipped().joinpath("templates", *parts)
    if not folder.is_dir():
        return {}
    return {
        each.name: _text(each)
        for each in sorted(folder.iterdir(), key=lambda each: each.name)
        if _is_text(each)
    }


def appeal_slugs(found: Settings) -> Sequence[str]:
    """Return the appeals that can be sent, by folder name."""
    own = found.templates / "appeals"
    folder: Traversable = own if own.is_dir() else shipped().joinpath("templates", "appeals")
    if not folder.is_dir():
        return []
    return sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def appeal_files(found: Settings, slug: str) -> Mapping[str, str]:
    """Return an appeal's files by name; Refused when there is no such appeal."""
    if slug not in appeal_slugs(found):
        raise Refused(f"there is no appeal called {slug}", remedy="See `tocsin appeals list`.")
    return read_folder(found.templates, "appeals", slug)


def appeal_enclosures(found: Settings, slug: str, texts: Iterable[str]) -> Mapping[str, bytes]:
    """Return the pictures and attachments that an appeal's texts name, by their path in its folder.

    Raises:
        WrongUse: one is too large to be read.
    """
    own = found.templates / "appeals" / slug
    folder: Traversable = own if own.is_dir() else shipped().joinpath("templates", "appeals", slug)
    return {
        path: _bytes(each, path)
        for kind in (PICTURES, ATTACHMENTS)
        if (inside := folder.joinpath(kind.rstrip("/"))).is_dir()
        for each in sorted(inside.iterdir(), key=lambda each: each.name)
        if any((path := kind + each.name) in text for text in texts) and each.is_file()
    }


def _bytes(file: Traversable, path: str) -> bytes:
    with file.open("rb") as opened:
        data = opened.read(_ENCLOSED_MOST + 1)
    if len(data) > _ENCLOSED_MOST:
        raise WrongUse(f"{path} is over {_ENCLOSED_MOST // 1_000_000} MB", remedy="Save it smaller.")
    return data


def add_appeal(found: Settings, slug: str, name: str, text: str) -> Path:
    """Write one file of an appeal, its folder too; Refused if there is such a file already."""
    file = found.templates / "appeals" / slug / name
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8", newline="\n") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise Refused(f"{file} is there already", remedy="Choose another name, or --language.") from error
    except OSError as error:
        raise Unavailable(f"cannot write {file}: {error.strerror}") from error
    return file


def make(home: Path, *, with_key: bool = True) -> Sequence[Path]:
    """Make a workspace: tocsin.toml, templates, lists, and a fresh secret file (mode 0600).

    Raises:
        Refused: there is a tocsin.toml already; nothing is touched.
    """
    config = home / settings.FILE_NAME
    if config.exists():
        raise Refused(f"{config} is there already", remedy="Work there, or choose another folder.")
    try:
        home.mkdir(parents=True, exist_ok=True)
        made = [*_copy(shipped().joinpath("templates"), home / "templates")]
        made += _copy(shipped().joinpath("lists"), home / "lists", only="example")
        if with_key:
            made.append(make_key(home / "var" / "secret.toml"))
        config.write_text(settings.template(), encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"cannot write to {home}: {error.strerror}") from error
    return [config, *made]


def make_key(path: Path) -> Path:
    """Write a fresh keyring, readable by its owner only; an existing one is never replaced."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        opened = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError as error:
        raise Refused(
            f"there is a key ring at {path} already",
            remedy="Keep it: without it nobody on a list can be read.",
        ) from error
    with os.fdopen(opened, "w", encoding="utf-8") as stream:
        stream.write(Keyring.generate(secrets.token_bytes).dump())
    return path


def replace_key(path: Path, ring: Keyring) -> None:
    """Put another keyring in the place of the one at `path`, whole or not at all, for its owner only.

    Raises:
        Refused: another command is writing one.
        Unavailable: the folder cannot be written to.
    """
    file = path.resolve()  # the file that a link leads to, never the link
    draft = file.with_name(f".{file.name}.new")
    try:
        opened = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(opened, "w", encoding="utf-8") as stream:
                stream.write(ring.dump())
                stream.flush()
                os.fsync(stream.fileno())
            kept = file.stat()
            if (kept.st_uid, kept.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(draft, kept.st_uid, kept.st_gid)  # root's command, another user's workers
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
        _sync(file.parent)
    except FileExistsError as error:
        raise Refused(
            "another command is just writing the key ring",
            remedy=f"If none runs, it was killed: remove {draft}, and repeat.",
        ) from error
    except OSError as error:
        raise Unavailable(f"cannot write the key ring in {file.parent}: {error.strerror}") from error


def _sync(folder: Path) -> None:
    """Make what was renamed there stay so through a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _copy(source: Traversable, target: Path, *, only: str = "") -> Sequence[Path]:
    """Copy a shipped folder; what the workspace has already stays as it is."""
    made: list[Path] = []
    for each in source.iterdir():
        to = target / each.name
        if each.is_dir():
            made += _copy(each, to)
        elif not to.exists() and each.name.startswith(only):
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(each.read_bytes())
            made.append(to)
    return made


def _is_text(each: Traversable) -> bool:
    return each.is_file() and not each.name.startswith(".") and not each.name.endswith("~")


def _text(each: Traversable) -> str:
    raw = each.read_bytes()
    if len(raw) > _FILE_MOST:
        raise Refused(f"{each.name} is too large for a template")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"{each.name} is not UTF-8 text", remedy="Save it as UTF-8.") from error
