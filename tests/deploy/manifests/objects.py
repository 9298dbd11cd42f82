"""Rendered manifests as objects, and what is looked for in them: pods, containers, labels."""

import os
import subprocess
import sys
import tempfile

import yaml

SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
K8S = os.path.join(SOURCE, "deploy", "k8s")
OVERLAYS = ["lws", "mpijob", "statefulset"]
# What an overlay is tried with, all at once; the autoscalers scale a LeaderWorkerSet only.
COMPONENTS = ["gpu", "rdma", "monitoring", "tls"]
ALL = {"lws": [COMPONENTS + ["autoscale"], COMPONENTS + ["keda"]], "mpijob": [COMPONENTS],
       "statefulset": [COMPONENTS]}


def tool(name):
    """A program of the interpreter's environment, or of the machine."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    return beside if os.path.exists(beside) else name


def kustomize(folder):
    done = subprocess.run([tool("kubectl"), "kustomize", folder], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise AssertionError(f"kustomize {folder}: {done.stderr}")
    return [o for o in yaml.safe_load_all(done.stdout) if o]


def render(overlay, components=()):
    if not components:
        return kustomize(os.path.join(K8S, "overlays", overlay))
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "kustomization.yaml"), "w") as file:
            yaml.safe_dump({"resources": [os.path.relpath(os.path.join(K8S, "overlays", overlay), folder)],
                            "components": [os.path.relpath(os.path.join(K8S, "components", c), folder)
                                           for c in components]}, file)
        return kustomize(folder)


def secrets():
    done = subprocess.run([os.path.join(K8S, "secrets.sh")], capture_output=True, text=True, timeout=60, check=True)
    return [o for o in yaml.safe_load_all(done.stdout) if o]


def of_kind(objects, *kinds):
    return [o for o in objects if o["kind"] in kinds]


def name_of(o):
    return f"{o['kind']}/{o['metadata']['name']}"


def find(objects, kind, name):
    return next((o for o in of_kind(objects, kind) if o["metadata"]["name"] == name), None)


class Pod:
    """A pod template: where it stands, its labels, its spec, and the claims that its owner adds."""

    def __init__(self, where, template, claims=()):
        self.where, self.template, self.claims = where, template, list(claims)
        self.labels = template.get("metadata", {}).get("labels", {})
        self.spec = template["spec"]
        self.containers = self.spec["containers"] + self.spec.get("initContainers", [])

    def volumes(self):
        return {v["name"]: v for v in self.spec.get("volumes", [])} | {c: {"claim": c} for c in self.claims}

    def ranks_here(self):
        return any("QUIRE_SLOTS" in env_of(c) for c in self.containers)


def pods(objects):
    out = []
    for o in objects:
        spec, where = o.get("spec", {}), name_of(o)
        if o["kind"] == "StatefulSet":
            out.append(Pod(where, spec["template"],
                           [c["metadata"]["name"] for c in spec.get("volumeClaimTemplates", [])]))
        elif o["kind"] == "LeaderWorkerSet":
            group = spec["leaderWorkerTemplate"]
            out += [Pod(f"{where} {part}", group[part]) for part in ("leaderTemplate", "workerTemplate")
                    if part in group]
        elif o["kind"] == "MPIJob":
            out += [Pod(f"{where} {role}", replica["template"])
                    for role, replica in spec["mpiReplicaSpecs"].items()]
    return out


def containers(objects):
    return [(pod, container) for pod in pods(objects) for container in pod.containers]


def env_of(container):
    return {e["name"]: e.get("value", "") for e in container.get("env", [])}


def matches(selector, labels):
    return all(labels.get(k) == v for k, v in selector.items())


def mount_at(container, path):
    """The volume mount that holds a path, the deepest one."""
    held = [m for m in container.get("volumeMounts", [])
            if path == m["mountPath"] or path.startswith(m["mountPath"].rstrip("/") + "/")]
    return max(held, key=lambda m: len(m["mountPath"]), default=None)


def config_of(objects):
    """The options of base/quire.yaml as they are rendered."""
    maps = [o for o in of_kind(objects, "ConfigMap") if "quire.yaml" in o.get("data", {})]
    return yaml.safe_load(maps[0]["data"]["quire.yaml"])


def bytes_of(quantity):
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    text = str(quantity)
    return int(text[:-2]) * units[text[-2:]] if text[-2:] in units else int(text)
