"""Columns: what a header means, in the languages that lists come in.

Owns: the names of each column that is acted on, and the plan of a file's columns.

Refuses: guessing. Two columns for one thing are an error that names both, not a choice made in silence. A
column without a known name is kept as a field of the person under a plain form of its own name.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from worker.errors import WrongUse

_COLUMNS_MOST: Final = 256
_SLUG_MOST: Final = 60

#: Column: its names. Compared without case, accents, spaces and signs.
_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "email": (
            "email, e-mail, mail, email address, e-mail address, email addresses, mail address, email "
            "1, primary email, e-mail 1 value, email id, e-mail-adresse, email adresse, mailadresse, "
            "mail adresse, adresse e-mail, adresse email, adresse mail, adresse électronique, "
            "courriel, adresse courriel, mél, correo, correo electrónico, dirección de correo, "
            "dirección de correo electrónico, e-mailadres, emailadres, posta elettronica, indirizzo "
            "email, indirizzo e-mail, correio eletrónico, correio eletrônico, endereço de email, "
            "e-post, epost, e-postadress, e-postadresse, epostadress, sähköposti, sähköpostiosoite, "
            "adres e-mail, adres email, poczta, e-mailová adresa, e-mail cím, adresă de email, "
            "e-posta, e-posta adresi, эл. почта, электронная почта, почта, адрес электронной почты, "
            "емейл, имейл, электронный адрес, адрес эл. почты, електронна пошта, ел. пошта, пошта, "
            "імейл, ηλεκτρονικό ταχυδρομείο, البريد الإلكتروني, بريد إلكتروني, דואר אלקטרוני, אימייל, "
            "电子邮件, 邮箱, 电子邮箱, メール, メールアドレス, 이메일"
        ),
        "name": (
            "name, full name, display name, contact name, vollständiger name, nom complet, nom et "
            "prénom, prénom et nom, nombre completo, nombre y apellidos, nome completo, nome e "
            "cognome, imię i nazwisko, volledige naam, naam, fullt namn, namn, navn, nimi, ad soyad, "
            "фио, полное имя, имя и фамилия, піб, повне ім'я, ονοματεπώνυμο, الاسم الكامل, الاسم, שם "
            "מלא, שם, 姓名, 氏名, 名前, 이름"
        ),
        "first_name": (
            "first name, firstname, fname, given name, forename, vorname, prénom, nombre, nome, "
            "voornaam, förnamn, fornavn, etunimi, imię, jméno, křestní jméno, keresztnév, prenume, "
            "ad, ad\u0131, имя, ім'я, όνομα, الاسم الأول, שם פרטי, 名"
        ),
        "last_name": (
            "last name, lastname, lname, surname, family name, nachname, familienname, zuname, nom, "
            "nom de famille, apellido, apellidos, cognome, sobrenome, achternaam, efternamn, "
            "etternavn, efternavn, sukunimi, nazwisko, příjmení, vezetéknév, soyad, soyad\u0131, "
            "фамилия, прізвище, επώνυμο, اسم العائلة, שם משפחה, 姓"
        ),
        "language": (
            "language, lang, preferred language, language code, locale, sprache, langue, idioma, "
            "lingua, língua, taal, språk, sprog, kieli, język, jazyk, nyelv, limbă, dil, язык, мова, "
            "γλώσσα, اللغة, שפה, 语言, 言語"
        ),
        "discreet": (
            "discreet, discrete, discretion, diskret, discret, discreto, discreta, "
            "discreto/a, dyskretnie, скрытно, скрытый, незаметно, конфиденциально, приховано"
        ),
        "basis": (
            "basis, consent basis, legal basis, lawful basis, rechtsgrundlage, grundlage, base "
            "légale, base juridique, base legal, base giuridica, podstawa prawna, правовое основание, "
            "основание, правова підстава"
        ),
        "source": (
            "source, consent source, origin, where, signup source, sign-up source, quelle, herkunft, "
            "source du consentement, origine, fuente, origen, fonte, origem, źródło, bron, источник, "
            "джерело"
        ),
        "when": (
            "when, consent date, consent time, consented at, consent at, date of consent, consent "
            "when, opt-in date, optin time, opt-in time, confirm time, signup date, sign-up date, "
            "signed up, subscribed at, subscription date, subscribed on, wann, zeitpunkt, "
            "einwilligungsdatum, einwilligung am, quand, date du consentement, date d'inscription, "
            "cuándo, fecha de consentimiento, quando, data del consenso, data zgody, когда, дата "
            "согласия, коли, дата згоди"
        ),
        "wording": (
            "wording, consent wording, consent text, consent statement, wortlaut, einwilligungstext, "
            "texte du consentement, libellé, texto del consentimiento, testo del consenso, treść "
            "zgody, текст согласия, формулировка, текст згоди"
        ),
        "offered": (
            "opt-out offered, optout offered, opt out offered at collection, widerspruch angeboten, "
            "désinscription proposée, baja ofrecida, отказ предложен"
        ),
        "confirmed": (
            "double opt-in date, double opt-in at, double opt-in time, doi date, doi time, confirmed at, "
            "confirmation date, bestätigt am, confirmé le, confirmado el, подтверждено"
        ),
        "agreed": (
            "consent, consented, consent given, opt-in, opted in, subscribed, einwilligung, "
            "zugestimmt, consentement, consentimiento, consenso, consentimento, zgoda, toestemming, "
            "samtycke, согласие, згода"
        ),
        "left": (
            "unsubscribed, unsubscribe, opted out, opt-out, optout, do not contact, do not email, no "
            "email, unsub time, unsubscribed at, abgemeldet, ausgetragen, désinscrit, désabonné, "
            "baja, disiscritto, wypisany, отписан, отписался, отказ, відписано"
        ),
        "status": "subscription status, email status, member status, contact status, статус подписки",
    }
)
#: Names that mean this column only if no other column has a clear name for it.
_LOOSE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "email": "address, adresse, dirección, indirizzo, endereço, adres, адрес, адреса, contact, to",
        "status": "status, статус, statut",
    }
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a file keeps what we act on, and what else it holds."""

    #: How many columns the header names.
    width: int
    #: Column (a key of the names above) to its index.
    index: Mapping[str, int]
    #: Further columns: index and field name.
    extras: Sequence[tuple[int, str]]


