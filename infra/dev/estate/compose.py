"""Laws of the compose file: `compose.py FILE.json DIR`, with what the reference loader makes of it and the folder it is in."""

import re
import tomllib
from pathlib import Path

from rules import Mistake, Rule, main, read_json

OURS = {"agent", "compactor", "ingest", "query"}
PORTS = {"agent": "9470", "ingest": "9471", "compactor": "9472", "query": "8080"}
AGENT_CAPABILITIES = {"BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH", "SYS_NICE"}
NEIGHBOURS = {"kafka", "catalog", "s3", "bucket"}
SECRET = re.compile(r"PASSWORD|SECRET|_URI$|MC_HOST")
VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)")


def load(files: list[Path]) -> dict:
    file, folder = files
    document = read_json(file)
    settings = (folder / "env.example").read_text().splitlines()
    document["settings"] = [line.split("=")[0] for line in settings if line and not line.startswith("#")]
    document["folder"] = str(folder)
    document["causeway"] = tomllib.loads((folder / "causeway.toml").read_text())
    return document


def services(doc):
    return doc["services"].items()


def ours(doc):
    return [(name, doc["services"][name]) for name in sorted(OURS & doc["services"].keys())]


def complete(doc):
    missing = (OURS | NEIGHBOURS) - doc["services"].keys()
    if missing:
        yield f"{sorted(missing)} are not there"


def references(doc):
    for name, service in services(doc):
        for other in service.get("depends_on", {}):
            if other not in doc["services"]:
                yield f"{name} depends on {other}, which is not there"
        for network in service.get("networks", {}):
            if network not in doc["networks"]:
                yield f"{name} is in the network {network}, which is not there"
        for volume in service.get("volumes", []):
            if volume["type"] == "volume" and volume["source"] not in doc["volumes"]:
                yield f"{name} mounts {volume['source']}, which is not there"
        for config in service.get("configs", []):
            if config["source"] not in doc["configs"]:
                yield f"{name} reads {config['source']}, which is not there"
        file = service.get("build", {}).get("dockerfile")
        if file and not (Path(doc["folder"]) / "../.." / file).is_file():
            yield f"{name} is built from {file}, which is not there"


def health(doc):
    for name, service in services(doc):
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy" and "healthcheck" not in doc["services"].get(other, {}):
                yield f"{name} waits for the health of {other}, which has no check"


def confined(doc):
    for name, service in ours(doc):
        if service.get("user") != "65532:65532" or service.get("read_only") is not True:
            yield f"{name} runs as root or can write to its image"
    for name, service in services(doc):
        if service.get("cap_drop") != ["ALL"] or service.get("privileged"):
            yield f"{name} keeps capabilities"
        if name != "agent" and "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name} may gain privileges"
        if name in OURS and set(service.get("cap_add", [])) != (AGENT_CAPABILITIES if name == "agent" else set()):
            yield f"{name} has other capabilities than it needs"
        if (service.get("pid") == "host") != (name == "agent") or service.get("network_mode"):
            yield f"{name} sees more of the host than it needs, or the agent less"


def loopback(doc):
    for name, service in services(doc):
        for port in service.get("ports", []):
            if port.get("host_ip") != "127.0.0.1":
                yield f"{name} is published on every address, and nothing authenticates"
    for name, service in ours(doc):
        if [port["published"] for port in service.get("ports", [])] != [PORTS[name]]:
            yield f"{name} is not published on {PORTS[name]}"


def bounded(doc):
    for name, service in services(doc):
        if "mem_limit" not in service or "max-size" not in service.get("logging", {}).get("options", {}):
            yield f"{name} has no limit of memory or of its log"


def secrets(doc):
    for name, service in services(doc):
        for variable, value in (service.get("environment") or {}).items():
            if SECRET.search(variable) and "${" not in value and variable != "CAUSEWAY_STORE_ACCESS_KEY_ID":
                yield f"{name}: {variable} is written in the file"
            unknown = set(VARIABLE.findall(value)) - set(doc["settings"])
            if unknown:
                yield f"{name}: env.example lacks {sorted(unknown)}"


def images(doc):
    for name, service in services(doc):
        tag = service["image"].rsplit("/", 1)[-1].partition(":")[2]
        if not tag or tag == "latest":
            yield f"{name}: {service['image']} has no version"


def restarts(doc):
    for name, service in services(doc):
        if service.get("restart") not in ("unless-stopped", "on-failure"):
            yield f"{name} does not come back after a failure"


def spill(doc):
    """What query and compactor write for what does not fit into their memory must not be memory, nor more than a host can spare."""
    for name in ("compactor", "query"):
        if not any(v["type"] == "volume" and v["target"] == "/tmp" for v in doc["services"].get(name, {}).get("volumes", [])):
            yield f"{name} has no volume for its temporary files"
    if "spill_size" not in doc["causeway"].get("compactor", {}):
        yield "compactor.spill_size is the default of 16 GiB"


CHECKS = [complete, references, health, confined, loopback, bounded, secrets, images, restarts, spill]
RULES = [Rule(check.__name__, check) for check in CHECKS]

MISTAKES = [
    Mistake("complete", "no compactor", lambda d: d["services"].pop("compactor")),
    Mistake(
        "references",
        "a service that is not there",
        lambda d: d["services"]["ingest"]["depends_on"].update(redis={"condition": "service_started"}),
    ),
    Mistake("references", "a volume that is not there", lambda d: d["volumes"].pop("spill")),
    Mistake("references", "a file that is not there", lambda d: d["services"]["agent"]["build"].update(dockerfile="Dockerfile")),
    Mistake("health", "Kafka without a check", lambda d: d["services"]["kafka"].pop("healthcheck")),
    Mistake("confined", "query as root", lambda d: d["services"]["query"].pop("user")),
    Mistake("confined", "a database with all capabilities", lambda d: d["services"]["catalog"].pop("cap_drop")),
    Mistake("confined", "ingest sees the host's processes", lambda d: d["services"]["ingest"].update(pid="host")),
    Mistake("confined", "an agent that administers", lambda d: d["services"]["agent"]["cap_add"].append("SYS_ADMIN")),
    Mistake("loopback", "query for everybody", lambda d: d["services"]["query"]["ports"][0].pop("host_ip")),
    Mistake("bounded", "no limit", lambda d: d["services"]["s3"].pop("mem_limit")),
    Mistake("secrets", "a password in the file", lambda d: d["services"]["catalog"]["environment"].update(POSTGRES_PASSWORD="x")),
    Mistake("secrets", "a setting without an example", lambda d: d["settings"].remove("S3_PASSWORD")),
    Mistake("images", "the latest image", lambda d: d["services"]["kafka"].update(image="apache/kafka")),
    Mistake("spill", "runs in memory", lambda d: d["services"]["compactor"].pop("volumes")),
    Mistake("spill", "runs without a limit", lambda d: d["causeway"].pop("compactor")),
    Mistake("restarts", "no restart", lambda d: d["services"]["agent"].pop("restart")),
]

if __name__ == "__main__":
    main("compose", RULES, MISTAKES, load)
