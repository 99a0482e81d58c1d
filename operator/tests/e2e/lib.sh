# What the scripts of this folder share: names, addresses, and how things are started. Sourced.

dir=${SHOAL_E2E_DIR:-/var/tmp/shoal-e2e}
name=${SHOAL_E2E_NAME:-shoal-e2e}
NODES=${NODES:-1}
VOLUMES=${VOLUMES:-12}
[ ! -e "$dir/nodes" ] || NODES=$(<"$dir/nodes")
[ ! -e "$dir/bin" ] || bin=$(<"$dir/bin")

pause_image=shoal.invalid/pause:1
control_address=10.231.0.1
service_network=10.233.0.0/16
pods_network=10.232.0.0/16

nodes() { seq "$NODES"; }
node_address() { printf '10.231.0.1%s\n' "$1"; }
pod_network() { printf '10.232.%s.0/24\n' "$1"; }
pod_gateway() { printf '10.232.%s.1\n' "$1"; }

give_up() {
    printf 'e2e: %s\n' "$*" >&2
    exit 69
}

in_cluster() {
    KUBECONFIG=$dir/admin.kubeconfig PATH=$bin:$PATH nsenter --net="/run/netns/$name-0" "$@"
}

kubectl() { in_cluster "$bin/kubectl" "$@"; }

# start NAME PROGRAM ARGUMENT...: beside the cluster, with its log and its process id kept.
start() {
    local what=$1
    shift
    setsid nsenter --net="/run/netns/$name-0" "$@" >"$dir/log/$what.log" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$dir/log/$what.pid"
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" 2>/dev/null; do
        [ "$SECONDS" -lt "$until" ] || give_up "$what is not ready; the logs are in $dir"
        sleep 0.5
    done
}
