//! What happens to a cluster: pods, volumes, machines and the operator itself are lost; and what is
//! changed while it runs.

use serde_json::{Value, json};

use crate::Found;
use crate::kube::{CLUSTER, Kube, NAMESPACE, OPERATOR, POOL, name, sleep_s};
use crate::objects;
use crate::steps;

fn pods(kube: &Kube, role: &str) -> Vec<Value> {
    kube.list("pods", &format!("shoal.dev/cluster={CLUSTER},shoal.dev/role={role}"))
}

/// A super-node loses its pod and its volume at once, the leader: a new identity takes its place.
pub(crate) fn lose_volume(kube: &Kube) -> Found {
    let leader = kube.get("cachecluster", CLUSTER)["status"]["leader"].clone();
    let leader = leader.as_str().ok_or("nobody leads")?.to_owned();
    let volume = format!("data-{leader}");
    kube.kubectl(&["delete", "persistentvolumeclaim", &volume, "--wait=false"])?;
    kube.kubectl(&["delete", "pod", &leader, "--wait=false"])?;
    kube.wait(300.0, "the lost one's place", || {
        if kube.get("cachemember", &leader)["metadata"]["name"].is_string() {
            return Err(format!("{leader} is still there"));
        }
        kube.is_ready("cachecluster", CLUSTER)
    })?;
    kube.settled(120.0)?;
    let quorum = kube.get("cachecluster", CLUSTER)["status"]["quorum"].clone();
    Ok(format!("the leader, {leader}; then quorum {quorum}"))
}

/// Somebody deletes a node's pod.
pub(crate) fn delete_node(kube: &Kube) -> Found {
    let pod = pods(kube, "node").first().map(name).ok_or("no node")?;
    kube.kubectl(&["delete", "pod", &pod, "--wait=true"])?;
    kube.settled(180.0)?;
    Ok(pod)
}

/// The site loses its host for a moment: what is asked meanwhile has to fail.
pub(crate) fn lose_host(kube: &Kube) -> Found {
    let hosts = kube.get("cachesite", "files")["spec"]["hosts"].clone();
    let other = json!({ "spec": { "hosts": ["other.proof.invalid"] } });
    kube.patch("cachesite", "files", &other)?;
    sleep_s(5);
    kube.patch("cachesite", "files", &json!({ "spec": { "hosts": hosts } }))?;
    kube.wait(60.0, "the site", || kube.is_ready("cachesite", "files"))?;
    sleep_s(2);
    Ok("the site had another host for a while: requests have to fail".to_owned())
}

/// All of the operator's pods are killed at once, in the middle of a change.
pub(crate) fn kill_operator(kube: &Kube) -> Found {
    kube.kubectl(&["scale", "cachepool", POOL, "--replicas=3"])?;
    sleep_s(2);
    let selector = "app.kubernetes.io/component=operator";
    let args = ["delete", "pods", "-l", selector, "--force", "--grace-period=0"];
    let said = kube.kubectl(&[&["--namespace", OPERATOR], &args[..]].concat())?;
    steps::nodes(kube, 3)?;
    steps::nodes(kube, 2)?;
    Ok(format!("{} pods, while the pool grew from 2 to 3", said.lines().count()))
}

/// Every member's certificate is replaced, and taken in by who shows it.
pub(crate) fn rotate_certificates(kube: &Kube) -> Found {
    let all = format!("shoal.dev/cluster={CLUSTER}");
    let secrets = || {
        let secrets = kube.list("secrets", &all);
        let own = secrets.into_iter().filter(|secret| name(secret).ends_with("-tls"));
        own.map(|secret| (name(&secret), secret["data"]["tls.crt"].clone())).collect::<Vec<_>>()
    };
    let before = secrets();
    for (secret, _) in &before {
        kube.kubectl(&["annotate", "secret", secret, "--overwrite", "shoal.dev/renew-at=1"])?;
    }
    kube.wait(120.0, "new certificates", || {
        let same = secrets().into_iter().filter(|entry| before.contains(entry)).count();
        if same == 0 { Ok(()) } else { Err(format!("{same} are as they were")) }
    })?;
    // Machines bring a changed secret to its pods within a minute or so; members say when they read.
    kube.wait(180.0, "nobody took in", || {
        let members = [pods(kube, "super"), pods(kube, "node")].concat();
        let read = members.iter().filter(|pod| took_in(kube, &name(pod))).count();
        match read == members.len() {
            true => Ok(()),
            false => Err(format!("{read} of {} members took theirs in", members.len())),
        }
    })?;
    kube.settled(60.0)?;
    Ok(format!("{} certificates replaced, and taken in without a restart", before.len()))
}

fn took_in(kube: &Kube, pod: &str) -> bool {
    let log = kube.kubectl(&["logs", pod, "--since=10m"]).unwrap_or_default();
    log.lines().any(|line| line.contains("there is a new certificate"))
}

/// The site's policy is changed.
pub(crate) fn change_site(kube: &Kube) -> Found {
    let before = kube.get("cachesite", "files")["status"]["revision"].clone();
    kube.patch("cachesite", "files", &json!({ "spec": { "maxObjectBytes": 64 << 20 } }))?;
    kube.wait(60.0, "the site", || kube.is_ready("cachesite", "files"))?;
    let status = kube.get("cachesite", "files")["status"].clone();
    if status["revision"] == before {
        return Err(format!("the revision is still {before}"));
    }
    Ok(format!("revision {} on {} members", status["revision"], status["appliedOn"]))
}

/// A machine is drained as for its maintenance, and comes back.
pub(crate) fn drain_machine(kube: &Kube) -> Found {
    let home = objects::home_machine(kube);
    let machines = kube.list("nodes", "");
    let on = |machine: &str| {
        let members = [pods(kube, "super"), pods(kube, "node")].concat();
        members.iter().filter(|pod| pod["spec"]["nodeName"] == machine).count()
    };
    let others = machines.iter().map(name).filter(|machine| *machine != home);
    let Some(machine) = others.max_by_key(|machine| on(machine)) else {
        return Ok("skipped: the cluster has one machine only".to_owned());
    };
    let moved = on(&machine);
    let args = ["drain", &machine, "--ignore-daemonsets", "--delete-emptydir-data", "--force"];
    let drained = kube.kubectl(&[&args[..], &["--timeout=240s"]].concat());
    sleep_s(5);
    kube.kubectl(&["uncordon", &machine])?;
    drained?;
    kube.settled(240.0)?;
    Ok(format!("{machine} with {moved} members; namespace {NAMESPACE}"))
}
