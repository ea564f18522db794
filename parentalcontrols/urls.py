"""Every path of the service. Other packages are reached by their names alone."""

from uuid import UUID

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, register_converter
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerSplitView

from parentalcontrols import metrics_views, pin_views, problems, views
from parentalcontrols.admin import change_own_password
from parentalcontrols.openapi_views import DocumentView


class AnyCaseUUIDConverter:
    """A UUID in a path, its letters in either case; anything else is a 404."""

    regex = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"

    def to_python(self, value: str) -> UUID:
        return UUID(value)

    def to_url(self, value: UUID | str) -> str:
        return str(value)


register_converter(AnyCaseUUIDConverter, "id")

api: list[URLPattern | URLResolver] = [
    path("auth/register", views.RegisterView.as_view(), name="register"),
    path("auth/login", views.LoginView.as_view(), name="login"),
    path("auth/refresh", views.RefreshView.as_view(), name="refresh"),
    path("auth/me", views.MeView.as_view(), name="me"),
    path("auth/profiles", views.ProfilesView.as_view(), name="profiles"),
    path(
        "auth/profiles/<id:profile_id>/select",
        views.SelectProfileView.as_view(),
        name="select-profile",
    ),
    path(
        "auth/profiles/<id:profile_id>/token",
        views.ProfileTokenView.as_view(),
        name="profile-token",
    ),
    path("parental-controls/pin", pin_views.PinView.as_view(), name="pin"),
    path("parental-controls/pin/status", pin_views.PinStatusView.as_view(), name="pin-status"),
    path("parental-controls/pin/verify", pin_views.PinVerifyView.as_view(), name="pin-verify"),
    path("parental-controls/pin/reset", pin_views.PinResetView.as_view(), name="pin-reset"),
    path("parental-controls/audit", pin_views.AuditView.as_view(), name="audit"),
    path("admin/metrics", metrics_views.AdminMetricsView.as_view(), name="admin-metrics"),
    path("", include("viewingtime.urls")),
]

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="docs"), name="root"),
    path("api/docs", RedirectView.as_view(pattern_name="docs")),
    path("api/v1/", include(api)),
    path("api/schema/", DocumentView.as_view(), name="schema"),
    path(
        "api/docs/",
        SpectacularSwaggerSplitView.as_view(
            url_name="schema", template_name="parentalcontrols/docs.html"
        ),
        name="docs",
    ),
    path("livez", views.livez, name="livez"),
    path("readyz", views.readyz, name="readyz"),
    path("metrics", metrics_views.prometheus, name="metrics"),
    path("admin/password_change/", admin.site.admin_view(change_own_password, cacheable=True)),
    path("admin/", admin.site.urls),
]

handler400 = problems.bad_request
handler403 = problems.permission_denied
handler404 = problems.page_not_found
handler500 = problems.server_error
