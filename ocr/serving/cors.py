"""Cross-origin resource sharing: which other sites' pages may use the REST interface. See https://fetch.spec.whatwg.org."""

from collections.abc import Awaitable, Callable, Collection, Sequence

from aiohttp import web

_METHODS = "GET, POST"
_MAX_AGE_S = 600  # that browsers remember the answer to a preflight request


def allow(app: web.Application, origins: Sequence[str], own_paths: Collection[str] = ()) -> None:
    """Lets pages of other origins use an application.

    Args:
      app: The application.
      origins: Such as `https://example.org`; `*` alone for all.
      own_paths: Paths that only the application's own pages may use.
    """

    def allowed(request: web.BaseRequest) -> str:
        origin = "" if request.path in own_paths else request.headers.get("Origin", "")
        return "*" if "*" in origins and origin else origin if origin in origins else ""

    async def add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
        if origin := allowed(request):
            response.headers["Access-Control-Allow-Origin"] = origin
        if "*" not in origins:
            response.headers.add("Vary", "Origin")

    @web.middleware
    async def answer_preflight(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers or not allowed(request):
            return await handler(request)
        headers = {"Access-Control-Allow-Methods": _METHODS, "Access-Control-Max-Age": str(_MAX_AGE_S)}
        if wanted := request.headers.get("Access-Control-Request-Headers"):
            headers |= {"Access-Control-Allow-Headers": wanted, "Vary": "Access-Control-Request-Headers"}
        return web.Response(status=204, headers=headers)

    app.on_response_prepare.append(add_headers)
    app.middlewares.append(answer_preflight)
