//! A real control plane on loopback: etcd, API server, controller manager and scheduler, as
//! `tests/control-plane/build.sh` built them. Tests that run at a time share one; the last that lets
//! go ends it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use shoal_operator::crd;

/// The token of the tests themselves, who may do everything.
const ADMIN: &str = "tests-may-do-everything";
/// For a program to come up, and for anything else that is waited for.
const START_DEADLINE: Duration = Duration::from_secs(180);

static SHARED: Mutex<Weak<Plane>> = Mutex::new(Weak::new());

/// The control plane.
pub(crate) struct Plane {
    children: Vec<Child>,
    folder: tempfile::TempDir,
    port: u16,
}

impl Drop for Plane {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn programs() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane/build.sh");
    let output = Command::new(&script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{} failed", script.display());
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Plane {
    /// The control plane that the tests which run now share.
    pub(crate) fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plane) = shared.upgrade() {
            return plane;
        }
        let plane = Arc::new(Self::start());
        *shared = Arc::downgrade(&plane);
        plane
    }

    /// One of a test's own.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut plane = Self { children: Vec::new(), folder, port: free_port() };
        let programs = programs();
        plane.accounts_key();
        fs::write(plane.file("tokens.csv"), format!("{ADMIN},admin,admin,\"system:masters\"\n"))
            .unwrap();
        let (client, peer) = (free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        plane.run(
            &programs,
            "etcd",
            &[
                "--name=test",
                "--unsafe-no-fsync",
                "--log-level=error",
                &format!("--data-dir={}", plane.file("etcd").display()),
                &format!("--listen-client-urls={}", url(client)),
                &format!("--advertise-client-urls={}", url(client)),
                &format!("--listen-peer-urls={}", url(peer)),
                &format!("--initial-advertise-peer-urls={}", url(peer)),
                &format!("--initial-cluster=test={}", url(peer)),
            ],
        );
        let key = plane.file("accounts.key").display().to_string();
        plane.run(
            &programs,
            "kube-apiserver",
            &[
                &format!("--etcd-servers={}", url(client)),
                &format!("--cert-dir={}", plane.file("api").display()),
                "--bind-address=127.0.0.1",
                &format!("--secure-port={}", plane.port),
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=RBAC",
                &format!("--token-auth-file={}", plane.file("tokens.csv").display()),
                "--allow-privileged=true",
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--service-account-key-file={key}"),
                &format!("--service-account-signing-key-file={key}"),
            ],
        );
        plane.wait_ready();
        fs::write(plane.file("kubeconfig"), plane.kubeconfig(ADMIN)).unwrap();
        let kubeconfig = format!("--kubeconfig={}", plane.file("kubeconfig").display());
        plane.run(
            &programs,
            "kube-controller-manager",
            &[
                &kubeconfig,
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                &format!("--secure-port={}", free_port()),
                "--use-service-account-credentials=true",
                &format!("--root-ca-file={}", plane.authority().display()),
                &format!("--service-account-private-key-file={key}"),
                "--controllers=*,-node-lifecycle-controller",
            ],
        );
        plane.run(
            &programs,
            "kube-scheduler",
            &[
                &kubeconfig,
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                &format!("--secure-port={}", free_port()),
            ],
        );
        plane
    }

