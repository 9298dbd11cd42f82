"""Mistakes that people make in manifests, each with the rule that must see it: name -> (overlay, variant,
rule, change). Variant 0 is the overlay alone, 1 and on with all components."""

import json

import rules
from objects import find, of_kind, pods
from schema import fields_are_known

MUTATIONS = {}


def mistake(check, overlay="lws", variant=0):
    def add(change):
        MUTATIONS[change.__name__] = (overlay, variant, check, change)
        return change
    return add


def coordinator(objects):
    return next(p for p in pods(objects) if p.where == "StatefulSet/quire-coordinator")


def worker(objects):
    return next(p for p in pods(objects) if p.ranks_here())


def edit_config(objects, old, new):
    config = next(o for o in of_kind(objects, "ConfigMap") if "quire.yaml" in o["data"])
    assert old in config["data"]["quire.yaml"]
    config["data"]["quire.yaml"] = config["data"]["quire.yaml"].replace(old, new)


# Fields.
@mistake(fields_are_known)
def typing_error_in_a_pod(o): coordinator(o).containers[0]["resorces"] = {}
@mistake(fields_are_known)
def typing_error_in_a_pod_of_a_custom_kind(o): worker(o).containers[0]["volumeMount"] = []
@mistake(fields_are_known)
def unknown_field_of_leader_worker_set(o): find(o, "LeaderWorkerSet", "quire-worker")["spec"]["siez"] = 2
@mistake(fields_are_known)
def unknown_restart_policy(o):
    find(o, "LeaderWorkerSet", "quire-worker")["spec"]["leaderWorkerTemplate"]["restartPolicy"] = "Always"
@mistake(fields_are_known, "mpijob")
def mpi_job_without_launcher(o): del find(o, "MPIJob", "quire-worker")["spec"]["mpiReplicaSpecs"]["Launcher"]
@mistake(fields_are_known, "mpijob")
def policy_that_the_operator_refuses(o):
    find(o, "MPIJob", "quire-worker")["spec"]["mpiReplicaSpecs"]["Worker"]["restartPolicy"] = "Always"
@mistake(fields_are_known, "mpijob")
def old_version_of_mpi_job(o): find(o, "MPIJob", "quire-worker")["apiVersion"] = "kubeflow.org/v1"
@mistake(fields_are_known, "lws", 1)
def monitor_with_a_number_as_port(o): find(o, "ServiceMonitor", "quire")["spec"]["endpoints"][0]["port"] = 8000
@mistake(fields_are_known, "lws", 1)
def alert_without_expression(o):
    del find(o, "PrometheusRule", "quire")["spec"]["groups"][0]["rules"][1]["expr"]
@mistake(fields_are_known, "lws", 2)
def threshold_that_is_no_text(o):
    find(o, "ScaledObject", "quire-worker")["spec"]["triggers"][0]["metadata"]["threshold"] = 16
@mistake(fields_are_known, "lws", 1)
def certificate_without_issuer(o): del find(o, "Certificate", "quire-worker")["spec"]["issuerRef"]
@mistake(fields_are_known, "lws", 1)
def issuer_of_two_kinds(o): find(o, "Issuer", "quire-ca")["spec"]["selfSigned"] = {}


# Selectors.
@mistake(rules.selectors_match)
def service_of_no_pod(o): find(o, "Service", "quire")["spec"]["selector"]["app.kubernetes.io/name"] = "quire"
@mistake(rules.selectors_match)
def budget_of_no_pod(o):
    find(o, "PodDisruptionBudget", "quire-worker")["spec"]["selector"]["matchLabels"] = {"app": "worker"}
@mistake(rules.selectors_match)
def policy_for_peers_that_do_not_exist(o):
    find(o, "NetworkPolicy", "quire-coordinator")["spec"]["ingress"][1]["from"][0]["podSelector"]["matchLabels"] = {"a": "b"}
@mistake(rules.selectors_match)
def stateful_set_that_selects_others(o): coordinator(o).labels["app.kubernetes.io/name"] = "other"
@mistake(rules.selectors_match, "statefulset")
def stateful_set_without_its_service(o): o.remove(find(o, "Service", "quire-worker"))
@mistake(rules.selectors_match, "lws", 1)
def monitor_of_a_port_that_is_not_there(o):
    find(o, "ServiceMonitor", "quire")["spec"]["endpoints"][0]["port"] = "metrics"
