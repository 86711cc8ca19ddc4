"""Laws of the rendered manifests: `kubernetes.py FILE` with the output of `kustomize build`."""

import json
import tomllib
from pathlib import Path

import yaml
from rules import Mistake, Rule, main

NAMESPACES = {"causeway": "restricted", "causeway-agents": "privileged"}
PORTS = {"causeway-agent": 9470, "causeway-ingest": 9471, "causeway-compactor": 9472, "causeway-query": 8080}
# What a container may do beyond nothing. Another entry needs a reason in the manifest.
CAPABILITIES = {
    ("causeway-agent", "agent"): {"BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH", "SYS_NICE"},
    ("causeway-agent", "own-spool"): {"CHOWN"},
}
ROOT = {("causeway-agent", "own-spool")}
ESCALATION = {("causeway-agent", "agent")}
HOST_PATHS = {"causeway-agent": {"/var/lib/causeway"}}
# Section, key and default of the limit of temporary files, which are in /tmp.
SPILLS = {"causeway-compactor": ("compactor", "spill_size", "16GiB"), "causeway-query": ("query", "spill", "4GiB")}
WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet")
SECRET_WORDS = ("PASSWORD", "SECRET", "ACCESS_KEY", "URI", "TOKEN", "USERNAME")


def load(files: list[Path]) -> list[dict]:
    return [doc for path in files for doc in yaml.safe_load_all(path.read_text()) if doc]


def name(doc):
    return doc["metadata"]["name"]


def of_kind(docs, *kinds):
    return [doc for doc in docs if doc["kind"] in kinds]


def workloads(docs):
    return of_kind(docs, *WORKLOADS)


def pod(workload):
    return workload["spec"]["template"]["spec"]


def labels(workload):
    return workload["spec"]["template"]["metadata"]["labels"]


def containers(docs):
    """Every container with its workload's name, its pod and itself."""
    for workload in workloads(docs):
        spec = pod(workload)
        for container in spec.get("initContainers", []) + spec["containers"]:
            yield name(workload), spec, container


def security(spec, container, field):
    """What holds for a container: its own setting, else the pod's."""
    own = container.get("securityContext", {})
    return own.get(field, spec.get("securityContext", {}).get(field))


def complete(docs):
    found = {name(workload) for workload in workloads(docs)}
    for missing in sorted(set(PORTS) - found):
        yield f"{missing} is not there"
    for extra in sorted(found - set(PORTS)):
        yield f"{extra} has no rules here"


def non_root(docs):
    for workload, spec, container in containers(docs):
        if (workload, container["name"]) in ROOT:
            continue
        if not security(spec, container, "runAsNonRoot") or not security(spec, container, "runAsUser"):
            yield f"{workload}/{container['name']} may run as root"


def read_only(docs):
    for workload, spec, container in containers(docs):
        if not security(spec, container, "readOnlyRootFilesystem"):
            yield f"{workload}/{container['name']} can write to its image"


def capabilities(docs):
    for workload, spec, container in containers(docs):
        place = f"{workload}/{container['name']}"
        held = container.get("securityContext", {}).get("capabilities", {})
        if held.get("drop") != ["ALL"]:
            yield f"{place} does not drop all capabilities"
        allowed = CAPABILITIES.get((workload, container["name"]), set())
        if set(held.get("add", [])) != allowed:
            yield f"{place} has {sorted(held.get('add', []))} and needs {sorted(allowed)}"


def escalation(docs):
    for workload, spec, container in containers(docs):
        allowed = (workload, container["name"]) in ESCALATION
        if security(spec, container, "allowPrivilegeEscalation") is not allowed or security(spec, container, "privileged"):
            yield f"{workload}/{container['name']} may gain privileges"


def seccomp(docs):
    for workload, spec, container in containers(docs):
        if (security(spec, container, "seccompProfile") or {}).get("type") != "RuntimeDefault":
            yield f"{workload}/{container['name']} has no seccomp profile"


def host(docs):
    for workload in workloads(docs):
        spec, allowed = pod(workload), HOST_PATHS.get(name(workload), set())
        if spec.get("hostNetwork") or spec.get("hostIPC") or bool(spec.get("hostPID")) != bool(allowed):
            yield f"{name(workload)} sees more of the host than it needs, or the agent less"
        paths = {volume["hostPath"]["path"] for volume in spec.get("volumes", []) if "hostPath" in volume}
        if paths != allowed:
            yield f"{name(workload)} mounts {sorted(paths)} of the host and needs {sorted(allowed)}"


