"""Numbers handed out ahead of the rows that will bear them: people, batches.

Owns the counters. Refuses: to take a number back; what is not used harms nobody.
"""

import sqlalchemy as sa

from worker.store.database import insert_new
from worker.store.schema import counters


def allocate(connection: sa.Connection, name: str, count: int) -> int:
    """Take `count` numbers of a counter inside the caller's transaction; return the first.

    Until that transaction ends, whoever else wants some of this counter waits.
    """
    statement = insert_new(counters, connection).values(name=name, value=count)
    statement = statement.on_conflict_do_update(
        index_elements=["name"], set_={"value": counters.c.value + count}
    )
    return int(connection.execute(statement.returning(counters.c.value)).scalar_one()) - count + 1
