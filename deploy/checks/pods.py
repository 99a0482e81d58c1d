#!/usr/bin/env python3
"""Reads manifests on standard input and tells of every pod that Pod Security's level "restricted"
would refuse, or that falls short of what Shoal asks of its own pods beside that: a root file system
for reading only, resources that are set aside, no service account token without need, an image with
a tag or digest."""

import sys

import yaml

POD_PATHS = {
    "Pod": ("spec",),
    "Deployment": ("spec", "template", "spec"),
    "DaemonSet": ("spec", "template", "spec"),
    "StatefulSet": ("spec", "template", "spec"),
    "Job": ("spec", "template", "spec"),
}
# The one pod that talks to the API server.
WITH_TOKEN = {"operator"}
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}


def pod_problems(component, pod):
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field} is set"
    security = pod.get("securityContext", {})
    if not security.get("runAsNonRoot") or security.get("runAsUser", 0) == 0:
        yield "runs as root, or may"
    if security.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "has no seccomp profile"
    if pod.get("automountServiceAccountToken", True) and component not in WITH_TOKEN:
        yield "has a service account token that it does not need"
    for volume in pod.get("volumes", []):
        if not VOLUMES & set(volume):
            yield f"volume {volume.get('name')} is of a kind that is not allowed"
    for container in pod.get("initContainers", []) + pod.get("containers", []):
        for problem in container_problems(container):
            yield f"container {container['name']} {problem}"


def container_problems(container):
    security = container.get("securityContext", {})
    if security.get("privileged"):
        yield "is privileged"
    if security.get("allowPrivilegeEscalation", True):
        yield "may gain rights"
    if not security.get("readOnlyRootFilesystem"):
        yield "may write to its root file system"
    capabilities = security.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "keeps capabilities"
    requests = container.get("resources", {}).get("requests", {})
    if not requests.get("cpu") or not requests.get("memory"):
        yield "sets aside no processor or memory"
    if "memory" not in container.get("resources", {}).get("limits", {}):
        yield "has no limit of memory"
    image = container["image"]
    if "@sha256:" not in image and ":" not in image.rsplit("/", 1)[-1] or image.endswith(":latest"):
        yield f"has the image {image}, which is no fixed one"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "takes a port of its machine"


def main():
    seen, bad = 0, 0
    for document in yaml.safe_load_all(sys.stdin):
        path = POD_PATHS.get((document or {}).get("kind"))
        if not path:
            continue
        seen += 1
        pod = document
        for part in path:
            pod = pod[part]
        labels = document["metadata"].get("labels", {})
        for problem in pod_problems(labels.get("app.kubernetes.io/component"), pod):
            print(f"{document['kind']} {document['metadata']['name']} {problem}", file=sys.stderr)
            bad += 1
    if not seen:
        sys.exit("pods.py: no pod in there")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
