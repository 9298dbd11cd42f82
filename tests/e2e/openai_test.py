"""The official OpenAI client against a real server over two ranks."""

import concurrent.futures
import sys
import unittest
import urllib.request

try:
    import openai
    import prometheus_client.parser
except ImportError as missing:
    print(f"SKIPPED: {missing}; ./deploy/setup.sh --tests installs the clients")
    sys.exit(77)

from quire_server import Server

KEY = "secret-key"
QUESTION = [{"role": "user", "content": "Which dog breed is the smallest?"}]


class OpenAiClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--api-key", KEY)
        cls.client = openai.OpenAI(base_url=cls.server.http + "/v1", api_key=KEY, max_retries=0,
                                   timeout=60)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def chat(self, **options):
        options = {"model": "smollm2", "messages": QUESTION, "max_tokens": 24, "temperature": 0,
                   **options}
        return self.client.chat.completions.create(**options)

    def complete(self, **options):
        options = {"model": "smollm2", "prompt": "The capital of France is", "max_tokens": 12,
                   "temperature": 0, **options}
        return self.client.completions.create(**options)

    def test_models(self):
        models = self.client.models.list().data
        self.assertEqual([m.id for m in models], ["smollm2"])
        self.assertEqual(self.client.models.retrieve("smollm2").object, "model")

    def test_chat(self):
        answer = self.chat()
        self.assertTrue(answer.id.startswith("chatcmpl-"))
        self.assertEqual(answer.object, "chat.completion")
        self.assertIn("Chihuahua", answer.choices[0].message.content)
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertEqual(answer.usage.total_tokens,
                         answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_chat_stream_equals_chat(self):
        whole = self.chat()
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(chunks[-1].usage.prompt_tokens, whole.usage.prompt_tokens)
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
        self.assertEqual(reasons[-1], whole.choices[0].finish_reason)
        self.assertEqual(set(reasons[:-1]), {None})

    def test_completion_stream_equals_completion(self):
        whole = self.complete()
        self.assertEqual(whole.object, "text_completion")
        self.assertIn("Paris", whole.choices[0].text)
        text = "".join(c.choices[0].text for c in self.complete(stream=True) if c.choices)
        self.assertEqual(text, whole.choices[0].text)

    def test_completion_of_several_prompts_and_token_ids(self):
        answer = self.complete(prompt=["One, two,", "Red, green,"], n=2, temperature=0.5, seed=1)
        self.assertEqual([c.index for c in answer.choices], [0, 1, 2, 3])
        self.assertTrue(self.complete(prompt=[504, 3575, 282]).choices[0].text)

    def test_n_choices_differ_and_seed_repeats(self):
        options = {"n": 4, "temperature": 1.0, "seed": 7, "max_tokens": 16}
        first = [c.message.content for c in self.chat(**options).choices]
        again = [c.message.content for c in self.chat(**options).choices]
        self.assertEqual(first, again)
        self.assertGreater(len(set(first)), 1)

    def test_stop(self):
        whole = self.complete(prompt="Count: 1, 2, 3, 4,", max_tokens=40)
        self.assertIn("7", whole.choices[0].text)
        cut = self.complete(prompt="Count: 1, 2, 3, 4,", max_tokens=40, stop=["7"])
        self.assertEqual(cut.choices[0].text, whole.choices[0].text.split("7")[0])
        self.assertEqual(cut.choices[0].finish_reason, "stop")
        streamed = "".join(c.choices[0].text for c in self.complete(
            prompt="Count: 1, 2, 3, 4,", max_tokens=40, stop=["7"], stream=True) if c.choices)
        self.assertEqual(streamed, cut.choices[0].text)

    def test_length_and_ignore_eos(self):
        answer = self.chat(max_tokens=100, extra_body={"ignore_eos": True})
        self.assertEqual(answer.usage.completion_tokens, 100)
        self.assertEqual(answer.choices[0].finish_reason, "length")

    def test_sampling_parameters(self):
        for options in ({"top_p": 0.5}, {"extra_body": {"top_k": 5}}, {"extra_body": {"min_p": 0.2}}):
            answer = self.chat(temperature=1.0, seed=3, **options)
            self.assertTrue(answer.choices[0].message.content)
        greedy = self.chat().choices[0].message.content
        one = self.chat(temperature=1.0, extra_body={"top_k": 1}).choices[0].message.content
        self.assertEqual(one, greedy)

    def test_what_changes_logits(self):
        prompt = "one two one two one two one two one two"

        def words(**options):
            return self.complete(prompt=prompt, max_tokens=40, **options).choices[0].text.split()

        before = len(set(words()))
        self.assertLess(before, 10)
        for options in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0},
                        {"extra_body": {"repetition_penalty": 1.5}}):
            with self.subTest(options=options):
                self.assertGreater(len(set(words(**options))), before)
        first = self.complete(logprobs=1, max_tokens=1).choices[0]
        paris = self.complete(max_tokens=1, logit_bias={"7042": -100}).choices[0]
        self.assertEqual(first.text, " Paris")
        self.assertNotEqual(paris.text, first.text)
        # Chat: the answer goes on past its end, and only with ids that are allowed.
        usage = self.chat(max_tokens=60, extra_body={"min_tokens": 60}).usage
        self.assertEqual(usage.completion_tokens, 60)
        text = self.chat(extra_body={"allowed_token_ids": [28, 30]}).choices[0].message.content
        self.assertEqual(set(text) - set(",."), set())

    def test_logprobs(self):
        answer = self.chat(logprobs=True, top_logprobs=3, max_tokens=5)
        items = answer.choices[0].logprobs.content
        self.assertEqual(len(items), answer.usage.completion_tokens)
        for item in items:
            self.assertLessEqual(item.logprob, 0)
            self.assertEqual(len(item.top_logprobs), 3)
            self.assertEqual(item.top_logprobs[0].token, item.token)  # greedy
        self.assertEqual("".join(i.token for i in items), answer.choices[0].message.content)
        plain = self.complete(logprobs=2, max_tokens=4).choices[0].logprobs
        self.assertEqual(len(plain.tokens), 4)
        self.assertEqual(len(plain.top_logprobs[0]), 2)

    def test_thirty_two_at_once_equal_one(self):
        alone = self.complete(max_tokens=30).choices[0].text
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            futures = [pool.submit(self.complete, max_tokens=30) for _ in range(32)]
            self.assertEqual({f.result().choices[0].text for f in futures}, {alone})

    def test_errors_name_the_field(self):
        cases = [
            ({"temperature": 3}, openai.BadRequestError, "temperature"),
            ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
            ({"max_tokens": 10**9}, openai.BadRequestError, "max_tokens"),
            ({"n": 10**9}, openai.BadRequestError, "n"),
            ({"top_p": "much"}, openai.BadRequestError, "top_p"),
            ({"presence_penalty": 3.0}, openai.BadRequestError, "presence_penalty"),
            ({"logit_bias": {"49152": 1}}, openai.BadRequestError, "logit_bias"),
            ({"extra_body": {"bad_words": ["no"]}}, openai.BadRequestError, "bad_words"),
            ({"messages": []}, openai.BadRequestError, "messages"),
            ({"model": "gpt-9"}, openai.NotFoundError, "model"),
        ]
        for options, error, param in cases:
            with self.subTest(options=options):
                with self.assertRaises(error) as caught:
                    self.chat(**options)
                self.assertEqual(caught.exception.param, param)
        with self.assertRaises(openai.BadRequestError) as caught:
            self.complete(prompt="word " * 20000)
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        self.assertIn("8192", caught.exception.message)
        with self.assertRaises(openai.BadRequestError) as caught:  # refused before tokenizing
            self.complete(prompt="a" * 7_000_000)
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        self.assertIn("7000000 bytes", caught.exception.message)
        self.test_chat()  # nothing else was disturbed

    def test_wrong_key(self):
        stranger = openai.OpenAI(base_url=self.server.http + "/v1", api_key="other", max_retries=0)
        with self.assertRaises(openai.AuthenticationError):
            stranger.models.list()

    def test_metrics_health_version(self):
        self.chat()
        with urllib.request.urlopen(self.server.http + "/health", timeout=10) as reply:
            self.assertEqual(reply.status, 200)
        with urllib.request.urlopen(self.server.http + "/version", timeout=10) as reply:
            self.assertIn(b"version", reply.read())
        with urllib.request.urlopen(self.server.http + "/metrics", timeout=10) as reply:
            families = {f.name: f for f in prometheus_client.parser.text_string_to_metric_families(
                reply.read().decode())}
        self.assertGreater(families["vllm:generation_tokens"].samples[0].value, 0)
        self.assertIn("vllm:time_to_first_token_seconds", families)
        self.assertEqual(families["quire_epoch"].samples[0].value, 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
