//! Stand-ins for members: pods that the operator makes "run" on loopback addresses of their own, and
//! answer control calls as `docs/control-api.md` says. What they do with one another is a table.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use shoal_operator::tasks::Tasks;
use tokio::net::TcpListener;

/// What the members agree on.
#[derive(Debug, Default)]
pub(crate) struct Tier {
    position: u64,
    voters: BTreeSet<String>,
    learners: BTreeSet<String>,
    removed: Vec<String>,
    pub(crate) up: BTreeMap<String, IpAddr>,
    leader: Option<String>,
    nodes: BTreeSet<String>,
    draining: BTreeMap<String, u64>,
    pub(crate) sites: BTreeMap<String, Value>,
    pub(crate) purged: Vec<Value>,
    /// What happened, in order.
    pub(crate) story: Vec<String>,
    /// Rules that were broken.
    pub(crate) faults: Vec<String>,
    pub(crate) unauthorised: u64,
    generation: u64,
    requests: u64,
}

pub(crate) type Shared = Arc<Mutex<Tier>>;

pub(crate) fn locked(tier: &Shared) -> std::sync::MutexGuard<'_, Tier> {
    tier.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id(name: &str) -> String {
    let sum = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{sum:016x}")
}

impl Tier {
    fn mark(&self) -> String {
        format!("{}/{:08x}", self.position, self.voters.len())
    }

    fn alive(&self) -> usize {
        self.voters.iter().filter(|name| self.up.contains_key(*name)).count()
    }

    pub(crate) fn has_quorum(&self) -> bool {
        self.alive() > self.voters.len() / 2
    }

    fn joins(&mut self, name: &str, founds: bool) {
        if self.removed.contains(&id(name)) || self.voters.contains(name) {
            return;
        }
        if founds && self.voters.is_empty() {
            self.voters.insert(name.to_owned());
        } else if founds {
            self.faults.push(format!("{name} was told to found a second tier"));
        } else {
            self.learners.insert(name.to_owned());
        }
        self.position += 1;
    }

    fn elect(&mut self) {
        let stands = self
            .leader
            .as_ref()
            .is_some_and(|name| self.voters.contains(name) && self.up.contains_key(name));
        if !stands {
            self.leader = self.voters.iter().find(|name| self.up.contains_key(*name)).cloned();
        }
    }

    fn document(&self) -> Value {
        let entry = |name: &String, role: &str| {
            json!({
                "name": name, "node_id": id(name), "role": role, "held_back": false,
                "state": if self.up.contains_key(name) { "up" } else { "down" },
                "leader": self.leader.as_ref() == Some(name), "lag": 0, "silent_ms": 0,
                "cluster_address": format!("{name}:7400"),
            })
        };
        let voters = self.voters.iter().map(|name| entry(name, "voter"));
        let learners = self.learners.iter().map(|name| entry(name, "learner"));
        let nodes = self.nodes.iter().map(|name| entry(name, "node"));
        json!({
            "cluster_id": "acts.demo", "membership": self.mark(), "joint": false,
            "leader": self.leader, "term": 1, "last_position": self.position, "generation": 0,
            "members": voters.chain(learners).chain(nodes).collect::<Vec<_>>(),
            "removed": self.removed,
        })
    }

