#!/usr/bin/env python3
"""Writes the dashboards beside this file from the panels below; with --check it writes nothing and
fails when a file differs. Every query is by cluster, every name is in docs/metrics.md."""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
BY = '{cluster=~"$cluster"}'
POD = '{cluster=~"$cluster", pod=~"$pod"}'


def rate(metric, by="", where=BY, label=""):
    """The rate of a counter, summed; `label` narrows it further."""
    if label:
        where = where[:-1] + ", " + label + "}"
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({metric}{where}[$__rate_interval]))"


def quantile(q, metric, where=BY, by=""):
    group = f"le, {by}" if by else "le"
    return (f"histogram_quantile({q}, sum by ({group}) "
            f"(rate({metric}_bucket{where}[$__rate_interval])))")


def offload():
    delivered = f"sum(rate(shoal_edge_response_bytes_total{BY}[$__rate_interval]))"
    fetched = f"sum(rate(shoal_origin_bytes_total{BY}[$__rate_interval]))"
    return f"1 - {fetched} / ({delivered} > 0)"


def stat(title, unit, query, help_text, steps=None):
    colours = [{"color": "green", "value": None}] + [
        {"color": colour, "value": value} for value, colour in steps or []]
    return {"type": "stat", "title": title, "description": help_text, "size": (6, 4),
            "queries": [(query, "")],
            "fieldConfig": {"defaults": {"unit": unit, "thresholds": {
                "mode": "absolute", "steps": colours}}, "overrides": []},
            "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value",
                        "graphMode": "area"}}


def graph(title, unit, queries, help_text="", stacked=False, wide=False):
    custom = {"lineWidth": 1, "fillOpacity": 25 if stacked else 5, "showPoints": "never",
              "stacking": {"mode": "normal" if stacked else "none"}}
    return {"type": "timeseries", "title": title, "description": help_text,
            "size": (24 if wide else 12, 8), "queries": queries,
            "fieldConfig": {"defaults": {"unit": unit, "custom": custom, "min": 0},
                            "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"},
                        "tooltip": {"mode": "multi", "sort": "desc"}}}


OVERVIEW = ("shoal-overview", "Shoal: overview", False, [
    ("Is it saving money", [
        stat("Offload", "percentunit", offload(),
             "Share of the delivered bytes that did not come from origins."),
        stat("Delivered", "binBps", rate("shoal_edge_response_bytes_total"),
             "Body bytes to clients."),
        stat("From origins", "binBps", rate("shoal_origin_bytes_total"),
             "Body bytes from origins."),
        stat("Would be saved by larger stores", "binBps",
             rate("shoal_store_ghost_hit_bytes_total"),
             "Bytes of lookups that would have hit with half as large a budget again."),
        graph("Delivered by tier", "binBps",
              [(rate("shoal_edge_response_bytes_total", "tier"), "{{tier}}")],
              "Where the bytes came from.", stacked=True),
        graph("Offload", "percentunit", [(offload(), "offload")]),
    ]),
    ("Is it fast", [
        graph("Requests by tier", "reqps",
              [(rate("shoal_edge_requests_total", "tier"), "{{tier}}")], stacked=True),
        graph("First byte", "s", [
            (quantile(q, "shoal_edge_first_byte_seconds"), name)
            for q, name in ((0.5, "half"), (0.95, "19 of 20"), (0.99, "99 of 100"))],
            "From a request's arrival to its response head."),
        graph("Client connections", "short",
              [(f"sum by (pod) (shoal_edge_connections{BY})", "{{pod}}")], stacked=True),
        graph("Fills", "ops", [
            (rate("shoal_fills_total"), "begun"),
            (rate("shoal_fills_resumed_total"), "taken over"),
            (rate("shoal_origin_not_modified_total"), "not modified")]),
    ]),
    ("Is it healthy", [
        stat("Errors", "percentunit",
             f"{rate('shoal_edge_errors_total')} / ({rate('shoal_edge_requests_total')} > 0)",
             "Share of the requests that got a status of 500 or more made by Shoal.",
             [(0.001, "orange"), (0.01, "red")]),
        stat("Failing origins", "percentunit",
             f"{rate('shoal_origin_failures_total')} / ({rate('shoal_origin_requests_total')} > 0)",
             "Share of the requests to origins that failed.", [(0.01, "orange"), (0.05, "red")]),
        stat("Leaders", "short", f"sum(shoal_index_leader{BY})",
             "Super-nodes that lead: one a cluster."),
        stat("Nodes without the tier", "short", f'sum(shoal_mode{{cluster=~"$cluster", mode="pure"}})',
             "Nodes that reach no super-node.", [(1, "red")]),
        graph("Errors and failures", "ops", [
            (rate("shoal_edge_errors_total"), "errors to clients"),
            (rate("shoal_origin_failures_total"), "failures of origins"),
            (rate("shoal_peer_failures_total"), "failures of peers"),
            (rate("shoal_directory_failures_total"), "failures of super-nodes")]),
        graph("Refused", "ops", [
            (rate("shoal_refused_requests_total", "kind"), "member: {{kind}}"),
            (rate("shoal_admin_refusals_total", "reason"), "control call: {{reason}}")],
            "Requests of members and control calls that were refused."),
    ]),
])

