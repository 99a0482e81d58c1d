//! The members' configuration file. All members of a cluster share one; what differs from member to
//! member comes by variables of its pod. Sites are not in it: they are the tier's own.

use serde::Serialize;

use super::names;
use crate::crd::CacheCluster;

/// Where a member's volume is.
pub const DATA_DIR: &str = "/var/lib/shoal";
/// Where the configuration is.
pub const CONFIG_DIR: &str = "/etc/shoal/config";
/// Where the certificate is.
pub const TLS_DIR: &str = "/etc/shoal/tls";
/// Where the secrets that all members share are.
pub const SHARED_DIR: &str = "/etc/shoal/shared";
/// The configuration's file.
pub const CONFIG_FILE: &str = "shoal.toml";
/// Key of the cluster's secret.
pub const SECRET_KEY: &str = "cluster-secret";
/// Key of the operator's token.
pub const TOKEN_KEY: &str = "operator-token";
/// Most addresses to find the cluster by.
const SEEDS_MAX: usize = 64;

#[derive(Serialize)]
struct File {
    node: Node,
    cluster: Cluster,
    admin: Admin,
    log: Log,
}

#[derive(Serialize)]
struct Node {
    data_dir: &'static str,
}

#[derive(Serialize)]
struct Cluster {
    id: String,
    super_nodes: Vec<String>,
    secret_file: String,
    copies: i32,
    tls: Tls,
}

#[derive(Serialize)]
struct Tls {
    ca: String,
    cert: String,
    key: String,
}

#[derive(Serialize)]
struct Admin {
    tokens: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    name: &'static str,
    file: String,
    scopes: Vec<&'static str>,
}

#[derive(Serialize)]
struct Log {
    format: &'static str,
    level: String,
}

/// The file, for a cluster whose super-nodes are called `members`.
///
/// # Errors
/// When it cannot be written as TOML, which is a fault of Shoal's.
pub fn render(
    cluster: &CacheCluster,
    (name, namespace): (&str, &str),
    members: &[String],
) -> Result<String, toml::ser::Error> {
    let mut super_nodes = vec![format!("{}.{namespace}.svc:7400", names::tier_service(name))];
    let known = members.iter().map(|member| names::address(name, namespace, member));
    super_nodes.extend(known.take(SEEDS_MAX - 1));
    let in_tls = |file: &str| format!("{TLS_DIR}/{file}");
    let file = File {
        node: Node { data_dir: DATA_DIR },
        cluster: Cluster {
            id: names::cluster_id(cluster),
            super_nodes,
            secret_file: format!("{SHARED_DIR}/{SECRET_KEY}"),
            copies: cluster.spec.copies,
            tls: Tls { ca: in_tls("ca.crt"), cert: in_tls("tls.crt"), key: in_tls("tls.key") },
        },
        admin: Admin {
            tokens: vec![Token {
                name: "operator",
                file: format!("{SHARED_DIR}/{TOKEN_KEY}"),
                scopes: vec!["*"],
            }],
        },
        log: Log { format: "json", level: cluster.spec.log_level.clone() },
    };
    toml::to_string(&file)
}
