"""The web server that all pages share: who is let in, how mistakes are answered, path prefixes, static files."""

import socket

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from persistworld.apps.server import LOOPBACK, allowed_hosts, below, make_app, serve
from persistworld.runtime.errors import UserError


@pytest.fixture
def app():
    app = make_app("Test", "base.css")

    @app.get("/mistake")
    def mistake():
        raise UserError("a value:\n  choose another")

    @app.post("/double")
    def double(value: int) -> int:
        return 2 * value

    @app.websocket("/echo")
    async def echo(connection: WebSocket):
        await connection.accept()
        await connection.send_text(await connection.receive_text())

    return app


def client(app, host="localhost"):
    return TestClient(app, base_url=f"http://{host}")


def test_serves_the_page_and_static_files_with_headers(app):
    answer = client(app).get("/")
    assert answer.status_code == 200 and "default-src 'self'" in answer.headers["content-security-policy"]
    assert client(app).get("/static/base.js").status_code == 200
    assert client(app).get("/static/../server.py").status_code == 404


def test_mistakes_are_one_line_of_json(app):
    answer = client(app).get("/mistake")
    assert (answer.status_code, answer.json()) == (400, {"error": "a value: choose another"})
    answer = client(app).post("/double?value=x")
    assert answer.status_code == 400 and answer.json()["error"].startswith("value: ")


def test_other_host_names_are_refused(app):
    assert client(app, "rebound.example").get("/").status_code == 403
    assert client(app, "127.0.0.1:8000").get("/").status_code == 200
    with pytest.raises(WebSocketDisconnect), client(app).websocket_connect("ws://rebound.example/echo"):
        pass


ORIGINS = [("http://localhost:8000", True), ("http://127.0.0.1:1", True), ("http://evil.example", False), ("null", False)]


@pytest.mark.parametrize("origin, passes", ORIGINS)
def test_other_sites_pages_cannot_change_anything(app, origin, passes):
    there = client(app, "localhost:8000")
    assert (there.post("/double?value=2", headers={"Origin": origin}).status_code == 200) == passes
    assert there.get("/", headers={"Origin": origin}).status_code == 200
    if passes:
        with there.websocket_connect("ws://localhost:8000/echo", headers={"Origin": origin}) as connection:
            connection.send_text("a")
            assert connection.receive_text() == "a"
    else:
        with pytest.raises(WebSocketDisconnect), there.websocket_connect("ws://localhost:8000/echo", headers={"Origin": origin}):
            pass


def test_below_a_prefix(app):
    there = client(below("/lab/drive", app))
    assert str(there.get("/lab/drive").url) == "http://localhost/lab/drive/"
    assert there.get("/lab/drive/static/base.css").status_code == 200
    assert there.get("/").status_code == 404
    with pytest.raises(UserError):
        below("/lab//drive", app)


def test_a_server_open_to_others_takes_any_name_unless_told():
    assert allowed_hosts("127.0.0.1", ["lab.example"]) == (*LOOPBACK, "lab.example")
    assert allowed_hosts("0.0.0.0") == ()
    assert client(make_app("Test", "base.css", allowed_hosts("0.0.0.0")), "lab.example").get("/").status_code == 200
    assert client(make_app("Test", "base.css", allowed_hosts("0.0.0.0", ["lab.example"])), "other.example").get("/").status_code == 403


def test_a_taken_port_is_one_line(app):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=str(port)):
            serve(app, "127.0.0.1", port)
