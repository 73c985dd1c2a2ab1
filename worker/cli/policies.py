"""`lists policy`: what a list asks of each consent, shown and set.

Owns how that is asked for and told. Refuses: to loosen what the law asks of every list.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from enum import Enum
from typing import Annotated

import typer

from worker import policies
from worker.cli import completion, grammar, session, terminal
from worker.deeds import Action
from worker.errors import Refused
from worker.policies import Policy


class Basis(Enum):
    """What is enough for a list."""

    CONSENT = "consent"
    SOFT = "soft"
    CHARITY = "charity"
    OTHER = "other"
    ANY = "any"


class Proof(Enum):
    """What must be known of a consent beside its basis, source and date."""

    WORDING = "wording"
    OFFERED = "offered"
    NONE = "none"


class YesNo(Enum):
    """An answer."""

    YES = "yes"
    NO = "no"


def policy(  # noqa: PLR0913 - one for each option
    *,
    slug: Annotated[
        str,
        typer.Argument(metavar="LIST", help="The list.", autocompletion=completion.lists, show_default=False),
    ],
    basis: Annotated[
        list[Basis] | None,
        typer.Option(metavar="BASIS", help="Enough: consent, soft, charity, other, any; may be repeated."),
    ] = None,
    proof: Annotated[
        list[Proof] | None,
        typer.Option(metavar="WHAT", help="Needed too: wording, offered, or none; may be repeated."),
    ] = None,
    confirmed: Annotated[
        YesNo | None, typer.Option(metavar="YES|NO", help="Only who confirmed from their mailbox.")
    ] = None,
    discreet: Annotated[
        YesNo | None, typer.Option(metavar="YES|NO", help="Its campaigns send everybody the discreet form.")
    ] = None,
    sign_up: Annotated[
        YesNo | None, typer.Option(metavar="YES|NO", help="A form on your pages lets people sign up.")
    ] = None,
    special: Annotated[
        YesNo | None,
        typer.Option(metavar="YES|NO", help="Special category: no header or link may name the list."),
    ] = None,
    yes: grammar.Yes = False,
    as_json: grammar.Json = False,
) -> None:
    """Show what a list asks of each consent, or set it; what is not given stays.

    Every list asks for a basis, a source and a date. charity is the charitable soft opt-in (PECR 22(3A)),
    soft that of a sale: where you set a policy, both need an opt-out offered at collection, and charity a
    date since 5 February 2026. Whoever lacks something is left out as "no consent" of plan, launch and claim.

    With --sign-up yes, whoever enters an address in the form shown here gets one mail, and is on the list
    once they confirm by it.

    JSON: {list, grounds, wording, offered, confirmed, discreet, special, sign_up, members, enough,
    sign_up_url}.
    """
    with session.opened() as tocsin:
        found = tocsin.people.find_lists([slug])[0]
        before = tocsin.policies.get(found.id)
        flags = {"confirmed": confirmed, "discreet": discreet, "special": special, "sign_up": sign_up}
        wanted = _wanted(before, basis, proof, flags)
        if wanted.sign_up and wanted.discreet and tocsin.settings.discreet is None:
            raise Refused(
                "the form of a discreet list has no name to write under",
                remedy="Set the neutral names: [discreet] in tocsin.toml.",
            )
        if wanted != before:
            terminal.ask(f"Ask this of everybody on {slug}: {'; '.join(policies.told(wanted))}", agreed=yes)
            deed = session.deed(tocsin, Action.LISTS_POLICY, slug, policy=wanted.to_json())
            tocsin.policies.set(found.id, wanted, tocsin.clock(), deed)
        members, enough = tocsin.policies.meeting(found.id)
        url = tocsin.sign_up_url(found.id, discreet=wanted.discreet) if wanted.sign_up else None
    if as_json:
        told = json.loads(wanted.to_json())
        terminal.show_json({"list": slug, **told, "members": members, "enough": enough, "sign_up_url": url})
        return
    asks = [("Asks for" if not place else "", text) for place, text in enumerate(policies.told(wanted))]
    form = [("Sign-up form", url)] if url else []
    rows = [*asks, *form, ("Members", terminal.count(members)), ("Have all that", terminal.count(enough))]
    terminal.show(terminal.facts([("List", slug), *rows]))


def _wanted(
    before: Policy,
    basis: list[Basis] | None,
    proof: list[Proof] | None,
    flags: Mapping[str, YesNo | None],
) -> Policy:
    wanted = before
    if basis is not None:
        grounds = () if Basis.ANY in basis else tuple(dict.fromkeys(one.value for one in basis))
        wanted = replace(wanted, grounds=grounds)
    if proof is not None:
        wanted = replace(wanted, wording=Proof.WORDING in proof, offered=Proof.OFFERED in proof)
    for name, said in flags.items():
        if said is not None:
            wanted = Policy.from_json(json.dumps({**asdict(wanted), name: said is YesNo.YES}))
    return wanted
