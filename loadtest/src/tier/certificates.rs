//! Certificates for simulated members, signed by the throw-away authority that `shoal up` made in
//! its data directory. They carry the names that super-nodes check callers by.

use std::{path::Path, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::TierError;
use crate::clock;

/// The name that every member's certificate carries.
const MEMBER_NAME: &str = "member.shoal.internal";
/// How long certificates hold, in seconds.
const VALID_S: u64 = 24 * 3600;

/// Signs certificates of one cluster.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A simulated member's certificate and key.
#[derive(Clone)]
pub struct MemberIdentity {
    ca: Certificate,
    identity: Identity,
}

/// The name under which the member called `name` is certified.
#[must_use]
pub fn node_name(name: &str) -> String {
    format!("{name}.node.shoal.internal")
}

impl Authority {
    /// The authority in `folder`, as `shoal up` names it for `cluster_id`.
    ///
    /// # Errors
    /// When its files cannot be read or understood.
    pub fn open(folder: &Path, cluster_id: &str) -> Result<Self, TierError> {
        let read = |file: &str| {
            let path = folder.join(file);
            std::fs::read_to_string(&path).map_err(|source| TierError::File { path, source })
        };
        let certificate_pem = read("ca.pem")?;
        let key = KeyPair::from_pem(&read("ca.key")?)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("Shoal throw-away CA of {cluster_id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Ok(Self { certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// A certificate for the member called `name`.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate.
    pub fn issue(&self, name: &str) -> Result<MemberIdentity, TierError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        let names = [node_name(name), MEMBER_NAME.to_owned()];
        for name in names {
            params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let now_s = clock::wall_unix_ms() / 1_000;
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(now_s.saturating_sub(3_600));
        params.not_after = epoch + Duration::from_secs(now_s + VALID_S);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(MemberIdentity {
            ca: Certificate::from_pem(&self.certificate_pem),
            identity: Identity::from_pem(certificate.pem(), key.serialize_pem()),
        })
    }
}

impl MemberIdentity {
    /// The client's side of mutual TLS with the super-node called `super_node`.
    #[must_use]
    pub fn toward(&self, super_node: &str) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(self.identity.clone())
            .ca_certificate(self.ca.clone())
            .domain_name(node_name(super_node))
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
