//! The objects that the proof makes itself: an origin, which is nginx with files, and the load.

use serde_json::{Value, json};

use crate::kube::{CLUSTER, Kube, NAMESPACE, name};

/// The objects that the origin has and the load asks for.
const OBJECTS: &[&str] =
    &["--objects=200", "--sizes=4KiB:60,64KiB:30,1MiB:8,4MiB:2", "--seed=7", "--prefix=proof"];
/// The site's host name.
pub(crate) const HOST: &str = "files.proof.invalid";
/// The origin's name.
pub(crate) const ORIGIN: &str = "origin";

const NGINX: &str = r#"
daemon off;
worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
events { worker_connections 512; }
http {
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    log_format bytes escape=json '{"bytes":$body_bytes_sent,"status":$status,"uri":"$uri"}';
    access_log /dev/stdout bytes;
    default_type application/octet-stream;
    sendfile on;
    keepalive_timeout 300s;
    server {
        listen 8080;
        root /content;
        location = /ready { return 200 "ready"; }
        location / { add_header Cache-Control "max-age=120"; }
    }
}
"#;

fn restricted(mut pod: Value) -> Value {
    pod["automountServiceAccountToken"] = json!(false);
    pod["securityContext"] = json!({
        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    for list in ["containers", "initContainers"] {
        for container in pod[list].as_array_mut().into_iter().flatten() {
            container["securityContext"] = json!({
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            });
        }
    }
    pod
}

fn meta(name: &str) -> Value {
    json!({ "name": name, "namespace": NAMESPACE, "labels": { "app": name } })
}

/// The machine on which origin and load are: it is the one that is not drained.
pub(crate) fn home_machine(kube: &Kube) -> String {
    let machines = kube.list("nodes", "!node-role.kubernetes.io/control-plane");
    machines.iter().map(name).min().unwrap_or_default()
}

/// The origin.
pub(crate) fn origin(kube: &Kube) -> Vec<Value> {
    let s = &kube.settings;
    let volume = |name: &str, path: &str| json!({ "name": name, "mountPath": path });
    let args = [&["objects", "/content"], OBJECTS].concat();
    let pod = json!({
        "nodeName": home_machine(kube),
        "volumes": [
            { "name": "content", "emptyDir": {} }, { "name": "tmp", "emptyDir": {} },
            { "name": "config", "configMap": { "name": ORIGIN } },
        ],
        "initContainers": [{
            "name": "content", "image": s.image("shoal-loadtest", &s.versions[0]),
            "imagePullPolicy": s.pull_policy,
            "args": args,
            "volumeMounts": [volume("content", "/content")],
        }],
        "containers": [{
            "name": "nginx", "image": s.nginx, "imagePullPolicy": s.pull_policy,
            "command": ["nginx", "-e", "/dev/stderr", "-c", "/config/nginx.conf"],
            "ports": [{ "name": "http", "containerPort": 8080 }],
            "readinessProbe": { "tcpSocket": { "port": "http" }, "periodSeconds": 1 },
            "volumeMounts": [
                volume("content", "/content"), volume("tmp", "/tmp"), volume("config", "/config"),
            ],
        }],
    });
    vec![
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(ORIGIN),
            "data": { "nginx.conf": NGINX },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta(ORIGIN),
            "spec": {
                "selector": { "app": ORIGIN },
                "ports": [{ "name": "http", "port": 80, "targetPort": "http" }],
            },
        }),
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta(ORIGIN), "spec": restricted(pod) }),
    ]
}

/// Bytes of bodies that have left the origin, by its own log.
pub(crate) fn origin_bytes(kube: &Kube) -> u64 {
    let log = kube.kubectl(&["logs", ORIGIN, "-c", "nginx"]).unwrap_or_default();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|line| line["bytes"].as_u64()).sum()
}

/// The load: through the service, by three of its names, so that there are three sets of
/// connections; every eighth request is the last of its connection.
pub(crate) fn load(kube: &Kube, name: &str) -> Value {
    let s = &kube.settings;
    let edge = |end: &str| format!("--edge=http://{CLUSTER}.{NAMESPACE}{end}");
    let mut args = vec!["run".to_owned(), edge(""), edge(".svc"), edge(".svc.cluster.local")];
    args.push(format!("--host={HOST}"));
    args.push(format!("--rate={}", s.rate));
    let fixed = ["--duration=24h", "--resend", "--close-every=8", "--follow", "--json"];
    args.extend(fixed.iter().chain(OBJECTS).map(|arg| (*arg).to_owned()));
    let pod = json!({
        "nodeName": home_machine(kube), "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 60,
        "containers": [{
            "name": "load", "image": s.image("shoal-loadtest", &s.versions[0]),
            "imagePullPolicy": s.pull_policy, "args": args,
        }],
    });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta(name), "spec": restricted(pod) })
}