def key(header: str) -> str:
    """The form of a header by which it is known: letters and digits only, without case and accents."""
    plain = unicodedata.normalize("NFKD", header).casefold()
    return "".join(filter(str.isalnum, plain))


def names_addresses(header: Sequence[str]) -> bool:
    """Whether a row of cells is a header that names an address column."""
    return any(each in _KNOWN and _KNOWN[each][0] == "email" for each in map(key, header))


def arrange(header: Sequence[str]) -> Columns:
    """Plan the columns of a file.

    Raises:
        WrongUse: two columns are named for one thing, or there are too many.
    """
    if len(header) > _COLUMNS_MOST:
        raise WrongUse(
            f"the file has more than {_COLUMNS_MOST} columns", remedy="Leave out what is not used."
        )
    index = _known(header)
    taken = {i: name for name, i in index.items()}
    extras = [(i, _slug(text, i)) for i, text in enumerate(header) if taken.get(i, "status") == "status"]
    seen: dict[str, str] = {}
    for i, slug in extras:
        if slug in seen:
            raise _doubled(seen[slug], header[i])
        seen[slug] = header[i]
    return Columns(len(header), MappingProxyType(index), tuple(extras))


def _known(header: Sequence[str]) -> dict[str, int]:
    """Give each column we know its index; a loose name counts only where no clear one is found."""
    found: dict[tuple[str, bool], int] = {}
    clear = {_KNOWN[each][0] for each in map(key, header) if each in _KNOWN and _KNOWN[each][1]}
    for i, text in enumerate(header):
        column, certain = known = _KNOWN.get(key(text), ("", False))
        if not column or (column in clear and not certain):
            continue
        if known in found:
            raise _doubled(header[found[known]], text)
        found[known] = i
    return {column: i for (column, _), i in found.items()}


def _doubled(one: str, other: str) -> WrongUse:
    shown = [
        " ".join("".join(c if c.isprintable() else " " for c in text).split())[:40] for text in (one, other)
    ]
    return WrongUse(
        f'two columns hold the same thing: "{shown[0]}" and "{shown[1]}"',
        remedy="Rename or remove one of them.",
    )


def _slug(header: str, index: int) -> str:
    """The field name of a further column: [a-z][a-z0-9_]*, or its number where no letter is left."""
    plain = (
        unicodedata.normalize("NFKD", header.casefold().replace("ß", "ss")).encode("ascii", "ignore").decode()
    )
    slug = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:_SLUG_MOST].rstrip("_")
    if not slug:
        return f"column_{index + 1}"
    return slug if slug[0].isalpha() else f"column_{slug}"


#: Key of a header: the column it names, and whether it can name nothing else.
_KNOWN: Final[Mapping[str, tuple[str, bool]]] = MappingProxyType(
    {
        key(name): (column, certain)
        for table, certain in ((_LOOSE, False), (_NAMES, True))
        for column, names in table.items()
        for name in names.split(", ")
    }
)
