"""Ends the tokens of an account with its password or its standing, whoever writes the row.

A version that code counts up can be counted up twice to the same number, or be written back by a
save of an older copy. Here it only ever grows, under the row's lock.
"""

from django.db import migrations

CREATE = """
CREATE FUNCTION accounts_keep_token_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.password <> OLD.password OR NEW.is_active <> OLD.is_active THEN
        NEW.token_version := greatest(NEW.token_version, OLD.token_version + 1);
    ELSE
        NEW.token_version := greatest(NEW.token_version, OLD.token_version);
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER accounts_keep_token_version BEFORE UPDATE ON accounts
FOR EACH ROW EXECUTE FUNCTION accounts_keep_token_version();
"""
DROP = """
DROP TRIGGER accounts_keep_token_version ON accounts;
DROP FUNCTION accounts_keep_token_version();
"""


class Migration(migrations.Migration):
    dependencies = [("parentalcontrols", "0001_initial")]

    operations = [migrations.RunSQL(CREATE, DROP)]
