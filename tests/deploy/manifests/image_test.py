"""The Dockerfile, its scripts and compose.yaml: linted, held to rules of our own, and each rule broken once."""

import copy
import os
import re
import subprocess
import sys
import unittest

try:
    import compose_spec
    import dockerfile_parse  # noqa: F401
    import yaml
except ImportError as missing:
    print(f"SKIPPED: {missing}; ./deploy/setup.sh --tests installs it")
    sys.exit(77)

import image_rules as rules
from facts import Facts, read, steps_of
from objects import SOURCE, tool

SCRIPTS = [*(f"deploy/container/{name}" for name in ("build.sh", "runtime.sh", "quire-group", "quire-health")),
           "deploy/k8s/secrets.sh"]


def structure_of(text):
    return rules.stages_of(steps_of(text))


def hadolint(text):
    return subprocess.run([tool("hadolint"), "-"], input=text, capture_output=True, text=True, timeout=60).stdout


def shellcheck(text):
    return subprocess.run([tool("shellcheck"), "-"], input=text, capture_output=True, text=True, timeout=60).stdout


def compose_text():
    return re.sub(r"\$\{MODEL[^}]*\}", "/models/model", read("deploy", "compose.yaml"))


def compose_says(services):
    try:
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(services))
    except ValueError as error:
        return str(error)
    return ""


# Mistakes: rule -> (old, new) in the Dockerfile's or compose's text.
DOCKERFILE_MISTAKES = {
    rules.base_is_pinned: [("bookworm-20250520-slim", "bookworm-slim"), ("bookworm-20250520-slim", "latest")],
    rules.runs_without_root: [("USER 10001:10001\n", ""), ("USER 10001:10001", "USER root"), ("10001:10001", "0:0")],
    rules.process_one_is_ours: [('ENTRYPOINT ["/usr/local/bin/quire"]', "ENTRYPOINT /usr/local/bin/quire"),
                                ('["serve"', '["chat"'), ("HEALTHCHECK", "# HEALTHCHECK")],
    rules.steps_are_scripts: [("RUN /usr/local/share/quire/runtime.sh", "RUN apt-get update")],
    rules.the_result_is_small: [("COPY --from=build /image/ /", "COPY --from=build / /")],
    rules.no_secret_is_in_it: [("ENV HOME", "ENV QUIRE_API_KEY=abc HOME"), ("ARG VARIANT=cpu", "ARG HF_TOKEN")],
}
COMPOSE_MISTAKES = {
    rules.compose_options_exist: [("--drain-timeout", "--drain-time"), ("--coordinator,", "--server,")],
    rules.compose_is_least_privileged: [("read_only: true\n  user", "user"), ("10001:10001", "1000:1000"),
                                        ("cap_drop: [ALL]", "cap_drop: []"), ("no-new-privileges:true", "seccomp:x")],
    rules.compose_waits_for_the_drain: [("stop_grace_period: 50s  #", "stop_grace_period: 20s  #")],
    rules.compose_can_write_where_it_must: [("/tmp:size=64m\"]\n    secrets", "/run:size=64m\"]\n    secrets"),
                                            ("shm_size: 512m", "shm_size: 64m"), ("/var/lib/quire/journal]", "/journal/x]")],
    rules.compose_references_exist: [("secrets: [worker]", "secrets: []"), ("volumes:\n  journal", "volumes:\n  other"),
                                     ("coordinator:50051", "quire:50051"), ("networks: [inside]", "networks: [other]")],
    rules.compose_is_not_open_to_strangers: [('"127.0.0.1:8000:8000"', '"8000:8000"'), ("internal: true", "internal: false")],
    rules.compose_ranks_are_counted_once: [('QUIRE_SLOTS: "2"', 'QUIRE_SLOTS: "4"')],
}


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.facts = Facts()
        cls.dockerfile = read("deploy", "Dockerfile")
        cls.compose = compose_text()

    def broken(self, text, parse, mistakes):
        for check, changes in mistakes.items():
            for old, new in changes:
                with self.subTest(rule=check.__name__, change=new):
                    self.assertIn(old, text)
                    self.assertNotEqual(check(parse(text.replace(old, new)), self.facts), [])

    def test_rules_of_the_dockerfile(self):
        for check in DOCKERFILE_MISTAKES:
            self.assertEqual(check(structure_of(self.dockerfile), self.facts), [])
        self.broken(self.dockerfile, structure_of, DOCKERFILE_MISTAKES)

    def test_rules_of_compose(self):
        for check in COMPOSE_MISTAKES:
            self.assertEqual(check(yaml.safe_load(self.compose), self.facts), [])
        self.broken(self.compose, yaml.safe_load, COMPOSE_MISTAKES)

    def test_no_rule_goes_untried(self):
        self.assertEqual({r.__name__ for r in rules.RULES},
                         {r.__name__ for r in [*DOCKERFILE_MISTAKES, *COMPOSE_MISTAKES]})

    def test_hadolint_has_nothing_to_say(self):
        self.assertEqual(hadolint(self.dockerfile), "")
        self.assertIn("DL3008", hadolint(self.dockerfile + "USER 0\nRUN apt-get install -y curl\nUSER 1\n"))

    def test_shellcheck_has_nothing_to_say(self):
        for script in SCRIPTS:
            with self.subTest(script=script):
                text = read(*script.split("/"))
                self.assertEqual(shellcheck(text), "")
                self.assertTrue(os.access(os.path.join(SOURCE, script), os.X_OK))
        self.assertIn("SC2086", shellcheck("#!/bin/bash\nx=$1\nrm $x\n"))

    def test_compose_is_of_the_specification(self):
        services = yaml.safe_load(self.compose)
        self.assertEqual(compose_says(services), "")
        for key, value in {"stop_grace": "50s", "profiles": "one", "ports": {"a": 1}, "restart": "sometimes"}.items():
            with self.subTest(field=key):
                other = copy.deepcopy(services)
                other["services"]["quire"][key] = value
                self.assertNotEqual(compose_says(other), "")


if __name__ == "__main__":
    unittest.main(verbosity=2)
