"""What a mail's HTML becomes before it stands in a frame of the preview."""

import pytest

from worker.frames import Scheme, frame

DATA = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    ("mail", "light", "dark"),
    [
        (
            "<style>@media (prefers-color-scheme: dark) { b { color: red } }</style>",
            "@media (max-width: 0) {",
            "@media (min-width: 0) {",
        ),
        (
            "<STYLE type=x>@media screen and (PREFERS-color-scheme:light){}</STYLE>",
            "and (min-width: 0){",
            "and (max-width: 0){",
        ),
        (
            "<style>:root { color-scheme: light dark }</style>",
            "color-scheme: light }",
            "color-scheme: dark }",
        ),
        (
            '<meta name="supported-color-schemes" content="light dark">',
            'schemes" content="light">',
            'schemes" content="dark">',
        ),
        (
            "<p>(prefers-color-scheme: dark)</p>",
            "(prefers-color-scheme: dark)",
            "(prefers-color-scheme: dark)",
        ),
    ],
)
def test_the_scheme_asked_for_is_the_scheme_shown(mail: str, light: str, dark: str) -> None:
    """Whatever the browser makes of a frame's scheme; and the mail's words stay as they are."""
    assert light in frame(mail, Scheme.LIGHT, {})
    assert dark in frame(mail, Scheme.DARK, {})


def test_the_policy_stands_before_all_that_it_governs() -> None:
    """First in the head, where there is one; the doctype stays first of all."""
    made = frame("<!DOCTYPE html><html lang=en><head class=x><title>t</title></head></html>", Scheme.DARK, {})
    assert made.startswith("<!DOCTYPE html><html lang=en><head class=x><meta http-equiv=")
    assert "default-src 'none'" in made
    assert frame("<b>no head</b>", Scheme.DARK, {}).startswith("<meta http-equiv=")


def test_a_mails_own_pictures_come_with_it() -> None:
    """By Content-ID, in attributes and styles; one that is not there stays a name that nothing opens."""
    mail = '<img src=\'cid:a@x\'><td style="background:url(cid:a@x)"><img src="cid:b"> cid:a@x'
    made = frame(mail, Scheme.LIGHT, {"a@x": DATA})
    assert made.endswith(f'<img src=\'{DATA}\'><td style="background:url({DATA})"><img src="cid:b"> cid:a@x')


@pytest.mark.parametrize("tag", ["<script>", "</IFRAME>", "<link rel=preconnect>", "<object\n>", "<base/>"])
def test_what_no_mail_program_shows_is_shown_as_text(tag: str) -> None:
    """So that an operator sees it, and no browser acts on it; other elements stay."""
    made = frame(f"{tag}<basefont><header>", Scheme.LIGHT, {})
    assert made.endswith(f"&lt;{tag[1:]}<basefont><header>")


def test_pictures_can_be_off() -> None:
    """Then the alt texts are seen, as where a mail program blocks them."""
    assert "img-src 'none'" in frame("x", Scheme.LIGHT, {}, pictures=False)
    assert "img-src data:" in frame("x", Scheme.LIGHT, {})
