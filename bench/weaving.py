"""What one personalised mail costs: woven and composed, against Jinja + premailer + EmailMessage.

Run `python bench/weaving.py [--profile]`. The mail: 12 KB of HTML and its text, ten merge fields, one of them
the opt-out link. Times are processor time, the best of several rounds (other work on the machine only adds).
"""

import cProfile
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, formataddr

from jinja2 import Environment, StrictUndefined

from worker.addresses import Address, parse
from worker.content import inlining
from worker.content.messages import Composer, Envelope, Identity
from worker.content.rendering import Content
from worker.content.weaving import HtmlWeaver, LineWeaver, TextWeaver

CSS = """
body { margin: 0; background-color: #f4f1ec; color: #222 }
.card { background-color: #fff; padding: 24px; border-radius: 6px }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 16px }
p { font: 16px/1.5 Georgia, serif; margin: 0 0 16px }
.button { background-color: #b3123a; color: #fff; padding: 12px 24px; text-decoration: none }
.footer p { font-size: 13px; color: #555 }
@media (max-width: 600px) { .card { padding: 12px } }
@media (prefers-color-scheme: dark) { .card { background-color: #111; color: #eee } }
"""
BODY = """
<p>Last Thursday the court in <b>{{ city }}</b> heard the case for the ninth time. Those who came to the
square stood in silence; those who could not come sent letters. You can read
<a href="https://example.org/news/{{ topic }}?source=appeal">what the lawyers say</a> and what you can do.</p>
"""
FILLER = """
<p>The hearing was moved twice, without a reason given. Nobody was told where the files are kept, and the
interpreter was sent home before noon. We were there, and we wrote down every word that was spoken.</p>
"""
HTML = f"""<!DOCTYPE html>
<html lang="en" dir="ltr"><head><meta charset="utf-8"><title>{{{{ first_name }}}}, act now</title>
<style>{CSS}</style></head>
<body><table role="presentation" width="100%"><tr><td class="card">
<h1>Dear {{{{ first_name }}}} {{{{ last_name }}}}</h1>
{BODY}{FILLER * 36}
<p><a class="button"
 href="https://example.org/sign?ref={{{{ reference }}}}">{{{{ signatures }}}} signed</a></p>
<p>Your last gift of {{{{ amount }}}} on {{{{ gift_date }}}} paid for {{{{ bought }}}}.</p>
</td></tr><tr><td class="footer"><p><a href="{{{{ opt_out_url }}}}">Stop these mails</a></p></td></tr></table>
</body></html>
"""
TEXT = (
    "Dear {{ first_name }} {{ last_name }},\n\nlast Thursday the court in {{ city }} heard the case.\n"
    + "The hearing was moved twice, without a reason given. Nobody was told where.\n" * 30
    + "\nSign, as {{ signatures }} did: https://example.org/sign?ref={{ reference }}\n"
    "Your gift of {{ amount }} on {{ gift_date }} paid for {{ bought }}.\n\nStop: {{ opt_out_url }}\n"
)
SUBJECT = "{{ first_name }}, the court decides on Monday"

IDENTITY = Identity(
    from_address="appeals@example.org",
    reply_to="office@example.org",
    domain="example.org",
    bounce_domain="bounce.example.org",
    opt_out_domain="bounce.example.org",
    list_id="appeals.example.org",
    feedback_id="example-org",
)
DATE = "Mon, 23 Nov 2026 09:00:00 -0000"
NAMES = [
    *(("Anna", "Berg"), ("Zoë", "O'Neil"), ("Анна", "Каренина"), ("محمد", "علي"), ("Jo", "Smith & Sons")),
    *(("Maria", "de la Cruz"), ("Łukasz", "Nowak"), ("Tom", "Brown, MP"), ("Ines", "Ruiz"), ("Kim", "Lee")),
]  # fmt: skip

Person = tuple[dict[str, str], Address, str]


