"""The OpenAPI document, as it is answered."""

import hashlib
from functools import cache
from typing import Any

from django.http import HttpResponse
from django.utils.cache import get_conditional_response
from drf_spectacular.renderers import OpenApiJsonRenderer2
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request


@cache
def _document() -> tuple[bytes, str]:
    """The document and its entity tag, made once: that takes the process a tenth of a second."""
    generator: Any = SpectacularAPIView.generator_class()
    content: bytes = OpenApiJsonRenderer2().render(generator.get_schema(request=None, public=True))
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


class DocumentView(SpectacularAPIView):
    """The document for whoever asks; the same for all, so it may be kept for five minutes."""

    renderer_classes = [OpenApiJsonRenderer2]

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        content, tag = _document()
        response = HttpResponse(
            content,
            content_type=OpenApiJsonRenderer2.media_type,
            headers={"ETag": tag, "Cache-Control": "public, max-age=300"},
        )
        return get_conditional_response(request._request, etag=tag, response=response) or response
