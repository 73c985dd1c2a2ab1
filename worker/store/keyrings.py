"""Which key ring this store belongs to: another one, though readable, would find no suppression.

Owns the fingerprint. Refuses: keys; it is given marks made with them.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from worker.errors import WrongUse
from worker.store.database import Database, insert_new
from worker.store.schema import keyrings


def require(database: Database, fingerprints: Sequence[bytes]) -> None:
    """Raise WrongUse unless this store was made with one of the keys so marked; the first use marks it.

    With another key, nobody who said no would be recognised.
    """
    query = sa.select(keyrings.c.fingerprint)
    with database.read() as connection:
        known = connection.execute(query).scalar_one_or_none()
    if known is None:
        with database.write() as connection:
            mark = insert_new(keyrings, connection).values(id=1, fingerprint=fingerprints[0])
            connection.execute(mark.on_conflict_do_nothing())
            known = connection.execute(query).scalar_one()
    if known not in fingerprints:
        raise WrongUse(
            "this key ring is not the one that this database was made with",
            remedy="Restore var/secret.toml from its copy; with another one no opt-out would be found.",
        )
