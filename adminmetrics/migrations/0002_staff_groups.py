"""Two groups of staff: `support` sees everything, `operator` also acts for households.

Rights are rows that Django makes after all migrations; those that are needed here are made first,
exactly as it would make them.
"""

from django.db import migrations

SHOWN = {
    "adminmetrics": ("metricprocess", "metricrollup"),
    "parentalcontrols": ("account", "profile", "refreshfamily", "title", "viewingtimeconfig"),
    "pins": ("auditentry", "pin"),
    "viewingtime": ("timegrant", "viewingsession", "viewingtimebalance"),
}
#: Deactivate and reactivate accounts, unlock PINs, correct and withdraw titles.
CHANGED = {
    "parentalcontrols": ("account", "title"),
    "pins": ("pin",),
}


def create_groups(apps, schema_editor):
    Group = apps.get_model("auth", "Group")
    support, _ = Group.objects.get_or_create(name="support")
    operator, _ = Group.objects.get_or_create(name="operator")
    for label, names in SHOWN.items():
        for name in names:
            right = _right(apps, label, "view", name)
            support.permissions.add(right)
            operator.permissions.add(right)
    for label, names in CHANGED.items():
        for name in names:
            operator.permissions.add(_right(apps, label, "change", name))


def _right(apps, label, action, name):
    ContentType = apps.get_model("contenttypes", "ContentType")
    Permission = apps.get_model("auth", "Permission")
    kind, _ = ContentType.objects.get_or_create(app_label=label, model=name)
    called = apps.get_model(label, name)._meta.verbose_name
    right, _ = Permission.objects.get_or_create(
        content_type=kind,
        codename=f"{action}_{name}",
        defaults={"name": f"Can {action} {called}"},
    )
    return right


def remove_groups(apps, schema_editor):
    apps.get_model("auth", "Group").objects.filter(name__in=("support", "operator")).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("adminmetrics", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("parentalcontrols", "0004_refresh_family_indexes"),
        ("pins", "0002_audit_is_append_only"),
        ("viewingtime", "0002_ix_vs_profile_started"),
    ]

    operations = [migrations.RunPython(create_groups, remove_groups)]