@mistake(rules.selectors_match, "lws", 1)
def autoscaler_of_nothing(o):
    find(o, "HorizontalPodAutoscaler", "quire-worker")["spec"]["scaleTargetRef"]["name"] = "workers"
@mistake(rules.selectors_match, "lws", 2)
def scaled_object_of_another_kind(o):
    find(o, "ScaledObject", "quire-worker")["spec"]["scaleTargetRef"]["kind"] = "Deployment"
@mistake(rules.selectors_match)
def ranks_without_spread(o): del worker(o).spec["topologySpreadConstraints"]


# Ports.
@mistake(rules.ports_exist)
def container_port_that_nobody_listens_on(o): coordinator(o).containers[0]["ports"][0]["containerPort"] = 8080
@mistake(rules.ports_exist)
def http_port_changed_in_the_options_only(o): edit_config(o, "port: 8000", "port: 8001")
@mistake(rules.ports_exist)
def probe_of_another_port(o): coordinator(o).containers[0]["startupProbe"]["grpc"]["port"] = 50052
@mistake(rules.ports_exist)
def service_to_another_port(o): find(o, "Service", "quire")["spec"]["ports"][0]["targetPort"] = "grpc"
@mistake(rules.ports_exist)
def workers_dial_another_name(o): edit_config(o, "quire-coordinator:50051", "coordinator:50051")
@mistake(rules.ports_exist)
def workers_wait_for_a_ready_coordinator(o):
    del find(o, "Service", "quire-coordinator")["spec"]["publishNotReadyAddresses"]
@mistake(rules.ports_exist)
def policy_that_closes_grpc(o): del find(o, "NetworkPolicy", "quire-coordinator")["spec"]["ingress"][1]
@mistake(rules.ports_exist)
def policy_that_keeps_workers_in(o): del find(o, "NetworkPolicy", "quire-worker")["spec"]["egress"][1]
@mistake(rules.ports_exist, "statefulset")
def ssh_on_the_usual_port(o): worker(o).containers[0]["ports"][0]["containerPort"] = 22


# Options.
@mistake(rules.options_exist)
def option_that_no_program_has(o): edit_config(o, "max-num-seqs", "max-num-sequences")
@mistake(rules.options_exist)
def flag_that_the_worker_has_not(o): worker(o).containers[0]["args"].append("--drain-timeout=3")
@mistake(rules.options_exist)
def flag_that_the_coordinator_has_not(o): coordinator(o).containers[0]["args"].append("--rank=0")
@mistake(rules.options_exist)
def program_that_is_not_in_the_image(o): worker(o).containers[0]["command"] = ["quire-workers"]


# Ends.
@mistake(rules.ends_are_waited_for)
def grace_of_the_default(o): del coordinator(o).spec["terminationGracePeriodSeconds"]
@mistake(rules.ends_are_waited_for)
def drain_longer_than_grace(o): edit_config(o, "drain-timeout: 60", "drain-timeout: 120")
@mistake(rules.ends_are_waited_for)
def endpoints_leave_after_the_server(o):
    coordinator(o).containers[0]["lifecycle"]["preStop"]["exec"]["command"][1] = "0"


# Resources.
@mistake(rules.resources_are_bounded)
def no_memory_limit(o): del coordinator(o).containers[0]["resources"]["limits"]["memory"]
@mistake(rules.resources_are_bounded)
def asks_for_less_than_it_takes(o): worker(o).containers[0]["resources"]["requests"]["memory"] = "1Gi"
@mistake(rules.resources_are_bounded)
def shm_of_the_default(o): worker(o).spec["volumes"].remove(worker(o).volumes()["shm"])
@mistake(rules.resources_are_bounded)
def shm_too_small_for_the_ranks(o): edit_config(o, "max-num-batched-tokens: 512", "max-num-batched-tokens: 4096")
@mistake(rules.resources_are_bounded)
def shm_on_disk(o): del worker(o).volumes()["shm"]["emptyDir"]["medium"]
@mistake(rules.resources_are_bounded)
def shm_of_all_memory(o): worker(o).volumes()["shm"]["emptyDir"]["sizeLimit"] = "32Gi"
@mistake(rules.resources_are_bounded)
def scratch_without_limit(o): worker(o).volumes()["tmp"]["emptyDir"] = {}


