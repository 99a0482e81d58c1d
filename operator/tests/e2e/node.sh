#!/usr/bin/env bash
# One node: containerd, kubelet and kube-proxy. cluster.sh starts it in namespaces of its own: when
# this script dies, everything in them does.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/lib.sh"
i=$1
node=$dir/node-$i

# Folders that these programs have by fixed names are the node's own. A kubelet insists on kernel
# settings that are not a test's to change for the whole machine: it sees those that it wants.
mount --make-rprivate /
mkdir -p "$node"/{run,kubelet,log,cni-state,cni,root,state,opt,settings}
mount --bind "$node/run" /run
mkdir -p /run/lock
mkdir -p /var/lib/kubelet /var/lib/cni
mount --bind "$node/kubelet" /var/lib/kubelet
mount --bind "$node/cni-state" /var/lib/cni
mount --bind "$node/log" /var/log
pretend() {
    printf '%s\n' "$2" >"$node/settings/${1##*/}"
    mount --bind "$node/settings/${1##*/}" "/proc/sys/$1"
}
pretend vm/overcommit_memory 1
pretend vm/panic_on_oom 0
pretend kernel/panic 10
pretend kernel/panic_on_oops 1
pretend kernel/keys/root_maxkeys 1000000
pretend kernel/keys/root_maxbytes 25000000
echo 1 >/proc/sys/net/ipv4/ip_forward
mount --make-rshared /

cat >"$node/cni/10-bridge.conflist" <<JSON
{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "pods",
      "isGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "$(pod_network "$i")"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON

cat >"$node/containerd.toml" <<TOML
version = 2
root = "$node/root"
state = "$node/state"

[grpc]
address = "$node/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "$node/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$pause_image"
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$node/cni"
TOML

printf 'nameserver %s\n' "$control_address" >"$node/resolv.conf"
cat >"$node/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $(node_address "$i")
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /$name/node-$i
clusterDNS: [$control_address]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$node/containerd.sock
enforceNodeAllocatable: []
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
failCgroupV1: false
failSwapOn: false
featureGates: {KubeletInUserNamespace: true}
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
maxPods: 64
resolvConf: $node/resolv.conf
YAML

cat >"$node/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: $(node_address "$i")
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clientConnection: {kubeconfig: $dir/admin.kubeconfig}
clusterCIDR: $pods_network
hostnameOverride: node-$i
mode: iptables
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML

containerd --config "$node/containerd.toml" >"$node/containerd.log" 2>&1 &
until [ -S "$node/containerd.sock" ]; do sleep 0.1; done
ctr --address "$node/containerd.sock" --namespace k8s.io images import "$dir/pause.tar"

"$bin/kube-proxy" --config="$node/proxy.yaml" >"$node/kube-proxy.log" 2>&1 &
"$bin/kubelet" --config="$node/kubelet.yaml" --kubeconfig="$dir/node-$i.kubeconfig" \
    --hostname-override="node-$i" --node-ip="$(node_address "$i")" --cert-dir="$node/certificates" \
    --node-labels="topology.kubernetes.io/zone=zone-$i" >"$node/kubelet.log" 2>&1 &
wait -n
echo "one of the node's programs ended" >&2
