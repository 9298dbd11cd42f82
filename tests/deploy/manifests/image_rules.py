"""What must hold of the Dockerfile and of compose.yaml beyond what their linters know. Each takes parsed text
and Facts, and returns sentences about what is wrong."""

import os
import re

from objects import bytes_of

SECRET_NAME = re.compile(r"(?i)password|secret|token|api.?key|private")
RULES = []


def rule(function):
    RULES.append(function)
    return function


# --- the Dockerfile: {"stages": [[step, ...], ...], "first": ARGs before the first stage} ---

def stages_of(structure):
    first, stages = [], []
    for step in structure:
        if step["instruction"] == "FROM":
            stages.append([])
        (stages[-1] if stages else first).append(step)
    return {"first": first, "stages": stages}


def values(stage, instruction):
    return [s["value"] for s in stage if s["instruction"] == instruction]


@rule
def base_is_pinned(dockerfile, facts):
    defaults = dict(v.split("=", 1) for v in values(dockerfile["first"], "ARG"))
    bases = [re.sub(r"\$\{(\w+)\}", lambda m: defaults.get(m[1], ""), values(stage, "FROM")[0].split()[0])
             for stage in dockerfile["stages"]]
    return [f"FROM {base} names no fixed release" for base in bases
            if not re.search(r"@sha256:|:[a-z]+-\d{8}(-slim)?$", base)]


@rule
def runs_without_root(dockerfile, facts):
    users = values(dockerfile["stages"][-1], "USER")
    return [] if users and re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1]) else [f"USER is {users}"]


@rule
def process_one_is_ours(dockerfile, facts):
    last = dockerfile["stages"][-1]
    wrong = [f"{name} is no list: a shell would be process 1" for name in ("ENTRYPOINT", "CMD")
             for value in values(last, name) if not value.startswith("[")]
    if values(last, "ENTRYPOINT") != ['["/usr/local/bin/quire"]'] or "serve" not in values(last, "CMD")[-1]:
        wrong.append("the image does not start `quire serve`")
    return wrong if values(last, "HEALTHCHECK") else wrong + ["there is no HEALTHCHECK"]


@rule
def steps_are_scripts(dockerfile, facts):
    """So that container_test.py can run them."""
    return [f"RUN {value} is no script of deploy/container" for stage in dockerfile["stages"]
            for value in values(stage, "RUN")
            if value != "ldconfig" and not re.match(r"(deploy/container|/usr/local/share/quire)/[a-z-]+\.sh", value)]


@rule
def the_result_is_small(dockerfile, facts):
    wrong = []
    for value in values(dockerfile["stages"][-1], "COPY"):
        if not (value.startswith("--from=build /image/") or value.startswith("deploy/container/runtime.sh")):
            wrong.append(f"COPY {value} brings more than the programs")
    return wrong if len(dockerfile["stages"]) == 2 else wrong + ["there are not two stages"]


@rule
def no_secret_is_in_it(dockerfile, facts):
    return [f"{s['instruction']} {s['value']}" for stage in [dockerfile["first"], *dockerfile["stages"]]
            for s in stage if s["instruction"] in ("ARG", "ENV") and SECRET_NAME.search(s["value"])]


# --- compose.yaml ---

def command_of(service):
    """(program, arguments)."""
    entry = service.get("entrypoint", ["/usr/local/bin/quire"])
    return os.path.basename(entry[0]), service.get("command", [])


def mounts_of(service):
    out = {}
    for volume in service.get("volumes", []):
        target = volume["target"] if isinstance(volume, dict) else volume.split(":")[1]
        out[target] = isinstance(volume, dict) and volume.get("read_only", False)
    out.update((t.split(":")[0], False) for t in service.get("tmpfs", []))
    return out


@rule
def compose_options_exist(compose, facts):
    return [f"{name}: {program} has no option {argument}" for name, service in compose["services"].items()
            for program, arguments in [command_of(service)] for argument in arguments
            if argument.startswith("--") and argument not in facts.options.get(program, ())]


@rule
def compose_is_least_privileged(compose, facts):
    wanted = {"read_only": True, "user": f"{facts.uid}:{facts.uid}", "cap_drop": ["ALL"],
              "security_opt": ["no-new-privileges:true"]}
    return [f"{name}: {key} is {service.get(key)}" for name, service in compose["services"].items()
            for key, value in wanted.items() if service.get(key) != value]


@rule
def compose_waits_for_the_drain(compose, facts):
    wrong = []
    for name, service in compose["services"].items():
        _, arguments = command_of(service)
        if "--drain-timeout" in arguments:
            need = int(arguments[arguments.index("--drain-timeout") + 1]) + facts.stop_s
            if int(service.get("stop_grace_period", "10s").rstrip("s")) < need:
                wrong.append(f"{name}: may take {need} s to stop")
    return wrong


@rule
def compose_can_write_where_it_must(compose, facts):
    wrong = []
    for name, service in compose["services"].items():
        program, arguments = command_of(service)
        written = ["/tmp"]
        if "--journal" in arguments:
            written.append(os.path.dirname(arguments[arguments.index("--journal") + 1]))
        if program != "quire-coordinator":
            written.append(facts.env["QUIRE_CACHE"])
            if bytes_of(service.get("shm_size", "64m").replace("m", "Mi")) < 256 << 20:
                wrong.append(f"{name}: /dev/shm is too small for ranks")
        mounts = mounts_of(service)
        wrong += [f"{name}: {path} cannot be written" for path in written if mounts.get(path, True)]
    return wrong


@rule
def compose_references_exist(compose, facts):
    wrong = []
    for name, service in compose["services"].items():
        _, arguments = command_of(service)
        files = {f"/run/secrets/{s}" for s in service.get("secrets", [])}
        wrong += [f"{name}: {a} is no secret of it" for a in arguments
                  if a.startswith("/run/secrets/") and a not in files]
        for kind in ("secrets", "networks"):
            wrong += [f"{name}: {kind} has no {n}" for n in service.get(kind, []) if n not in compose[kind]]
        wrong += [f"{name}: there is no volume {v}" for v in service.get("volumes", []) if isinstance(v, str)
                  and v.split(":")[0] not in compose["volumes"]]
        if "--coordinator" in arguments:
            host, port = arguments[arguments.index("--coordinator") + 1].split(":")
            other = compose["services"].get(host, {})
            if not set(other.get("networks", [])) & set(service["networks"]) or port != "50051":
                wrong.append(f"{name}: cannot reach {host}:{port}")
    return wrong


@rule
def compose_is_not_open_to_strangers(compose, facts):
    """HTTP has no key here, and gRPC no TLS."""
    wrong = [f"{name}: port {port} is open to the network" for name, service in compose["services"].items()
             for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
    plain = {n for service in compose["services"].values()
             if "--grpc-insecure-private-network" in command_of(service)[1] for n in service["networks"]}
    ranks = {n for service in compose["services"].values() if "--coordinator" in command_of(service)[1]
             for n in service["networks"]}
    return wrong + [f"network {n} is not internal" for n in plain & ranks if not compose["networks"][n].get("internal")]


@rule
def compose_ranks_are_counted_once(compose, facts):
    services = compose["services"]
    _, arguments = command_of(services["coordinator"])
    world = arguments[arguments.index("--tensor-parallel-size") + 1]
    slots = services["workers"]["environment"]["QUIRE_SLOTS"]
    return [] if world == slots else [f"the coordinator waits for {world} ranks, the workers are {slots}"]