    fn change(&mut self, order: &Value) -> (u16, Value) {
        if order["expect"] != self.mark() {
            return refusal(409, "the membership is another");
        }
        let change = &order["change"];
        let named = |key: &str, tier: &Self| {
            let wanted = change[key].as_str()?.to_owned();
            let mut all = tier.voters.iter().chain(&tier.learners);
            all.find(|name| id(name) == wanted).cloned()
        };
        self.story.push(change.to_string());
        if let Some(name) = named("promote", self) {
            self.learners.remove(&name);
            self.voters.insert(name);
        } else if let Some(name) = named("remove", self) {
            self.voters.remove(&name);
            self.learners.remove(&name);
            self.removed.push(id(&name));
        } else if let Some(name) = named("transfer", self) {
            self.leader = Some(name);
            return (200, json!({ "position": self.position }));
        } else if let Some(pair) = change["replace"].as_object() {
            let (old, new) = (pair["old"].clone(), pair["new"].clone());
            self.voters.retain(|name| id(name) != old);
            self.removed.insert(0, old.as_str().unwrap_or_default().to_owned());
            let found = self.learners.iter().find(|name| id(name) == new).cloned();
            self.learners.retain(|name| Some(name) != found.as_ref());
            self.voters.extend(found);
        } else {
            return refusal(404, "nobody has that id");
        }
        self.position += 1;
        self.elect();
        if !self.has_quorum() {
            self.faults.push(format!("{change} left no majority"));
        }
        (200, json!({ "position": self.position, "node_id": "" }))
    }

    fn site(&mut self, method: &Method, name: &str, body: Value) -> (u16, Value) {
        match *method {
            Method::PUT => {
                let before = self.sites.insert(name.to_owned(), body.clone());
                self.generation += u64::from(before != Some(body));
            }
            Method::DELETE => {
                self.sites.remove(name);
                return (200, json!({ "revision": self.generation }));
            }
            _ if !self.sites.contains_key(name) => return refusal(404, "no such site"),
            _ => {}
        }
        let on = self.up.len();
        let revision = self.generation.to_string();
        (200, json!({ "revision": revision, "applied_on": on, "waiting_for": [] }))
    }

    fn drain(&mut self, method: &Method, name: &str) -> (u16, Value) {
        if *method == Method::POST {
            self.draining.insert(name.to_owned(), 3);
            self.story.push(format!("drain {name}"));
        } else if *method == Method::DELETE {
            self.draining.remove(name);
        }
        let left = self.draining.get_mut(name).map(|left| {
            *left = left.saturating_sub(1);
            *left
        });
        let state = match left {
            None => "serving",
            Some(0) => "drained",
            Some(_) => "draining",
        };
        (200, json!({ "state": state, "objects_left": left.unwrap_or(3), "stalled": false }))
    }

    fn answer(&mut self, name: &str, (method, path): (&Method, &str), body: Value) -> (u16, Value) {
        let site = path.strip_prefix("/v1/sites/");
        match (path, site) {
            (_, Some(site)) => self.site(method, site, body),
            ("/v1/members", _) if !self.voters.contains(name) && !self.learners.contains(name) => {
                refusal(503, "this node is no super-node")
            }
            ("/v1/members", _) if !self.has_quorum() => refusal(503, "no leader"),
            ("/v1/members", _) if *method == Method::GET => (200, self.document()),
            ("/v1/members", _) => self.change(&body),
            ("/v1/drain", _) => self.drain(method, name),
            ("/metrics", _) => {
                self.requests += 1_000;
                (200, json!(format!("\nshoal_edge_requests_total{{}} {}\n", self.requests)))
            }
            ("/v1/purge", _) if body["purges"][0]["site"] == "unknown" => {
                refusal(404, "no site \"unknown\"")
            }
            ("/v1/purge", _) => {
                self.purged.push(body);
                let one = json!({ "position": 7, "nodes_acknowledged": 2, "error": null });
                (200, json!({ "purges": [one], "failed": 0 }))
            }
            ("/v1/prefetch", _) => (200, json!({ "id": "p1", "total": 2, "finished": false })),
            ("/v1/prefetch/p1", _) => {
                (200, json!({ "total": 2, "done": 2, "failed": 0, "bytes": 9, "finished": true }))
            }
            ("/status", _) => (200, json!({ "members": [] })),
            _ => refusal(404, "no such call"),
        }
    }
}

fn refusal(status: u16, message: &str) -> (u16, Value) {
    (status, json!({ "error": { "code": "test", "message": message, "remedy": "look" } }))
}