def probes(docs):
    for workload in workloads(docs):
        for container in pod(workload)["containers"]:
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            for kind, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
                get = container.get(kind, {}).get("httpGet", {})
                if get.get("path") != path or ports.get(get.get("port")) != PORTS.get(name(workload)):
                    yield f"{name(workload)}/{container['name']} has no {kind} of {path} on port {PORTS.get(name(workload))}"


def resources(docs):
    for workload, _, container in containers(docs):
        given = container.get("resources", {})
        wanted = [("requests", "cpu"), ("requests", "memory"), ("limits", "memory")]
        missing = [".".join(path) for path in wanted if path[1] not in given.get(path[0], {})]
        if missing:
            yield f"{workload}/{container['name']} lacks {', '.join(missing)}"


def budgets(docs):
    for workload in of_kind(docs, "Deployment", "StatefulSet"):
        ours = [
            b
            for b in of_kind(docs, "PodDisruptionBudget")
            if selects(b["spec"]["selector"], workload) and same_namespace(b, workload)
        ]
        if len(ours) != 1:
            yield f"{name(workload)} has {len(ours)} disruption budgets"
        elif ours[0]["spec"].get("maxUnavailable") != 1:
            yield f"the budget of {name(workload)} allows no drain, or more than one pod at once"


def same_namespace(one, other):
    return one["metadata"].get("namespace") == other["metadata"].get("namespace")


def selects(selector, workload):
    held = labels(workload)
    equal = all(held.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return equal and all(held.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))


def network(docs):
    policies = of_kind(docs, "NetworkPolicy")
    for namespace in NAMESPACES:
        ours = [p["spec"] for p in policies if p["metadata"].get("namespace") == namespace]
        closed = [
            s
            for s in ours
            if s["podSelector"] == {}
            and set(s["policyTypes"]) == {"Ingress", "Egress"}
            and not s.get("ingress")
            and not s.get("egress")
        ]
        if not closed:
            yield f"nothing closes the namespace {namespace}"
    for workload in workloads(docs):
        ours = [p["spec"] for p in policies if same_namespace(p, workload) and selects(p["spec"]["podSelector"], workload)]
        port = PORTS.get(name(workload))
        if not any(port == o.get("port") for s in ours for rule in s.get("ingress", []) for o in rule.get("ports", [])):
            yield f"no policy opens port {port} of {name(workload)}"
        for rule in (rule for s in ours for rule in s.get("ingress", [])):
            if not rule.get("from") or not rule.get("ports"):
                yield f"a policy opens {name(workload)} to everybody"
        for rule in (rule for s in ours for rule in s.get("egress", [])):
            if not rule.get("ports"):
                yield f"a policy lets {name(workload)} reach every port"


def identity(docs):
    accounts = {(a["metadata"]["namespace"], name(a)) for a in of_kind(docs, "ServiceAccount")}
    for workload in workloads(docs):
        spec = pod(workload)
        if (workload["metadata"]["namespace"], spec.get("serviceAccountName")) not in accounts:
            yield f"{name(workload)} has no service account of its own"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name(workload)} gets a token for the cluster, which no program uses"


def variables(docs):
    for workload in workloads(docs):
        if pod(workload).get("enableServiceLinks") is not False:
            yield f"{name(workload)}: variables of Services begin with CAUSEWAY_ and look like options"


def secrets(docs):
    for doc in of_kind(docs, "Secret"):
        yield f"the secret {name(doc)} is in the manifests"
    for workload, _, container in containers(docs):
        for variable in container.get("env", []):
            is_secret = any(word in variable["name"] for word in SECRET_WORDS)
            if is_secret and "secretKeyRef" not in variable.get("valueFrom", {}):
                yield f"{workload}: {variable['name']} is no reference to a secret"
    for doc in of_kind(docs, "ConfigMap"):
        if "password" in json.dumps([tomllib.loads(text) for text in doc["data"].values()]):
            yield f"the configuration {name(doc)} holds a password"


def images(docs):
    for workload, _, container in containers(docs):
        tag = container["image"].rsplit("/", 1)[-1].partition(":")[2]
        if not tag or tag == "latest":
            yield f"{workload}/{container['name']}: {container['image']} has no version"


