"""What the manifests must agree with: the programs' options, paths and metrics, the image, sshd's settings.
Asked of the programs themselves."""

import json
import os
import re
import subprocess
import tempfile
import urllib.request

from dockerfile_parse import DockerfileParser
from prometheus_client.parser import text_string_to_metric_families

from objects import SOURCE

BIN = os.path.join(os.environ["QUIRE_BINARY_DIR"], "bin")
SHAPE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
         "hidden_act": "silu", "tie_word_embeddings": False, "num_hidden_layers": 1, "hidden_size": 64,
         "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64,
         "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "bos_token_id": 1,
         "eos_token_id": 2}


def read(*path):
    with open(os.path.join(SOURCE, *path)) as file:
        return file.read()


def steps_of(dockerfile):
    """Its instructions, in order."""
    with tempfile.TemporaryDirectory() as folder:  # the parser leaves a file beside what it reads
        parser = DockerfileParser(path=folder)
        parser.content = dockerfile
        return [step for step in parser.structure if step["instruction"] != "COMMENT"]


def options_of(*command):
    done = subprocess.run([os.path.join(BIN, command[0]), *command[1:], "--help"], capture_output=True,
                          text=True, timeout=30, check=True)
    return set(re.findall(r"^\s+(--[a-z0-9-]+)", done.stdout, re.M))


def metrics_of_a_coordinator():
    """Names of all samples on /metrics of a real one that has no workers."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(SHAPE, file)
        process = subprocess.Popen(
            [os.path.join(BIN, "quire-coordinator"), folder, "--load-format", "dummy", "--skip-tokenizer-init",
             "--port", "0", "--grpc-port", "0", "--journal", os.path.join(folder, "journal")],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            url = re.search(r"http=(\S+)", process.stdout.readline())[1]
            page = urllib.request.urlopen(url + "/metrics", timeout=10).read().decode()
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()
    return {sample.name for family in text_string_to_metric_families(page) for sample in family.samples}


class Facts:
    def __init__(self):
        self.options = {"quire-coordinator": options_of("quire-coordinator"),
                        "quire-group": options_of("quire-worker"), "quire": options_of("quire", "serve")}
        self.paths = set(re.findall(r'\{"GET", "([^"]+)"', read("coordinator", "api", "routes.cpp")))
        self.health_services = {"", "live", "ready"}  # tests/coordinator/server_test.cpp asks for these
        self.metrics = metrics_of_a_coordinator()
        self.ssh_port = int(re.search(r"^Port (\d+)", read("deploy", "container", "sshd_config"), re.M)[1])
        steps = steps_of(read("deploy", "Dockerfile"))
        self.uid = int(next(s["value"] for s in steps if s["instruction"] == "USER").split(":")[0])
        self.env = dict(pair.split("=", 1) for s in steps if s["instruction"] == "ENV"
                        for pair in s["value"].split())
        # coordinator: 15 s beyond the drain (deploy/README.md)
        self.stop_s = int(re.search(r"return (\d+) \+ config.drain_timeout", read("common", "config.h"))[1])
