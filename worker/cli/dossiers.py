"""What we hold of a person, written out: for programs, and for the person to read.

Owns the names in an export and the page. Refuses: scripts, anything from another host, and to write over a
file that exists.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

from worker.cli import suppressed, terminal
from worker.errors import Refused
from worker.rights import Subject
from worker.store.dossiers import Asked, Mail, Membership

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>What {{ sender }} holds about you</title>
<style>body{font:1rem/1.5 sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}
dl{border-top:1px solid;padding-top:.5rem}dt{font-weight:bold}
dd{margin:0 0 .5rem;overflow-wrap:anywhere;white-space:pre-wrap}</style>
</head>
<body>
<main>
<h1>What {{ sender }} holds about you</h1>
<p>As of {{ made_at }}.</p>
{% macro listed(record) %}<dl>{% for name, value in record.items() %}
<dt>{{ name|replace('_', ' ') }}</dt><dd>{{ 'not known' if value is none else 'yes' if value is true
else 'no' if value is false else 'none' if value == '' else value }}</dd>{% endfor %}</dl>
{% endmacro %}
<h2>You</h2>
{% if person %}{{ listed(flat) }}{% else %}<p>No record of you.</p>{% endif %}
{% for title, records in parts %}
<h2>{{ title }}</h2>
{% for record in records %}{{ listed(record) }}{% else %}<p>None.</p>{% endfor %}
{% endfor %}
</main>
</body>
</html>
"""


#: What the scopes of suppressions and wishes are called on the page.
_SCOPES = {
    "all": "everything",
    "pause": "everything for a while: you chose a pause",
    "rest": "everything for a while: you want fewer mails, and got one",
    "fewer": "you want fewer mails",
}


def facts(subject: Subject, names: suppressed.Names) -> dict[str, Any]:
    """Return all of it for programs; times in UTC, no hash."""
    person, dossier = subject.person, subject.dossier
    return {
        "person": person
        and {
            "address": person.address.spec,
            "fields": dict(person.fields),
            "language": person.language,
            "discreet": person.discreet,
            "mailbox_provider": dossier.provider,
            "held_since": terminal.iso(dossier.created_at),
            "changed_at": terminal.iso(dossier.updated_at),
        },
        "unreadable_record": dossier.held is not None and person is None,
        "lists": [_membership(one) for one in dossier.memberships],
        "suppressions": [dict(suppressed.facts(one, names)) for one in dossier.suppressions],
        "mails": [_mail(one) for one in dossier.mails],
        "asked": [_asked(one) for one in dossier.asked],
        "rules": [{"rule": name} for name in subject.rules],
    }


def _membership(one: Membership) -> Mapping[str, object]:
    return {
        "list": one.slug,
        "title": one.title,
        "joined_at": terminal.iso(one.joined_at),
        "consent_basis": one.basis,
        "consent_at": terminal.iso(one.consented_at),
        "consent_source": one.source,
        "consent_wording": one.wording,
        "opt_out_offered": one.offered,
        "confirmed_at": terminal.iso(one.confirmed_at),
        "enough_for_the_list": one.meets,
    }


def _mail(one: Mail) -> Mapping[str, object]:
    return {
        "campaign": one.campaign,
        "appeal": one.appeal,
        "list": one.slug,
        "state": one.state,
        "reason": one.reason,
        "at": terminal.iso(one.settled_at),
        "attempts": one.attempts,
        "reply_code": one.code,
        "reply_status": one.status,
        "reply_text": one.text,
        "later": [{"what": kind, "at": terminal.iso(at), "source": source} for kind, at, source in one.facts],
    }


def _asked(one: Asked) -> Mapping[str, object]:
    return {
        "kind": one.kind,
        "state": one.state,
        "at": terminal.iso(one.asked_at),
        "confirmed_at": terminal.iso(one.confirmed_at),
    }


def page(told: Mapping[str, Any], sender: str, made_at: str) -> str:
    """Return the page: every value escaped, nothing fetched."""
    person = told["person"]
    flat = (
        {**{name: text for name, text in person.items() if name != "fields"}, **person["fields"]}
        if person
        else {}
    )
    mails = [{**one, "later": _later(one["later"])} for one in told["mails"]]
    parts = [
        ("Lists you are on", told["lists"]),
        ("What keeps us from writing to you, and what you wish", list(map(_worded, told["suppressions"]))),
        ("Rules of ours by which you get no mail", told["rules"]),
        ("Mails to you", mails),
        ("Single mails: those you asked for on our pages, and invitations", told["asked"]),
    ]
    environment = Environment(autoescape=True)
    return environment.from_string(_PAGE).render(
        person=person, flat=flat, parts=parts, sender=sender, made_at=made_at
    )


def _worded(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a suppression with its scope in words, and its end only where it has one."""
    kept = {name: value for name, value in entry.items() if name != "until" or value}
    return {**kept, "scope": _SCOPES.get(entry["scope"], entry["scope"])}


def _later(entries: Sequence[Mapping[str, str]]) -> str:
    return "; ".join(f"{one['what']} ({one['at']}, {one['source']})" for one in entries)


def write(told: Mapping[str, Any], folder: Path, sender: str, made_at: str) -> Sequence[Path]:
    """Write both forms where only we may read them; Refused where one exists."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"person-{made_at.replace(':', '').replace('+0000', 'Z')}"
    texts = {
        folder / f"{name}.json": json.dumps(told, indent=2, ensure_ascii=False) + "\n",
        folder / f"{name}.html": page(told, sender, made_at),
    }
    for path, text in texts.items():
        try:
            made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            raise Refused(
                "there is an export of that name already", remedy="Try again in a second."
            ) from None
        with os.fdopen(made, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    return list(texts)
