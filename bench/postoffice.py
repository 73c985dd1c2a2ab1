"""django-post_office with Celery, told to be as fast as it can: a whole Django project in one file.

    python bench/postoffice.py prepare|enqueue|worker FILE

Runs in a Python of its own (`make bench` makes it from bench/requirements-postoffice.txt); what it is to do
stands in the variables RIVAL_…. FILE is JSON: the sources, and the people with their fields.
`bench/dispatch.py` runs it; docs/performance.md says which settings were tried.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import django
from celery import Celery
from django.conf import settings

_PROCESSES: Final = int(os.environ["RIVAL_PROCESSES"])


_STORE: Final = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "postgres",
    "USER": "tocsin",
    "HOST": os.environ["RIVAL_DATABASE"],
}

settings.configure(
    SECRET_KEY="nothing is signed here",  # noqa: S106 - it is not one
    INSTALLED_APPS=["django.contrib.contenttypes", "post_office"],
    DATABASES={"default": _STORE},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    EMAIL_HOST="127.0.0.1",
    EMAIL_PORT=int(os.environ["RIVAL_PORT"]),
    DEFAULT_FROM_EMAIL="Letters For All <letters@example.org>",
    LOGGING_CONFIG=None,
    POST_OFFICE={
        "CELERY_ENABLED": True,
        "BATCH_SIZE": int(os.environ["RIVAL_BATCH"]),
        "THREADS_PER_PROCESS": int(os.environ["RIVAL_THREADS"]),
        "LOG_LEVEL": 0,  # nothing written down per mail but its state
    },
)
django.setup()

app = Celery("rival", broker=os.environ["RIVAL_BROKER"])
app.conf.update(
    task_ignore_result=True, broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1
)
app.set_default()

from django.core.management import call_command  # noqa: E402 - Django must be set up before
from post_office import mail, tasks  # noqa: E402 - likewise
from post_office.models import EmailTemplate  # noqa: E402 - likewise


@app.task(name="rival.drain")  # type: ignore[untyped-decorator] # Celery publishes no types
def drain() -> None:
    """Send what is queued with several processes; the task that ships sends with one."""
    mail.send_queued_mail_until_done(lockfile=os.environ["RIVAL_LOCK"], processes=_PROCESSES)


def prepare(told: Mapping[str, Any]) -> None:
    """Make the tables and the template."""
    call_command("migrate", verbosity=0)
    sources = told["sources"]
    EmailTemplate.objects.create(
        name="hearing", subject=sources["subject"], content=sources["text"], html_content=sources["inlined"]
    )


def enqueue(people: Sequence[Mapping[str, Any]]) -> None:
    """Queue a mail for everybody.

    Prints when it began, in UTC seconds.
    """
    ring = _bell() if "RIVAL_RING" in os.environ else lambda: None
    tasks.send_queued_mail.delay = ring  # what its signal calls once for each bulk
    template = EmailTemplate.objects.get(name="hearing")
    rest = iter(people[: int(os.environ["RIVAL_COUNT"])])
    print(time.time())
    while bulk := list(islice(rest, int(os.environ["RIVAL_BULK"]))):
        mail.send_many([_order(person, template) for person in bulk])


def _bell() -> Callable[[], object]:
    """Return what tells the worker to send: the task that ships, or ours for several processes."""
    ring: Callable[[], object] = drain.delay if _PROCESSES > 1 else tasks.send_queued_mail.delay
    return ring


def _order(person: Mapping[str, Any], template: EmailTemplate) -> dict[str, Any]:
    values = person["values"]
    return {
        "recipients": [person["address"]],
        "template": template,
        "context": values,
        "render_on_delivery": os.environ["RIVAL_LATE"] == "1",
        "headers": {
            "List-Unsubscribe": f"<{values['opt_out_url']}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        },
    }


def worker() -> None:
    """Run one Celery worker; a second one would find the queue locked."""
    if "RIVAL_BEGIN" in os.environ:
        _bell()()
    # Its Pool of processes cannot be made inside Celery's own pool of processes.
    pool = "solo" if _PROCESSES > 1 else "prefork"
    words = ["--concurrency=1", "--without-gossip", "--without-mingle", "--loglevel=INFO"]
    app.worker_main(["worker", f"--pool={pool}", *words])


def main() -> None:
    """Do as told."""
    if sys.argv[1] == "worker":
        worker()
        return
    told = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    if sys.argv[1] == "prepare":
        prepare(told)
    else:
        enqueue(told["people"])


if __name__ == "__main__":
    main()
