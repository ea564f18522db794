"""Names and hints for staff to read; the tables stay as they are."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('parentalcontrols', '0004_refresh_family_indexes'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='refreshfamily',
            options={'verbose_name': 'refresh token family', 'verbose_name_plural': 'refresh token families'},
        ),
        migrations.AlterModelOptions(
            name='viewingtimeconfig',
            options={'verbose_name': 'viewing-time config'},
        ),
        migrations.AlterField(
            model_name='account',
            name='is_active',
            field=models.BooleanField(db_default=True, default=True, help_text='Without it every token of the account is refused.', verbose_name='active'),
        ),
        migrations.AlterField(
            model_name='account',
            name='is_staff',
            field=models.BooleanField(db_default=False, default=False, help_text='May enter this site, and read the metrics by the API. What is seen and done here is up to the groups: support sees every page and changes nothing; operator also deactivates and reactivates accounts, unlocks PINs, and edits and withdraws titles. Without a group there is nothing to see.', verbose_name='staff'),
        ),
        migrations.AlterField(
            model_name='profile',
            name='avatar_url',
            field=models.URLField(blank=True, max_length=500, null=True, verbose_name='avatar URL'),
        ),
        migrations.AlterField(
            model_name='profile',
            name='is_kids',
            field=models.BooleanField(db_default=False, default=False, verbose_name='child'),
        ),
        migrations.AlterField(
            model_name='title',
            name='artwork_url',
            field=models.URLField(blank=True, db_default='', default='', max_length=500, verbose_name='artwork URL'),
        ),
        migrations.AlterField(
            model_name='title',
            name='is_educational',
            field=models.BooleanField(db_default=False, default=False, verbose_name='educational'),
        ),
        migrations.AlterField(
            model_name='viewingtimeconfig',
            name='educational_exempt',
            field=models.BooleanField(db_default=True, default=True, verbose_name='educational titles exempt'),
        ),
    ]
