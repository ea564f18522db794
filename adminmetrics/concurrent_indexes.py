"""A migration's index that is built beside the running service, and can be built again.

`CREATE INDEX CONCURRENTLY` that is interrupted leaves an invalid index behind, which writes keep
up to date and no query uses. Django's own operation then stops at its name.
"""

from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently

from adminmetrics import catalogue
from adminmetrics.comparison import differences
from adminmetrics.declarations import declared_index


class BuildIndexConcurrently(AddIndexConcurrently):
    """`AddIndexConcurrently` that can be run again, for a migration with `atomic = False`.

    An index of that name in the schema of the table is left alone where it is valid and as
    declared, by the same comparison as in `manage.py verify_indexes`, and replaced where it is
    not: in another order, invalid, or on another table. Taking it back drops it.
    """

    def describe(self) -> str:
        return f"{super().describe()}, unless it stands already"

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        self._ensure_not_in_transaction(schema_editor)
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        # Where the SQL is only collected (`sqlmigrate`) there may be no table yet.
        if not schema_editor.collect_sql:
            declared = declared_index(model, self.index)
            owner = catalogue.owner_of_index(self.index.name, beside=declared.table)
            if owner is not None:
                of_owner = catalogue.indexes_of([owner])
                found = next(one for one in of_owner if one.what.name == self.index.name)
                if found.is_valid and not differences(declared, found.what):
                    return
                schema_editor.remove_index(model, self.index, concurrently=True)
        schema_editor.add_index(model, self.index, concurrently=True)
