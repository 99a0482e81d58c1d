//! The cluster's own certificate authority: issues members' certificates, which carry the names that
//! members check, and says when one is to be replaced.
//!
//! Not here: replacing the authority itself, which holds for ten years.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

/// The certificate name that every member carries.
const MEMBER_NAME: &str = "member.shoal.internal";
/// What follows a member's own name in its certificate.
const NODE_SUFFIX: &str = "node.shoal.internal";
/// How long the authority holds: it outlives what it issues.
const AUTHORITY_VALID_S: i64 = 10 * 365 * 24 * 3_600;
/// Clocks that run behind still accept a new certificate.
const CLOCK_SKEW_S: i64 = 3_600;

/// An authority's certificate and key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// The certificate.
    pub cert: String,
    /// The key.
    pub key: String,
}

/// A member's certificate and key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// The key.
    pub key: String,
    /// When it is to be replaced, in Unix seconds.
    pub renew_at_s: i64,
}

/// For how long certificates hold, and how long before their end they are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Seconds that they hold.
    pub valid_s: i64,
    /// Seconds before their end.
    pub renew_before_s: i64,
}

/// The names in the certificate of the member called `name`.
#[must_use]
pub fn names(name: &str) -> [String; 3] {
    [format!("{name}.{NODE_SUFFIX}"), MEMBER_NAME.to_owned(), "localhost".to_owned()]
}

/// Makes an authority for the cluster called `cluster_id`.
///
/// # Errors
/// When no key or certificate can be made.
pub fn authority(now_s: i64, cluster_id: &str) -> Result<Authority, rcgen::Error> {
    let params = authority_params(now_s, cluster_id);
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?.pem();
    Ok(Authority { cert, key: key.serialize_pem() })
}

/// Issues a certificate for the member called `name`.
///
/// # Errors
/// When the authority's key cannot be read, or the name cannot stand in a certificate.
pub fn issue(
    now_s: i64,
    authority: &Authority,
    (cluster_id, name): (&str, &str),
    terms: Terms,
) -> Result<Issued, rcgen::Error> {
    let issuer_key = KeyPair::from_pem(&authority.key)?;
    let issuer = Issuer::new(authority_params(now_s, cluster_id), issuer_key);
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    for dns in names(name) {
        params.subject_alt_names.push(SanType::DnsName(dns.try_into()?));
    }
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now_s, terms.valid_s);
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, &issuer)?.pem();
    let renew_at_s = now_s + (terms.valid_s - terms.renew_before_s).max(0);
    Ok(Issued { cert, key: key.serialize_pem(), renew_at_s })
}

fn authority_params(now_s: i64, cluster_id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("Shoal CA of {cluster_id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now_s, AUTHORITY_VALID_S);
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn set_validity(params: &mut CertificateParams, now_s: i64, valid_s: i64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let seconds = |s: i64| Duration::from_secs(u64::try_from(s).unwrap_or_default());
    params.not_before = epoch + seconds(now_s - CLOCK_SKEW_S);
    params.not_after = epoch + seconds(now_s + valid_s);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: i64 = 1_790_000_000;
    const TERMS: Terms = Terms { valid_s: 90 * 86_400, renew_before_s: 30 * 86_400 };

    #[test]
    fn a_certificate_is_replaced_before_its_end() {
        let ca = authority(NOW_S, "default.demo").unwrap();
        let issued = issue(NOW_S, &ca, ("default.demo", "demo-super-x"), TERMS).unwrap();
        assert_eq!(issued.renew_at_s, NOW_S + 60 * 86_400);
        assert!(issued.cert.starts_with("-----BEGIN CERTIFICATE-----"));
        let again = issue(NOW_S, &ca, ("default.demo", "demo-super-x"), TERMS).unwrap();
        assert_ne!(issued.key, again.key, "every certificate has a key of its own");
    }

    #[test]
    fn a_broken_authority_is_an_error() {
        let broken = Authority { cert: String::new(), key: "nonsense".to_owned() };
        assert!(issue(NOW_S, &broken, ("default.demo", "a"), TERMS).is_err());
    }
}
