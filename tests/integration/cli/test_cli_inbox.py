"""Returned mail by command: a mail server gets exit codes that it understands; no output names anybody."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worker.postroom import PostRoom
from worker.returns.opened import MOST_BYTES
from worker.sealing import Keyring
from worker.store.suppressions import Suppressions
from worker.tokens import Marks, Purpose
from worker.wiring import Wiring

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]

MAILS = Path(__file__).parents[2] / "returned"
EFFECTS = {"bounced", "delivered", "opted_out", "complained", "nothing", "person", "foreign", "later"}
TRY_AGAIN = 75


@pytest.fixture
def marks(people: Path) -> Marks:
    """The marks of the workspace we are in."""
    return Keyring.load((people / "var" / "secret.toml").read_text(encoding="utf-8")).marks()


@pytest.fixture
def mail(marks: Marks, tocsin: Tocsin) -> Callable[[str], bytes]:
    """Mails of tests/returned about the first delivery of a campaign that runs."""
    sent = tocsin("send", "chechnya-report", "--list", "example", "--yes")
    assert sent.code == 0, sent.err
    with _wired() as wiring:
        wiring.campaigns.launch(1)

    def read(name: str, delivery: int = 1) -> bytes:
        text = (MAILS / f"{name}.eml").read_text(encoding="utf-8")
        for purpose in Purpose:
            text = text.replace(
                f"{{{purpose.value.decode().replace('-', '_')}}}", marks.mark(purpose, delivery)
            )
        return text.encode()

    return read


def _wired() -> Any:
    """The workspace as the tasks have it."""
    from worker.cli import session  # noqa: PLC0415 - reads the workspace we are in

    return session.opened()


def _no_count() -> int:
    with _wired() as wiring:
        return len([*Suppressions(wiring.database).all()])


def test_an_opt_out_through_a_pipe(mail: Callable[[str], bytes], tocsin: Tocsin) -> None:
    """Exit 0, the person is suppressed, and the report shows it."""
    ran = tocsin("inbox", "read", "-", "--json", stdin=mail("opt-out"))
    assert ran.code == 0, ran.err
    assert ran.json == {"read": 1, **dict.fromkeys(EFFECTS, 0), "opted_out": 1}
    assert _no_count() == 1
    account = tocsin("report", "chechnya-report-1", "--json").json
    assert account["facts"] == {"opted out": 1}
    assert account["known_since"] == [{"kind": "opted out", "source": "mail", "count": 1}]
    assert "opted out: mail" in tocsin("report", "chechnya-report-1").out


def test_what_is_not_ours_is_taken_and_dropped(mail: Callable[[str], bytes], tocsin: Tocsin) -> None:
    """The mail server is not to bounce a bounce."""
    ran = tocsin("inbox", "read", "-", stdin=mail("no-mark"))
    assert ran.code == 0
    assert ran.out.strip() == "not ours"


def test_the_recipient_may_be_told_on_the_command_line(
    mail: Callable[[str], bytes], marks: Marks, tocsin: Tocsin
) -> None:
    """Where the mail server writes no Delivered-To."""
    address = f"b+{marks.mark(Purpose.BOUNCE, 1)}@bounces.example.org"
    ran = tocsin("inbox", "read", "-", "--recipient", address, "--json", stdin=mail("no-mark"))
    assert ran.json["bounced"] == 1


def _without_key(home: Path) -> None:
    (home / "var" / "secret.toml").unlink()


def _without_store(home: Path) -> None:
    (home / "var" / "tocsin.db").unlink()


def _broken_settings(home: Path) -> None:
    (home / "tocsin.toml").write_text("nonsense = 1\n", encoding="utf-8")


def _full_folder(home: Path) -> None:
    (home / "var" / "inbox").write_text("no folder", encoding="utf-8")


@pytest.mark.parametrize("harm", [_without_key, _without_store, _broken_settings, _full_folder])
def test_whatever_is_wrong_the_mail_server_keeps_the_mail(
    people: Path, mail: Callable[[str], bytes], tocsin: Tocsin, harm: Callable[[Path], None]
) -> None:
    """Exit 75 (sysexits.h), so that it tries again for days; anything else would lose somebody's "no"."""
    data = mail("person")
    harm(people)
    ran = tocsin("inbox", "read", "-", stdin=data)
    assert ran.code == TRY_AGAIN
    assert ran.err.startswith("error: ")


