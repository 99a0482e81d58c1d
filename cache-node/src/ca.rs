//! A throw-away certificate authority and the secrets of a local cluster. Members' certificates
//! carry the names that [`crate::tls`] checks.
//!
//! Not here: rotation and revocation. In Kubernetes certificates come from outside.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::clock;
use crate::files::{self, FileError, PLAIN_MODE, SECRET_MODE};
use crate::tls::{MEMBER_NAME, TlsFiles, node_name};

/// Bytes of a cluster's secret.
pub const SECRET_BYTES: usize = 32;
/// How long certificates hold.
const VALID_S: u64 = 365 * 24 * 3600;
/// The authority outlives the members' certificates, which are made anew at each start.
const AUTHORITY_VALID_S: u64 = 10 * VALID_S;
/// Clocks that run behind still accept a new certificate.
const CLOCK_SKEW_S: u64 = 3600;

/// Why certificates or secrets could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Key or certificate could not be made or read.
    #[error("certificate of {subject}: {source}")]
    Certificate {
        /// Whose.
        subject: String,
        /// What went wrong.
        source: rcgen::Error,
    },
    /// The operating system has no randomness to give.
    #[error("no random secret: {0}")]
    Random(std::io::Error),
}

/// A certificate authority kept in one folder as `ca.pem` and `ca.key`.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The authority kept in `folder`, made when there is none. `cluster_id` is part of its name.
    ///
    /// # Errors
    /// When its files cannot be read or written.
    pub fn open(folder: &Path, cluster_id: &str) -> Result<Self, CaError> {
        let subject = format!("Shoal throw-away CA of {cluster_id}");
        let failed = |source| CaError::Certificate { subject: subject.clone(), source };
        let (cert_path, key_path) = (folder.join("ca.pem"), folder.join("ca.key"));
        let params = authority_params(&subject);
        let kept = (files::read_small(&cert_path)?, files::read_small(&key_path)?);
        if let (Some(certificate_pem), Some(key)) = kept {
            let key = KeyPair::from_pem(&key).map_err(failed)?;
            return Ok(Self { certificate_pem, issuer: Issuer::new(params, key) });
        }
        let key = KeyPair::generate().map_err(failed)?;
        let certificate_pem = params.self_signed(&key).map_err(failed)?.pem();
        files::make_folder(folder)?;
        files::write_whole(&key_path, key.serialize_pem().as_bytes(), SECRET_MODE)?;
        files::write_whole(&cert_path, certificate_pem.as_bytes(), PLAIN_MODE)?;
        Ok(Self { certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// Issues a certificate for the member called `name` and keeps it in `folder`.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate or a file cannot be written.
    pub fn issue(&self, folder: &Path, name: &str) -> Result<TlsFiles, CaError> {
        let failed = |source| CaError::Certificate { subject: name.to_owned(), source };
        let params = member_params(name).map_err(failed)?;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let tls = TlsFiles {
            ca: folder.join("ca.pem"),
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        };
        files::make_folder(folder)?;
        files::write_whole(&tls.key, key.serialize_pem().as_bytes(), SECRET_MODE)?;
        files::write_whole(&tls.cert, certificate.pem().as_bytes(), PLAIN_MODE)?;
        files::write_whole(&tls.ca, self.certificate_pem.as_bytes(), PLAIN_MODE)?;
        Ok(tls)
    }
}

fn authority_params(subject: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(subject);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_VALID_S);
    params
}

fn member_params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.subject_alt_names = vec![
        SanType::DnsName(node_name(name).try_into()?),
        SanType::DnsName(MEMBER_NAME.try_into()?),
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    ];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, VALID_S);
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn set_validity(params: &mut CertificateParams, valid_s: u64) {
    let now_s = clock::unix_ms() / 1000;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now_s.saturating_sub(CLOCK_SKEW_S));
    params.not_after = epoch + Duration::from_secs(now_s + valid_s);
}

/// Makes the cluster's secret at `path`, [`SECRET_BYTES`] in hexadecimal, unless it is there.
///
/// # Errors
/// When it cannot be read or written.
pub fn ensure_secret(path: &Path) -> Result<(), CaError> {
    if files::read_small(path)?.is_some() {
        return Ok(());
    }
    let mut secret = [0u8; SECRET_BYTES];
    clock::random(&mut secret).map_err(CaError::Random)?;
    let mut text = blake3::Hash::from_bytes(secret).to_hex().to_string();
    text.push('\n');
    Ok(files::write_whole(path, text.as_bytes(), SECRET_MODE)?)
}

#[cfg(test)]
mod tests;
