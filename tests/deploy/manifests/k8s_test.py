"""deploy/k8s offline: every overlay, alone and with its components, keeps every rule; and every rule is broken by
a change of the kind that it is there for."""

import copy
import os
import re
import subprocess
import sys
import tempfile
import unittest

try:
    import dockerfile_parse, jsonschema, kubernetes_validate, yaml  # noqa: E401,F401
except ImportError as missing:
    print(f"SKIPPED: {missing}; ./deploy/setup.sh --tests installs it")
    sys.exit(77)

from facts import BIN, Facts
from mutations import MUTATIONS
from objects import ALL, OVERLAYS, pods, render
from rules import RULES
from schema import fields_are_known

CHECKS = [fields_are_known, *RULES]
PROGRAMS = {"quire-coordinator": ("quire-coordinator", []),
            "quire-group": ("quire-worker", ["--rank=0", "--world-size=1", "--instance-id=x"])}


def start(container, objects, folder):
    """Runs a container's program as far as the first file that is missing: options are checked before. Only the
    file of options and the secrets are there. (exit code, what it said)"""
    for mount in container["volumeMounts"]:
        os.makedirs(folder + mount["mountPath"], exist_ok=True)
    config = next(o for o in objects if o["kind"] == "ConfigMap" and "quire.yaml" in o["data"])["data"]["quire.yaml"]
    with open(folder + "/etc/quire/config/quire.yaml", "w") as file:
        file.write(re.sub(r": /(etc|models|var)/", f": {folder}/\\1/", config))
    for name in ("api/key", "worker/secret"):
        os.makedirs(os.path.dirname(f"{folder}/etc/quire/{name}"), exist_ok=True)
        with open(f"{folder}/etc/quire/{name}", "w") as file:
            file.write("secret")
    program, more = PROGRAMS[os.path.basename(container["command"][0])]
    arguments = [re.sub(r"(^|=)/etc/", rf"\1{folder}/etc/", a) for a in container["args"] if a not in ("run", "launch")]
    done = subprocess.run([os.path.join(BIN, program), *arguments, *more], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


class Manifests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.facts = Facts()
        cls.alone = {overlay: render(overlay) for overlay in OVERLAYS}
        cls.whole = {overlay: [render(overlay, components) for components in ALL[overlay]] for overlay in OVERLAYS}

    def test_every_rule_holds(self):
        for overlay in OVERLAYS:
            for number, objects in enumerate([self.alone[overlay], *self.whole[overlay]]):
                for check in CHECKS:
                    with self.subTest(overlay=overlay, variant=number, rule=check.__name__):
                        self.assertEqual(check(objects, self.facts), [])

    def test_every_rule_can_be_broken(self):
        for name, (overlay, variant, check, change) in MUTATIONS.items():
            with self.subTest(change=name):
                objects = copy.deepcopy([self.alone[overlay], *self.whole[overlay]][variant])
                change(objects)
                self.assertNotEqual(check(objects, self.facts), [])

    def test_programs_accept_their_options(self):
        for overlay in OVERLAYS:
            for objects in [self.alone[overlay], *self.whole[overlay]]:
                for pod in pods(objects):
                    container = pod.containers[0]
                    if container["args"] == ["sshd"]:
                        continue
                    with self.subTest(pod=pod.where), tempfile.TemporaryDirectory() as folder:
                        code, said = start(container, objects, folder)
                        self.assertEqual(code, 66, said)
                        self.assertRegex(said, "models/model|tls/tls.crt")
                        refused = {**container, "args": container["args"] + ["--grpc-ssl-server-name=x", "--port=0"]}
                        self.assertEqual(start(refused, objects, folder)[0], 64)  # one of them is of no use here

    def test_no_rule_goes_untried(self):
        tried = {check for _, _, check, _ in MUTATIONS.values()}
        self.assertEqual({c.__name__ for c in CHECKS}, {c.__name__ for c in tried})


if __name__ == "__main__":
    unittest.main(verbosity=2)