NODES = ("shoal-nodes", "Shoal: nodes", True, [
    ("Traffic", [
        graph("Delivered", "binBps",
              [(rate("shoal_edge_response_bytes_total", "pod", POD), "{{pod}}")]),
        graph("Requests", "reqps", [(rate("shoal_edge_requests_total", "pod", POD), "{{pod}}")]),
        graph("First byte, 99 of 100", "s",
              [(quantile(0.99, "shoal_edge_first_byte_seconds", POD, "pod"), "{{pod}}")]),
        graph("Errors", "ops", [(rate("shoal_edge_errors_total", "pod", POD), "{{pod}}")]),
    ]),
    ("Store", [
        graph("Budget taken", "percentunit",
              [(f"shoal_store_bytes{POD} / shoal_store_budget_bytes{POD}", "{{pod}}")]),
        graph("Memory tier", "bytes", [(f"shoal_store_memory_bytes{POD}", "{{pod}}")]),
        graph("Objects", "short", [(f"shoal_store_objects{POD}", "{{pod}}")]),
        graph("Evicted", "binBps",
              [(rate("shoal_store_evicted_bytes_total", "pod", POD), "{{pod}}")]),
        graph("Evictions and last copies spared", "ops", [
            (rate("shoal_store_evictions_total", "pod", POD), "{{pod}} evicted"),
            (rate("shoal_store_last_copies_spared_total", "pod", POD), "{{pod}} spared")]),
        graph("Ghost hits", "ops",
              [(rate("shoal_store_ghost_hits_total", "pod", POD), "{{pod}}")],
              "Lookups that missed, and would have hit with half as large a budget again."),
        graph("Corrupt chunks", "ops",
              [(rate("shoal_store_corrupt_chunks_total", "pod", POD), "{{pod}}")]),
        graph("Access lines lost", "ops",
              [(rate("shoal_edge_access_lines_lost_total", "pod", POD), "{{pod}}")]),
    ]),
    ("Session and process", [
        graph("Session", "bool", [(f"shoal_session_up{POD}", "{{pod}}")]),
        graph("Fence position", "short", [(f"shoal_fence_position{POD}", "{{pod}}")],
              "The newest purge that a node has applied: all lie together."),
        graph("Processor", "percentunit",
              [(f"rate(process_cpu_seconds_total{POD}[$__rate_interval])", "{{pod}}")]),
        graph("Memory", "bytes", [(f"process_resident_memory_bytes{POD}", "{{pod}}")]),
        graph("Open files", "short", [(f"process_open_fds{POD}", "{{pod}}")]),
        graph("Sessions begun and modes changed", "ops", [
            (rate("shoal_sessions_begun_total", "pod", POD), "{{pod}} session"),
            (rate("shoal_mode_changes_total", "pod", POD), "{{pod}} mode")]),
    ]),
])

