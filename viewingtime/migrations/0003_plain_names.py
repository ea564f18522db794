"""Names and hints for staff to read; the tables stay as they are."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('viewingtime', '0002_ix_vs_profile_started'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='viewingtimebalance',
            options={'verbose_name': 'viewing-time balance'},
        ),
        migrations.AlterField(
            model_name='timegrant',
            name='is_remote',
            field=models.BooleanField(help_text="Given from the parent's own device, without a PIN.", verbose_name="from the parent's device"),
        ),
        migrations.AlterField(
            model_name='timegrant',
            name='reset_date',
            field=models.DateField(verbose_name='viewing day'),
        ),
        migrations.AlterField(
            model_name='viewingsession',
            name='is_educational',
            field=models.BooleanField(db_default=False, default=False, help_text="The title's flag at the start.", verbose_name='educational'),
        ),
        migrations.AlterField(
            model_name='viewingsession',
            name='reset_date',
            field=models.DateField(verbose_name='viewing day'),
        ),
        migrations.AlterField(
            model_name='viewingtimebalance',
            name='is_unlimited_override',
            field=models.BooleanField(db_default=False, default=False, verbose_name='limit lifted'),
        ),
        migrations.AlterField(
            model_name='viewingtimebalance',
            name='reset_date',
            field=models.DateField(verbose_name='viewing day'),
        ),
    ]
