"""The paths of viewing time, below `/api/v1/`."""

from django.urls import path

from viewingtime import data_views, views

urlpatterns = [
    path("viewing-time/heartbeat", views.HeartbeatView.as_view(), name="heartbeat"),
    path("viewing-time/heartbeats", views.HeartbeatBatchView.as_view(), name="heartbeats"),
    path(
        "viewing-time/session/<id:session_id>/end",
        views.SessionEndView.as_view(),
        name="end-session",
    ),
    path("viewing-time/balance/<id:profile_id>", views.BalanceView.as_view(), name="balance"),
    path(
        "viewing-time/playback-eligible/<id:profile_id>",
        views.EligibilityView.as_view(),
        name="playback-eligible",
    ),
    path(
        "parental-controls/profiles/<id:profile_id>/viewing-time",
        views.ViewingTimeConfigView.as_view(),
        name="viewing-time",
    ),
    path(
        "parental-controls/profiles/<id:profile_id>/viewing-time/grant",
        views.GrantView.as_view(),
        name="grant",
    ),
    path(
        "parental-controls/profiles/<id:profile_id>/history",
        views.HistoryView.as_view(),
        name="history",
    ),
    path(
        "parental-controls/weekly-report",
        views.WeeklyReportView.as_view(),
        name="weekly-report",
    ),
    path(
        "auth/profiles/<id:profile_id>/erase",
        data_views.EraseProfileView.as_view(),
        name="erase-profile",
    ),
    path("account/erase", data_views.EraseAccountView.as_view(), name="erase-account"),
    path("account/export", data_views.ExportView.as_view(), name="export"),
]
