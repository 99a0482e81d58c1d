//! The table of every key outside `[[site]]`: its place in the file, its flag, its variable, its
//! default. The command line and the file reader are made from it, and `docs/configuration.md` is
//! checked against it.

/// One key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its place in the file: tables and name, with dots.
    pub path: &'static str,
    /// Its flag, without the dashes.
    pub flag: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// How its value is called in the help.
    pub value: &'static str,
    /// Its default as text; empty where there is none.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// All keys, in the order of the documentation.
pub const KEYS: &[Key] = &[
    Key {
        path: "node.name",
        flag: "name",
        variable: "SHOAL_NAME",
        value: "NAME",
        default: "",
        help: "This member's name, as in its certificate: lower-case letters, digits, '-'",
    },
    Key {
        path: "node.role",
        flag: "role",
        variable: "SHOAL_ROLE",
        value: "node|super|auto",
        default: "node",
        help: "node: caches and serves clients; super: keeps the index; auto: a node that the tier \
               may choose to keep the index too",
    },
    Key {
        path: "node.data_dir",
        flag: "data-dir",
        variable: "SHOAL_DATA_DIR",
        value: "DIR",
        default: "",
        help: "Where everything is kept; one directory a member",
    },
    Key {
        path: "node.zone",
        flag: "zone",
        variable: "SHOAL_ZONE",
        value: "ZONE",
        default: "",
        help: "Failure zone; peers of the same zone are asked first",
    },
    Key {
        path: "node.advertise",
        flag: "advertise",
        variable: "SHOAL_ADVERTISE",
        value: "HOST",
        default: "",
        help: "Host name or address that others reach this member by [default: cluster.listen's]",
    },
    Key {
        path: "cluster.id",
        flag: "cluster-id",
        variable: "SHOAL_CLUSTER_ID",
        value: "ID",
        default: "",
        help: "The cluster's name for itself; data of another cluster is refused",
    },
    Key {
        path: "cluster.listen",
        flag: "cluster-listen",
        variable: "SHOAL_CLUSTER_LISTEN",
        value: "IP:PORT",
        default: "0.0.0.0:7400",
        help: "Where other members connect to (gRPC)",
    },
    Key {
        path: "cluster.super_nodes",
        flag: "super-nodes",
        variable: "SHOAL_SUPER_NODES",
        value: "HOST:PORT,..",
        default: "",
        help: "Cluster addresses of super-nodes to find the cluster by, at most 64",
    },
    Key {
        path: "cluster.bootstrap",
        flag: "bootstrap",
        variable: "SHOAL_BOOTSTRAP",
        value: "true|false",
        default: "false",
        help: "Found the cluster on the first start; exactly one super-node does",
    },
    Key {
        path: "cluster.super_nodes_wanted",
        flag: "super-nodes-wanted",
        variable: "SHOAL_SUPER_NODES_WANTED",
        value: "COUNT",
        default: "3",
        help: "Voters that the tier chooses among auto nodes: 1, 3, 5 or 7; the same everywhere",
    },
    Key {
        path: "cluster.replace_after",
        flag: "replace-after",
        variable: "SHOAL_REPLACE_AFTER",
        value: "DURATION",
        default: "15s",
        help: "A standby takes the place of a voter that is away for longer, 10s to 1h",
    },
    Key {
        path: "cluster.upgrade_after",
        flag: "upgrade-after",
        variable: "SHOAL_UPGRADE_AFTER",
        value: "DURATION",
        default: "10m",
        help: "A standby much better than a voter for so long takes its place, 10s to 24h",
    },
    Key {
        path: "cluster.secret_file",
        flag: "secret-file",
        variable: "SHOAL_SECRET_FILE",
        value: "FILE",
        default: "",
        help: "The cluster's secret, 32 bytes in hexadecimal, for nodes; keys are hashed under it",
    },
    Key {
        path: "cluster.tls.ca",
        flag: "tls-ca",
        variable: "SHOAL_TLS_CA",
        value: "FILE",
        default: "",
        help: "The cluster's certificate authority, PEM",
    },
    Key {
        path: "cluster.tls.cert",
        flag: "tls-cert",
        variable: "SHOAL_TLS_CERT",
        value: "FILE",
        default: "",
        help: "This member's certificate, PEM",
    },
    Key {
        path: "cluster.tls.key",
        flag: "tls-key",
        variable: "SHOAL_TLS_KEY",
        value: "FILE",
        default: "",
        help: "This member's private key, PEM",
    },
    Key {
        path: "cluster.insecure",
        flag: "insecure",
        variable: "SHOAL_INSECURE",
        value: "true|false",
        default: "false",
        help: "Speak plain text to other members, unchecked: for experiments",
    },
    Key {
        path: "cluster.copies",
        flag: "copies",
        variable: "SHOAL_COPIES",
        value: "COUNT",
        default: "2",
        help: "Copies of an object that the cluster keeps, 1 to 8",
    },
    Key {
        path: "edge.listen",
        flag: "edge-listen",
        variable: "SHOAL_EDGE_LISTEN",
        value: "IP:PORT",
        default: "0.0.0.0:8080",
        help: "Where clients connect to (HTTP)",
    },
    Key {
        path: "edge.tls.listen",
        flag: "edge-tls-listen",
        variable: "SHOAL_EDGE_TLS_LISTEN",
        value: "IP:PORT",
        default: "0.0.0.0:8443",
        help: "Where clients connect to by TLS, where there is a certificate",
    },
    Key {
        path: "edge.tls.cert",
        flag: "edge-tls-cert",
        variable: "SHOAL_EDGE_TLS_CERT",
        value: "FILE",
        default: "",
        help: "The certificate chain for clients, PEM; read again when it changes",
    },
    Key {
        path: "edge.tls.key",
        flag: "edge-tls-key",
        variable: "SHOAL_EDGE_TLS_KEY",
        value: "FILE",
        default: "",
        help: "Its private key, PEM",
    },
    Key {
        path: "edge.unknown_host",
        flag: "unknown-host",
        variable: "SHOAL_UNKNOWN_HOST",
        value: "421|404",
        default: "421",
        help: "Status for a host that no site serves",
    },
    Key {
        path: "edge.connections_max",
        flag: "connections-max",
        variable: "SHOAL_CONNECTIONS_MAX",
        value: "COUNT",
        default: "8192",
        help: "Most client connections at a time, 1 to 1000000",
    },
    Key {
        path: "edge.stop_wait",
        flag: "stop-wait",
        variable: "SHOAL_STOP_WAIT",
        value: "DURATION",
        default: "0s",
        help: "Told to stop, a node drains and goes on serving for so long, 0s to 10m",
    },
    Key {
        path: "edge.finish_within",
        flag: "finish-within",
        variable: "SHOAL_FINISH_WITHIN",
        value: "DURATION",
        default: "20s",
        help: "Then requests under way have so long to end, 0s to 1h",
    },
    Key {
        path: "edge.access_log",
        flag: "access-log",
        variable: "SHOAL_ACCESS_LOG",
        value: "FILE",
        default: "",
        help: "File for a line about every response; it names URLs [default: none]",
    },
    Key {
        path: "edge.access_log_format",
        flag: "access-log-format",
        variable: "SHOAL_ACCESS_LOG_FORMAT",
        value: "json|common",
        default: "json",
        help: "How its lines look",
    },
    Key {
        path: "edge.access_log_addresses",
        flag: "access-log-addresses",
        variable: "SHOAL_ACCESS_LOG_ADDRESSES",
        value: "none|truncated|full",
        default: "truncated",
        help: "How much it tells of clients' addresses; truncated: their networks",
    },
    Key {
        path: "admin.listen",
        flag: "admin-listen",
        variable: "SHOAL_ADMIN_LISTEN",
        value: "IP:PORT",
        default: "0.0.0.0:9400",
        help: "Where /livez, /readyz, /metrics and /status are",
    },
    Key {
        path: "store.budget",
        flag: "store-budget",
        variable: "SHOAL_STORE_BUDGET",
        value: "SIZE",
        default: "10GiB",
        help: "Most bytes on disk of bodies and what describes them, at least 16MiB",
    },
    Key {
        path: "store.memory",
        flag: "store-memory",
        variable: "SHOAL_STORE_MEMORY",
        value: "SIZE",
        default: "192MiB",
        help: "Most bytes of bodies in memory, 1MiB to store.budget; unset, at most that",
    },
    Key {
        path: "store.objects",
        flag: "store-objects",
        variable: "SHOAL_STORE_OBJECTS",
        value: "COUNT",
        default: "1048576",
        help: "Most objects stored, 4096 to 16777216; each takes up to 640 bytes of memory",
    },
    Key {
        path: "log.format",
        flag: "log-format",
        variable: "SHOAL_LOG_FORMAT",
        value: "human|json",
        default: "human",
        help: "How log lines look",
    },
    Key {
        path: "log.level",
        flag: "log-level",
        variable: "SHOAL_LOG_LEVEL",
        value: "LEVEL",
        default: "info,openraft=warn",
        help: "error, warn, info, debug or trace; or tracing directives",
    },
];

/// The variable that names the configuration file, beside the flag `--config`.
pub const CONFIG_VARIABLE: &str = "SHOAL_CONFIG";
/// What every variable of Shoal's begins with.
pub const VARIABLE_PREFIX: &str = "SHOAL_";

/// The key at `path`.
pub fn by_path(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn paths_flags_and_variables_are_distinct() {
        let distinct = |of: fn(&Key) -> &'static str| KEYS.iter().map(of).collect::<BTreeSet<_>>();
        assert_eq!(distinct(|key| key.path).len(), KEYS.len());
        assert_eq!(distinct(|key| key.flag).len(), KEYS.len());
        assert_eq!(distinct(|key| key.variable).len(), KEYS.len());
        assert!(KEYS.iter().all(|key| key.variable.starts_with(VARIABLE_PREFIX)));
    }

    /// A service called "shoal-x" makes Kubernetes set such variables in every container: none of
    /// ours may look like them.
    #[test]
    fn no_variable_looks_like_a_kubernetes_service_link() {
        for key in KEYS {
            let linked = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"];
            assert!(!linked.iter().any(|end| key.variable.ends_with(end)), "{}", key.variable);
            assert!(!key.variable.contains("_PORT_"), "{}", key.variable);
        }
    }
}
