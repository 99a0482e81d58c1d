//! Pods of super-nodes and of nodes. All hold to the Pod Security level "restricted".
//!
//! Probes mean different things: *startup* that the process is up and its store open, *readiness*
//! that the member can do its work, *liveness* only that it answers at all: a tier without quorum is
//! no reason to restart anybody.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, HostPathVolumeSource, LocalObjectReference, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec, Probe,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::config::{CONFIG_DIR, CONFIG_FILE, DATA_DIR, SHARED_DIR, TLS_DIR};
use super::names;
use crate::crd::common::{Image, PodOptions, Resources};
use crate::crd::pool::StorageType;
use crate::crd::{CacheCluster, CacheMember, CachePool};

/// Raised when pods written in the old way must be restarted. Rarely.
pub const TEMPLATE_REVISION: u32 = 1;
/// The user that members run as.
const USER: i64 = 65_532;
/// A node that is told to stop goes on serving for so long, and asks clients to go elsewhere: the
/// last machine has heard by then that the node is no endpoint any more, and connections that are in
/// use have ended with an answer. Nothing of that takes longer than a few seconds, unless machines
/// are starved.
const STOP_WAIT_S: i64 = 10;
/// After its requests a member ends what it has with others, hands on the lead, and flushes its store.
const END_S: i64 = 30;
/// A store may take so long to open: 5 s between tries.
const STARTUP_TRIES: i32 = 120;
/// Bytes of digest in an annotation.
const HASH_BYTES: usize = 8;

/// What a pod is made from, as far as a change restarts it.
#[derive(Serialize)]
struct Made<'a> {
    revision: u32,
    image: &'a Image,
    resources: &'a Resources,
    pod: &'a PodOptions,
    copies: i32,
    log_level: &'a str,
    cluster_id: String,
    grace_s: i32,
    more: serde_json::Value,
}

impl Made<'_> {
    fn hash(&self) -> String {
        // Everything in it can be written as JSON.
        let text = serde_json::to_vec(self).unwrap_or_default();
        let digest = Sha256::digest(&text);
        digest.iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The hash of what super-nodes' pods are made from.
#[must_use]
pub fn super_template(cluster: &CacheCluster) -> String {
    let spec = &cluster.spec;
    Made {
        revision: TEMPLATE_REVISION,
        image: &spec.image,
        resources: &spec.super_nodes.resources,
        pod: &spec.super_nodes.pod,
        copies: spec.copies,
        log_level: &spec.log_level,
        cluster_id: names::cluster_id(cluster),
        grace_s: spec.drain.grace_seconds,
        more: serde_json::Value::Null,
    }
    .hash()
}

/// The hash of what a pool's pods are made from.
#[must_use]
pub fn node_template(cluster: &CacheCluster, pool: &CachePool) -> String {
    Made {
        revision: TEMPLATE_REVISION,
        image: pool.spec.image.as_ref().unwrap_or(&cluster.spec.image),
        resources: &pool.spec.resources,
        pod: &pool.spec.pod,
        copies: cluster.spec.copies,
        log_level: &cluster.spec.log_level,
        cluster_id: names::cluster_id(cluster),
        grace_s: cluster.spec.drain.grace_seconds,
        more: serde_json::json!({ "memory": pool.spec.memory, "storage": pool.spec.storage }),
    }
    .hash()
}

/// A super-node's pod. `founds` only before the tier was founded.
#[must_use]
pub fn super_node(cluster: &CacheCluster, member: &CacheMember, founds: bool) -> Pod {
    let spec = &cluster.spec;
    let (name, cluster_name) = (member.name_any(), cluster.name_any());
    let namespace = cluster.namespace().unwrap_or_default();
    let address = names::address(&cluster_name, &namespace, &name);
    let advertise = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    let mut env = vec![own("SHOAL_NAME", "metadata.name"), zone()];
    env.push(plain("SHOAL_ROLE", "super"));
    env.push(plain("SHOAL_ADVERTISE", advertise));
    if founds {
        env.push(plain("SHOAL_BOOTSTRAP", "true"));
    }
    let parts = Parts {
        cluster: &cluster_name,
        image: &spec.image,
        options: &spec.super_nodes.pod,
        resources: &spec.super_nodes.resources,
        env,
        ports: vec![port("cluster", 7400), port("admin", 9400)],
        data: Volume {
            name: "data".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: names::volume(&name),
                read_only: None,
            }),
            ..Volume::default()
        },
        grace_s: spec.drain.grace_seconds,
        selector: names::selector(&cluster_name, names::SUPER),
    };
    let mut metadata = names::meta(member, &cluster_name, Some(names::SUPER), name.clone());
    let template = super_template(cluster);
    decorate(&mut metadata, &spec.super_nodes.pod, template);
    let mut pod = parts.pod(metadata, &name);
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(name);
        spec.subdomain = Some(names::tier_service(&cluster_name));
    }
    pod
}

