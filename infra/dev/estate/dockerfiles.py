"""Laws of the Dockerfiles: `dockerfiles.py FILE…`; hadolint has looked at the syntax before."""

import re
from pathlib import Path

from rules import Mistake, Rule, main

PROGRAMS = {
    "agent": "causeway-agent",
    "ingest": "causeway-ingest",
    "compactor": "causeway-compactor",
    "query": "causeway-query",
    "cli": "causeway",
}
PORTS = {"agent": "9470", "ingest": "9471", "compactor": "9472", "query": "8080"}
USER = "65532:65532"
LABELS = ("title", "description", "licenses", "documentation")


def load(files: list[Path]) -> dict[str, list[str]]:
    """The instructions of each file, with continued lines joined and without comments, by service."""
    return {path.name.removesuffix(".Dockerfile"): instructions(path.read_text()) for path in files}


def instructions(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def final(lines: list[str]) -> list[str]:
    """The last stage."""
    return lines[max(at for at, line in enumerate(lines) if line.startswith("FROM ")) :]


def before_root(lines: list[str]) -> list[str]:
    """What every file begins with: up to the stage that takes one program."""
    return lines[: next((at for at, line in enumerate(lines) if line.startswith("FROM build AS root")), 0)]


def complete(files):
    if set(files) != set(PROGRAMS):
        yield f"there are Dockerfiles for {sorted(files)}, and services {sorted(PROGRAMS)}"


def small(files):
    for service, lines in files.items():
        stage = final(lines)
        if stage[0] != "FROM scratch" or any(line.startswith(("RUN", "ADD")) for line in stage):
            yield f"{service}: the last stage is not made of copies alone"


def non_root(files):
    for service, lines in files.items():
        users = [line.removeprefix("USER ") for line in final(lines) if line.startswith("USER")]
        if users != [USER]:
            yield f"{service} runs as {users or 'root'}"


def entry(files):
    for service, lines in files.items():
        if lines[-1] != f'ENTRYPOINT ["/usr/bin/{PROGRAMS.get(service)}"]':
            yield f"{service} does not start its program directly: a shell would not hand on signals"


def port(files):
    for service, lines in files.items():
        exposed = [line.removeprefix("EXPOSE ") for line in final(lines) if line.startswith("EXPOSE")]
        if exposed != [p for p in [PORTS.get(service)] if p]:
            yield f"{service} exposes {exposed}"


def labelled(files):
    for service, lines in files.items():
        label = " ".join(line for line in final(lines) if line.startswith("LABEL"))
        missing = [name for name in LABELS if f"org.opencontainers.image.{name}=" not in label]
        if missing:
            yield f"{service} lacks the labels {missing}"


def one_build(files):
    if len({tuple(before_root(lines)) for lines in files.values()}) != 1:
        yield "the stages before `root` differ: each image would compile everything again"


def pinned(files):
    for service, lines in files.items():
        base = next((line.removeprefix("ARG RUST=") for line in lines if line.startswith("ARG RUST=")), "")
        if not re.fullmatch(r"rust:\d+\.\d+\.\d+-\w+", base):
            yield f"{service} is built from {base or 'no pinned image'}"


CHECKS = [complete, small, non_root, entry, port, labelled, one_build, pinned]
RULES = [Rule(check.__name__, check) for check in CHECKS]


def replace(service: str, old: str, new: str):
    def plant(files):
        files[service][:] = [line.replace(old, new) for line in files[service] if line.replace(old, new)]

    return plant


MISTAKES = [
    Mistake("complete", "no image of the compactor", lambda files: files.pop("compactor")),
    Mistake("small", "a distribution below", replace("query", "FROM scratch", "FROM debian:bookworm")),
    Mistake("non_root", "root", replace("ingest", "USER 65532:65532", "")),
    Mistake("non_root", "root by number", replace("ingest", "USER 65532:65532", "USER 0:0")),
    Mistake("entry", "a shell", replace("agent", 'ENTRYPOINT ["/usr/bin/causeway-agent"]', "ENTRYPOINT /usr/bin/causeway-agent")),
    Mistake("port", "another port", replace("query", "EXPOSE 8080", "EXPOSE 80")),
    Mistake("labelled", "no licence", replace("cli", "org.opencontainers.image.licenses", "licence")),
    Mistake("one_build", "another build", replace("cli", "--bins", "--bin causeway")),
    Mistake("pinned", "the newest compiler", replace("cli", "ARG RUST=rust:", "ARG RUST=rust:latest-")),
]

if __name__ == "__main__":
    main("dockerfiles", RULES, MISTAKES, load)
