"""Three parsers that share nothing read every mail alike: Python's, Perl's MIME-tools, and postal-mime."""

import email
import email.policy
import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from email.header import decode_header, make_header
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from playwright._impl._driver import compute_driver_executable

#: How each of the others is asked, as a program that is given files; they live in tests/tools.
_TOOLS = Path(__file__).parents[2] / "tools"


def _of_python(data: bytes) -> Mapping[str, Any]:
    mail = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    assert not any(part.defects for part in mail.walk())
    # Not the policy's own decoding: that of Python 3.11 puts spaces between the encoded words of a name.
    headers = [
        [name, str(make_header(decode_header("".join(value.splitlines()))))]
        for name, value in mail.raw_items()
    ]
    return {"headers": sorted(headers), "body": _part(mail)}


def _part(part: EmailMessage) -> Mapping[str, Any]:
    told = {"type": part.get_content_type()}
    if part.is_multipart():
        return {**told, "parts": [_part(each) for each in part.iter_parts()]}
    told |= {"disposition": part.get_content_disposition() or "", "name": part.get_filename("")}
    octets = part.get_payload(decode=True)
    if told["type"].startswith("text/"):
        charset = part.get_content_charset("")
        return {**told, "charset": charset, "text": octets.decode(charset).replace("\r\n", "\n")}
    return {
        **told,
        "id": part.get("Content-ID", ""),
        "sha256": hashlib.sha256(octets).hexdigest(),
    }


def _asked(*command: str | Path) -> Sequence[Mapping[str, Any]]:
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return list(json.loads(done.stdout))


def test_three_parsers_agree_on_every_mail(
    mails: Mapping[str, bytes], hard_mails: Mapping[str, bytes], tools: Path, tmp_path: Path
) -> None:
    """Same parts in the same order, types, charsets, names, decoded texts, octets and decoded headers."""
    assert shutil.which("perl"), "there is no Perl: apt-get install perl libmime-tools-perl"
    mails = {**mails, **hard_mails}
    files = [tmp_path / f"{name}.eml" for name in mails]
    for file, data in zip(files, mails.values(), strict=True):
        file.write_bytes(data)
    node = compute_driver_executable()[0]  # Playwright's own: what a distribution has may be too old
    readings = {
        "python": [_of_python(data) for data in mails.values()],
        "perl": _asked("perl", _TOOLS / "parts.pl", *files),
        "javascript": _asked(node, _TOOLS / "parts.mjs", tools.parent, *files),
    }
    for name, *read in zip(mails, *readings.values(), strict=True):
        ours, *others = read
        assert ours["body"]["type"].startswith("multipart/"), name
        for parser, other in zip(["perl", "javascript"], others, strict=True):
            assert other == ours, f"{parser} reads {name} in another way"
