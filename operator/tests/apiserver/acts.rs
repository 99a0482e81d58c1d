//! The operator's own binary against the API server, with stand-ins for members: what it makes, in
//! which order, and that it rests when all is as wanted.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use shoal_operator::crd::{
    CacheCluster, CacheMember, CachePool, CachePrefetch, CachePurge, CacheSite,
};
use shoal_operator::tasks::Tasks;

use crate::members::{Machine, Shared, locked};
use crate::operator::{Operator, Place};
use crate::plane::{Plane, define, eventually, free_port, namespace, operators_token};

const SPACE: &str = "acts";

/// Everything of one test.
struct Stage {
    client: Client,
    tier: Shared,
    log: PathBuf,
}

impl Stage {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), SPACE)
    }

    async fn make<K>(&self, object: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap();
    }

    async fn change(&self, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let api = self.api::<CacheCluster>();
        api.patch("demo", &PatchParams::default(), &patch).await.unwrap();
    }

    /// Changes nothing that matters, so that everything is looked at.
    async fn touch(&self) {
        let round = json!({ "round": format!("{:?}", crate::plane::now()) });
        let touch = Patch::Merge(json!({ "metadata": { "annotations": round } }));
        let by = PatchParams::default();
        self.api::<CacheCluster>().patch("demo", &by, &touch).await.unwrap();
        self.api::<CachePool>().patch("edge", &by, &touch).await.unwrap();
    }

    async fn scale(&self, replicas: i32) {
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        let api = self.api::<CachePool>();
        api.patch_scale("edge", &PatchParams::default(), &patch).await.unwrap();
    }

    /// The condition of that type of the object, once it is so for what is wanted now.
    async fn comes<K>(&self, name: &str, kind: &str, status: &str) -> Value
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let api = self.api::<K>();
        let what = format!("{name} {kind}={status} (log: {})", self.log.display());
        eventually(&what, || async {
            let object = serde_json::to_value(api.get(name).await.unwrap()).unwrap();
            let all = object["status"]["conditions"].as_array()?.clone();
            let generation = &object["metadata"]["generation"];
            let now = |c: &&Value| c["type"] == kind && c["observedGeneration"] == *generation;
            all.iter().find(now).filter(|c| c["status"] == status).cloned()
        })
        .await
    }

    async fn pods(&self, role: &str) -> Vec<String> {
        let of = ListParams::default().labels(&format!("shoal.dev/role={role}"));
        let pods = self.api::<Pod>().list(&of).await.unwrap();
        pods.iter().map(ResourceExt::name_any).collect()
    }

    fn sound(&self) {
        let tier = locked(&self.tier);
        assert!(tier.faults.is_empty(), "{:?}\n{:#?}", tier.faults, tier.story);
        assert_eq!(tier.unauthorised, 0, "calls without a token");
    }
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "shoal.dev/v1alpha1", "kind": kind,
        "metadata": { "name": name, "namespace": SPACE }, "spec": spec,
    })
}

fn cluster() -> Value {
    object(
        "CacheCluster",
        "demo",
        json!({
            "image": { "repository": "registry.example.com/shoal", "tag": "1" },
            "superNodes": { "replicas": 3 }, "upgrade": { "minReadySeconds": 0 },
        }),
    )
}