# Privileges.
@mistake(rules.nothing_is_privileged)
def another_user_than_the_image(o): worker(o).spec["securityContext"]["runAsUser"] = 1000
@mistake(rules.nothing_is_privileged)
def may_be_root(o): del coordinator(o).spec["securityContext"]["runAsNonRoot"]
@mistake(rules.nothing_is_privileged)
def group_rights_on_the_journal(o): coordinator(o).spec["securityContext"]["fsGroupChangePolicy"] = "Always"
@mistake(rules.nothing_is_privileged)
def writable_root(o): coordinator(o).containers[0]["securityContext"]["readOnlyRootFilesystem"] = False
@mistake(rules.nothing_is_privileged)
def keeps_capabilities(o): del worker(o).containers[0]["securityContext"]["capabilities"]
@mistake(rules.nothing_is_privileged, "lws", 1)
def more_capabilities_than_pinning(o):
    worker(o).containers[0]["securityContext"]["capabilities"]["add"].append("SYS_ADMIN")
@mistake(rules.nothing_is_privileged)
def network_of_the_host(o): worker(o).spec["hostNetwork"] = True
@mistake(rules.nothing_is_privileged)
def token_of_the_api(o): del worker(o).spec["automountServiceAccountToken"]


# Places to write.
@mistake(rules.writable_where_written)
def no_place_for_temporary_files(o): worker(o).containers[0]["volumeMounts"].pop()
@mistake(rules.writable_where_written)
def journal_in_the_image(o): edit_config(o, "/var/lib/quire/journal", "/var/journal")
@mistake(rules.writable_where_written)
def journal_in_scratch(o): edit_config(o, "/var/lib/quire/journal", "/tmp/journal")
@mistake(rules.writable_where_written)
def cache_read_only(o):
    next(m for m in worker(o).containers[0]["volumeMounts"] if m["name"] == "cache")["readOnly"] = True


# References.
@mistake(rules.references_exist)
def config_map_of_another_name(o): worker(o).volumes()["config"]["configMap"]["name"] = "quire-config"
@mistake(rules.references_exist)
def secret_that_nobody_makes(o): worker(o).volumes()["ssh"]["secret"]["secretName"] = "ssh"
@mistake(rules.references_exist)
def secret_for_everybody(o): del worker(o).volumes()["ssh"]["secret"]["defaultMode"]
@mistake(rules.references_exist)
def key_that_the_secret_has_not(o): edit_config(o, "/etc/quire/worker/secret", "/etc/quire/worker/token")
@mistake(rules.references_exist)
def claim_that_nobody_makes(o): o.remove(find(o, "PersistentVolumeClaim", "quire-model"))
@mistake(rules.references_exist)
def config_file_of_another_name(o): coordinator(o).containers[0]["args"][1] = "/etc/quire/config/config.yaml"
@mistake(rules.references_exist, "lws", 1)
def certificate_of_another_secret(o): find(o, "Certificate", "quire-worker")["spec"]["secretName"] = "worker"
@mistake(rules.references_exist, "lws", 1)
def issuer_that_is_nowhere(o): find(o, "Certificate", "quire-worker")["spec"]["issuerRef"]["name"] = "letsencrypt"
@mistake(rules.references_exist)
def volume_that_nobody_mounts(o): worker(o).spec["volumes"].append({"name": "spare", "emptyDir": {}})
@mistake(rules.references_exist)
def mount_of_no_volume(o):
    worker(o).containers[0]["volumeMounts"].append({"name": "spare", "mountPath": "/spare"})


# Groups.
@mistake(rules.groups_that_are_added_compute, "lws", 1)
def more_groups_than_may_compute(o): edit_config(o, "data-parallel-size: 4", "data-parallel-size: 2")
@mistake(rules.groups_that_are_added_compute, "lws", 2)
def autoscaler_without_a_bound(o): del find(o, "ScaledObject", "quire-worker")["spec"]["maxReplicaCount"]