def test_a_fault_of_ours_keeps_the_mail_too(
    mail: Callable[[str], bytes], tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody foresaw is told as ever, and the mail server tries again."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(PostRoom, "take", fail)
    ran = tocsin("inbox", "read", "-", stdin=mail("opt-out"))
    assert ran.code == TRY_AGAIN
    assert "unexpected ZeroDivisionError" in ran.err


def test_a_delivery_in_hand_is_for_later(mail: Callable[[str], bytes], tocsin: Tocsin, people: Path) -> None:
    """Its bounce overtook the ledger: the mail server brings it again."""
    data = mail("postfix-failed")
    with _wired() as wiring:
        assert isinstance(wiring, Wiring)
        lease = wiring.ledger.lease(1, "owner", wiring.clock(), wiring.clock() + 60)
        assert lease is not None
        assert wiring.ledger.advance(lease, [], 500, wiring.clock(), wiring.clock() + 60).claimed
    assert tocsin("inbox", "read", "-", stdin=data).code == TRY_AGAIN
    assert people.exists()


def test_a_pipe_is_read_to_its_end(people: Path) -> None:
    """A mail server that is not listened to calls the delivery failed."""
    argv = [sys.executable, "-m", "worker.cli", "inbox", "read", "-"]
    data = b"From: a@example.net\n\n" + b"x" * 4 * MOST_BYTES
    env = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    with subprocess.Popen(
        argv, cwd=people, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        process.stdin.write(data)  # raises when nobody reads
        process.stdin.close()
        assert process.wait(60) == 0
    (kept,) = (people / "var" / "inbox").glob("*.eml")
    assert kept.stat().st_size == MOST_BYTES


def test_a_maildir_is_emptied_of_what_is_done(
    people: Path, mail: Callable[[str], bytes], tocsin: Tocsin
) -> None:
    """Named, or set as inbox.maildir; without either it says what to do."""
    for name in ("new", "cur"):
        (people / "md" / name).mkdir(parents=True)
    for name in ("opt-out", "person-stop", "no-mark", "vacation-dovecot"):
        (people / "md" / "new" / name).write_bytes(mail(name))
    assert tocsin("inbox", "read").code == 2
    config = people / "tocsin.toml"
    text = config.read_text(encoding="utf-8")
    assert '#maildir = "/var/mail/returned"' in text
    config.write_text(text.replace('#maildir = "/var/mail/returned"', 'maildir = "md"'), encoding="utf-8")
    ran = tocsin("inbox", "read", "--json")
    assert ran.json == {
        "read": 4,
        **dict.fromkeys(EFFECTS, 0),
        "opted_out": 1,
        "person": 1,
        "foreign": 1,
        "nothing": 1,
    }
    assert [file.name for file in (people / "md").rglob("*") if file.is_file()] == ["no-mark:2,"]
    assert tocsin("inbox", "read", "md", "--json").json["read"] == 0


def test_a_file_is_acted_upon_and_stays(people: Path, mail: Callable[[str], bytes], tocsin: Tocsin) -> None:
    """It is somebody else's."""
    file = people / "complaint.eml"
    file.write_bytes(mail("yahoo-complaint"))
    for _ in range(2):
        ran = tocsin("inbox", "read", "complaint.eml")
        assert ran.code == 0
        assert "@" not in ran.out + ran.err
    assert file.exists()
    assert _no_count() == 1
    assert tocsin("inbox", "read", "nothing.eml").code == 2


def test_what_is_for_a_person_is_listed_and_settled(
    people: Path, mail: Callable[[str], bytes], tocsin: Tocsin
) -> None:
    """Words that may mean stop are marked; one command opts their writer out and deletes the mail."""
    assert tocsin("inbox", "list").out.strip() == "There is none."
    for name in ("person", "person-stop", "person-no-mark"):
        tocsin("inbox", "read", "-", stdin=mail(name))
    listed = tocsin("inbox", "list", "--json").json
    assert sorted(one["may_say_stop"] for one in listed) == [False, False, True]
    assert all(set(one) == {"file", "at", "may_say_stop"} for one in listed)
    (stop,) = (one["file"] for one in listed if one["may_say_stop"])
    assert "yes" in tocsin("inbox", "list").out
    ran = tocsin("inbox", "opt-out", stop)
    assert (ran.code, ran.out.strip()) == (0, "1 person opted out.")
    assert not Path(stop).exists()
    assert _no_count() == 1
    for file in (people / "var" / "inbox").glob("*.eml"):
        if b"STOP" in file.read_bytes():  # from nobody we know
            ran = tocsin("inbox", "opt-out", str(file))
            assert ran.code == 1
            assert "does not tell who wrote it" in ran.err
            assert file.exists()
    shutil.rmtree(people / "var" / "inbox")
    assert tocsin("inbox", "list", "--json").json == []
