"""The programs check the configuration that the cluster and the compose file give them: `configuration.py PROGRAMS WORKSPACE FILE…`.

PROGRAMS is the folder of what was built, WORKSPACE the root of the tree. A FILE is rendered manifests (.yaml), the compose file as the
loader gives it (.json), or a configuration for all programs of a host (.toml). Each program gets its file and its variables, with
values in place of references to secrets.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from rules import read_json

PLACEHOLDERS = {"CAUSEWAY_CATALOG_URI": "postgres://causeway:secret@catalog/causeway"}


def from_manifests(path: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Program, configuration and variables of each workload."""
    docs = [doc for doc in yaml.safe_load_all(path.read_text()) if doc]
    maps = {(d["metadata"]["namespace"], d["metadata"]["name"]): d["data"] for d in docs if d["kind"] == "ConfigMap"}
    for doc in docs:
        if doc["kind"] in ("DaemonSet", "Deployment", "StatefulSet"):
            spec = doc["spec"]["template"]["spec"]
            name = next(v["configMap"]["name"] for v in spec["volumes"] if "configMap" in v)
            variables = [variable["name"] for variable in spec["containers"][0].get("env", [])]
            text = maps[(doc["metadata"]["namespace"], name)]["causeway.toml"]
            yield doc["metadata"]["name"], text, {v: PLACEHOLDERS.get(v, "placeholder") for v in variables}


def from_compose(path: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The same of each service of ours."""
    document = read_json(path)
    text = Path(document["configs"]["causeway"]["file"]).read_text()
    for name, service in document["services"].items():
        if "build" in service:
            given = service.get("environment") or {}
            yield f"causeway-{name}", text, {v: PLACEHOLDERS.get(v, "placeholder") for v in given}


def from_file(path: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The same of a host: variables are those of the files that the units read."""
    secrets = PLACEHOLDERS | {"CAUSEWAY_KAFKA_SASL_USERNAME": "placeholder", "CAUSEWAY_KAFKA_SASL_PASSWORD": "placeholder"}
    for name in ("agent", "ingest", "compactor", "query"):
        yield f"causeway-{name}", path.read_text(), secrets


READERS = {".yaml": from_manifests, ".json": from_compose, ".toml": from_file}


def problem(program: Path, text: str, variables: dict[str, str]) -> str | None:
    """What the program says of its configuration, unless it is `valid` and nothing else."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("CAUSEWAY_")}
        command = [program, "--config", file.name, "config", "check"]
        done = subprocess.run(
            command, env=inherited | variables, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
        )
        said = (done.stdout + done.stderr).replace(file.name, "causeway.toml").strip()
        return None if done.returncode == 0 and said == "causeway.toml: valid" else said or f"exit code {done.returncode}"


def main() -> None:
    programs, workspace = Path(sys.argv[1]), Path(sys.argv[2])
    checked, waiting, problems = 0, set(), []
    for path in map(Path, sys.argv[3:]):
        for name, text, variables in READERS[path.suffix](path):
            if name == "causeway-compactor" and not (workspace / "compactor/Cargo.toml").exists():
                waiting.add(name)
            elif not (programs / name).exists():
                problems.append(f"{programs / name} is not built: make build")
            elif found := problem(programs / name, text, variables):
                problems.append(f"{path.name}: {name}: {found}")
            else:
                # A check that accepts everything is none: a section that does not exist must be refused.
                if not problem(programs / name, text + "\n[unknown]\n", variables):
                    problems.append(f"{name} accepts a section that does not exist")
                checked += 1
    for line in problems:
        print(f"error: configuration: {line}", file=sys.stderr)
    if problems or not checked:
        sys.exit(1)
    not_there = f"; not in this tree yet: {', '.join(sorted(waiting))}" if waiting else ""
    print(f"configuration: {checked} files with their variables are accepted by the programs that read them{not_there}")


if __name__ == "__main__":
    main()
