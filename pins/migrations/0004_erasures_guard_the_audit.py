"""Entries of the audit may be deleted by the erasure that they belong to, and by nothing else."""

from django.db import migrations

CREATE = """
DROP TRIGGER audit_entries_refuse_change ON audit_entries;
CREATE TRIGGER audit_entries_refuse_change BEFORE UPDATE ON audit_entries
FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_refuse_change();

CREATE FUNCTION audit_entries_refuse_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM gone AS g
        WHERE NOT EXISTS (
            SELECT FROM erasures AS e
            WHERE e.account_id = g.account_id
                AND (e.profile_id IS NULL OR e.profile_id = g.profile_id)
                AND e.transaction_id = pg_current_xact_id()::text::bigint
        )
    ) THEN
        RAISE EXCEPTION 'audit entries are append-only' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_entries_refuse_deletion AFTER DELETE ON audit_entries
REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_refuse_deletion();

CREATE FUNCTION erasures_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'erasures are append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER erasures_refuse_change BEFORE UPDATE OR DELETE ON erasures
FOR EACH STATEMENT EXECUTE FUNCTION erasures_refuse_change();
"""
DROP = """
DROP TRIGGER erasures_refuse_change ON erasures;
DROP FUNCTION erasures_refuse_change();
DROP TRIGGER audit_entries_refuse_deletion ON audit_entries;
DROP FUNCTION audit_entries_refuse_deletion();
DROP TRIGGER audit_entries_refuse_change ON audit_entries;
CREATE TRIGGER audit_entries_refuse_change BEFORE UPDATE OR DELETE ON audit_entries
FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("pins", "0003_erasures")]

    operations = [migrations.RunSQL(CREATE, DROP)]