async fn serve(
    tier: Shared,
    name: String,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let known = request.headers().contains_key(http::header::AUTHORIZATION);
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let body = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let mut tier = locked(&tier);
    let (status, answer) = if !known && path.starts_with("/v1/") {
        tier.unauthorised += 1;
        refusal(401, "no token")
    } else {
        tier.answer(&name, (&method, &path), body)
    };
    let text = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(response)
}

/// Runs the pods of a namespace, as a machine would.
pub(crate) struct Machine {
    api: Api<Pod>,
    tier: Shared,
    port: u16,
    running: BTreeMap<String, (String, Tasks)>,
    drawn: u8,
}

impl Machine {
    /// Every 100 ms, until the tasks stop.
    pub(crate) fn start(tasks: &Tasks, client: Client, namespace: &str, port: u16) -> Shared {
        let tier = Shared::default();
        let api = Api::namespaced(client, namespace);
        let mut machine =
            Self { api, tier: tier.clone(), port, running: BTreeMap::new(), drawn: 0 };
        tasks.spawn("machine", async move {
            loop {
                machine.look().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        tier
    }

    async fn look(&mut self) {
        let Ok(pods) = self.api.list(&ListParams::default()).await else { return };
        let there: BTreeMap<String, String> =
            pods.iter().map(|pod| (pod.name_any(), pod.uid().unwrap())).collect();
        let gone = |(name, (uid, _)): &(&String, &(String, Tasks))| there.get(*name) != Some(uid);
        let gone: Vec<String> =
            self.running.iter().filter(gone).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.end(&name);
        }
        for pod in pods.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            if !self.running.contains_key(&pod.name_any()) {
                self.begin(pod).await;
            }
        }
    }

    fn end(&mut self, name: &str) {
        let Some((_, tasks)) = self.running.remove(name) else { return };
        tasks.stop();
        let mut tier = locked(&self.tier);
        let had = tier.has_quorum();
        let (drained, serving) = (tier.draining.remove(name) == Some(0), tier.nodes.remove(name));
        tier.up.remove(name);
        tier.story.push(format!("end {name}"));
        if had && tier.voters.len() > 1 && !tier.has_quorum() {
            tier.faults.push(format!("the end of {name} left no majority"));
        }
        if serving && !drained {
            tier.faults.push(format!("{name} ended with objects that only it had"));
        }
        tier.elect();
    }

    async fn begin(&mut self, pod: &Pod) {
        let name = pod.name_any();
        self.drawn += 1;
        let host = IpAddr::V4(Ipv4Addr::new(127, 77, 0, self.drawn));
        let Ok(listener) = TcpListener::bind(SocketAddr::new(host, self.port)).await else {
            return;
        };
        let tasks = Tasks::new();
        let (own, tier, answers) = (tasks.clone(), self.tier.clone(), name.clone());
        tasks.spawn("member", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tier, name) = (tier.clone(), answers.clone());
                own.spawn("connection", async move {
                    let service =
                        service_fn(move |request| serve(tier.clone(), name.clone(), request));
                    let io = TokioIo::new(stream);
                    let _ = http1::Builder::new().serve_connection(io, service).await;
                });
            }
        });
        let text = serde_json::to_string(pod).unwrap();
        {
            let mut tier = locked(&self.tier);
            tier.up.insert(name.clone(), host);
            if text.contains("\"name\":\"SHOAL_ROLE\",\"value\":\"super\"") {
                tier.joins(&name, text.contains("SHOAL_BOOTSTRAP"));
            } else {
                tier.nodes.insert(name.clone());
            }
            tier.elect();
        }
        self.running.insert(name.clone(), (pod.uid().unwrap(), tasks));
        let status = json!({ "status": {
            "phase": "Running", "podIP": host, "podIPs": [{ "ip": host }],
            "conditions": [{
                "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "containerStatuses": [{
                "name": "shoal", "ready": true, "restartCount": 0, "image": "a", "imageID": "a",
                "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
            }],
        }});
        let by = PatchParams::default();
        let _ = self.api.patch_status(&name, &by, &Patch::Merge(&status)).await;
    }
}
