#!/usr/bin/env python3
"""Holds every expression of the dashboards and rules to docs/metrics.md: dashboards.py DEPLOY
[SCRAPE...]. Each must parse (promtool says so), name metrics and labels that exist, and, where
scrapes of /metrics are given, name metrics that one of them has. Every alert has its runbook."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# What a scrape adds to every series.
SCRAPED = {"cluster", "pod", "instance", "job", "namespace", "pool"}
PROCESS = {
    "process_cpu_seconds_total", "process_max_fds", "process_open_fds",
    "process_resident_memory_bytes", "process_start_time_seconds", "process_threads",
    "process_virtual_memory_bytes",
}
ROW = re.compile(r"^\| `(shoal_\w+)` \| (\w+) \| (?:`(\w+)`)? *\|", re.M)
NAME = re.compile(r"(?<![\w:])(shoal[_:][\w:]+|process_\w+)")
GROUPED = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")


def documented():
    """Every series with the labels that it has."""
    series = {name: set() for name in PROCESS}
    for name, kind, label in ROW.findall((ROOT / "docs/metrics.md").read_text()):
        labels = {label} - {""}
        if kind == "histogram":
            series[f"{name}_bucket"] = labels | {"le"}
            series[f"{name}_sum"] = series[f"{name}_count"] = labels
        else:
            series[name] = labels
    return series


def rules(deploy):
    """Where each expression of alerts.yaml stands, and the names that are recorded."""
    text = (deploy / "alerts.yaml").read_text()
    found, recorded, alerts = [], {}, []
    for group in yaml.safe_load(text)["groups"]:
        for rule in group["rules"]:
            name = rule.get("record") or rule["alert"]
            found.append((f"alerts.yaml: {name}", rule["expr"]))
            if "record" in rule:
                grouped = GROUPED.findall(rule["expr"])
                recorded[name] = {label.strip() for part in grouped for label in part.split(",")}
            else:
                alerts.append((name, rule))
    return found, recorded, alerts


def panels(deploy):
    """Where each expression of a dashboard stands, with Grafana's variables filled in."""
    for file in sorted((deploy / "dashboards").glob("*.json")):
        board = json.loads(file.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                expr = re.sub(r"\$__rate_interval", "5m", target["expr"])
                yield f"{file.name}: {panel['title']}", re.sub(r"\$\w+", ".*", expr)
            if panel["type"] != "row" and not panel.get("targets"):
                yield f"{file.name}: {panel['title']}", ""


def problems_of(where, expr, series, scraped):
    names = NAME.findall(expr)
    if not names:
        yield f"{where}: no metric is named"
    known = set(SCRAPED)
    for name in names:
        if name not in series:
            yield f"{where}: {name} is not in docs/metrics.md, nor recorded"
            continue
        known |= series[name]
        if scraped is not None and name.startswith(("shoal_", "process_")) and name not in scraped:
            yield f"{where}: {name} is in no scrape"
    for match in re.finditer(NAME.pattern + r"\{([^}]*)\}", expr):
        name, inner = match.groups()
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inner):
            if label not in SCRAPED | series.get(name, set()):
                yield f"{where}: {name} has no label {label}"
    for part in GROUPED.findall(expr):
        for label in filter(None, (label.strip() for label in part.split(","))):
            if label not in known:
                yield f"{where}: no metric of it has the label {label}"


def parse(expressions):
    """promtool reads them as the rules of one group."""
    listed = [{"record": f"a{i}", "expr": expr} for i, (_, expr) in enumerate(expressions)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"groups": [{"name": "all", "rules": listed}]}, file)
        file.flush()
        said = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True,
                              text=True, check=False)
    if said.returncode:
        yield f"promtool: {said.stdout}{said.stderr}"


def runbooks(alerts):
    for name, rule in alerts:
        page = f"docs/runbooks/{name}.md"
        if rule["annotations"].get("runbook") != page:
            yield f"alerts.yaml: {name}: its runbook is to be {page}"
        if not (ROOT / page).exists():
            yield f"alerts.yaml: {name}: {page} is not there"
    for page in (ROOT / "docs/runbooks").glob("Shoal*.md"):
        if page.stem not in dict(alerts):
            yield f"docs/runbooks/{page.name}: there is no such alert"


def main():
    deploy = pathlib.Path(sys.argv[1])
    scraped = None
    if sys.argv[2:]:
        lines = "\n".join(pathlib.Path(path).read_text() for path in sys.argv[2:])
        scraped = set(re.findall(r"^(\w+)[{ ]", lines, re.M))
    found, recorded, alerts = rules(deploy)
    series = documented() | recorded
    expressions = found + list(panels(deploy))
    problems = [p for where, expr in expressions for p in problems_of(where, expr, series, scraped)]
    problems += parse(expressions)
    problems += runbooks(alerts)
    print("\n".join(problems) or f"{len(expressions)} expressions, {len(alerts)} alerts")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