def configuration(docs):
    maps = {(m["metadata"]["namespace"], name(m)) for m in of_kind(docs, "ConfigMap")}
    for workload in workloads(docs):
        mounted = [v["configMap"]["name"] for v in pod(workload).get("volumes", []) if "configMap" in v]
        if [(workload["metadata"]["namespace"], m) in maps for m in mounted] != [True]:
            yield f"{name(workload)} mounts no configuration that is there"


def priority(docs):
    classes = {name(c): c for c in of_kind(docs, "PriorityClass")}
    for workload in workloads(docs):
        held = classes.get(pod(workload).get("priorityClassName"), {})
        if held.get("preemptionPolicy") != "Never":
            yield f"{name(workload)} has no priority class, or one that evicts jobs"


def admission(docs):
    held = {
        name(n): n["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") for n in of_kind(docs, "Namespace")
    }
    if held != NAMESPACES:
        yield f"namespaces admit {held}, not {NAMESPACES}"


def services(docs):
    for service in of_kind(docs, "Service"):
        spec = service["spec"]
        ours = [w for w in workloads(docs) if same_namespace(w, service) and selects({"matchLabels": spec["selector"]}, w)]
        open_ports = {port["name"] for w in ours for c in pod(w)["containers"] for port in c.get("ports", [])}
        if not ours or not {port["targetPort"] for port in spec["ports"]} <= open_ports:
            yield f"{name(service)} leads to no port of a pod"


def spill(docs):
    """The kubelet evicts a pod that fills its volume: the limit of the program must come first."""
    maps = {(m["metadata"]["namespace"], name(m)): m["data"] for m in of_kind(docs, "ConfigMap")}
    for workload in workloads(docs):
        section, key, default = SPILLS.get(name(workload), (None, None, None))
        if section is None:
            continue
        volumes = {volume["name"]: volume for volume in pod(workload)["volumes"]}
        mounted = {m["mountPath"]: volumes[m["name"]] for m in pod(workload)["containers"][0].get("volumeMounts", [])}
        room = mounted.get("/tmp", {}).get("emptyDir", {}).get("sizeLimit", "0")
        texts = [maps.get((workload["metadata"]["namespace"], v["configMap"]["name"])) for v in volumes.values() if "configMap" in v]
        held = tomllib.loads(texts[0]["causeway.toml"]) if texts and texts[0] else {}
        limit = held.get(section, {}).get(key, default)
        if gib(limit) >= gib(room):
            yield f"{name(workload)}: {section}.{key} is {limit}, and its volume {room}"


def gib(size):
    """A size in GiB, as `4Gi` and as `4GiB`; the others here have none."""
    return int(size.removesuffix("B").removesuffix("Gi"))


CHECKS = [
    complete,
    non_root,
    read_only,
    capabilities,
    escalation,
    seccomp,
    host,
    probes,
    resources,
    budgets,
    network,
    identity,
    variables,
    secrets,
    images,
    configuration,
    priority,
    admission,
    services,
    spill,
]
RULES = [Rule(check.__name__, check) for check in CHECKS]


def workload(docs, wanted):
    return next(w for w in workloads(docs) if name(w) == wanted)


def first(docs, wanted):
    return pod(workload(docs, wanted))["containers"][0]


def drop(docs, kind, wanted):
    docs[:] = [doc for doc in docs if not (doc["kind"] == kind and name(doc) == wanted)]


def of(docs, kind, wanted):
    return next(doc for doc in of_kind(docs, kind) if name(doc) == wanted)


