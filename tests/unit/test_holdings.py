"""The rules of showing a person what we hold of them, in their own language."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from worker.addresses import parse
from worker.cli import dossiers
from worker.content.words import Catalogues
from worker.holdings import tell
from worker.rights import Subject
from worker.sealing import Person
from worker.store.dossiers import Asked, Dossier, Mail, Membership
from worker.store.suppressions import EVERYTHING, Suppression

_FILES = {
    path.name: path.read_text("utf-8") for path in (Path(__file__).parents[2] / "templates/locale").iterdir()
}
_CATALOGUES = Catalogues(_FILES)
_FACTS: dict[str, Any] = {
    "person": {
        "address": "vera@example.org",
        "fields": {"first_name": "Vera", "title": "Dr"},
        "language": "ru",
        "discreet": True,
        "changed_at": "2026-05-28T20:26:40+00:00",
    },
    "unreadable_record": False,
    "lists": [{"list": "urgent", "consent_wording": "Yes:\nwrite to me", "confirmed_at": None}],
    "suppressions": [],
    "mails": [
        {"state": "sent", "reply_code": 250, "later": [{"what": "opted out", "at": "x", "source": "page"}]}
    ],
}


def test_every_fact_is_told_as_its_reader_writes() -> None:
    """Names and days in their language, their own columns and every value as they are, what is empty not."""
    told = tell(_FACTS, _CATALOGUES.words("de").under("page"), "de")
    assert told == [
        (
            "Sie",
            [
                [
                    ("E-Mail-Adresse", "vera@example.org"),
                    ("first name", "Vera"),
                    ("title", "Dr"),
                    ("Sprache der E-Mails", "Русский"),
                    ("Unauffällige E-Mails", "Ja"),
                    ("Zuletzt geändert", "28. Mai 2026, 20:26 UTC"),
                ]
            ],
        ),
        (
            "Listen, auf denen Sie stehen",
            [[("Kurzname", "urgent"), ("Was Ihnen dabei gezeigt wurde", "Yes:\nwrite to me")]],
        ),
        ("Warum wir Ihnen nicht schreiben", []),
        (
            "E-Mails an Sie",
            [
                [
                    ("Stand", "sent"),
                    ("Antwort des Mailservers, ihre Nummer", "250"),
                    ("Was später kam", "opted out, x, page"),
                ]
            ],
        ),
    ]


#: Somebody of whom everything is held that can be.
_WHOLE = Subject(
    [],
    Dossier(
        memberships=[
            Membership("a", "A", "consent", "a form", "Yes.", 0.0, 0.0, 0.0, offered=True, meets=True)
        ],
        suppressions=[Suppression(b"", EVERYTHING, "operator", "a letter", 0.0)],
        mails=[Mail("a-1", "a", "sent", "", 250, "ok", 0.0, "a", 1, "2.0.0", [("opted out", 0.0, "page")])],
        asked=[Asked("export", "sent", 0.0, 0.0)],
    ),
    Person(parse("vera@example.org"), {}, "en", False),  # noqa: FBT003 - its own order
    ["no officials"],
)


def _names(facts: Any) -> Iterator[str]:
    if isinstance(facts, Mapping):
        yield from facts
        facts = list(facts.values())
    for each in facts if isinstance(facts, list) else ():
        yield from _names(each)


@pytest.mark.parametrize("language", _CATALOGUES.languages)
def test_no_fact_is_without_a_name(language: str) -> None:
    """Whatever an export holds has its name in every catalogue; a record that does not open is told."""
    words = _CATALOGUES.words(language).under("page")
    facts = dossiers.facts(_WHOLE, {})
    nameless = {name for name in _names(facts) if f"data_{name}" not in words}
    assert nameless == {"fields", "what"}  # their owner names the one; the other is told by its value
    told = dict(tell({**facts, "unreadable_record": True}, words, language))
    assert told[words["data_unreadable_record"]] == []
    assert told[words["data_rules"]] == [[(words["data_rule"], "no officials")]]
