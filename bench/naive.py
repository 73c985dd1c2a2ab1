"""The way of most programs: Jinja, premailer, `EmailMessage` and `smtplib`, one recipient after the other.

    python bench/naive.py PORT FILE

FILE is JSON: the sources, and the people with their fields. One process, one connection for all, nothing
written down. Prints its processor time in seconds. `bench/dispatch.py` runs it.
"""

import json
import smtplib
import sys
import time
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import formataddr, formatdate, make_msgid
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from premailer import Premailer

_FROM: Final = "letters@example.org"


class Naive:
    """Makes a mail as one would at first."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        """Compile the templates once; that much everybody does."""
        html = Environment(autoescape=True, undefined=StrictUndefined)
        text = Environment(undefined=StrictUndefined)  # noqa: S701 - plain text
        self._html = html.from_string(sources["html"])
        self._text, self._subject = text.from_string(sources["text"]), text.from_string(sources["subject"])
        self._sender = sources["sender"]

    def mail(self, address: str, values: Mapping[str, str]) -> EmailMessage:
        """Make one mail, with the headers that a receiver demands."""
        message = EmailMessage()
        message["Date"] = formatdate()
        message["From"] = formataddr((self._sender, _FROM))
        message["To"] = formataddr((f"{values['first_name']} {values['last_name']}", address))
        message["Subject"] = self._subject.render(values)
        message["Message-ID"] = make_msgid(domain="example.org")
        message["List-Unsubscribe"] = f"<{values['opt_out_url']}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message.set_content(self._text.render(values), cte="quoted-printable")
        # Choices that spare it work: nothing is checked, nothing is logged, nothing is fetched.
        inlined = Premailer(
            self._html.render(values),
            allow_network=False,
            disable_validation=True,
            cssutils_logging_level=50,
        ).transform(pretty_print=False)
        message.add_alternative(inlined, subtype="html", cte="quoted-printable")
        return message


def main() -> None:
    """Send to everybody in the file."""
    port, told = int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    people: list[dict[str, Any]] = told["people"]
    naive = Naive(told["sources"])
    with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost") as relay:
        for person in people:
            message = naive.mail(person["address"], person["values"])
            relay.send_message(message, _FROM, [person["address"]])
    print(time.process_time())


if __name__ == "__main__":
    main()
