"""The project's own rules. Each takes rendered objects and Facts, and returns sentences about what is wrong;
k8s_test.py shows that each holds, and that each can be broken."""

import json
import os
import re

from objects import (bytes_of, config_of, containers, env_of, find, matches, mount_at, name_of, of_kind, pods, secrets)

LARGEST_HIDDEN = 8192  # of a 70B model
GATHER_BYTES = 16 << 20  # what ranks gather of logits at a time (worker/README.md)
RULES = []


def rule(function):
    RULES.append(function)
    return function


def program_of(container):
    return os.path.basename(container["command"][0])


@rule
def selectors_match(objects, facts):
    all_pods, wrong = pods(objects), []

    def check(where, selector):
        if not selector or not any(matches(selector, p.labels) for p in all_pods):
            wrong.append(f"{where}: no pod has {selector}")
    for o in objects:
        spec, where = o.get("spec", {}), name_of(o)
        if o["kind"] == "Service":
            check(where, spec["selector"])
        elif o["kind"] == "PodDisruptionBudget":
            check(where, spec["selector"]["matchLabels"])
        elif o["kind"] == "NetworkPolicy":
            check(where, spec["podSelector"]["matchLabels"])
            for way in ("from", "to"):
                for entry in spec.get("ingress", []) + spec.get("egress", []):
                    for peer in entry.get(way, []):
                        if "podSelector" in peer:
                            check(where, peer["podSelector"]["matchLabels"])
        elif o["kind"] == "StatefulSet":
            if not matches(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]):
                wrong.append(f"{where}: its selector is not of its own pods")
            if find(objects, "Service", spec["serviceName"]) is None:
                wrong.append(f"{where}: there is no Service {spec['serviceName']}")
        elif o["kind"] == "ServiceMonitor":
            services = [s for s in of_kind(objects, "Service")
                        if matches(spec["selector"]["matchLabels"], s["metadata"].get("labels", {}))]
            ports = {p["name"] for s in services for p in s["spec"]["ports"]}
            wrong += [f"{where}: no Service that it selects has a port {e['port']}"
                      for e in spec["endpoints"] if e["port"] not in ports]
        elif o["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = spec["scaleTargetRef"]
            found = find(objects, target["kind"], target["name"])
            if found is None or found["apiVersion"] != target["apiVersion"]:
                wrong.append(f"{where}: there is no {target['kind']}/{target['name']}")
    for pod in all_pods:
        spread = pod.spec.get("topologySpreadConstraints", [])
        terms = pod.spec.get("affinity", {}).get("podAffinity", {}) \
            .get("preferredDuringSchedulingIgnoredDuringExecution", [])
        for selector in [s["labelSelector"] for s in spread] + [t["podAffinityTerm"]["labelSelector"] for t in terms]:
            check(pod.where, selector["matchLabels"])
        if pod.ranks_here() and not spread:
            wrong.append(f"{pod.where}: ranks have no topology spread")
    return wrong


@rule
def ports_exist(objects, facts):
    config, wrong = config_of(objects), []
    known = {"http": config["port"], "grpc": config["grpc-port"], "ssh": facts.ssh_port}
    for pod, container in containers(objects):
        own = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
        wrong += [f"{pod.where}: port {n} is {p}, but the program listens on {known.get(n)}"
                  for n, p in own.items() if known.get(n) != p]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            for action in ("httpGet", "tcpSocket", "grpc"):
                port = container.get(probe, {}).get(action, {}).get("port")
                if port is not None and port not in own and port not in own.values():
                    wrong.append(f"{pod.where}: {probe} asks port {port}, which the container has not")
    for o in of_kind(objects, "Service"):
        selected = [p for p in pods(objects) if matches(o["spec"]["selector"], p.labels)]
        names = {port["name"] for p in selected for c in p.containers for port in c.get("ports", [])}
        for port in o["spec"]["ports"]:
            if port["targetPort"] not in names or port["port"] != known.get(port["targetPort"]):
                wrong.append(f"{name_of(o)}: port {port['port']} leads to {port['targetPort']}, which is "
                             f"{known.get(port['targetPort'])}")
    host, _, port = config["coordinator"].partition(":")
    service = find(objects, "Service", host)
    if service is None or int(port) not in [p["port"] for p in service["spec"]["ports"]]:
        wrong.append(f"coordinator: {config['coordinator']} is no Service's port")
    elif not service["spec"].get("publishNotReadyAddresses"):
        wrong.append(f"Service/{host}: workers must reach a coordinator that is not ready, for they make it so")
    policy = find(objects, "NetworkPolicy", "quire-coordinator")["spec"]
    opened = {p["port"] for entry in policy["ingress"] for p in entry["ports"]}
    if opened != {"http", "grpc"}:
        wrong.append(f"NetworkPolicy/quire-coordinator opens {opened}")
    out = find(objects, "NetworkPolicy", "quire-worker")["spec"]["egress"]
    if config["grpc-port"] not in [p["port"] for entry in out for p in entry.get("ports", [])]:
        wrong.append("NetworkPolicy/quire-worker: workers cannot reach the gRPC port")
    return wrong


@rule
def options_exist(objects, facts):
    wrong = []
    for key in config_of(objects):
        if not any("--" + key in known for known in facts.options.values()):
            wrong.append(f"quire.yaml: no program has an option {key}")
    for pod, container in containers(objects):
        program = program_of(container)
        if program not in facts.options:
            wrong.append(f"{pod.where}: runs {program}, which the image has not")
            continue
        for argument in container.get("args", []):
            name = argument.partition("=")[0]
            if name.startswith("--") and name not in facts.options[program]:
                wrong.append(f"{pod.where}: {program} has no option {name}")
    return wrong


@rule
def ends_are_waited_for(objects, facts):
    config, wrong = config_of(objects), []
    for pod, container in containers(objects):
        if program_of(container) != "quire-coordinator":
            continue
        sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        need = sleep + config["drain-timeout"] + facts.stop_s
        have = pod.spec.get("terminationGracePeriodSeconds", 30)
        if sleep < 5 or have < need:
            wrong.append(f"{pod.where}: is killed after {have} s, but may take {need} s to stop")
    return wrong


@rule
def resources_are_bounded(objects, facts):
    config, wrong = config_of(objects), []
    for pod in pods(objects):
        for container in pod.containers:
            have = container.get("resources", {})
            limits, requests = have.get("limits", {}), have.get("requests", {})
            for what in ("cpu", "memory"):
                if what not in limits or limits[what] != requests.get(what):
                    wrong.append(f"{pod.where}: {what} is asked for as {requests.get(what)}, limited to {limits.get(what)}")
            in_memory = sum(bytes_of(v["emptyDir"]["sizeLimit"]) for v in pod.volumes().values()
                            if v.get("emptyDir", {}).get("medium") == "Memory")
            if "memory" in limits and in_memory > bytes_of(limits["memory"]) // 2:
                wrong.append(f"{pod.where}: /dev/shm may take more than half of the memory")
        for name, volume in pod.volumes().items():
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                wrong.append(f"{pod.where}: volume {name} has no sizeLimit")
        if pod.ranks_here():
            shm = pod.volumes().get("shm", {}).get("emptyDir", {})
            need = shm_bytes(config)
            if shm.get("medium") != "Memory" or bytes_of(shm.get("sizeLimit", 0)) < need:
                wrong.append(f"{pod.where}: /dev/shm needs {need} bytes of memory")
    return wrong


def shm_bytes(config):
    """Two halves of a part for each rank, with as much again to spare (OPERATIONS.md has the formula)."""
    rows = config["max-num-batched-tokens"] * LARGEST_HIDDEN * 4 * 2
    return 2 * config["tensor-parallel-size"] * max(rows, GATHER_BYTES)


@rule
def nothing_is_privileged(objects, facts):
    wrong = []
    for pod in pods(objects):
        own = pod.spec.get("securityContext", {})
        wanted = {"runAsNonRoot": True, "runAsUser": facts.uid, "runAsGroup": facts.uid, "fsGroup": facts.uid,
                  "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"}}
        wrong += [f"{pod.where}: {k} is {own.get(k)}, not {v}" for k, v in wanted.items() if own.get(k) != v]
        if pod.spec.get("automountServiceAccountToken") is not False:
            wrong.append(f"{pod.where}: it has a service account's token")
        wrong += [f"{pod.where}: {k}" for k in ("hostNetwork", "hostIPC", "hostPID") if pod.spec.get(k)]
        for c in pod.containers:
            of = c.get("securityContext", {})
            powers = of.get("capabilities", {})
            if of.get("readOnlyRootFilesystem") is not True or of.get("allowPrivilegeEscalation") is not False \
                    or of.get("privileged") or powers.get("drop") != ["ALL"] \
                    or not set(powers.get("add", [])) <= {"IPC_LOCK"}:
                wrong.append(f"{pod.where}: container {c['name']} may do more than it needs: {of}")
    return wrong


