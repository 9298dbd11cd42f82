"""Sharing, fairness, deadlines, offload and speculation through the real server: what the
scheduler's simulation shows against a made-up model, shown against a real one."""

import concurrent.futures
import json
import os
import re
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from quire_server import Server

DATA = os.environ.get("QUIRE_TEST_DATA") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "shared")
TEXT = ("The quire is a set of pages that belong together. A book is made of quires, a quire of "
        "sheets, and a sheet of leaves, each of which has two pages. ") * 4


def post(server, body, key=None, path="/v1/completions"):
    """The answer's status, headers and JSON."""
    headers = {"content-type": "application/json"}
    if key is not None:
        headers["authorization"] = "Bearer " + key
    request = urllib.request.Request(server.http + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.load(error)


def complete(server, prompt, key=None, **options):
    body = {"prompt": prompt, "max_tokens": 16, "temperature": 0, "return_token_ids": True,
            **options}
    status, _, answer = post(server, body, key)
    if status != 200:
        raise AssertionError(f"status {status}: {answer}")
    return answer


def ids(answer, choice=0):
    return answer["choices"][choice]["token_ids"]


def cached(answer):
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def metric(server, name):
    with urllib.request.urlopen(server.http + "/metrics", timeout=30) as page:
        found = re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", page.read().decode(), re.M)
    return float(found.group(1))


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("in vain: " + what)
        time.sleep(0.02)


class Case(unittest.TestCase):
    def serve(self, *options, ranks=2):
        server = Server(*options, ranks=ranks)
        stopped = []

        def stop():
            if not stopped:
                stopped.append(server.stop())
            return stopped[0]

        server.end = stop
        self.addCleanup(lambda: self.assertEqual(stop(), 0))
        return server


class Sharing(Case):
    def test_beams_equal_the_reference(self):
        path = os.path.join(DATA, "reference", "smollm2", "beam.dev.json")
        if not os.path.exists(path):
            if os.environ.get("QUIRE_REQUIRE_TEST_DATA") == "1":
                self.fail(f"{path} is missing")
            self.skipTest(f"{path} is missing")
        server = self.serve("--dtype", "float32")
        with open(path) as file:
            golden = json.load(file)
        for item in golden["items"]:
            answer = complete(server, item["prompt_ids"], n=golden["num_return_sequences"],
                              best_of=golden["num_beams"], use_beam_search=True, logprobs=0,
                              max_tokens=golden["max_new_tokens"],
                              length_penalty=golden["length_penalty"],
                              early_stopping=golden["early_stopping"])
            for choice, beam in zip(answer["choices"], item["beams"], strict=True):
                self.assertEqual(choice["token_ids"], beam["ids"])
                self.assertAlmostEqual(sum(choice["logprobs"]["token_logprobs"]),
                                       beam["cum_logprob"], delta=2e-3)

    def test_choices_are_those_of_requests_alone(self):
        server = self.serve()
        together = complete(server, TEXT, n=4, temperature=0.9, seed=11, logprobs=2)
        self.assertEqual(len({tuple(c["token_ids"]) for c in together["choices"]}), 4)
        alone = complete(server, TEXT, temperature=0.9, seed=11, logprobs=2)
        self.assertEqual(ids(alone), ids(together))
        self.assertEqual(alone["choices"][0]["logprobs"], together["choices"][0]["logprobs"])
        best = complete(server, TEXT, n=1, best_of=4, temperature=0.9, seed=11)

        def mean(choice):
            logprobs = choice["logprobs"]["token_logprobs"]
            return sum(logprobs) / len(logprobs)

        self.assertEqual(ids(best), max(together["choices"], key=mean)["token_ids"])

    def test_a_hit_changes_no_number(self):
        server = self.serve()
        cold = complete(server, TEXT, logprobs=5)
        warm = complete(server, TEXT, logprobs=5)
        self.assertEqual(cached(cold), 0)
        self.assertEqual(cached(warm), cold["usage"]["prompt_tokens"] - 1)
        self.assertEqual(warm["choices"], cold["choices"])
        self.assertEqual(cached(complete(server, TEXT, cache_salt="mine")), 0)
        self.assertGreater(cached(complete(server, TEXT, cache_salt="mine")), 0)
        self.assertEqual(metric(server, "vllm:prefix_cache_hits_total"),
                         2 * (cold["usage"]["prompt_tokens"] - 1))

    def test_no_cache_where_none_is_wanted(self):
        server = self.serve("--no-enable-prefix-caching")
        complete(server, TEXT)
        self.assertEqual(cached(complete(server, TEXT)), 0)


class Order(Case):
    def fill(self, server, key=None):
        """One request that keeps the only slot; ends when asked to."""
        pool = concurrent.futures.ThreadPoolExecutor(16)
        self.addCleanup(pool.shutdown)
        long = pool.submit(complete, server, "One, two, three,", key, max_tokens=400,
                           ignore_eos=True)
        wait_for(lambda: metric(server, "vllm:num_requests_running") == 1, "the slot is taken")
        return pool, long

    def test_priority(self):
        server = self.serve("--scheduling-policy", "priority", "--max-num-seqs", "1")
        pool, long = self.fill(server)
        ended = []

        def run(priority):
            complete(server, f"Number {priority}:", max_tokens=4, priority=priority)
            ended.append(priority)

        waits = []
        for priority in (5, 0, -5):
            waits.append(pool.submit(run, priority))
            wait_for(lambda: metric(server, "vllm:num_requests_waiting") == len(waits), "waiting")
        for each in (long, *waits):
            each.result(timeout=120)
        self.assertEqual(ended, [-5, 0, 5])
        status, _, answer = post(self.serve(), {"prompt": "a", "priority": 1})
        self.assertEqual(status, 400, answer)

    def test_deadlines(self):
        server = self.serve()
        whole = complete(server, "One, two,", max_tokens=600, ignore_eos=True)
        part = complete(server, "One, two,", max_tokens=600, ignore_eos=True, deadline_ms=400)
        self.assertEqual(part["choices"][0]["finish_reason"], "deadline")
        self.assertLess(len(ids(part)), 600)
        self.assertEqual(ids(part), ids(whole)[:len(ids(part))])
        status, _, answer = post(server, {"prompt": TEXT * 40, "deadline_ms": 1})
        self.assertEqual(status, 504, answer)
        self.assertEqual(answer["error"]["code"], "deadline_exceeded")
        beams = complete(server, "One, two,", max_tokens=4000, use_beam_search=True, n=2,
                         ignore_eos=True, timeout=2)
        self.assertEqual({c["finish_reason"] for c in beams["choices"]}, {"deadline"})
        self.assertGreater(len(ids(beams)), 0)

    def test_a_full_queue_says_when_to_come_again(self):
        server = self.serve("--max-num-seqs", "1", "--max-num-queued-reqs", "2")
        pool, long = self.fill(server)
        waits = [pool.submit(complete, server, f"{i}:", max_tokens=2) for i in range(2)]
        wait_for(lambda: metric(server, "vllm:num_requests_waiting") == 2, "waiting")
        status, headers, answer = post(server, {"prompt": "one more"})
        self.assertEqual((status, answer["error"]["code"]), (503, "queue_full"), answer)
        self.assertGreaterEqual(int(headers["Retry-After"]), 1)
        for each in (long, *waits):
            each.result(timeout=120)
        complete(server, "one more")

    def test_tenants(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write("- {name: ant, key: key-of-ant}\n- {name: bee, key: key-of-bee}\n")
            file.flush()
            os.chmod(file.name, 0o600)
            server = self.serve("--tenants", file.name, "--max-num-seqs", "2")
        self.assertEqual(post(server, {"prompt": "a"}, "another")[0], 401)
        complete(server, TEXT, "key-of-ant")
        self.assertGreater(cached(complete(server, TEXT, "key-of-ant")), 0)
        self.assertEqual(cached(complete(server, TEXT, "key-of-bee")), 0)
        # The ant sends far more; the bee, coming later, does not wait behind all of it.
        pool = concurrent.futures.ThreadPoolExecutor(32)
        self.addCleanup(pool.shutdown)
        ended = []

        def run(name, i):
            complete(server, f"{name} {i}:", "key-of-" + name, max_tokens=40, ignore_eos=True)
            ended.append(name)

        waits = [pool.submit(run, "ant", i) for i in range(20)]
        wait_for(lambda: metric(server, "vllm:num_requests_waiting") >= 15, "the ant waits")
        waits += [pool.submit(run, "bee", i) for i in range(4)]
        for each in waits:
            each.result(timeout=120)
        self.assertLess(max(i for i, name in enumerate(ended) if name == "bee"), 18, ended)


class Memory(Case):
    def test_who_gives_way_comes_back_with_the_same_answer(self):
        prompts = [f"Story number {i}. " + TEXT for i in range(8)]
        options = {"max_tokens": 100, "ignore_eos": True, "temperature": 0.8, "seed": 5}
        roomy = self.serve()
        right = [ids(complete(roomy, prompt, **options)) for prompt in prompts]
        for extra in ([], ["--kv-offload-bytes", "512M"]):
            tight = self.serve("--kv-cache-memory-bytes", "10M", "--max-num-seqs", "8", *extra)
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                got = list(pool.map(lambda prompt: ids(complete(tight, prompt, **options)),
                                    prompts))
            self.assertEqual(got, right)
            if extra:
                self.assertGreater(metric(tight, "quire_kv_offload_saved_blocks_total"), 0)

    def test_a_restart_keeps_the_prefix_cache(self):
        with tempfile.TemporaryDirectory() as folder:
            options = ("--kv-offload-bytes", "64M", "--kv-offload-path", folder)
            first = self.serve(*options)
            cold = complete(first, TEXT, logprobs=3)
            self.assertEqual(first.end(), 0)
            second = self.serve(*options)
            warm = complete(second, TEXT, logprobs=3)
            block = 16
            full = (cold["usage"]["prompt_tokens"] - 1) // block * block
            self.assertGreaterEqual(cached(warm), full)
            self.assertEqual(warm["choices"], cold["choices"])
            self.assertGreater(metric(second, "quire_kv_offload_loaded_blocks_total"), 0)
            self.assertEqual(second.end(), 0)


class Speculation(Case):
    def test_answers_are_those_without(self):
        plain = self.serve("--speculative-method", "none")
        guessing = self.serve("--num-speculative-tokens", "6")
        for options in ({}, {"temperature": 0.7, "seed": 3}, {"logprobs": 2}):
            options = {"max_tokens": 120, "ignore_eos": True, **options}
            self.assertEqual(complete(guessing, TEXT, **options)["choices"],
                             complete(plain, TEXT, **options)["choices"])
        self.assertGreater(metric(guessing, "vllm:spec_decode_num_accepted_tokens_total"), 0)
        self.assertEqual(metric(plain, "vllm:spec_decode_num_drafts_total"), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