@mistake(rules.groups_are_whole)
def more_pods_than_ranks(o): find(o, "LeaderWorkerSet", "quire-worker")["spec"]["leaderWorkerTemplate"]["size"] = 3
@mistake(rules.groups_are_whole)
def more_ranks_than_pods(o): edit_config(o, "tensor-parallel-size: 4", "tensor-parallel-size: 8")
@mistake(rules.groups_are_whole, "lws", 1)
def fewer_gpus_than_ranks(o): worker(o).containers[0]["resources"]["limits"]["nvidia.com/gpu"] = "1"
@mistake(rules.groups_are_whole, "mpijob")
def slots_that_disagree(o): find(o, "MPIJob", "quire-worker")["spec"]["slotsPerWorker"] = 4
@mistake(rules.groups_are_whole, "statefulset")
def replicas_that_disagree(o): find(o, "StatefulSet", "quire-worker")["spec"]["replicas"] = 4
@mistake(rules.groups_are_whole, "statefulset")
def half_a_group_updated(o):
    find(o, "StatefulSet", "quire-worker")["spec"]["updateStrategy"]["type"] = "RollingUpdate"


# Images.
@mistake(rules.images_are_pinned)
def image_without_version(o): worker(o).containers[0]["image"] = "registry:5000/quire"
@mistake(rules.images_are_pinned)
def image_of_today(o): coordinator(o).containers[0]["image"] = "quire:latest"
@mistake(rules.images_are_pinned, "lws", 1)
def gpus_without_their_backend(o): worker(o).containers[0]["image"] = "quire:0.1.0"


# Probes.
@mistake(rules.probes_tell_death_from_load)
def killed_for_not_being_ready(o): coordinator(o).containers[0]["livenessProbe"]["httpGet"]["path"] = "/ready"
@mistake(rules.probes_tell_death_from_load)
def ready_because_it_lives(o): coordinator(o).containers[0]["readinessProbe"]["httpGet"]["path"] = "/health"
@mistake(rules.probes_tell_death_from_load)
def path_that_there_is_not(o): coordinator(o).containers[0]["livenessProbe"]["httpGet"]["path"] = "/healthz"
@mistake(rules.probes_tell_death_from_load)
def health_service_that_there_is_not(o): coordinator(o).containers[0]["startupProbe"]["grpc"]["service"] = "alive"
@mistake(rules.probes_tell_death_from_load, "lws", 1)
def plain_probe_of_https(o): del coordinator(o).containers[0]["livenessProbe"]["httpGet"]["scheme"]
@mistake(rules.probes_tell_death_from_load, "lws", 1)
def grpc_probe_of_tls(o): coordinator(o).containers[0]["startupProbe"] = {"grpc": {"port": 50051, "service": "live"}}
@mistake(rules.probes_tell_death_from_load)
def liveness_of_a_rank(o):
    worker(o).containers[0]["livenessProbe"] = worker(o).containers[0]["readinessProbe"]


# Metrics.
@mistake(rules.metrics_exist, "lws", 1)
def alert_on_a_metric_that_there_is_not(o):
    find(o, "PrometheusRule", "quire")["spec"]["groups"][0]["rules"][1]["expr"] = "quire_up == 0"
@mistake(rules.metrics_exist, "lws", 1)
def panel_of_a_metric_that_there_is_not(o):
    data = find(o, "ConfigMap", "quire-dashboard")["data"]
    board = json.loads(data["quire.json"])
    board["panels"][0]["targets"][0]["expr"] = "sum(vllm:num_requests_swapped)"
    data["quire.json"] = json.dumps(board)
@mistake(rules.metrics_exist, "lws", 1)
def autoscaler_without_the_recorded_metric(o): o.remove(find(o, "PrometheusRule", "quire"))
@mistake(rules.metrics_exist, "lws", 2)
def scaler_by_a_metric_that_there_is_not(o):
    find(o, "ScaledObject", "quire-worker")["spec"]["triggers"][0]["metadata"]["query"] = "sum(queue_depth)"