SUPER = ("shoal-super-nodes", "Shoal: super-node tier", True, [
    ("Tier", [
        graph("Leader", "short", [(f"shoal_index_leader{POD}", "{{pod}}")], stacked=True),
        graph("Term", "short", [(f"shoal_index_term{POD}", "{{pod}}")]),
        graph("Applied position", "short", [(f"shoal_index_applied_position{POD}", "{{pod}}")]),
        graph("Behind the first", "short", [(
            f"max by (cluster) (shoal_index_applied_position{BY}) - on (cluster) group_right "
            f"shoal_index_applied_position{POD}", "{{pod}}")]),
        graph("Changes of leader", "short", [
            (f"increase(shoal_index_leader_changes_total{POD}[$__rate_interval])", "{{pod}} seen"),
            (f"increase(shoal_index_lost_leaders_total{POD}[$__rate_interval])",
             "{{pod}} process ended")]),
        graph("Voters wanted and there", "short", [
            (f"max(shoal_selection_wanted{BY})", "wanted"),
            (f"max(shoal_selection_voters{BY})", "there"),
            (rate("shoal_selection_changes_total", "kind"), "{{kind}}")],
            "Of a tier that chooses its voters; zero where they are configured."),
    ]),
    ("Index", [
        graph("Commands", "ops",
              [(rate("shoal_index_commands_total", "pod", POD), "{{pod}}")]),
        graph("Commands a batch", "short", [(
            f"{rate('shoal_index_commands_total')} / ({rate('shoal_index_batches_total')} > 0)",
            "commands")]),
        graph("Sync of the log, 99 of 100", "s",
              [(quantile(0.99, "shoal_index_sync_seconds", POD, "pod"), "{{pod}}")]),
        graph("Pause of applies", "s", [
            (quantile(0.99, "shoal_index_apply_pause_seconds", POD, "pod"), "{{pod}} 99 of 100"),
            (f"shoal_index_apply_pause_max_seconds{POD}", "{{pod}} longest")]),
        graph("Heads", "short", [(f"shoal_index_heads{POD}", "{{pod}}")]),
        graph("Leases", "short", [
            (f"shoal_index_leases{POD}", "{{pod}} held"),
            (rate("shoal_index_leases_given_total", "pod", POD), "{{pod}} given a second")]),
        graph("Sessions", "short", [(f"shoal_index_sessions{POD}", "{{pod}}")]),
        graph("Slots to be cleared", "short", [(f"shoal_index_void_slots{POD}", "{{pod}}")],
              "Of nodes that are gone."),
        graph("Snapshots", "binBps", [
            (rate("shoal_index_snapshot_sent_bytes_total", "pod", POD), "{{pod}} sent"),
            (rate("shoal_index_snapshot_received_bytes_total", "pod", POD), "{{pod}} received")]),
        graph("Digest mismatches", "short", [(
            f"increase(shoal_index_digest_mismatches_total{POD}[$__rate_interval])", "{{pod}}")],
            "Anything but zero is a fault."),
    ]),
])

SWARM = ("shoal-swarm", "Shoal: swarm", True, [
    ("Between nodes", [
        graph("Received from peers", "binBps",
              [(rate("shoal_peer_bytes_total", "pod", POD, 'direction="in"'), "{{pod}}")],
              stacked=True),
        graph("Sent to peers", "binBps",
              [(rate("shoal_peer_bytes_total", "pod", POD, 'direction="out"'), "{{pod}}")],
              stacked=True),
        graph("Streams to peers", "short", [(f"shoal_peer_uploads{POD}", "{{pod}}")]),
        graph("Peer bytes a byte of the origin", "short", [(
            f"{rate('shoal_peer_bytes_total', label='direction=%sin%s' % (chr(34), chr(34)))} / "
            f"({rate('shoal_origin_bytes_total')} > 0)", "ratio")],
            "How often a byte is handed on after it was fetched once."),
        graph("Failures and bad chunks", "ops", [
            (rate("shoal_peer_failures_total", "pod", POD), "{{pod}} failed"),
            (rate("shoal_peer_bad_chunks_total", "pod", POD), "{{pod}} bad")]),
        graph("Copies taken", "ops",
              [(rate("shoal_peer_copies_taken_total", "pod", POD), "{{pod}}")],
              "At another node's request: second copies, and those of nodes that drain."),
    ]),
])

