"""Clients of a server under test: whole answers, and streams that check as they read that no token
comes twice or is left out, and that can go on after the connection has broken."""

import http.client
import json
import socket
import threading
import time
import urllib.parse

PATIENCE = 240  # seconds that a client waits for one read


class Refused(Exception):
    """An error of the server, in OpenAI's shape."""

    def __init__(self, status, error, headers=None):
        super().__init__(f"status {status}: {error}")
        self.status, self.headers = status, headers or {}
        self.code = error.get("code") if isinstance(error, dict) else None
        self.message = error.get("message", "") if isinstance(error, dict) else str(error)


def connect(url, timeout=PATIENCE):
    return http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=timeout)


def error_in(payload):
    try:
        return json.loads(payload).get("error", {})
    except (ValueError, AttributeError):
        return {"message": payload[:200].decode(errors="replace")}


def request(url, method, path, body=None, headers=None, timeout=PATIENCE):
    """(status, headers, bytes)."""
    connection = connect(url, timeout)
    try:
        payload = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        all_headers = dict(headers or {})
        if payload is not None:
            all_headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, payload, all_headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def get(url, path, timeout=10):
    return request(url, "GET", path, timeout=timeout)


def complete(url, body, headers=None, path="/v1/completions", timeout=PATIENCE):
    """A whole answer as (token ids, finish reasons) of its choices; Refused if it is an error."""
    status, head, payload = request(url, "POST", path, {**body, "stream": False}, headers, timeout)
    if status != 200:
        raise Refused(status, error_in(payload), head)
    choices = json.loads(payload)["choices"]
    return [c["token_ids"] for c in choices], [c["finish_reason"] for c in choices]


class Stream:
    """One streamed completion, read by a thread of its own.

    tokens[choice] are the ids so far, finish[choice] the reason or None. `done` after [DONE];
    `error` holds what the server said where it could not go on; `broken` where the connection ended
    before either. A patient one comes again when it is turned away for the moment (503)."""

    def __init__(self, url, body, key=None, headers=None, start=True, patient=False):
        self.url, self.body = url, {**body, "stream": True}
        self.headers = dict(headers or {})
        if key is not None:
            self.headers["Idempotency-Key"] = key
        count = body.get("n", 1)
        self.tokens, self.finish = [[] for _ in range(count)], [None] * count
        self.id = self.last_id = None
        self.done = self.broken = False
        self.error = None
        self.faults = []  # what a right server never does
        self.stamps = []  # when tokens came
        self.comments = 0
        self.connection = self.thread = None
        self.left, self.patient = False, patient
        if start:
            self.post()

    # Ways to begin and to go on.
    def post(self, last_event_id=None):
        headers = {**self.headers, "Content-Type": "application/json"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        self.begin("POST", "/v1/completions", json.dumps(self.body).encode(), headers)
        return self

    def resume(self, from_the_beginning=False):
        """GET /v1/streams/ID: what came after the last event that was read."""
        headers = {name: value for name, value in self.headers.items() if name == "Authorization"}
        if from_the_beginning:
            self.tokens, self.finish = [[] for _ in self.tokens], [None] * len(self.finish)
        elif self.last_id is not None:
            headers["Last-Event-ID"] = self.last_id
        name = self.last_id.rpartition(":")[0] if self.last_id else self.id
        self.begin("GET", f"/v1/streams/{name}", None, headers)
        return self

    def begin(self, method, path, payload, headers):
        self.done = self.broken = self.left = False
        self.error = None
        self.thread = threading.Thread(target=self.read, args=(method, path, payload, headers),
                                       daemon=True)
        self.thread.start()

    def leave(self):
        """Closes the connection in the middle."""
        self.left = True
        connection = self.connection
        if connection is not None and connection.sock is not None:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.thread.join(PATIENCE)

    def join(self, seconds=PATIENCE):
        self.thread.join(seconds)
        if self.thread.is_alive():
            raise AssertionError(f"a stream did not end in {seconds} s; {self.describe()}")
        return self

    def describe(self):
        return (f"tokens {[len(t) for t in self.tokens]} of {self.body.get('max_tokens')}, "
                f"finish {self.finish}, done {self.done}, broken {self.broken}, error {self.error}")

    def num_tokens(self):
        return sum(len(t) for t in self.tokens)

    def longest_pause(self):
        return max((b - a for a, b in zip(self.stamps, self.stamps[1:])), default=0.0)

    def result(self):
        return self.tokens, self.finish

    # Reading.
    def read(self, method, path, payload, headers):
        connection = self.connection = connect(self.url)
        try:
            connection.request(method, path, payload, headers)
            answer = connection.getresponse()
            while answer.status == 503 and self.patient:
                answer.read()
                time.sleep(0.2)
                connection.request(method, path, payload, headers)
                answer = connection.getresponse()
            if answer.status != 200:
                self.error = Refused(answer.status, error_in(answer.read()), answer.headers)
                return
            self.read_events(answer)
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
            self.broken = not self.done and self.error is None

    def read_events(self, answer):
        """An event is its fields, in any order, up to an empty line."""
        event_id = data = None
        while (line := answer.readline()):
            line = line.rstrip(b"\r\n")
            if line.startswith(b":"):
                self.comments += 1
            elif line.startswith(b"id:"):
                event_id = line[3:].strip().decode()
            elif line.startswith(b"data:"):
                data = line[5:].strip()
            elif not line and data is not None:
                if data == b"[DONE]":
                    self.done = True
                    return
                self.take(json.loads(data), event_id)
                event_id = data = None

    def take(self, chunk, event_id):
        if "error" in chunk:
            self.error = Refused(200, chunk["error"])
            return
        if self.id is None:
            self.id = chunk["id"]
        elif chunk["id"] != self.id:
            self.faults.append(f"the answer's id changed from {self.id} to {chunk['id']}")
        for choice in chunk["choices"]:
            index = choice["index"]
            if self.finish[index] is not None:
                self.faults.append(f"choice {index} went on after its end")
            if choice["token_ids"]:
                self.tokens[index] += choice["token_ids"]
                self.stamps.append(time.monotonic())
            self.finish[index] = choice["finish_reason"]
        if event_id is not None:
            self.check_id(event_id)

    def check_id(self, event_id):
        """`<answer>:<tokens pushed per choice, a dot after those that have ended>` says what we have."""
        answer, _, rest = event_id.rpartition(":")
        counts = [int(count.rstrip(".")) for count in rest.split(";")[0].split(",")]
        if not self.id.endswith(answer) or counts != [len(t) for t in self.tokens]:
            self.faults.append(f"event {event_id}, but read {self.id} {[len(t) for t in self.tokens]}")
        self.last_id = event_id


def wait_tokens(streams, count, seconds=120):
    """Until every stream has so many tokens, or has ended."""
    deadline = time.monotonic() + seconds
    while any(s.num_tokens() < count and s.thread.is_alive() for s in streams):
        if time.monotonic() > deadline:
            raise AssertionError(f"no {count} tokens in {seconds} s: "
                                 + "; ".join(s.describe() for s in streams))
        time.sleep(0.005)


def get_json(url, path):
    """Whatever its status."""
    return json.loads(get(url, path)[2])
