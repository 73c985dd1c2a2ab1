"""A draft of an appeal, so that an operator begins with the charity's own text: front matter, actions, body.

What a person has still to write says TODO, and is named. Refuses: to invent. What the article does not say is
left to be written, and a link that was not found is one that no check lets pass.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from worker.content import expressions
from worker.content.articles import Article
from worker.content.blocks import Block, Item, Link
from worker.content.markup import as_value
from worker.content.versions import Kind

#: Stands for what a person has to write.
TODO: Final = "TODO"
_MOST_SUBJECT: Final = 100
_MOST_PREHEADER: Final = 110
_MOST_HEADLINE: Final = 180
_MOST_TEXT: Final = 130
_MOST_NOTE: Final = 400
_MOST_ACTIONS: Final = 8
_MOST_BODY: Final = 55_000
#: Items of a list that make it one of actions.
_ENOUGH: Final = 0.5
#: What a heading over actions says, in the languages that we speak.
_ASKING: Final = re.compile(
    r"\b(help|act|action|what you can do|get involved|take part|helfen|tun können|aider|agir|ayudar|actuar"
    r"|помочь|помощь|сделать)\b|المساعدة",
    re.IGNORECASE,
)
_TEMPLATE: Final = re.compile(r"\{[{%]|[}%]\}")
#: What an action's words or link say of its kind.
_SIGNS: Final = tuple(
    (kind, re.compile(words, re.IGNORECASE))
    for kind, words in (
        (
            Kind.DONATE,
            r"\b(donat|give\b|fundrais|chip in|spende|faire un don|dona[rt]?\b|donaci|пожертв)|تبر\u0651?ع",
        ),
        (
            Kind.SIGN,
            r"\b(sign\b|petition|unterschr|unterzeich|signe[rz]\b|pétition|firm[ae]r?\b|подпи)|وق\u0651?ع|عريضة",
        ),
        (
            Kind.WATCH,
            r"\b(watch|video|film|youtu|vimeo|ansehen|regarde|vidéo|посмотр|видео|mira\b|ver el)|شاهد",
        ),
        (
            Kind.WRITE_TO,
            r"\b(write|e-?mail your|letter|mailto:|schreib|écri[rv]|lettre|escrib|carta|напи[шс])|اكتب",
        ),
        (
            Kind.SHARE,
            r"\b(share|spread|tell (a|your)|forward|teile|weitersag|partage|compart|подел|расскаж)|شارك",
        ),
        (
            Kind.READ,
            r"\b(read|report|lesen|lies|bericht|lire|lisez|rapport|leer|lea\b|informe|прочт|читай|доклад)|اقرأ",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Draft:
    """An appeal's file, and what it lacks."""

    #: the text of the file
    text: str
    #: what a person has still to write or to look at, one sentence each
    unfinished: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """An action found."""

    kind: Kind
    text: str
    link: str
    #: what is said of it beside
    note: str = ""


def skeleton() -> Draft:
    """Return the smallest appeal, with everything still to be written."""
    return draft(Article())


def draft(article: Article) -> Draft:
    """Turn an article into a draft: its title, its actions and its text."""
    return _Desk(article).draft()


