import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('parentalcontrols', '0002_token_version_is_kept_by_the_database'),
    ]

    operations = [
        migrations.AddField(
            model_name='refreshfamily',
            name='profile',
            field=models.ForeignKey(blank=True, help_text='The child that the tokens speak for; without one they speak for the parent.', null=True, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='refresh_families', to='parentalcontrols.profile'),
        ),
        migrations.CreateModel(
            name='RateLimitWindow',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=40)),
                ('subject', models.BinaryField()),
                ('ends_at', models.DateTimeField()),
                ('count', models.PositiveIntegerField()),
            ],
            options={
                'db_table': 'rate_limit_windows',
                'indexes': [models.Index(fields=['ends_at'], name='ix_rate_limit_ends')],
                'constraints': [models.UniqueConstraint(fields=('name', 'subject'), name='uq_rate_limit_name_subject')],
            },
        ),
        migrations.CreateModel(
            name='IdempotencyKey',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('route', models.CharField(max_length=100)),
                ('key', models.CharField(max_length=255)),
                ('fingerprint', models.BinaryField(help_text='A keyed hash of the body.')),
                ('answer', models.JSONField(null=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('account', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='idempotency_keys', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'db_table': 'idempotency_keys',
                'indexes': [models.Index(fields=['created_at'], name='ix_idempotency_created')],
                'constraints': [models.UniqueConstraint(fields=('account', 'route', 'key'), name='uq_idempotency_account_route_key')],
            },
        ),
    ]