@rule
def writable_where_written(objects, facts):
    config, wrong = config_of(objects), []
    for pod, container in containers(objects):
        written = ["/tmp"]
        if program_of(container) == "quire-coordinator":
            written.append(config["journal"])
        if pod.ranks_here():
            written += ["/dev/shm", facts.env["QUIRE_CACHE"]]
        for path in written:
            mount = mount_at(container, path)
            volume = pod.volumes().get(mount["name"], {}) if mount else {}
            if not mount or mount.get("readOnly") or not ("emptyDir" in volume or "claim" in volume):
                wrong.append(f"{pod.where}: {path} cannot be written")
        if config["journal"] in written and "claim" not in pod.volumes().get(
                (mount_at(container, config["journal"]) or {}).get("name"), {}):
            wrong.append(f"{pod.where}: the journal is lost with the pod")
    return wrong


@rule
def references_exist(objects, facts):
    wrong = []
    known_secrets = {s["metadata"]["name"]: set(s["data"]) for s in secrets()}
    known_secrets |= {c["spec"]["secretName"]: {"tls.crt", "tls.key", "ca.crt"} for c in of_kind(objects, "Certificate")}
    config = config_of(objects)
    for pod in pods(objects):
        volumes, used = pod.volumes(), set()
        for name, volume in volumes.items():
            if "configMap" in volume and find(objects, "ConfigMap", volume["configMap"]["name"]) is None:
                wrong.append(f"{pod.where}: there is no ConfigMap {volume['configMap']['name']}")
            if "secret" in volume:
                if volume["secret"]["secretName"] not in known_secrets:
                    wrong.append(f"{pod.where}: there is no Secret {volume['secret']['secretName']}")
                if volume["secret"].get("defaultMode") != 0o440:
                    wrong.append(f"{pod.where}: everybody in the pod can read the Secret {name}")
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and find(objects, "PersistentVolumeClaim", claim) is None:
                wrong.append(f"{pod.where}: there is no claim {claim}")
        for container in pod.containers:
            for mount in container.get("volumeMounts", []):
                used.add(mount["name"])
                if mount["name"] not in volumes:
                    wrong.append(f"{pod.where}: {mount['mountPath']} is of no volume")
            wrong += [f"{pod.where}: {path} is nowhere" for path in files_read(pod, container, config, facts)
                      if not is_there(path, container, volumes, objects, known_secrets)]
        wrong += [f"{pod.where}: nobody mounts {name}" for name in set(volumes) - used]
    for o in of_kind(objects, "Certificate"):
        if find(objects, o["spec"]["issuerRef"]["kind"], o["spec"]["issuerRef"]["name"]) is None:
            wrong.append(f"{name_of(o)}: its issuer is nowhere")
    return wrong