MISTAKES = [
    Mistake("complete", "no compactor", lambda d: drop(d, "Deployment", "causeway-compactor")),
    Mistake("non_root", "ingest runs as root", lambda d: first(d, "causeway-ingest")["securityContext"].update(runAsUser=0)),
    Mistake(
        "non_root", "nothing forbids root", lambda d: pod(workload(d, "causeway-query"))["securityContext"].pop("runAsNonRoot")
    ),
    Mistake(
        "read_only",
        "query writes to its image",
        lambda d: first(d, "causeway-query")["securityContext"].pop("readOnlyRootFilesystem"),
    ),
    Mistake(
        "capabilities",
        "the agent may administer",
        lambda d: first(d, "causeway-agent")["securityContext"]["capabilities"]["add"].append("SYS_ADMIN"),
    ),
    Mistake(
        "capabilities", "ingest keeps capabilities", lambda d: first(d, "causeway-ingest")["securityContext"].pop("capabilities")
    ),
    Mistake(
        "escalation",
        "compactor may gain privileges",
        lambda d: first(d, "causeway-compactor")["securityContext"].update(allowPrivilegeEscalation=True),
    ),
    Mistake(
        "escalation", "the agent is privileged", lambda d: first(d, "causeway-agent")["securityContext"].update(privileged=True)
    ),
    Mistake("seccomp", "no profile", lambda d: pod(workload(d, "causeway-ingest"))["securityContext"].pop("seccompProfile")),
    Mistake("host", "ingest on the host's network", lambda d: pod(workload(d, "causeway-ingest")).update(hostNetwork=True)),
    Mistake(
        "host",
        "query sees the host's files",
        lambda d: pod(workload(d, "causeway-query"))["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
    ),
    Mistake("probes", "ingest without readiness", lambda d: first(d, "causeway-ingest").pop("readinessProbe")),
    Mistake(
        "probes",
        "liveness that asks for readiness",
        lambda d: first(d, "causeway-query")["livenessProbe"]["httpGet"].update(path="/readyz"),
    ),
    Mistake("probes", "another port", lambda d: first(d, "causeway-agent")["ports"][0].update(containerPort=9471)),
    Mistake("resources", "no limit of memory", lambda d: first(d, "causeway-query")["resources"].pop("limits")),
    Mistake("budgets", "no budget for ingest", lambda d: drop(d, "PodDisruptionBudget", "causeway-ingest")),
    Mistake(
        "budgets",
        "a budget that blocks every drain",
        lambda d: of(d, "PodDisruptionBudget", "causeway-query")["spec"].update(maxUnavailable=0),
    ),
    Mistake("network", "an open namespace", lambda d: drop(d, "NetworkPolicy", "deny-all")),
    Mistake(
        "network", "questions from everywhere", lambda d: of(d, "NetworkPolicy", "questions")["spec"]["ingress"][0].pop("from")
    ),
    Mistake(
        "network", "every port outside", lambda d: of(d, "NetworkPolicy", "catalog-and-objects")["spec"]["egress"][0].pop("ports")
    ),
    Mistake("identity", "the default account", lambda d: pod(workload(d, "causeway-query")).pop("serviceAccountName")),
    Mistake(
        "identity", "a token for the cluster", lambda d: pod(workload(d, "causeway-agent")).pop("automountServiceAccountToken")
    ),
    Mistake("variables", "service links", lambda d: pod(workload(d, "causeway-query")).pop("enableServiceLinks")),
    Mistake(
        "secrets",
        "the catalog's password in the manifest",
        lambda d: first(d, "causeway-query")["env"].append({"name": "CAUSEWAY_CATALOG_URI", "value": "postgres://u:p@h/d"}),
    ),
    Mistake(
        "secrets",
        "a password in the file",
        lambda d: of_kind(d, "ConfigMap")[0]["data"].update({"causeway.toml": 'password = "x"'}),
    ),
    Mistake("images", "the latest image", lambda d: first(d, "causeway-agent").update(image="causeway-agent:latest")),
    Mistake(
        "configuration",
        "another map",
        lambda d: pod(workload(d, "causeway-agent"))["volumes"][0]["configMap"].update(name="gone"),
    ),
    Mistake(
        "priority",
        "agents that evict jobs",
        lambda d: of(d, "PriorityClass", "causeway-agent").update(preemptionPolicy="PreemptLowerPriority"),
    ),
    Mistake(
        "admission", "services admitted as privileged", lambda d: of(d, "Namespace", "causeway")["metadata"]["labels"].clear()
    ),
    Mistake(
        "services",
        "a service without pods",
        lambda d: of(d, "Service", "causeway-query")["spec"].update(selector={"app": "gone"}),
    ),
    Mistake(
        "spill",
        "a volume below the limit",
        lambda d: next(v for v in pod(workload(d, "causeway-compactor"))["volumes"] if v["name"] == "tmp").update(
            emptyDir={"sizeLimit": "3Gi"}
        ),
    ),
    Mistake(
        "spill",
        "the default of the compactor",
        lambda d: [m["data"].update({"causeway.toml": ""}) for m in of_kind(d, "ConfigMap")],
    ),
]

if __name__ == "__main__":
    main("kubernetes", RULES, MISTAKES, load)
