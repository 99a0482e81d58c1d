//! Members' certificates: issued by the operator from the cluster's authority, or asked of
//! cert-manager, and replaced before they end. Members read new files without a restart.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use crate::certs::{self, Authority, Terms};
use crate::clock;
use crate::context::{Context, Doing, Error};
use crate::crd::cluster::Issuer;
use crate::crd::{CacheCluster, CacheMember};
use crate::resources::{names, shared};

const HOUR_S: i64 = 3_600;

/// A super-node's.
pub(super) async fn of_member(
    context: &Context,
    cluster: &CacheCluster,
    member: &CacheMember,
) -> Result<(), Error> {
    of(context, cluster, member, &member.name_any()).await
}

/// The certificate of the member called `name`, which goes with `owner`.
pub(super) async fn of<K>(
    context: &Context,
    cluster: &CacheCluster,
    owner: &K,
    name: &str,
) -> Result<(), Error>
where
    K: Resource<DynamicType = ()>,
{
    if cluster.spec.tls.issuer == Issuer::CertManager {
        return ask_cert_manager(context, cluster, owner, name).await;
    }
    let (cluster_name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let api = context.api::<Secret>(&namespace);
    let own = names::certificate(name);
    let now_s = clock::unix_s();
    let there = api.get_opt(&own).await.doing("read a certificate")?;
    let renew_at = there.as_ref().and_then(|secret| {
        secret.annotations().get(names::RENEW_AT).and_then(|text| text.parse::<i64>().ok())
    });
    if renew_at.is_some_and(|at| now_s < at) {
        return Ok(());
    }
    let Some(authority) = authority(context, &cluster_name, &namespace).await? else {
        return Ok(());
    };
    let tls = &cluster.spec.tls;
    let terms = Terms {
        valid_s: i64::from(tls.valid_hours) * HOUR_S,
        renew_before_s: i64::from(tls.renew_before_hours) * HOUR_S,
    };
    let id = names::cluster_id(cluster);
    let issued = certs::issue(now_s, &authority, (&id, name), terms)?;
    let data = [
        ("ca.crt", authority.cert.as_str()),
        ("tls.crt", issued.cert.as_str()),
        ("tls.key", issued.key.as_str()),
    ];
    let mut secret = shared::secret(owner, &cluster_name, own, &data);
    let at = (names::RENEW_AT.to_owned(), issued.renew_at_s.to_string());
    secret.metadata.annotations = Some([at].into());
    context.metrics.certificates.inc();
    context.writer.ensure(&secret).await.doing("write a certificate")
}

async fn authority(
    context: &Context,
    cluster: &str,
    namespace: &str,
) -> Result<Option<Authority>, Error> {
    let secret = context.api::<Secret>(namespace).get_opt(&names::authority_secret(cluster)).await;
    let Some(secret) = secret.doing("read the authority")? else { return Ok(None) };
    let data = secret.data.unwrap_or_default();
    let text = |key: &str| {
        data.get(key)
            .map(|value| String::from_utf8_lossy(&value.0).into_owned())
            .unwrap_or_default()
    };
    Ok(Some(Authority { cert: text("ca.crt"), key: text("ca.key") }))
}

async fn ask_cert_manager<K>(
    context: &Context,
    cluster: &CacheCluster,
    owner: &K,
    name: &str,
) -> Result<(), Error>
where
    K: Resource<DynamicType = ()>,
{
    let Some(issuer) = &cluster.spec.tls.issuer_ref else { return Ok(()) };
    let (cluster_name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let kind = GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate");
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &namespace, &resource);
    let own = names::certificate(name);
    let spec = json!({
        "secretName": own,
        "dnsNames": certs::names(name),
        "duration": format!("{}h0m0s", cluster.spec.tls.valid_hours),
        "renewBefore": format!("{}h0m0s", cluster.spec.tls.renew_before_hours),
        "usages": ["digital signature", "server auth", "client auth"],
        "privateKey": { "algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always" },
        "issuerRef": { "name": issuer.name, "kind": issuer.kind, "group": "cert-manager.io" },
    });
    let there = api.get_opt(&own).await.doing("read a cert-manager Certificate")?;
    if there.is_some_and(|certificate| certificate.data["spec"] == spec) {
        return Ok(());
    }
    let whole = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate",
        "metadata": names::meta(owner, &cluster_name, None, own.clone()), "spec": spec,
    });
    context.metrics.writes.inc();
    let by = PatchParams::apply(names::MANAGER).force();
    api.patch(&own, &by, &Patch::Apply(&whole)).await.doing("ask for a certificate").map(|_| ())
}
