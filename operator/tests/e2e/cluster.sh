#!/usr/bin/env bash
# A Kubernetes cluster on this machine alone, of real programs: etcd, API server, controller manager,
# scheduler, CoreDNS, and for every node a kubelet, containerd and kube-proxy. It lives in network
# namespaces of its own without a way out, each node in a PID and mount namespace too, so that
# `down` leaves nothing behind. Images come from files, not from a registry.
#
#   cluster.sh up            start it and wait until its nodes are ready (NODES=2 for two)
#   cluster.sh load FILE...  give images (docker or OCI archives) to all nodes
#   cluster.sh run CMD...    run a command where the API server and services can be reached
#   cluster.sh down          end it and remove what it kept
#
# It needs root, and containerd, runc, containernetworking-plugins, iptables, iproute2, openssl and
# jq. SHOAL_E2E_DIR says where it keeps its files.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/lib.sh"

# Kubernetes' own accounts by token: one for people, one for each node.
make_accounts() {
    local i token admin
    admin=$(openssl rand -hex 16)
    printf '%s,admin,admin,"system:masters"\n' "$admin" >"$dir/tokens.csv"
    kubeconfig admin "$admin"
    for i in $(nodes); do
        token=$(openssl rand -hex 16)
        printf '%s,system:node:node-%s,node-%s,"system:nodes"\n' "$token" "$i" "$i"
        kubeconfig "node-$i" "$token"
    done >>"$dir/tokens.csv"
    openssl genrsa -out "$dir/accounts.key" 2048 2>/dev/null
    chmod 600 "$dir/tokens.csv" "$dir/accounts.key"
}

# The address says who is meant; the certificate is checked once the API server has made it.
kubeconfig() {
    jq -n --arg user "$1" --arg token "$2" --arg server "https://$control_address:6443" \
        --arg ca "$dir/api/apiserver.crt" '{apiVersion: "v1", kind: "Config",
        "current-context": "e2e",
        clusters: [{name: "e2e", cluster: {server: $server, "certificate-authority": $ca}}],
        users: [{name: $user, user: {token: $token}}],
        contexts: [{name: "e2e", context: {cluster: "e2e", user: $user}}]}' >"$dir/$1.kubeconfig"
    chmod 600 "$dir/$1.kubeconfig"
}

# The image that holds a pod's namespaces.
make_pause() {
    mkdir -p "$dir/pause"
    gcc -Os -static -s -o "$dir/pause/pause" "$here/pause.c"
    printf 'USER 65535:65535\nENTRYPOINT ["/pause"]\n' >"$dir/pause.recipe"
    "$here/../../../deploy/images/archive.sh" "$dir/pause" "$pause_image" "$dir/pause.tar" \
        "$dir/pause.recipe"
}

# One namespace with a bridge for the control plane, and one for every node with a link to it.
make_networks() {
    local i j
    ip netns add "$name-0"
    ip -n "$name-0" link set lo up
    ip -n "$name-0" link add nodes type bridge
    ip -n "$name-0" address add "$control_address/24" dev nodes
    ip -n "$name-0" link set nodes up
    for i in $(nodes); do
        ip netns add "$name-$i"
        ip -n "$name-$i" link set lo up
        ip -n "$name-$i" link add eth0 type veth peer name "node$i" netns "$name-0"
        ip -n "$name-0" link set "node$i" master nodes up
        ip -n "$name-$i" address add "$(node_address "$i")/24" dev eth0
        ip -n "$name-$i" link set eth0 up
        ip -n "$name-$i" route add default via "$control_address"
    done
    for i in 0 $(nodes); do
        for j in $(nodes); do
            [ "$i" = "$j" ] ||
                ip -n "$name-$i" route add "$(pod_network "$j")" via "$(node_address "$j")"
        done
    done
    # Services are reached from beside the cluster too: by way of the first node.
    ip -n "$name-0" route add "$service_network" via "$(node_address 1)"
}

start_control_plane() {
    start etcd "$bin/etcd" --name e2e --data-dir "$dir/etcd" --unsafe-no-fsync \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --log-level warn \
        --initial-advertise-peer-urls http://127.0.0.1:2380 \
        --initial-cluster e2e=http://127.0.0.1:2380
    start kube-apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
        --cert-dir="$dir/api" --bind-address="$control_address" --secure-port=6443 \
        --advertise-address="$control_address" --service-cluster-ip-range="$service_network" \
        --authorization-mode=Node,RBAC --token-auth-file="$dir/tokens.csv" \
        --allow-privileged=true --enable-admission-plugins=NodeRestriction \
        --kubelet-preferred-address-types=InternalIP \
        --service-account-issuer=https://kubernetes.default.svc \
        --service-account-key-file="$dir/accounts.key" \
        --service-account-signing-key-file="$dir/accounts.key"
    wait_for 60 "the API server" api_is_ready
    start kube-controller-manager "$bin/kube-controller-manager" \
        --kubeconfig="$dir/admin.kubeconfig" --bind-address=127.0.0.1 \
        --root-ca-file="$dir/api/apiserver.crt" --use-service-account-credentials=true \
        --service-account-private-key-file="$dir/accounts.key" --leader-elect=false \
        --node-monitor-grace-period=20s
    start kube-scheduler "$bin/kube-scheduler" --kubeconfig="$dir/admin.kubeconfig" \
        --bind-address=127.0.0.1 --leader-elect=false
    cat >"$dir/Corefile" <<COREFILE
.:53 {
    bind $control_address
    ready 127.0.0.1:8181
    errors
    hosts $dir/hosts {
        fallthrough
    }
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $dir/admin.kubeconfig
        ttl 1
    }
}
COREFILE
    # Further names, one a line as in /etc/hosts: an origin's, for example.
    touch "$dir/hosts"
    start coredns "$bin/coredns" -conf "$dir/Corefile"
}