fn of_demo(mut spec: Value) -> Value {
    spec["clusterRef"] = json!({ "name": "demo" });
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_lives() {
    let plane = Plane::shared();
    let client = plane.client().await;
    define(&client).await;
    namespace(&client, SPACE).await;
    let tasks = Tasks::new();
    let port = free_port();
    let tier = Machine::start(&tasks, client.clone(), SPACE, port);
    let stage = Stage { client: client.clone(), tier, log: plane.file("first.log") };
    // Under exactly the rights that the manifests give.
    let rights = plane.kubeconfig_file("rights", &operators_token(&client, SPACE, "").await);
    let own = Place { kubeconfig: rights, namespace: SPACE, admin_port: port };
    let mut operator = Operator::start(&plane, "first", &own);

    stage.make::<CachePool>(object("CachePool", "edge", of_demo(json!({ "replicas": 2 })))).await;
    let missing = stage.comes::<CachePool>("edge", "Degraded", "True").await;
    assert_eq!(missing["reason"], "ClusterMissing", "{missing}");

    stage.make::<CacheCluster>(cluster()).await;
    stage.comes::<CacheCluster>("demo", "Ready", "True").await;
    assert_eq!(stage.pods("super").await.len(), 3);
    stage.comes::<CachePool>("edge", "Ready", "True").await;
    rests(&stage, &operator).await;
    only_plans(&stage).await;
    renews_a_certificate(&stage).await;
    budgets(&stage).await;
    restarts_one_by_one(&stage).await;
    grows_and_shrinks(&stage).await;
    operator = killed_all_the_time(&plane, &stage, operator, &own).await;
    loses_a_volume(&stage).await;
    scales_a_pool(&stage).await;
    scales_a_pool_by_load(&stage).await;
    scaled_by_kubernetes(&stage).await;
    sites_and_runs(&stage).await;
    ends(&stage).await;
    stage.sound();
    drop(operator);
    tasks.shutdown(Duration::from_secs(5)).await;
}

/// Looked at again and again, a cluster that is as wanted causes no write.
async fn rests(stage: &Stage, operator: &Operator) {
    let writes = "shoal_operator_writes_total";
    eventually("the nodes in the tier", || async {
        stage.touch().await;
        let status = stage.api::<CacheCluster>().get("demo").await.unwrap().status?;
        (status.nodes == 2).then_some(())
    })
    .await;
    eventually("no more writes", || async {
        let before = operator.figure(writes);
        tokio::time::sleep(Duration::from_secs(3)).await;
        (operator.figure(writes) <= before).then_some(())
    })
    .await;
    let (before, looks) = (operator.figure(writes), operator.figure("shoal_operator_reconciles"));
    for _ in 0..3 {
        stage.touch().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let looks = operator.figure("shoal_operator_reconciles") - looks;
    assert!(looks >= 4.0, "{looks} looks");
    let wrote = operator.figure(writes) - before;
    let log = std::fs::read_to_string(&stage.log).unwrap();
    let last: Vec<_> = log.lines().rev().filter(|line| line.contains("writes")).take(3).collect();
    assert!(wrote.abs() < 0.5, "{wrote} writes in {looks} looks at what is as wanted: {last:#?}");
}

/// In mode Plan the next step is told, with what it waits for, and nothing is done.
async fn only_plans(stage: &Stage) {
    let before = (stage.pods("super").await, locked(&stage.tier).story.len());
    stage.change(json!({ "mode": "Plan", "superNodes": { "replicas": 5 } })).await;
    let told = stage.comes::<CacheCluster>("demo", "Progressing", "True").await;
    assert_eq!(told["reason"], "Waiting", "{told}");
    let plan = stage.api::<CacheCluster>().get("demo").await.unwrap().status.unwrap().plan;
    assert_eq!((plan[0].op.as_str(), plan[0].blocked_by.as_str()), ("CreateMember", "PlanMode"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((stage.pods("super").await, locked(&stage.tier).story.len()), before);
    stage.change(json!({ "mode": "Apply", "superNodes": { "replicas": 3 } })).await;
    stage.comes::<CacheCluster>("demo", "Progressing", "False").await;
}

/// A certificate whose time has come is another one, and nobody is restarted for it.
async fn renews_a_certificate(stage: &Stage) {
    let pods = stage.pods("super").await;
    let secrets = stage.api::<Secret>();
    let name = format!("{}-tls", pods[0]);
    let of = |secret: &Secret| secret.data.clone().unwrap()["tls.crt"].clone();
    let before = of(&secrets.get(&name).await.unwrap());
    let due = json!({ "metadata": { "annotations": { "shoal.dev/renew-at": "1" } } });
    secrets.patch(&name, &PatchParams::default(), &Patch::Merge(due)).await.unwrap();
    stage.touch().await;
    eventually("another certificate", || async {
        (of(&secrets.get(&name).await.unwrap()) != before).then_some(())
    })
    .await;
    assert_eq!(stage.pods("super").await, pods);
    assert!(locked(&stage.tier).story.iter().all(|line| !line.starts_with("end demo-super")));
}

/// Two of three voters stay, whoever drains machines.
async fn budgets(stage: &Stage) {
    let budgets = stage.api::<PodDisruptionBudget>();
    three_healthy(&budgets).await;
    let pods = stage.api::<Pod>();
    let names = stage.pods("super").await;
    let how = EvictParams::default();
    pods.evict(&names[0], &how).await.unwrap();
    let second = pods.evict(&names[1], &how).await.unwrap_err().to_string();
    assert!(second.contains("disruption budget"), "{second}");
    eventually("the pod that was evicted", || async {
        let pod = pods.get_opt(&names[0]).await.unwrap()?;
        pod.status?.pod_ip.map(|_| ())
    })
    .await;
    three_healthy(&budgets).await;
}

async fn three_healthy(budgets: &Api<PodDisruptionBudget>) {
    eventually("the tier's budget", || async {
        let status = budgets.get("demo-super").await.unwrap().status?;
        (status.current_healthy == 3 && status.disruptions_allowed == 1).then_some(())
    })
    .await;
}

async fn restarts_one_by_one(stage: &Stage) {
    stage.comes::<CacheCluster>("demo", "Progressing", "False").await;
    locked(&stage.tier).story.clear();
    stage.change(json!({ "image": { "tag": "2" } })).await;
    stage.comes::<CacheCluster>("demo", "Progressing", "False").await;
    stage.comes::<CacheCluster>("demo", "Ready", "True").await;
    eventually("the image everywhere", || async {
        let of = ListParams::default().labels("shoal.dev/cluster=demo");
        let pods = stage.api::<Pod>().list(&of).await.unwrap().items;
        let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone();
        let new = |pod: &Pod| image(pod).as_deref() == Some("registry.example.com/shoal:2");
        (pods.len() == 5 && pods.iter().all(new)).then_some(())
    })
    .await;
    let story = locked(&stage.tier).story.clone();
    let supers: Vec<_> = story.iter().filter(|line| line.contains("super")).collect();
    let ends = supers.iter().filter(|line| line.starts_with("end ")).count();
    assert_eq!(ends, 3, "each once: {story:#?}");
    assert!(story.iter().any(|line| line.contains("transfer")), "the leader last: {story:#?}");
    stage.sound();
}

async fn grows_and_shrinks(stage: &Stage) {
    for size in [5, 3] {
        stage.change(json!({ "superNodes": { "replicas": size } })).await;
        stage.comes::<CacheCluster>("demo", "Ready", "True").await;
        stage.comes::<CacheCluster>("demo", "Progressing", "False").await;
        assert_eq!(stage.pods("super").await.len(), size);
        stage.sound();
    }
    let volumes = stage.api::<PersistentVolumeClaim>();
    eventually("the volumes of those who left", || async {
        (volumes.list(&ListParams::default()).await.unwrap().items.len() == 3).then_some(())
    })
    .await;
}

/// An operator that is killed every second comes to the same end.
async fn killed_all_the_time(
    plane: &Plane,
    stage: &Stage,
    operator: Operator,
    own: &Place,
) -> Operator {
    drop(operator);
    stage.change(json!({ "superNodes": { "replicas": 5 }, "image": { "tag": "3" } })).await;
    for _ in 0..6 {
        let short = Operator::start(plane, "first", own);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        drop(short);
        stage.sound();
    }
    let operator = Operator::start(plane, "first", own);
    stage.comes::<CacheCluster>("demo", "Progressing", "False").await;
    stage.comes::<CacheCluster>("demo", "Ready", "True").await;
    assert_eq!(stage.pods("super").await.len(), 5);
    stage.change(json!({ "superNodes": { "replicas": 3 } })).await;
    stage.comes::<CacheCluster>("demo", "Progressing", "False").await;
    stage.sound();
    operator
}

/// A volume is gone: another super-node takes the vote by one joint change.
async fn loses_a_volume(stage: &Stage) {
    locked(&stage.tier).story.clear();
    let lost = stage.pods("super").await.remove(0);
    let volumes = stage.api::<PersistentVolumeClaim>();
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    let claim = format!("data-{lost}");
    volumes.delete(&claim, &DeleteParams::default()).await.unwrap();
    volumes.patch(&claim, &PatchParams::default(), &free).await.unwrap();
    stage.api::<Pod>().delete(&lost, &DeleteParams::default()).await.unwrap();
    eventually("the replacement", || async {
        let story = locked(&stage.tier).story.clone();
        story.iter().any(|line| line.contains("replace")).then_some(())
    })
    .await;
    stage.comes::<CacheCluster>("demo", "Progressing", "False").await;
    assert!(!stage.pods("super").await.contains(&lost));
    stage.sound();
}

async fn scales_a_pool(stage: &Stage) {
    for size in [5, 2] {
        stage.scale(size).await;
        stage.comes::<CachePool>("edge", "Progressing", "False").await;
        let there = stage.pods("node").await.len();
        assert_eq!(there, usize::try_from(size).unwrap());
        stage.sound();
    }
}

/// Kubernetes' own autoscaler reads and writes the pool by its subresource `scale`. There are no
/// figures of loads here: what it does without them is to bring a pool within its bounds.
async fn scaled_by_kubernetes(stage: &Stage) {
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": "edge", "namespace": SPACE },
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "shoal.dev/v1alpha1", "kind": "CachePool", "name": "edge",
            },
            "minReplicas": 3, "maxReplicas": 5,
            "metrics": [{ "type": "Resource", "resource": {
                "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 60 },
            } }],
        },
    });
    stage.make::<HorizontalPodAutoscaler>(scaler).await;
    let pools = stage.api::<CachePool>();
    eventually("a pool within its bounds", || async {
        let scale = pools.get_scale("edge").await.unwrap();
        (scale.spec?.replicas? == 3 && scale.status?.replicas == 3).then_some(())
    })
    .await;
    stage.comes::<CachePool>("edge", "Ready", "True").await;
    let selector = pools.get_scale("edge").await.unwrap().status.and_then(|it| it.selector);
    let of = ListParams::default().labels(&selector.unwrap());
    assert_eq!(stage.api::<Pod>().list(&of).await.unwrap().items.len(), 3);
    let scalers = stage.api::<HorizontalPodAutoscaler>();
    let told = scalers.get("edge").await.unwrap().status.unwrap();
    assert_eq!(told.desired_replicas, 3, "{told:?}");
    scalers.delete("edge", &DeleteParams::default()).await.unwrap();
    stage.scale(2).await;
    stage.comes::<CachePool>("edge", "Progressing", "False").await;
    stage.sound();
}

