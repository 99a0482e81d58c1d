#!/usr/bin/env python3
"""Asks a Prometheus for what every panel of the dashboards shows: live.py PROMETHEUS DEPLOY. A query
that gives nothing is a fault, unless it is of something that a sound cluster never does; so is a
rule that cannot be evaluated, and an alert that fires."""

import json
import pathlib
import sys
import urllib.parse
import urllib.request

# Counters with a label appear with what they first count: a sound cluster refuses nothing, and one
# with configured super-nodes chooses nobody. Outside of Kubernetes there is no operator.
SILENT = ("shoal_refused_requests_total", "shoal_selection_changes_total", "shoal_operator")


def ask(base, path, **query):
    url = f"{base}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)["data"]


def queries(deploy):
    for file in sorted((deploy / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                expr = target["expr"].replace("$__rate_interval", "30s")
                for name in ("$cluster", "$pod"):
                    expr = expr.replace(name, ".*")
                yield f"{file.name}: {panel['title']}", expr


def main():
    base, deploy = sys.argv[1], pathlib.Path(sys.argv[2])
    asked, problems = 0, []
    for where, expr in queries(deploy):
        asked += 1
        found = ask(base, "query", query=expr)["result"]
        if not found and not any(name in expr for name in SILENT):
            problems.append(f"{where}: no data: {expr}")
    rules = 0
    for group in ask(base, "rules")["groups"]:
        for rule in group["rules"]:
            rules += 1
            if rule["health"] != "ok":
                problems.append(f"rule {rule['name']}: {rule.get('lastError')}")
            if rule.get("state") == "firing":
                problems.append(f"alert {rule['name']} fires: {rule['alerts']}")
    if not asked or not rules:
        problems.append("no panel or no rule was found")
    print("\n".join(problems) or f"{asked} queries have data, {rules} rules are evaluated")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