def files_read(pod, container, config, facts):
    """By options, in the file or on the command line; a launcher's are read where its ranks are."""
    values = dict(config)
    arguments = container.get("args", [])
    for argument, following in zip(arguments, arguments[1:] + [""]):
        name, _, value = argument.partition("=")
        values[name.lstrip("-")] = value or following
    if program_of(container) == "quire-group" and not pod.ranks_here():
        return [values["config"]]
    known = facts.options[program_of(container)]
    names = ["config"] if "config" in values else []
    names += [n for n in values if n == "model" or n.endswith("-file") or re.search("ssl-(cert|key|ca)", n)]
    return [values[n] for n in names if n == "config" or "--" + n in known]


def is_there(path, container, volumes, objects, known_secrets):
    mount = mount_at(container, path)
    volume = volumes.get(mount["name"], {}) if mount else {}
    name = os.path.basename(path)
    if "configMap" in volume:
        return name in (find(objects, "ConfigMap", volume["configMap"]["name"]) or {}).get("data", {})
    if "secret" in volume:
        return name in known_secrets.get(volume["secret"]["secretName"], ())
    return "persistentVolumeClaim" in volume


@rule
def groups_that_are_added_compute(objects, facts):
    """An autoscaler adds no group that would only stand by."""
    most = config_of(objects).get("data-parallel-size", 1)
    wrong = []
    for o in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        asked = o["spec"].get("maxReplicas", o["spec"].get("maxReplicaCount"))
        if asked is None or asked > most:
            wrong.append(f"{name_of(o)}: up to {asked} groups, but data-parallel-size is {most}")
    return wrong