/// A node's pod, called `name`.
#[must_use]
pub fn node(cluster: &CacheCluster, pool: &CachePool, name: &str) -> Pod {
    let (cluster_name, pool_name) = (cluster.name_any(), pool.name_any());
    let spec = &pool.spec;
    let mut env = vec![own("SHOAL_NAME", "metadata.name"), zone()];
    env.push(plain("SHOAL_ROLE", "node"));
    env.push(own("SHOAL_ADVERTISE", "status.podIP"));
    env.push(plain("SHOAL_STOP_WAIT", &format!("{STOP_WAIT_S}s")));
    let finish = format!("{}s", cluster.spec.drain.grace_seconds);
    env.push(plain("SHOAL_FINISH_WITHIN", &finish));
    env.push(plain("SHOAL_STORE_BUDGET", &budget(&spec.storage.size.0)));
    env.push(plain("SHOAL_STORE_MEMORY", &bytes(&spec.memory.0).to_string()));
    let mut selector = names::selector(&cluster_name, names::NODE);
    selector.insert(names::POOL.to_owned(), pool_name.clone());
    let parts = Parts {
        cluster: &cluster_name,
        image: spec.image.as_ref().unwrap_or(&cluster.spec.image),
        options: &spec.pod,
        resources: &spec.resources,
        env,
        ports: vec![
            port("http", 8080),
            port("https", 8443),
            port("cluster", 7400),
            port("admin", 9400),
        ],
        data: node_data(pool, name),
        grace_s: cluster.spec.drain.grace_seconds,
        selector,
    };
    let mut metadata = names::meta(pool, &cluster_name, Some(names::NODE), name.to_owned());
    metadata.labels.get_or_insert_default().insert(names::POOL.to_owned(), pool_name);
    decorate(&mut metadata, &spec.pod, node_template(cluster, pool));
    parts.pod(metadata, name)
}

fn node_data(pool: &CachePool, name: &str) -> Volume {
    let storage = &pool.spec.storage;
    let mut data = Volume { name: "data".to_owned(), ..Volume::default() };
    match storage.r#type {
        StorageType::Ephemeral => {
            let size_limit = Some(storage.size.clone());
            data.empty_dir = Some(EmptyDirVolumeSource { medium: None, size_limit });
        }
        StorageType::HostPath => {
            let folder = storage.path.as_deref().unwrap_or("/var/lib/shoal");
            data.host_path = Some(HostPathVolumeSource {
                path: format!("{}/{name}", folder.trim_end_matches('/')),
                type_: Some("DirectoryOrCreate".to_owned()),
            });
        }
        StorageType::Volume => {
            data.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource {
                claim_name: names::volume(name),
                read_only: None,
            });
        }
    }
    data
}

struct Parts<'a> {
    cluster: &'a str,
    image: &'a Image,
    options: &'a PodOptions,
    resources: &'a Resources,
    env: Vec<EnvVar>,
    ports: Vec<ContainerPort>,
    data: Volume,
    grace_s: i32,
    selector: BTreeMap<String, String>,
}