class _Desk:
    """One draft in the making."""

    def __init__(self, article: Article) -> None:
        self._article = article
        self._unfinished: list[str] = []

    def draft(self) -> Draft:
        question, steps, blocks = self._steps()
        front = [*self._face(blocks), *self._optional(question), "actions:", *self._actions(steps)]
        body = self._body(blocks)
        self._losses()
        return Draft("\n".join(["---", *front, "---", "", body, ""]), tuple(self._unfinished))

    def _face(self, blocks: Sequence[Block]) -> Iterator[str]:
        """Write what shows before the mail is opened, and the headline."""
        title, said = (
            self._article.title,
            next((one.text for one in blocks if one.text and not one.level), ""),
        )
        preheader = _cut(self._article.summary or _sentence(said), _MOST_PREHEADER)
        yield f"subject: {_quoted(_cut(title, _MOST_SUBJECT) or f'{TODO}: what it asks, in a few words')}"
        yield f"preheader: {_quoted(preheader or f'{TODO}: what mailboxes show after the subject')}"
        if title != _cut(title, _MOST_SUBJECT):
            yield f"headline: {_quoted(_cut(title, _MOST_HEADLINE))}"
        self._note(not title, "subject: the article has no title")
        self._note(not preheader, "preheader: the article has no first sentence")
        self._note(
            bool(title or preheader),
            "subject and preheader are the article's own: would you have them on a lock screen?",
        )

    def _optional(self, question: str) -> Iterator[str]:
        """Write what may be left out; a comment stands where the article does not say."""
        yield "# content_warning: what a reader should know before reading on"
        if question:
            yield f"question: {_quoted(_cut(question, _MOST_TEXT))}"
        self._unfinished.append(
            "content_warning: write one if anything in it is distressing, else delete the line"
        )

    def _steps(self) -> tuple[str, list[_Step], list[Block]]:
        """Find the question, the actions, and what is left as the body."""
        blocks = self._article.blocks
        for position, block in enumerate(blocks):
            above = blocks[position - 1] if position else None
            question = above.text.rstrip(":") if above and _is_question(above) else ""
            if _asks(block, question):
                before = blocks[: position - bool(question)]
                return question, [_of_item(item) for item in block.items], [*before, *blocks[position + 1 :]]
        found = {link.href: _of_link(link) for block in blocks for link in block.links}
        telling = [step for step in found.values() if step.kind is not Kind.READ]
        return "", (telling or list(found.values())[:1])[:_MOST_ACTIONS], list(blocks)

    def _actions(self, steps: Sequence[_Step]) -> Iterator[str]:
        if not steps:
            steps = [_Step(Kind.READ, f"{TODO}: what to do, beginning with a verb", "")]
            self._unfinished.append("action 1: say what the reader can do")
        main = next((n for n, step in enumerate(steps) if step.link and step.kind is not Kind.SHARE), 0)
        for number, step in enumerate(steps):
            yield f"  - kind: {step.kind}"
            yield f"    text: {_quoted(_cut(step.text, _MOST_TEXT))}"
            yield f"    link: {_quoted(step.link or TODO)}"
            if number == main:
                yield "    main: true"
            if step.note:
                yield f"    note: {_quoted(_cut(step.note, _MOST_NOTE))}"
            self._note(not step.link, f"action {number + 1}: give its link")
        kinds = ", ".join(f"{number} {step.kind}" for number, step in enumerate(steps, 1))
        self._note(len(steps) > 1, f"actions: are these the kinds ({kinds}), and is {main + 1} the main one?")

    def _body(self, blocks: Sequence[Block]) -> str:
        kept, size = [], 0
        for block in blocks:
            size += len(block.markdown) + 2
            if size > _MOST_BODY:
                self._unfinished.append("the article is longer than a mail may be: its end was left out")
                break
            kept.append(block.markdown)
        self._note(not any(block.text for block in blocks), "the text: write it under the second ---")
        return "\n\n".join(kept) if any(block.text for block in blocks) else f"{TODO}: the text"

    def _losses(self) -> None:
        """Name what of the article could not come along."""
        article = self._article
        self._note(
            any(_TEMPLATE.search(text) for text in (article.title, *(one.text for one in article.blocks))),
            "braces: {{ or {% of the article would be shown; make merge fields of them, or take them out",
        )
        self._note(
            bool(article.pictures),
            f"pictures: {article.pictures} left out; a note with TODO stands in the place of each",
        )
        self._note(
            bool(article.lost),
            f"links: {len(article.lost)} left out, without a whole address; their words are left",
        )
        self._note(
            bool(article.upgraded),
            f"links: {article.upgraded} made https:// that began with http://; try them",
        )

    def _note(self, holds: bool, sentence: str) -> None:  # noqa: FBT001 - reads as "note this if so"
        if holds:
            self._unfinished.append(sentence)


def _is_question(block: Block) -> bool:
    """Tell whether a block is what stands over actions: a heading, or a line that leads to them."""
    leads = bool(block.level) or block.text.endswith((":", "?"))
    return leads and len(block.text) < _MOST_TEXT and bool(_ASKING.search(block.text))


def _asks(block: Block, question: str) -> bool:
    """Tell whether a list is one of actions: it stands under a question, or every item says what to do."""
    linked = sum(bool(item.links) for item in block.items)
    if not linked or len(block.items) > _MOST_ACTIONS:
        return False
    if question:
        return linked >= _ENOUGH * len(block.items)
    return len(block.items) > 1 and all(item.links and _kind(item.text) for item in block.items)


def _of_item(item: Item) -> _Step:
    link, said = item.links[0].href if item.links else "", item.text
    for one in item.links:
        if "://" in one.text:
            said = said.replace(f"<{one.text}>", "").replace(one.text, "")
    said = " ".join(said.split()) or item.text
    text = _sentence(said)
    kind = _kind(text) or _kind(link) or Kind.READ
    return _Step(kind, text.strip(" .:;"), link, said[len(text) :].strip())


def _of_link(link: Link) -> _Step:
    return _Step(
        _kind(link.text) or _kind(link.href) or Kind.READ, link.text.strip(" .:;") or link.href, link.href
    )


def _kind(text: str) -> Kind | None:
    """Tell what a text asks for: what it says first, as in "read and share"."""
    signs = ((found.start(), kind) for kind, sign in _SIGNS if (found := sign.search(text)))
    return min(signs, default=(0, None), key=lambda one: one[0])[1]


def _sentence(text: str) -> str:
    """Return the first sentence of a text."""
    return re.split(r"(?<=[.!?\u2026\u061f])\s", text, maxsplit=1)[0]


def _cut(text: str, most: int) -> str:
    """Shorten a text between words."""
    if len(text) <= most:
        return text
    return f"{text[: most - 1].rpartition(' ')[0] or text[: most - 1]}\u2026"


def _quoted(text: str) -> str:
    """Write a text as a value of the front matter, which means itself."""
    safe = as_value(text) if not expressions.plain(text) else text
    # Escaped, it may be longer than allowed: then its braces go.
    safe = safe if len(safe) < _MOST_TEXT + 20 else re.sub("[{}]", "", text)
    return json.dumps(safe, ensure_ascii=False)
