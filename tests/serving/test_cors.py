import urllib.error
import urllib.request

import pytest

PAGE, OTHER = "https://page.example", "https://other.example"


def headers(url: str, method: str, body: bytes | None = None, **given: str) -> tuple[int, dict[str, str]]:
    """Returns the status of a response and those of its headers that concern other origins."""
    request = urllib.request.Request(url, body, {name.replace("_", "-"): value for name, value in given.items()}, method=method)
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        named = {name: ", ".join(response.headers.get_all(name)) for name in set(response.headers)}
        return response.status, {name: value for name, value in named.items() if name == "Vary" or "Access" in name}


def preflight(url: str, origin: str) -> tuple[int, dict[str, str]]:
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "content-type"}
    return headers(url, "OPTIONS", Origin=origin, **asked)


def test_only_listed_origins_may_use_rest(serve_in_thread, small_exports):
    with serve_in_thread(small_exports, cors_origins=f"http://localhost:3000,{PAGE}") as server:
        url = f"{server.rest}/v1/models/ocr"
        assert preflight(f"{url}:predict", PAGE) == (
            204,
            {
                "Access-Control-Allow-Origin": PAGE,
                "Access-Control-Allow-Methods": "GET, POST",
                "Access-Control-Allow-Headers": "content-type",
                "Access-Control-Max-Age": "600",
                "Vary": "Access-Control-Request-Headers, Origin",
            },
        )
        assert preflight(f"{url}:predict", OTHER) == (405, {"Vary": "Origin"})
        echoed = {"Access-Control-Allow-Origin": PAGE, "Vary": "Origin"}
        assert headers(url, "GET", Origin=PAGE) == (200, echoed)
        assert headers(f"{url}:predict", "POST", b"{", Origin=PAGE) == (400, echoed), "a page can read errors too"
        assert headers(f"{server.rest}/none", "GET", Origin=PAGE) == (404, echoed)
        for given in ({"Origin": OTHER}, {"Origin": f"{PAGE}.evil.example"}, {"Origin": "null"}, {}):
            assert headers(url, "GET", **given) == (200, {"Vary": "Origin"}), given


def test_all_origins_may_use_rest_if_so_configured(serve_in_thread, small_exports):
    with serve_in_thread(small_exports, cors_origins="*") as server:
        url = f"{server.rest}/v1/models/ocr"
        assert headers(url, "GET", Origin=OTHER) == (200, {"Access-Control-Allow-Origin": "*"})
        assert preflight(url, OTHER)[1]["Access-Control-Allow-Origin"] == "*"
        assert headers(url, "GET") == (200, {})


def test_no_other_origin_may_write_corrections(serve_in_thread, small_exports, tmp_path):
    with serve_in_thread(small_exports, cors_origins="*", corrections_dir=str(tmp_path / "kept")) as server:
        # Without an answer to this question browsers send no JSON to another site.
        assert preflight(f"{server.rest}/v1/corrections", OTHER) == (405, {})


def test_no_other_origin_may_use_rest_by_default(server):
    url = f"{server.rest}/v1/models/ocr"
    assert headers(url, "GET", Origin=PAGE) == (200, {})
    assert preflight(f"{url}:predict", PAGE) == (405, {})


NO_ORIGINS = ["example.org", "https://example.org/", "https://a.example,*", "null", "https://a.example,", "HTTPS://A"]


@pytest.mark.parametrize("origins", NO_ORIGINS)
def test_origins_that_no_browser_sends_are_refused(invoke, origins: str):
    done = invoke("ocr_serve", "--export_dir=export", f"--cors_origins={origins}")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith("error: --cors_origins: ")
