"""What a rule of the estate is, and the proof that it can fail."""

import copy
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Document = Any


@dataclass(frozen=True)
class Rule:
    """A law: `check` yields a sentence for each place of a document that breaks it."""

    name: str
    check: Callable[[Document], Iterable[str]]


@dataclass(frozen=True)
class Mistake:
    """A change by which a document that keeps every law breaks the law of `rule`."""

    rule: str
    what: str
    plant: Callable[[Document], None]


def findings(rules: list[Rule], document: Document) -> list[str]:
    """Every place of the document that breaks a law, with the law's name before it."""
    return [f"{rule.name}: {place}" for rule in rules for place in rule.check(document)]


def unproven(rules: list[Rule], mistakes: list[Mistake], document: Document) -> list[str]:
    """Mistakes that their rule does not find, and rules for which there is no mistake: a check that cannot fail is none."""
    problems = [f"no mistake is planted for the rule {rule.name}" for rule in rules if all(m.rule != rule.name for m in mistakes)]
    by_name = {rule.name: rule for rule in rules}
    for mistake in mistakes:
        damaged = copy.deepcopy(document)
        mistake.plant(damaged)
        if damaged == document:
            problems.append(f"the planted mistake changes nothing: {mistake.what}")
        elif not list(by_name[mistake.rule].check(damaged)):
            problems.append(f"{mistake.rule} does not find the planted mistake: {mistake.what}")
    return problems


def main(what: str, rules: list[Rule], mistakes: list[Mistake], load: Callable[[list[Path]], Document]) -> None:
    """Checks the files of the command line, then the rules themselves; exit code 1 where something is wrong."""
    files = [Path(name) for name in sys.argv[1:]]
    document = load(files)
    problems = findings(rules, document) or unproven(rules, mistakes, document)
    for problem in problems:
        print(f"error: {what}: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    print(f"{what}: {len(rules)} rules hold, {len(mistakes)} planted mistakes are found")


def read_json(path: Path) -> Document:
    return json.loads(path.read_text())