    fn accounts_key(&self) {
        let made = Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(self.file("accounts.key"))
            .arg("2048")
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "openssl made no key");
    }

    /// A file with [`Plane::kubeconfig`].
    pub(crate) fn kubeconfig_file(&self, name: &str, token: &str) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, self.kubeconfig(token)).unwrap();
        path
    }

    /// A file of the control plane's.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn authority(&self) -> PathBuf {
        self.file("api").join("apiserver.crt")
    }

    fn run(&mut self, programs: &Path, name: &str, arguments: &[&str]) {
        let log = fs::File::create(self.file(&format!("{name}.log"))).unwrap();
        let child = Command::new(programs.join(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.children.push(child.unwrap());
    }

    /// A kubeconfig for whoever has `token`.
    pub(crate) fn kubeconfig(&self, token: &str) -> String {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority": self.authority(),
            }}],
            "users": [{ "name": "test", "user": { "token": token } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        })
        .to_string()
    }

    fn wait_ready(&self) {
        let begun = now();
        loop {
            let ready = Command::new("curl")
                .args(["-sSf", "--cacert"])
                .arg(self.authority())
                .args(["-H", &format!("Authorization: Bearer {ADMIN}")])
                .arg(format!("https://127.0.0.1:{}/readyz", self.port))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if ready.unwrap().success() {
                return;
            }
            let log = || fs::read_to_string(self.file("kube-apiserver.log")).unwrap_or_default();
            assert!(begun.elapsed() < START_DEADLINE, "the API server does not start:\n{}", log());
            sleep(Duration::from_millis(200));
        }
    }

    /// A client for whoever has `token`.
    pub(crate) async fn client_of(&self, token: &str) -> Client {
        let mut kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig(token)).unwrap();
        let auth = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        kubeconfig.auth_infos[0].auth_info = Some(auth);
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        // A refusal is what a test wants to see.
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    /// A client that may do everything.
    pub(crate) async fn client(&self) -> Client {
        self.client_of(ADMIN).await
    }
}

#[expect(clippy::disallowed_methods, reason = "a test waits by the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until `found` gives something.
pub(crate) async fn eventually<T, F>(what: &str, mut found: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begun = now();
    loop {
        if let Some(value) = found().await {
            return value;
        }
        assert!(begun.elapsed() < START_DEADLINE, "{what}: not within {START_DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Brings Shoal's definitions to the server, and waits until it serves them.
pub(crate) async fn define(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let by = PatchParams::apply("tests").force();
    for definition in crd::all() {
        let name = definition.metadata.name.clone().unwrap();
        api.patch(&name, &by, &Patch::Apply(&definition)).await.unwrap();
        let api = api.clone();
        eventually(&name, || async {
            let status = api.get(&name).await.unwrap().status?;
            let conditions = status.conditions.unwrap_or_default();
            let is = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
            let wrong = conditions.iter().find(|c| c.type_ == "NonStructuralSchema");
            assert!(wrong.is_none(), "{name}: {wrong:?}");
            is("Established").then_some(())
        })
        .await;
    }
}

/// A namespace of the test's own, with its account there.
pub(crate) async fn namespace(client: &Client, name: &str) {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace =
        serde_json::from_value(serde_json::json!({ "metadata": { "name": name } })).unwrap();
    api.create(&PostParams::default(), &namespace).await.unwrap();
}

/// Gives an account in the namespace exactly the rights of the rendered manifests, but for those that
/// `without` names, and returns its token.
pub(crate) async fn operators_token(client: &Client, namespace: &str, without: &str) -> String {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/manifests/operator-namespaced/operator.yaml");
    let text = fs::read_to_string(manifest).unwrap();
    let text = text.replace("namespace: shoal\n", &format!("namespace: {namespace}\n"));
    for document in text.split("\n---\n") {
        let object: serde_json::Value = serde_saphyr::from_str(document).unwrap_or_default();
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let (group, plural) = match kind.as_str() {
            "ServiceAccount" => ("", "serviceaccounts"),
            "Role" => ("rbac.authorization.k8s.io", "roles"),
            "RoleBinding" => ("rbac.authorization.k8s.io", "rolebindings"),
            _ => continue,
        };
        let mut object: DynamicObject = serde_json::from_value(object).unwrap();
        if let Some(rules) = object.data["rules"].as_array_mut().filter(|_| !without.is_empty()) {
            let names = |rule: &serde_json::Value| rule["resources"].to_string().contains(without);
            rules.retain(|rule| !names(rule));
        }
        let gvk = GroupVersionKind::gvk(group, "v1", &kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest::default();
    let by = PostParams::default();
    let answer = accounts.create_token_request("shoal-operator", &by, &request).await.unwrap();
    answer.status.unwrap().token
}