OPERATOR = ("shoal-operator", "Shoal: operator", False, [
    ("What it does", [
        stat("Leading", "short", "sum(shoal_operator_leading)",
             "Operators that act: one.", [(2, "red")]),
        stat("Definitions", "bool", "min(shoal_operator_definitions_present)",
             "Whether the API server has all of Shoal's definitions."),
        stat("Waiting steps", "short", "sum(shoal_operator_waiting_steps)",
             "Steps that wait for a gate, as last planned."),
        stat("Certificates in a day", "short",
             "sum(increase(shoal_operator_certificates_issued_total[1d]))",
             "Certificates issued to members."),
        graph("Steps done", "ops", [
            ("sum by (step) (rate(shoal_operator_steps_total[$__rate_interval]))", "{{step}}")]),
        graph("Waiting steps", "short", [
            ("sum by (kind) (shoal_operator_waiting_steps)", "{{kind}}")],
            "The cluster's status says which gate each waits for.", stacked=True),
    ]),
    ("Whether it is well", [
        graph("Looks", "ops", [
            ("sum by (kind) (rate(shoal_operator_reconciles_total[$__rate_interval]))",
             "{{kind}}")]),
        graph("Failures", "ops", [
            ("sum by (kind) (rate(shoal_operator_failures_total[$__rate_interval]))",
             "{{kind}}"),
            ("sum by (kind) (rate(shoal_operator_unreadable_objects_total[$__rate_interval]))",
             "{{kind}} unreadable")]),
        graph("Writes to the API server", "ops", [
            ("sum(rate(shoal_operator_writes_total[$__rate_interval]))", "writes")],
            "A cluster that is as wanted causes none."),
        graph("Looks under way since", "s", [
            ("max by (kind) ((time() - shoal_operator_reconcile_started_seconds) "
             "* (shoal_operator_reconcile_started_seconds > bool 0))", "{{kind}}")]),
    ]),
])


def variable(name, query, label):
    return {"name": name, "label": label, "type": "query", "query": query, "refresh": 2,
            "datasource": {"type": "prometheus", "uid": "${datasource}"}, "includeAll": True,
            "allValue": ".*", "multi": True, "current": {"text": "All", "value": "$__all"}}


def dashboard(uid, title, by_pod, rows):
    panels, y, number = [], 0, 0
    for row, content in rows:
        number += 1
        panels.append({"id": number, "type": "row", "title": row, "collapsed": False,
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        y, x, height = y + 1, 0, 0
        for panel in content:
            width, tall = panel["size"]
            if x + width > 24 or (x and tall != height):
                x, y = 0, y + height
            number, height = number + 1, tall
            source = {"type": "prometheus", "uid": "${datasource}"}
            targets = [{"refId": chr(ord("A") + i), "datasource": source, "expr": query,
                        "legendFormat": legend or "__auto"}
                       for i, (query, legend) in enumerate(panel["queries"])]
            rest = {k: v for k, v in panel.items() if k not in ("size", "queries")}
            panels.append({"id": number, **rest, "datasource": source, "targets": targets,
                           "gridPos": {"x": x, "y": y, "w": width, "h": tall}})
            x += width
        y += height
    variables = [{"name": "datasource", "label": "Prometheus", "type": "datasource",
                  "query": "prometheus", "current": {}},
                 variable("cluster", "label_values(shoal_mode, cluster)", "Cluster")]
    if by_pod:
        query = 'label_values(shoal_mode{cluster=~"$cluster"}, pod)'
        variables.append(variable("pod", query, "Member"))
    return {"uid": uid, "title": title, "tags": ["shoal"], "schemaVersion": 39, "version": 1,
            "editable": True, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
            "time": {"from": "now-1h", "to": "now"}, "templating": {"list": variables},
            "links": [{"type": "dashboards", "tags": ["shoal"], "title": "Shoal",
                       "asDropdown": True, "keepTime": True, "includeVars": True}],
            "panels": panels}


def main():
    differs = []
    for uid, title, by_pod, rows in (OVERVIEW, NODES, SUPER, SWARM, OPERATOR):
        file = HERE / f"{uid.removeprefix('shoal-')}.json"
        text = json.dumps(dashboard(uid, title, by_pod, rows), indent=1) + "\n"
        if "--check" not in sys.argv:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            differs.append(file.name)
    if differs:
        sys.exit(f"not as render.py writes them: {', '.join(differs)}")


if __name__ == "__main__":
    main()