/// More requests than two nodes should answer: there are more nodes, and the reason is told.
async fn scales_a_pool_by_load(stage: &Stage) {
    let target = json!({ "autoscaling": {
        "minReplicas": 2, "maxReplicas": 4, "requestsPerSecond": 20, "scaleUpAfterSeconds": 0,
    }});
    let (pools, by) = (stage.api::<CachePool>(), PatchParams::default());
    let on = Patch::Merge(json!({ "spec": target }));
    pools.patch("edge", &by, &on).await.unwrap();
    eventually("more nodes", || async {
        let told = pools.get("edge").await.unwrap().status?.autoscaling?;
        (told.desired_replicas == 4 && told.reason.contains("requests a second")).then_some(())
    })
    .await;
    stage.comes::<CachePool>("edge", "ScalingLimited", "True").await;
    let off = Patch::Merge(json!({ "spec": { "autoscaling": null } }));
    pools.patch("edge", &by, &off).await.unwrap();
    stage.comes::<CachePool>("edge", "Progressing", "False").await;
    assert_eq!(stage.pods("node").await.len(), 2);
    stage.sound();
}

async fn sites_and_runs(stage: &Stage) {
    let site = json!({ "hosts": ["docs.example.com"], "origin": "https://origin.example.com" });
    stage.make::<CacheSite>(object("CacheSite", "docs", of_demo(site))).await;
    stage.comes::<CacheSite>("docs", "Ready", "True").await;
    assert_eq!(locked(&stage.tier).sites["docs"]["host_header"], "origin");
    let purge = json!({ "purges": [{ "site": "docs" }] });
    stage.make::<CachePurge>(object("CachePurge", "all", of_demo(purge))).await;
    stage.comes::<CachePurge>("all", "Complete", "True").await;
    let purged = locked(&stage.tier).purged.clone();
    assert_eq!(purged, [json!({ "purges": [{ "site": "docs" }], "soft": false })], "once");
    let unknown = json!({ "purges": [{ "site": "unknown" }] });
    stage.make::<CachePurge>(object("CachePurge", "none", of_demo(unknown))).await;
    let told = stage.comes::<CachePurge>("none", "Complete", "False").await;
    assert_eq!(told["reason"], "Refused", "{told}");
    assert!(told["message"].as_str().unwrap().contains("no site \"unknown\""), "{told}");
    let urls = json!({ "urls": ["http://docs.example.com/a", "http://docs.example.com/b"] });
    stage.make::<CachePrefetch>(object("CachePrefetch", "warm", of_demo(urls))).await;
    stage.comes::<CachePrefetch>("warm", "Complete", "True").await;
    let done = stage.api::<CachePrefetch>().get("warm").await.unwrap().status.unwrap();
    assert_eq!((done.done, done.bytes), (2, 9), "{done:?}");
    stage.api::<CacheSite>().delete("docs", &DeleteParams::default()).await.unwrap();
    eventually("the site's end", || async {
        let gone = stage.api::<CacheSite>().get_opt("docs").await.unwrap().is_none();
        (gone && locked(&stage.tier).sites.is_empty()).then_some(())
    })
    .await;
}

/// With its cluster everything goes, and nothing is stuck.
async fn ends(stage: &Stage) {
    stage.sound();
    stage.api::<CachePool>().delete("edge", &DeleteParams::default()).await.unwrap();
    stage.api::<CacheCluster>().delete("demo", &DeleteParams::default()).await.unwrap();
    eventually("the end of everything", || async {
        let members = stage.api::<CacheMember>().list(&ListParams::default()).await.unwrap();
        let pods = stage.api::<Pod>().list(&ListParams::default()).await.unwrap();
        (members.items.is_empty() && pods.items.is_empty()).then_some(())
    })
    .await;
    // Who goes with the cluster does not hand off any more.
    locked(&stage.tier).faults.clear();
}