api_is_ready() {
    kubectl get --raw /readyz >/dev/null
}

start_node() {
    local i=$1
    mkdir -p "$dir/node-$i"
    for controller in /sys/fs/cgroup/*/; do
        mkdir -p "$controller$name/node-$i" 2>/dev/null || true
    done
    # The cpuset controller lets nobody in before it has processors and memory.
    local up=/sys/fs/cgroup/cpuset part
    for part in "$name" "node-$i"; do
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$up/$file" ] || cat "$up/$file" >"$up/$part/$file"
        done
        up+=/$part
    done
    setsid nsenter --net="/run/netns/$name-$i" \
        unshare --mount --pid --fork --kill-child --mount-proc \
        "$here/node.sh" "$i" >"$dir/node-$i.log" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$dir/node-$i.pid"
}

node_is_ready() {
    [ "$(kubectl get node "node-$1" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}' \
        2>/dev/null)" = True ]
}

# Volumes of a fixed number, since nothing here makes them on demand.
make_volumes() {
    local i n
    for i in $(nodes); do
        for n in $(seq "$VOLUMES"); do
            mkdir -p "$dir/volumes/node-$i/$n"
            volume "$i" "$n"
        done
    done >"$dir/volumes.yaml"
    kubectl apply -f "$here/storage-class.yaml" -f "$dir/volumes.yaml" >/dev/null
}

volume() {
    cat <<YAML
---
apiVersion: v1
kind: PersistentVolume
metadata:
  name: node-$1-$2
spec:
  capacity:
    storage: 10Gi
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: local
  local:
    path: $dir/volumes/node-$1/$2
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions:
            - {key: kubernetes.io/hostname, operator: In, values: [node-$1]}
YAML
}

up() {
    [ "$(id -u)" -eq 0 ] || give_up "namespaces and mounts need root"
    [ ! -e "$dir" ] || give_up "$dir is there already: end that cluster first with: $0 down"
    local program i
    for program in containerd runc ctr iptables ip openssl jq nsenter gcc; do
        command -v "$program" >/dev/null 2>&1 || give_up "$program is missing"
    done
    mkdir -p "$dir/log"
    "$here/../control-plane/build.sh" >"$dir/bin"
    "$here/../control-plane/build.sh" kubelet kube-proxy coredns >/dev/null
    bin=$(<"$dir/bin")
    printf '%s\n' "$NODES" >"$dir/nodes"
    make_pause
    make_accounts
    make_networks
    start_control_plane
    for i in $(nodes); do
        start_node "$i"
    done
    for i in $(nodes); do
        wait_for 90 "node-$i" node_is_ready "$i"
    done
    make_volumes
    kubectl get nodes -o wide >&2
    printf 'KUBECONFIG=%s\n' "$dir/admin.kubeconfig"
}

load() {
    local i image
    for i in $(nodes); do
        for image in "$@"; do
            ctr --address "$dir/node-$i/containerd.sock" --namespace k8s.io images import \
                "$image" >&2
        done
    done
}

down() {
    local file i controller
    for file in "$dir"/node-*.pid "$dir"/log/*.pid; do
        [ ! -e "$file" ] || kill -KILL "$(<"$file")" 2>/dev/null || true
    done
    for i in 0 $(nodes); do
        ip netns delete "$name-$i" 2>/dev/null || true
    done
    # What ran in a cgroup is gone a moment after the one that started it.
    for controller in /sys/fs/cgroup/*/"$name"; do
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            find "$controller" -depth -type d -exec rmdir {} \; 2>/dev/null || true
            [ -d "$controller" ] || break
            sleep 0.5
        done
    done
    rm -rf "$dir"
}

case ${1:-} in
up) up ;;
load) shift && load "$@" ;;
run) shift && in_cluster "$@" ;;
down) down ;;
*) sed -n '/^#   /s/^# *//p' "${BASH_SOURCE[0]}" >&2 && exit 64 ;;
esac
