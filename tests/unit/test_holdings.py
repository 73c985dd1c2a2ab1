"""The rules of showing a person what we hold of them, in their own language."""

from pathlib import Path
from typing import Any

import pytest

from worker.cli import dossiers
from worker.content.words import Catalogues
from worker.holdings import tell
from worker.rights import Subject
from worker.store.dossiers import Dossier

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


@pytest.mark.parametrize("language", _CATALOGUES.languages)
def test_no_fact_is_without_a_name(language: str) -> None:
    """Whatever an export holds has its name in every catalogue; a record that does not open is told."""
    words = _CATALOGUES.words(language).under("page")
    facts = dossiers.facts(Subject([], Dossier()), {})
    assert [f"data_{name}" for name in facts if f"data_{name}" not in words] == []
    assert (words["data_unreadable_record"], []) in tell(
        {**facts, "unreadable_record": True}, words, language
    )
