//! What people do to a cluster on purpose: install, upgrade, resize.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::Found;
use crate::kube::{CLUSTER, Kube, NAMESPACE, OPERATOR, POOL, Watch, name, serves};
use crate::objects::{self, HOST, ORIGIN};

/// Release of the operator.
const OPERATOR_RELEASE: &str = "shoal";

fn chart() -> String {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/shoal");
    chart.display().to_string()
}

/// Installs or upgrades the operator.
fn operator(kube: &Kube, version: &str) -> Result<(), String> {
    let values = json!({
        "registry": kube.settings.registry,
        "image": { "pullPolicy": kube.settings.pull_policy },
        "operator": { "image": { "tag": version } },
    });
    let args = ["upgrade", "--install", OPERATOR_RELEASE, &chart(), "--namespace", OPERATOR];
    let more = ["--create-namespace", "--wait", "--timeout", "120s"];
    kube.helm(&[&args[..], &more].concat(), &values).map(|_| ())
}

/// Installs or upgrades the cluster, its pool and its site.
fn cluster(kube: &Kube, version: &str) -> Result<(), String> {
    let values = json!({
        "registry": kube.settings.registry,
        "image": { "tag": version, "pullPolicy": kube.settings.pull_policy },
        "crds": { "enabled": false }, "operator": { "enabled": false },
        "cluster": { "enabled": true, "spec": {
            "superNodes": { "replicas": 3, "storage": { "size": "1Gi" } },
        } },
        "pools": { POOL: {
            "replicas": 2, "storage": { "size": "1Gi" }, "memory": "64Mi",
        } },
        "sites": { "files": {
            "hosts": [HOST, "*"], "origin": format!("http://{ORIGIN}.{NAMESPACE}.svc"),
        } },
    });
    let args = ["upgrade", "--install", CLUSTER, &chart(), "--namespace", NAMESPACE];
    kube.helm(&args, &values).map(|_| ())
}

/// Installs everything; the seconds until the first answer.
pub(crate) fn install(kube: &Kube) -> Result<(f64, String), String> {
    let space = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": name, "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
            } },
        })
    };
    kube.apply(&[space(NAMESPACE), space(OPERATOR)])?;
    kube.apply(&objects::origin(kube))?;
    kube.wait(90.0, "the origin is not ready", || match serves(&kube.get("pod", ORIGIN)) {
        true => Ok(()),
        false => Err("its pod is not ready".to_owned()),
    })?;
    let version = &kube.settings.versions[0];
    let watch = Watch::start();
    operator(kube, version)?;
    let operator_s = watch.seconds();
    cluster(kube, version)?;
    let asked = format!("/api/v1/namespaces/{NAMESPACE}/services/{CLUSTER}:http/proxy/ready");
    kube.wait(180.0, "nobody answers", || kube.kubectl(&["get", "--raw", &asked]).map(|_| ()))?;
    let seconds = watch.seconds();
    kube.settled(180.0)?;
    let whole_s = watch.seconds();
    let note = format!("operator after {operator_s:.0} s, all ready after {whole_s:.0} s");
    Ok((seconds, note))
}

/// Pods by role and version, of those that serve.
pub(crate) fn serving(kube: &Kube) -> BTreeMap<(String, String), usize> {
    let mut seen = BTreeMap::new();
    for pod in kube.list("pods", &format!("shoal.dev/cluster={CLUSTER}")) {
        let role = pod["metadata"]["labels"]["shoal.dev/role"].as_str().unwrap_or_default();
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
        let version = image.rsplit(':').next().unwrap_or_default();
        if serves(&pod) {
            *seen.entry((role.to_owned(), version.to_owned())).or_default() += 1;
        }
    }
    seen
}

/// Rolls all tiers to the next version; both versions have to be seen serving side by side.
pub(crate) fn upgrade(kube: &Kube) -> Found {
    let [old, new] = &kube.settings.versions;
    operator(kube, new)?;
    cluster(kube, new)?;
    let mut mixed = [0_usize; 2];
    let (mut looks, count) = (0, |seen: &BTreeMap<_, usize>, role: &str, version: &String| {
        seen.get(&(role.to_owned(), version.clone())).copied().unwrap_or_default()
    });
    kube.wait(600.0, "the upgrade", || {
        let seen = serving(kube);
        looks += 1;
        for (mixed, role) in mixed.iter_mut().zip(["super", "node"]) {
            let both = count(&seen, role, old) > 0 && count(&seen, role, new) > 0;
            *mixed += usize::from(both);
        }
        if count(&seen, "super", new) < 3 || count(&seen, "node", new) < 2 {
            return Err(format!("{seen:?} {:?}", kube.is_ready("cachecluster", CLUSTER)));
        }
        kube.is_ready("cachecluster", CLUSTER)?;
        kube.is_ready("cachepool", POOL)
    })?;
    // The last that left is up until its lease has run out.
    kube.wait(60.0, "the members' own word", || {
        let version = kube.get("cachecluster", CLUSTER)["status"]["version"].clone();
        match version.as_str() == Some(new) {
            true => Ok(()),
            false => Err(format!("they say that they run {version}, not {new}")),
        }
    })?;
    if mixed.contains(&0) {
        return Err(format!("both versions were never seen side by side: {mixed:?}"));
    }
    let [supers, nodes] = mixed;
    Ok(format!(
        "{old} to {new}; both served side by side in {supers} (super-nodes) and {nodes} (nodes) of \
         {looks} looks"
    ))
}

fn super_nodes(kube: &Kube, replicas: usize) -> Found {
    kube.patch(
        "cachecluster",
        CLUSTER,
        &json!({ "spec": { "superNodes": { "replicas": replicas } } }),
    )?;
    kube.settled(400.0)?;
    let quorum = kube.get("cachecluster", CLUSTER)["status"]["quorum"].clone();
    let members = kube.list("cachemembers", "app.kubernetes.io/instance=demo").len();
    if quorum != format!("{replicas}/{replicas}") {
        return Err(format!("ready, and the quorum is {quorum}"));
    }
    Ok(format!("quorum {quorum}, {members} CacheMembers"))
}

pub(crate) fn more_super_nodes(kube: &Kube) -> Found {
    super_nodes(kube, 5)
}

pub(crate) fn fewer_super_nodes(kube: &Kube) -> Found {
    super_nodes(kube, 3)
}

/// Scales the pool, and waits until it has so many pods.
pub(crate) fn nodes(kube: &Kube, replicas: usize) -> Found {
    let to = format!("--replicas={replicas}");
    kube.kubectl(&["scale", "cachepool", POOL, &to])?;
    kube.settled(400.0)?;
    let selector = format!("shoal.dev/pool={POOL}");
    kube.wait(120.0, "the pods", || match kube.list("pods", &selector).len() {
        count if count == replicas => Ok(()),
        count => Err(format!("{count} pods")),
    })?;
    let pods = kube.list("pods", &selector);
    let mut names: Vec<String> = pods.iter().map(name).collect();
    names.sort();
    Ok(names.join(" "))
}

pub(crate) fn more_nodes(kube: &Kube) -> Found {
    nodes(kube, 4)
}

pub(crate) fn fewer_nodes(kube: &Kube) -> Found {
    nodes(kube, 2)
}
