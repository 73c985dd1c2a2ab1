"""A folder of captured mails and the page to look through them.

Owns their files: `000001.eml` byte for byte, its envelope in `000001.json`, `index.html`, all for our eyes
only, each whole or not at all. Refuses: to change a mail; how the page looks is `gallery`'s.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from worker import coffer, gallery

#: Mails that the page shows in full: a browser loads each one's frame, 500 take it a quarter of a minute.
SHOWN = 200


class Outbox:
    """The folder; its numbers go on where an earlier server stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = (int(file.stem) for file in folder.glob("*.eml") if file.stem.isdecimal())
        self._numbers = itertools.count(max(kept, default=0) + 1)

    def keep(self, sender: str, recipients: Sequence[str], data: bytes) -> str:
        """Keep one mail whole or not at all, and name it; OSError where the disk does not take it."""
        name = f"{next(self._numbers):06d}"
        envelope = {"sender": sender, "recipients": list(recipients), "at": datetime.now(UTC).isoformat()}
        # The envelope first: whoever sees a mail finds its envelope.
        self._write(f"{name}.json", json.dumps(envelope).encode())
        self._write(f"{name}.eml", data)
        return name

    def mails(self) -> Iterator[gallery.Captured]:
        """Read the mails in the order in which they came."""
        for file in sorted(self.folder.glob("*.eml")):
            envelope = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
            recipients = tuple(envelope["recipients"])
            yield gallery.Captured(file.name, envelope["sender"], recipients, file.read_bytes())

    def write_index(self, template: str) -> Path:
        """Write the page to look through the first mails, and give its file.

        Args:
            template: the page's source (`templates/capture/index.html`).
        """
        count = sum(1 for _ in self.folder.glob("*.eml"))
        shown = itertools.islice(self.mails(), SHOWN)
        page = gallery.page(shown, template, left_out=max(0, count - SHOWN))
        return self._write("index.html", page.encode())

    def _write(self, name: str, data: bytes) -> Path:
        draft = self.folder / f".{name}.new"
        try:
            with coffer.begun(draft) as opened:
                opened.write(data)
            return draft.replace(self.folder / name)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