impl Parts<'_> {
    fn pod(self, metadata: ObjectMeta, name: &str) -> Pod {
        let secrets = self.image.pull_secrets.iter();
        let secrets: Vec<_> =
            secrets.map(|secret| LocalObjectReference { name: secret.name.clone() }).collect();
        let options = self.options;
        let spec = PodSpec {
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            service_account_name: Some(self.cluster.to_owned()),
            node_selector: filled(options.node_selector.clone()),
            tolerations: Some(options.tolerations.clone()).filter(|list| !list.is_empty()),
            priority_class_name: options.priority_class_name.clone(),
            scheduler_name: options.scheduler_name.clone(),
            image_pull_secrets: Some(secrets).filter(|list| !list.is_empty()),
            termination_grace_period_seconds: Some(i64::from(self.grace_s) + STOP_WAIT_S + END_S),
            topology_spread_constraints: Some(spread(&self.selector)),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                seccomp_profile: Some(seccomp()),
                ..PodSecurityContext::default()
            }),
            volumes: Some(volumes(self.cluster, name, self.data.clone())),
            containers: vec![self.container()],
            ..PodSpec::default()
        };
        Pod { metadata, spec: Some(spec), status: None }
    }

    fn container(&self) -> Container {
        let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        };
        let config = format!("{CONFIG_DIR}/{CONFIG_FILE}");
        let command = ["shoal", "node", "--config", config.as_str()];
        Container {
            name: "shoal".to_owned(),
            image: Some(self.image.reference()),
            image_pull_policy: self.image.pull_policy.map(|policy| format!("{policy:?}")),
            command: Some(command.map(str::to_owned).to_vec()),
            env: Some(self.env.clone()),
            ports: Some(self.ports.clone()),
            resources: Some(ResourceRequirements {
                requests: filled(self.resources.requests.clone()),
                limits: filled(self.resources.limits.clone()),
                claims: None,
            }),
            volume_mounts: Some(vec![
                mount("data", DATA_DIR, false),
                mount("tmp", "/tmp", false),
                mount("config", CONFIG_DIR, true),
                mount("tls", TLS_DIR, true),
                mount("shared", SHARED_DIR, true),
            ]),
            startup_probe: Some(probe("/livez", 5, STARTUP_TRIES)),
            readiness_probe: Some(probe("/readyz", 2, 2)),
            liveness_probe: Some(probe("/livez", 10, 6)),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                read_only_root_filesystem: Some(true),
                run_as_non_root: Some(true),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
                seccomp_profile: Some(seccomp()),
                ..SecurityContext::default()
            }),
            ..Container::default()
        }
    }
}

fn volumes(cluster: &str, name: &str, data: Volume) -> Vec<Volume> {
    let secret = |volume: &str, secret: String| Volume {
        name: volume.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    let config = Volume {
        name: "config".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: names::config_map(cluster),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    let tmp = Volume {
        name: "tmp".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let tls = secret("tls", names::certificate(name));
    vec![data, tmp, config, tls, secret("shared", names::shared_secret(cluster))]
}

fn decorate(metadata: &mut ObjectMeta, options: &PodOptions, template: String) {
    let own = metadata.labels.take().unwrap_or_default();
    let mut labels = options.labels.clone();
    labels.extend(own);
    metadata.labels = Some(labels);
    let mut annotations = options.annotations.clone();
    annotations.insert(names::TEMPLATE.to_owned(), template);
    metadata.annotations = Some(annotations);
}

fn spread(selector: &BTreeMap<String, String>) -> Vec<TopologySpreadConstraint> {
    let over = |key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(selector.clone()),
            match_expressions: None,
        }),
        ..TopologySpreadConstraint::default()
    };
    vec![over("topology.kubernetes.io/zone"), over("kubernetes.io/hostname")]
}

fn probe(path: &str, period_s: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_s),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn seccomp() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        ..ContainerPort::default()
    }
}

fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

fn own(name: &str, field: &str) -> EnvVar {
    let field_ref = ObjectFieldSelector { field_path: field.to_owned(), api_version: None };
    let from = EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(from) }
}

/// The machine's zone, which newer servers copy to the pod; empty elsewhere, and then not known.
fn zone() -> EnvVar {
    own("SHOAL_ZONE", "metadata.labels['topology.kubernetes.io/zone']")
}

fn filled<K: Ord, V>(map: BTreeMap<K, V>) -> Option<BTreeMap<K, V>> {
    Some(map).filter(|map| !map.is_empty())
}

/// Nine tenths of a size, in bytes: RocksDB's log and what it has to compact come on top.
fn budget(size: &str) -> String {
    (bytes(size) / 10 * 9).to_string()
}

/// A quantity of bytes, as the definitions allow it; 0 for what they do not.
#[must_use]
pub fn bytes(quantity: &str) -> u64 {
    let split = quantity.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(split);
    let power = |base: u64, exponent: u32| base.saturating_pow(exponent);
    let factor = match unit {
        "" => 1,
        "k" => power(1_000, 1),
        "M" => power(1_000, 2),
        "G" => power(1_000, 3),
        "T" => power(1_000, 4),
        "P" => power(1_000, 5),
        "Ki" => power(1_024, 1),
        "Mi" => power(1_024, 2),
        "Gi" => power(1_024, 3),
        "Ti" => power(1_024, 4),
        "Pi" => power(1_024, 5),
        _ => 0,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().unwrap_or_default();
    let thousandths: u64 = format!("{part:0<3}").get(..3).and_then(|p| p.parse().ok()).unwrap_or(0);
    whole.saturating_mul(factor).saturating_add(factor / 1_000 * thousandths)
}
