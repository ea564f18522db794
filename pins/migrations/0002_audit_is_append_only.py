"""What was recorded stays as it was recorded, whoever asks: no row is changed or deleted."""

from django.db import migrations

CREATE = """
CREATE FUNCTION audit_entries_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit entries are append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_entries_refuse_change BEFORE UPDATE OR DELETE ON audit_entries
FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_refuse_change();
"""
DROP = """
DROP TRIGGER audit_entries_refuse_change ON audit_entries;
DROP FUNCTION audit_entries_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("pins", "0001_initial")]

    operations = [migrations.RunSQL(CREATE, DROP)]