def crowd(size: int) -> list[Person]:
    """Make people: three in ten with names that ASCII cannot hold."""
    made = []
    for number in range(size):
        first, last = NAMES[number % len(NAMES)]
        values = {
            "first_name": first, "last_name": last, "city": "Minsk", "topic": "hearing nine",
            "reference": f"r{number}", "signatures": f"{number + 1000:,}", "amount": "€25.00",
            "gift_date": "1 May 2026", "bought": "a day in court",
            "opt_out_url": f"https://act.example.org/o/abcdefghijklmnopqrstuvwx{number:06}",
        }  # fmt: skip
        made.append((values, parse(f"p{number}@example.com"), f"k{number:031}"))
    return made


class Woven:
    """Our way."""

    def __init__(self) -> None:
        self.html, self.text, self.subject = HtmlWeaver(HTML), TextWeaver(TEXT), LineWeaver(SUBJECT)
        self.composer = Composer(IDENTITY, "c7")

    def mail(self, person: Person) -> bytes:
        """Make one mail."""
        values, address, mark = person
        content = Content(
            language="en",
            subject=self.subject.weave(values),
            sender_name="Example Equality",
            html=self.html.weave(values),
            text=self.text.weave(values),
        )
        name = f"{values['first_name']} {values['last_name']}"
        envelope = Envelope(address, name, mark, mark, mark, values["opt_out_url"])
        return self.composer.compose(content, envelope, DATE)


class Ordinary:
    """The way of most programs."""

    def __init__(self) -> None:
        html = Environment(autoescape=True, undefined=StrictUndefined)
        text = Environment(undefined=StrictUndefined)  # noqa: S701 - plain text
        self.html, self.text, self.subject = (
            html.from_string(HTML),
            text.from_string(TEXT),
            text.from_string(SUBJECT),
        )

    def mail(self, person: Person) -> bytes:
        """Make one mail."""
        values, address, mark = person
        message = EmailMessage()
        message["Date"] = format_datetime(datetime(2026, 11, 23, 9, tzinfo=UTC))
        message["From"] = formataddr(("Example Equality", IDENTITY.from_address))
        message["To"] = formataddr((f"{values['first_name']} {values['last_name']}", address.spec))
        message["Subject"] = self.subject.render(values)
        message["Message-ID"] = f"<{mark}@example.org>"
        message["List-Unsubscribe"] = f"<{values['opt_out_url']}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message.set_content(self.text.render(values), cte="quoted-printable")
        message.add_alternative(
            inlining.inline(self.html.render(values)), subtype="html", cte="quoted-printable"
        )
        return message.as_bytes()


def cost(work: Callable[[Person], object], people: Sequence[Person], rounds: int) -> float:
    """Return the least processor time per call, in microseconds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        for person in people:
            work(person)
        times.append((time.process_time() - start) / len(people) * 1e6)
    return min(times)


def main() -> None:
    """Measure and print."""
    woven, ordinary, people = Woven(), Ordinary(), crowd(2000)
    start = time.process_time()
    size = len(woven.mail(people[0]))
    first = (time.process_time() - start) * 1e3
    if "--profile" in sys.argv:
        cProfile.runctx(
            "for p in people: woven.mail(p)", {"woven": woven, "people": people}, {}, sort="tottime"
        )
        return
    whole = cost(woven.mail, people, 9)
    html = woven.html.plain(people[0][0])
    print(f"HTML {len(html) / 1000:.1f} KB, text {len(TEXT) / 1000:.1f} KB, mail {size / 1000:.1f} KB")
    print(f"first mail (inlined, probed)         {first:8.1f} ms")
    for label, part in (
        ("weave HTML", lambda p: woven.html.weave(p[0])),
        ("weave text", lambda p: woven.text.weave(p[0])),
        ("subject", lambda p: woven.subject.weave(p[0])),
    ):
        print(f"  {label:12}                       {cost(part, people, 5):8.1f} µs")
    print(f"weave + compose                      {whole:8.1f} µs a mail")
    slow = cost(ordinary.mail, people[:30], 3)
    print(f"Jinja + premailer + EmailMessage     {slow:8.1f} µs a mail")
    print(f"ratio                                {slow / whole:8.0f}")
    print(f"{woven.html.skeletons} skeleton for {len(people)} people")


if __name__ == "__main__":
    main()
