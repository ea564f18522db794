import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Pin',
            fields=[
                ('account', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='pin', serialize=False, to=settings.AUTH_USER_MODEL)),
                ('pin_hash', models.CharField(editable=False, max_length=100)),
                ('version', models.UUIDField(default=uuid.uuid4, editable=False, help_text='A new one with every new PIN.')),
                ('attempts_reserved', models.BigIntegerField(db_default=0, default=0, editable=False)),
                ('attempts_cleared', models.BigIntegerField(db_default=0, default=0, editable=False)),
                ('locked_until', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('changed_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
            ],
            options={
                'verbose_name': 'PIN',
                'verbose_name_plural': 'PINs',
                'db_table': 'pins',
                'indexes': [models.Index(condition=models.Q(('locked_until__isnull', False)), fields=['locked_until'], name='ix_pins_locked')],
                'constraints': [models.CheckConstraint(condition=models.Q(('attempts_cleared__gte', 0), ('attempts_reserved__gte', models.F('attempts_cleared'))), name='ck_pins_attempts')],
            },
        ),
        migrations.CreateModel(
            name='UsedPinToken',
            fields=[
                ('token_id', models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ('expires_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'used_pin_tokens',
                'indexes': [models.Index(fields=['expires_at'], name='ix_used_pin_tokens_expires')],
            },
        ),
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('profile_id', models.UUIDField(blank=True, null=True)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('action', models.CharField(choices=[('pin_set', 'PIN set'), ('pin_changed', 'PIN changed'), ('pin_reset', 'PIN reset by password'), ('pin_locked', 'PIN locked'), ('pin_unlocked', 'PIN unlocked'), ('config_changed', 'Viewing-time config changed'), ('time_granted', 'Extra time granted'), ('profile_created', 'Profile created'), ('profile_token_issued', "Token for a child's device issued"), ('account_deactivated', 'Account deactivated'), ('account_reactivated', 'Account reactivated')], max_length=30)),
                ('actor', models.CharField(choices=[('account', 'account token'), ('profile', 'profile token'), ('staff', 'member of staff'), ('operator', 'operator at the command line')], max_length=10)),
                ('actor_id', models.UUIDField(blank=True, help_text='The account, profile or member of staff.', null=True)),
                ('login_id', models.UUIDField(blank=True, help_text='The log-in or device token, to tell devices apart.', null=True)),
                ('device', models.CharField(blank=True, db_default='', default='', help_text='As it called itself.', max_length=200)),
                ('before', models.JSONField(blank=True, null=True)),
                ('after', models.JSONField(blank=True, null=True)),
                ('account', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='audit_entries', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name_plural': 'audit entries',
                'db_table': 'audit_entries',
                'indexes': [models.Index(fields=['account', '-id'], name='ix_audit_account')],
            },
        ),
    ]
