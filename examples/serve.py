"""Answer observations with actions over HTTP: one agent, and for each client a memory of its own.

python examples/train_by_hand.py && python examples/serve.py t_maze.pt

POST /begin {} -> {"session": ...}, POST /act {"session": ..., "observation": ...} -> {"action": ...},
POST /reset {"session": ...} where an episode begins, POST /end {"session": ...}. Errors are {"error": ...}.
"""

import argparse
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from rl import Player

LARGEST = 10_000_000  # bytes of a request


class RequestError(Exception):
    """A request that cannot be served: the HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class Session:
    """What is kept of one client: its memory, None where an episode begins, and when it was used last."""

    def __init__(self) -> None:
        self.state: Any = None
        self.lock = Lock()  # two requests of one client wait for each other, those of several do not
        self.used = time.monotonic()


class Service:
    """The calls of clients, whatever carries them; threads may share it.

    Args:
        player: chooses the actions; it holds nothing that changes, since the memories are handed in.
        most: sessions at a time.
        idle: seconds after which a session that nobody uses may be given up.
    """

    def __init__(self, player: Player, most: int = 1_000, idle: float = 600.0):
        self.player, self.most, self.idle = player, most, idle
        self.sessions: dict[str, Session] = {}
        self.lock = Lock()  # of the dict

    def begin(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make a session; give up those that nobody uses any more."""
        name, oldest = uuid.uuid4().hex, time.monotonic() - self.idle
        with self.lock:
            self.sessions = {key: each for key, each in self.sessions.items() if each.used > oldest}
            if len(self.sessions) >= self.most:
                raise RequestError(503, f"{self.most} sessions are open: end one, or try later")
            self.sessions[name] = Session()
        return {"session": name}

    def act(self, request: dict[str, Any]) -> dict[str, Any]:
        """Choose an action and keep what the memory has become; after an error it is as it was."""
        session = self.find(request)
        if "observation" not in request:
            raise RequestError(400, "observation is missing")
        try:
            observation = read_observation(self.player.observation_space, request["observation"])
            with session.lock:
                fresh = session.state is None
                state = self.player.initial_state() if fresh else session.state
                options = {"starts": fresh, "rewards": request.get("reward")}
                action, session.state = self.player.act(observation, state, **options)
        except ValueError as error:
            raise RequestError(400, str(error)) from error
        return {"action": np.asarray(action).tolist()}

    def reset(self, request: dict[str, Any]) -> dict[str, Any]:
        """Clear the memory of a session: an episode begins."""
        session = self.find(request)
        with session.lock:
            session.state = None
        return {"session": request["session"]}

    def end(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget a session."""
        self.find(request)
        with self.lock:
            self.sessions.pop(request["session"], None)
        return {}

    def find(self, request: dict[str, Any]) -> Session:
        """Return the session that a request names."""
        name = request.get("session")
        session = self.sessions.get(name) if isinstance(name, str) else None
        if session is None:
            raise RequestError(404, f"there is no session {name!r}: POST /begin makes one")
        session.used = time.monotonic()
        return session


def read_observation(space: spaces.Space | None, value: Any) -> Any:
    """Bring what JSON holds into the structure of the space; the player says what does not fit.

    Raises:
        ValueError: it has a part that the space does not have.
    """
    if isinstance(space, spaces.Dict) and isinstance(value, dict):
        if unknown := sorted(value.keys() - space.spaces.keys()):
            raise ValueError(f"observation has the part {unknown[0]!r}: there are {', '.join(space.spaces)} alone")
        return {key: read_observation(space.spaces[key], part) for key, part in value.items()}
    if isinstance(space, spaces.Tuple) and isinstance(value, list) and len(value) == len(space):
        return tuple(map(read_observation, space, value))
    return np.asarray(value)


class Handler(BaseHTTPRequestHandler):
    """Reads a request, asks the service of its server, and answers in JSON."""

    protocol_version = "HTTP/1.1"  # one connection for many steps
    disable_nagle_algorithm = True  # an answer is short, and waits for nothing
    server: "Server"

    def do_POST(self) -> None:
        """Answer a call."""
        try:
            self.answer(200, self.call())
        except RequestError as error:
            self.answer(error.status, {"error": str(error)})
        except Exception as error:  # whatever it was, the client hears of it and the server goes on
            self.log_error("%r", error)
            self.answer(500, {"error": "the server failed, see its log"})

    def do_GET(self) -> None:
        """Say what can be called."""
        self.answer(405, {"error": f"use POST: {', '.join(self.server.calls)}"})

    def call(self) -> dict[str, Any]:
        """Return what the service says."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > LARGEST:
            self.close_connection = True  # its body is not read
            raise RequestError(413, f"Content-Length={length}: it must be a number of bytes, {LARGEST} at most")
        body = self.rfile.read(int(length))
        call = self.server.calls.get(self.path)
        if call is None:
            raise RequestError(404, f"there is no {self.path}; there are {', '.join(self.server.calls)}")
        try:
            request = json.loads(body or b"{}")
        except ValueError as error:
            raise RequestError(400, f"the request is no JSON: {error}") from error
        if not isinstance(request, dict):
            raise RequestError(400, "the request must be a JSON object")
        return call(request)

    def answer(self, status: int, content: dict[str, Any]) -> None:
        """Send a JSON object."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Keep silent about each step; errors are logged."""


class Server(ThreadingHTTPServer):
    """A thread for each connection, all with one service."""

    daemon_threads = True

    def __init__(self, service: Service, port: int):
        self.calls: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "/begin": service.begin,
            "/act": service.act,
            "/reset": service.reset,
            "/end": service.end,
        }
        super().__init__(("127.0.0.1", port), Handler)  # other machines see nothing of it


def main(
    path: str | Path,
    port: int = 8000,
    trust: Iterable[str] = (),
    listening: Callable[[Server], object] | None = None,
) -> None:
    """Serve the agent in ``path`` until Ctrl-C; ``listening`` is told of the server once it takes requests."""
    torch.set_num_threads(1)  # small networks are faster on one thread, and each client has one of its own
    with Server(Service(Player(path, trust=trust)), port) as server:
        print(f"http://127.0.0.1:{server.server_port} answers POST {', '.join(server.calls)}", flush=True)
        if listening is not None:
            listening(server)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="a run folder or a checkpoint")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--trust", nargs="*", default=(), help="packages of yours that the agent is made of")
    given = parser.parse_args()
    try:
        main(given.path, given.port, given.trust)
    except (OSError, ValueError) as fault:
        sys.exit(f"serve: {fault}")
