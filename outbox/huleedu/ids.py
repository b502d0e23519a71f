"""An id in the path of a URL."""

from __future__ import annotations

from typing import Final

from starlette.convertors import PathConvertor, register_url_convertor

ANY_ID: Final = "anything"
"""In a route, `{batch_id:anything}`: an id may have a slash in it, or the end of a line."""


class _Anything(PathConvertor):
    regex = r"[\s\S]+"


register_url_convertor(ANY_ID, _Anything())
