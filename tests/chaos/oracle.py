"""The requests that faults are shown with, and the right answer of each: what a server that nobody
disturbs says. It is asked once per request and stays up for the whole run."""

import concurrent.futures
import json
import random

import client
from server import Server

TEXTS = ["The capital of France is", "def fibonacci(n):", "Once upon a time there was",
         "A quire is a set of pages that", "1 2 3 4 5 6", "The best way to keep a secret is",
         "Water boils when", "Dear reader, this book"]
FILLER = "The pages of the book had been numbered by hand, and nobody knew by whose. "


def body(prompt, max_tokens, **fields):
    return {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True, **fields}


def mixed(count, seed=1, longest=400):
    """`count` different requests: greedy and drawn, one choice and several, short and up to
    `longest` tokens. The same for the same arguments."""
    dice = random.Random(seed)
    bodies = []
    for i in range(count):
        prompt = f"{i}. {TEXTS[i % len(TEXTS)]}"
        wish = body(prompt, longest if i % 4 == 0 else dice.randint(longest // 8, longest // 2))
        if i % 2 == 1:
            wish.update(temperature=0.9, seed=dice.randrange(1 << 40), top_p=0.95)
        if i % 5 == 3:
            wish.update(n=2, max_tokens=longest // 5)
        bodies.append(wish)
    return bodies


def long_prompts(count, words=40):
    """Prompts of about 19 tokens per `words`, so that computing them takes a while."""
    return [body(f"Chapter {i}. " + FILLER * words, 24, **({"seed": i, "temperature": 0.8} if i % 2 else {}))
            for i in range(count)]


class Oracle:
    def __init__(self, settings, folder):
        self.settings, self.folder = settings, folder
        self.server = None
        self.known = {}

    def answers(self, bodies):
        """[(token ids, finish reasons) of the choices] for each body."""
        missing = [b for b in bodies if json.dumps(b) not in self.known]
        if missing:
            if self.server is None:
                self.server = Server(self.settings, self.folder)
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                for wish, answer in zip(missing, pool.map(self.ask, missing)):
                    self.known[json.dumps(wish)] = answer
        return [self.known[json.dumps(b)] for b in bodies]

    def ask(self, wish):
        return client.complete(self.server.http, wish)

    def close(self):
        if self.server is not None:
            self.server.kill()


def compare(streams, expected):
    """AssertionError unless every stream has exactly the right tokens, in order, and its end."""
    wrong = []
    for i, (stream, right) in enumerate(zip(streams, expected)):
        if stream.faults:
            wrong.append(f"stream {i}: {stream.faults[:3]}")
        elif stream.error is not None or not stream.done:
            wrong.append(f"stream {i} did not finish: {stream.describe()}")
        elif stream.result() != (right[0], right[1]):
            wrong.append(f"stream {i}: {first_difference(stream, right)}")
    if wrong:
        raise AssertionError("; ".join(wrong))


def first_difference(stream, right):
    for choice, (got, want) in enumerate(zip(stream.tokens, right[0])):
        if got == want:
            continue
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        return (f"choice {choice}: {len(got)} tokens instead of {len(want)}, the first other one at "
                f"{at}: {got[at:at + 4]} instead of {want[at:at + 4]}")
    return f"finish {stream.finish} instead of {right[1]}"