@rule
def groups_are_whole(objects, facts):
    """Ranks of a group: as many as the coordinator waits for, a GPU each where there are GPUs."""
    world, wrong, places = config_of(objects)["tensor-parallel-size"], [], 0
    for pod in pods(objects):
        if not pod.ranks_here():
            continue
        owner = find(objects, *pod.where.split(" ")[0].split("/"))["spec"]
        env = env_of(pod.containers[0])
        slots = int(env["QUIRE_SLOTS"])
        if "leaderWorkerTemplate" in owner:
            size = owner["leaderWorkerTemplate"]["size"]
        elif "mpiReplicaSpecs" in owner:
            size = owner["mpiReplicaSpecs"]["Worker"]["replicas"]
            slots = slots if owner["slotsPerWorker"] == slots else -1
        else:
            size = owner["replicas"]
            if env.get("QUIRE_PODS") != str(size) or owner["updateStrategy"]["type"] != "OnDelete" \
                    or owner["podManagementPolicy"] != "Parallel":
                wrong.append(f"{pod.where}: its pods are not one group of {size}")
        places += 1
        if slots * size != world:
            wrong.append(f"{pod.where}: {size} pods of {slots} ranks, but tensor-parallel-size is {world}")
        limits = pod.containers[0]["resources"]["limits"]
        if int(limits.get("nvidia.com/gpu", slots)) != slots:
            wrong.append(f"{pod.where}: {limits['nvidia.com/gpu']} GPUs for {slots} ranks")
    return wrong if places == 1 else wrong + [f"{places} kinds of pods run ranks"]


@rule
def images_are_pinned(objects, facts):
    wrong = []
    for pod, container in containers(objects):
        image = container["image"]
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@sha256:" not in image and tag in ("", "latest"):
            wrong.append(f"{pod.where}: image {image} may be another one tomorrow")
        if "nvidia.com/gpu" in container["resources"]["limits"] and "@" not in image and "cuda" not in tag:
            wrong.append(f"{pod.where}: image {image} has no CUDA backend")
    return wrong


@rule
def probes_tell_death_from_load(objects, facts):
    wrong = []
    for pod, container in containers(objects):
        where, arguments = pod.where, " ".join(container.get("args", []))
        probes = {k: container[k] for k in ("startupProbe", "livenessProbe", "readinessProbe") if k in container}
        for kind, probe in probes.items():
            get, call = probe.get("httpGet"), probe.get("grpc")
            if get and get["path"] not in facts.paths:
                wrong.append(f"{where}: {kind} asks for {get['path']}, which there is not")
            if get and (get.get("scheme") == "HTTPS") != ("--ssl-certfile" in arguments.replace("--grpc-ssl-", "")):
                wrong.append(f"{where}: {kind} speaks another protocol than the server")
            if call and call.get("service", "") not in facts.health_services:
                wrong.append(f"{where}: {kind} asks for the service {call['service']}, which there is not")
            if call and "--grpc-ssl-certfile" in arguments:
                wrong.append(f"{where}: {kind} over gRPC knows no TLS")
        if program_of(container) == "quire-coordinator":
            lives = [p.get("httpGet", {}).get("path") or p.get("grpc", {}).get("service")
                     for p in (probes.get("startupProbe", {}), probes.get("livenessProbe", {}))]
            ready = probes.get("readinessProbe", {})
            answers = ready.get("httpGet", {}).get("path") or ready.get("grpc", {}).get("service")
            if not set(lives) <= {"/health", "live"} or answers not in ("/ready", "ready"):
                wrong.append(f"{where}: {lives} say whether it lives, {answers} whether it is ready")
        elif "livenessProbe" in probes:
            wrong.append(f"{where}: ranks end by their lease; a liveness probe would end a slow load")
    return wrong


def words(expression):
    """The metric names of a PromQL expression."""
    plain = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(by|without) \([^)]*\)', " ", expression)
    functions = {"sum", "rate", "increase", "histogram_quantile", "absent", "by", "le"}
    return {w for w in re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\()", plain)
            if w not in functions and not re.search(rf"{re.escape(w)}\w*\(", plain)}


@rule
def metrics_exist(objects, facts):
    asked, recorded = [], {}
    for o in of_kind(objects, "PrometheusRule"):
        for group in o["spec"]["groups"]:
            for r in group["rules"]:
                if "record" in r:
                    recorded[r["record"]] = True
                asked.append((f"{name_of(o)} {r.get('alert') or r['record']}", words(r["expr"])))
    for o in of_kind(objects, "ConfigMap"):
        for key, text in o.get("data", {}).items():
            if key.endswith(".json"):
                asked += [(f"{key}: {panel['title']}", words(target["expr"]))
                          for panel in json.loads(text)["panels"] for target in panel["targets"]]
    for o in of_kind(objects, "HorizontalPodAutoscaler"):
        asked += [(name_of(o), {m["external"]["metric"]["name"]}) for m in o["spec"]["metrics"]]
    for o in of_kind(objects, "ScaledObject"):
        asked += [(name_of(o), words(t["metadata"]["query"])) for t in o["spec"]["triggers"]]
    wrong = [f"{where}: asks for nothing" for where, names in asked if not names]
    return wrong + [f"{where}: there is no metric {name}" for where, names in asked
                    for name in sorted(names) if name not in facts.metrics and name not in recorded]
