"""The soak's clients: each asks for one answer after the other, in one of several ways, and compares it
with the right one."""

import collections
import http.client
import random
import threading
import time

from client import Refused, Stream, complete

GIVE_UP_AFTER = 180  # seconds in which a request must have its whole answer


class Load:
    """`pairs` are (body, right answer). With `keys` every request has an Idempotency-Key and survives
    the coordinator's death; without, only streams and whole answers that stay connected are asked for."""

    def __init__(self, server, pairs, num_clients, keys, seed):
        self.server, self.pairs, self.keys = server, pairs, keys
        self.counts = collections.Counter()
        self.slowest = 0.0
        self.wrong = []
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(random.Random(seed * 1000 + i), i), daemon=True)
                        for i in range(num_clients)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(GIVE_UP_AFTER + 60)
            if thread.is_alive():
                self.wrong.append("a client never ended")

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] += number

    def describe(self):
        with self.lock:
            return (f"{self.counts['requests']} requests, {self.counts['tokens']} tokens, "
                    f"{self.counts['reconnections']} reconnections, {self.counts['turned away']} turned away")

    def run(self, dice, client):
        number = 0
        while not self.stopping.is_set() and not self.wrong:
            body, right = dice.choice(self.pairs)
            number += 1
            key = f"soak-{client}-{number}" if self.keys else None
            ways = [self.whole, self.stream] + ([self.leaving] if key else [])
            way = dice.choice(ways)
            began = time.monotonic()
            try:
                got = way(body, key, dice, began + GIVE_UP_AFTER)
            except Exception as error:  # pylint: disable=broad-except  # the soak ends, with this as its reason
                self.wrong.append(f"{way.__name__} with key {key}: {error!r} ({body['prompt'][:30]!r})")
                return
            if got != right:
                self.wrong.append(f"{way.__name__} with key {key}: another answer for {body['prompt'][:30]!r}")
                return
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.count("requests")
            self.count(way.__name__)
            self.count("tokens", sum(map(len, got[0])))

    def retry(self, what, deadline, again):
        """Calls `what` until it is not turned away for the moment."""
        while True:
            try:
                return what()
            except Refused as refused:
                if refused.status != 503 or time.monotonic() > deadline:
                    raise
                self.count("turned away")
            except (OSError, http.client.HTTPException):
                if not again or time.monotonic() > deadline:
                    raise
                self.count("reconnections")
            time.sleep(0.2)

    def whole(self, body, key, _, deadline):
        headers = {"Idempotency-Key": key} if key else {}
        return self.retry(lambda: complete(self.server.http, body, headers), deadline, again=key is not None)

    def stream(self, body, key, dice, deadline, leave_after=None):
        stream = Stream(self.server.http, body, key=key, start=False)
        stream.post()
        while True:
            if leave_after is not None and not stream.done:
                while stream.thread.is_alive() and stream.num_tokens() < leave_after:
                    time.sleep(0.005)
                if stream.thread.is_alive():
                    stream.leave()
                    self.count("reconnections")
                leave_after = None
            stream.join(GIVE_UP_AFTER)
            if stream.faults:
                raise AssertionError(stream.faults[0])
            if stream.done and stream.error is None:
                return stream.result()
            if time.monotonic() > deadline:
                raise AssertionError("no answer in time: " + stream.describe())
            self.go_on(stream, key, dice)

    def go_on(self, stream, key, dice):
        if stream.error is not None:
            if stream.error.status != 503:
                raise stream.error
            self.count("turned away")
        elif key is None:
            raise AssertionError("the connection broke: " + stream.describe())
        else:
            self.count("reconnections")
        time.sleep(0.2)
        if stream.last_id is not None and dice.random() < 0.5:
            stream.resume()
        else:
            stream.post(stream.last_id)

    def leaving(self, body, key, dice, deadline):
        return self.stream(body, key, dice, deadline, leave_after=dice.randint(1, 40))
