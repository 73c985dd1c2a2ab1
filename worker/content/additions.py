"""What an appeal may add to its mails: header fields of its own, and files.

Owns the names that are allowed. Refuses: fields that machines act on (ours, a list's, a signature's), that
ask for a receipt or name the software, and files that a system could run or that mailboxes turn away.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

#: Types by the end of a name: what every mailbox lets through. Anything else is better behind a link.
TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pdf": "application/pdf",
        "txt": "text/plain; charset=utf-8",
        "ics": "text/calendar; charset=utf-8",
        "png": "image/png",
        "jpg": "image/jpeg",
        "jpeg": "image/jpeg",
        "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "odt": "application/vnd.oasis.opendocument.text",
    }
)
#: Where they lie in the appeal's folder.
ATTACHMENTS, PICTURES = "attachments/", "images/"
#: One file in one of these folders: a name that every system can hold, and that no terminal obeys.
_FILE: Final = re.compile(
    r"[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff/\\:*?\"<>|. ]"
    r"[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff/\\:*?\"<>|]{0,99}"
)
#: RFC 5322 2.2, as far as anybody names a field so.
_FIELD: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*")
_LONGEST_FIELD: Final = 60
#: Whole families, by how they begin: what a mail is, who it is from, what became of it, and who asks to know.
_TAKEN: Final = (
    *("from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "in-reply-to"),
    *("references", "return-", "received", "resent-", "content-", "mime-", "list-", "dkim-", "domainkey-"),
    *("arc-", "authentication-", "errors-to", "disposition-notification", "x-confirm-reading", "precedence"),
    *(
        "auto-submitted",
        "x-auto-response",
        "feedback-id",
        "x-mailer",
        "user-agent",
        "x-originating",
        "apparently-",
    ),
    *(
        "delivered-to",
        "x-original-to",
        "envelope-",
        "bimi-",
        "require-recipient",
        "tls-required",
        "autocrypt",
    ),
)


def is_file(path: str, folder: str) -> bool:
    """Tell whether a path names one file in that folder of the appeal's."""
    return path.startswith(folder) and _FILE.fullmatch(path.removeprefix(folder)) is not None


def attachment_faults(path: str) -> Iterator[str]:
    """Say why a file cannot be attached."""
    if not is_file(path, ATTACHMENTS):
        yield f'"{path}" must be the path of a file, as in {ATTACHMENTS}leaflet.pdf'
    elif path.lower().rpartition(".")[2] not in TYPES:
        kinds = ", ".join(sorted(TYPES))
        yield f'"{path}" is of a kind that many mailboxes refuse: attach {kinds}, or link to it'


def header_faults(name: str, value: str) -> Iterator[str]:
    """Say why an appeal may not have this header field."""
    if not _FIELD.fullmatch(name) or len(name) > _LONGEST_FIELD:
        yield f'"{name}" is no name of a header field: letters, digits and single hyphens'
    elif name.lower().startswith(_TAKEN):
        yield f'"{name}" is not for an appeal to set: the mail system sets it, or acts on it'
    if not value.strip():
        yield f'"{name}" is empty'
