from __future__ import annotations

import sqlite3

from redline.load.record import RequestRecord
from redline.store import migrations


def test_names_are_numbered_in_order() -> None:
    names = [migration.__name__ for migration in migrations.MIGRATIONS]
    assert [int(name[1:4]) for name in names] == list(range(1, len(names) + 1))
    assert all(migration.__doc__ for migration in migrations.MIGRATIONS)


def test_every_field_of_a_request_has_its_column() -> None:
    db = sqlite3.connect(":memory:")
    for migration in migrations.MIGRATIONS:
        migration(db)
    columns = {row[1] for row in db.execute("PRAGMA table_info(request)")}
    fields = {"request_index" if name == "index" else name for name in RequestRecord.__dataclass_fields__}
    assert fields <= columns
    db.close()
