//! Certificates of the two ends, by an authority that is forgotten at once.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use shoal_node::tls::{MEMBER_NAME, TlsFiles, node_name};

use super::TransferError;

/// The two ends' names as members.
pub(super) const NAMES: [&str; 2] = ["uploader", "downloader"];

/// Where an end's identity stands.
pub(super) fn files(folder: &Path, name: &str) -> TlsFiles {
    TlsFiles {
        ca: folder.join("ca.pem"),
        cert: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    }
}

/// Writes them all.
pub(super) fn write(folder: &Path) -> Result<(), TransferError> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    for name in NAMES {
        let files = files(folder, name);
        let mut params = CertificateParams::default();
        for name in [node_name(name), MEMBER_NAME.to_owned()] {
            params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        std::fs::write(&files.ca, authority.pem())?;
        std::fs::write(&files.cert, certificate.pem())?;
        std::fs::write(&files.key, key.serialize_pem())?;
    }
    Ok(())
}
