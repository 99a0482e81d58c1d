//! Mutual TLS between members. A member's certificate names it twice: by [`MEMBER_NAME`], which
//! every member carries, and by its own name under [`node_name`]. Callers check the name they mean;
//! servers check a caller's claim against its certificate by [`claims_name`].
//!
//! Plain text exists only as [`Security::Insecure`], which configuration must ask for by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// The name that every member's certificate carries.
pub const MEMBER_NAME: &str = "member.shoal.internal";
const NODE_SUFFIX: &str = "node.shoal.internal";
/// What HTTP/2, and with it gRPC, is called where a connection's protocol is agreed on (RFC 7301).
pub const HTTP2: &[u8] = b"h2";

/// The certificate name of the member called `name`.
pub fn node_name(name: &str) -> String {
    format!("{name}.{NODE_SUFFIX}")
}

/// Files of a member's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The cluster's certificate authority, PEM.
    pub ca: PathBuf,
    /// This member's certificate, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// A file of the identity that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}; expected a readable PEM file", path.display())]
pub struct TlsError {
    what: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

/// An identity that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No PEM, or not what it should be.
    #[error(transparent)]
    Pem(#[from] pem::Error),
    /// The authority is none.
    #[error(transparent)]
    Authority(#[from] VerifierBuilderError),
    /// Certificate and key do not belong together.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// How members speak to one another.
#[derive(Clone)]
pub enum Security {
    /// Both sides prove who they are.
    Mutual(Arc<MemberIdentity>),
    /// Plain text, identities unchecked: for experiments, by explicit choice.
    Insecure,
}

/// A member's certificate, key and authority.
pub struct MemberIdentity {
    ca: Certificate,
    identity: Identity,
    pem: Pem,
}

/// The same, as it stands in files.
struct Pem {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pem {
    fn roots(&self) -> Result<Arc<RootCertStore>, IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca) {
            roots.add(certificate?)?;
        }
        Ok(Arc::new(roots))
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        Ok(CertificateDer::pem_slice_iter(&self.cert).collect::<Result<_, _>>()?)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        Ok(PrivateKeyDer::from_pem_slice(&self.key)?)
    }
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mutual(_) => "Mutual",
            Self::Insecure => "Insecure",
        })
    }
}

impl Security {
    /// Mutual TLS with the identity in these files.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn from_files(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |what, path: &Path| {
            std::fs::read(path).map_err(|source| TlsError { what, path: path.to_owned(), source })
        };
        let pem = Pem {
            ca: read("tls.ca", &files.ca)?,
            cert: read("tls.cert", &files.cert)?,
            key: read("tls.key", &files.key)?,
        };
        let ca = Certificate::from_pem(&pem.ca);
        let identity = Identity::from_pem(&pem.cert, &pem.key);
        Ok(Self::Mutual(Arc::new(MemberIdentity { ca, identity, pem })))
    }

    /// The server's side for a listener of our own, which speaks `protocols`, the first that the
    /// caller offers too; `None` for plain text. Callers are checked as [`Security::server`] has
    /// them checked.
    ///
    /// # Errors
    /// When the identity cannot be used.
    pub fn accepting(
        &self,
        protocols: &[&[u8]],
    ) -> Result<Option<Arc<ServerConfig>>, IdentityError> {
        let Self::Mutual(member) = self else { return Ok(None) };
        let pem = &member.pem;
        let callers = WebPkiClientVerifier::builder_with_provider(pem.roots()?, provider());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(callers.build()?)
            .with_single_cert(pem.chain()?, pem.key()?)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Some(Arc::new(config)))
    }

    /// The client's side for a connection of our own; the name to expect comes with the connection.
    ///
    /// # Errors
    /// When the identity cannot be used.
    pub fn calling(&self, protocols: &[&[u8]]) -> Result<Option<Arc<ClientConfig>>, IdentityError> {
        let Self::Mutual(member) = self else { return Ok(None) };
        let pem = &member.pem;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(pem.roots()?)
            .with_client_auth_cert(pem.chain()?, pem.key()?)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Some(Arc::new(config)))
    }

    /// The server's side; `None` for plain text.
    pub fn server(&self) -> Option<ServerTlsConfig> {
        match self {
            Self::Insecure => None,
            Self::Mutual(member) => Some(
                ServerTlsConfig::new()
                    .identity(member.identity.clone())
                    .client_ca_root(member.ca.clone()),
            ),
        }
    }

    /// The client's side, expecting the member called `name`, or any member; `None` for plain text.
    pub fn client(&self, name: Option<&str>) -> Option<ClientTlsConfig> {
        match self {
            Self::Insecure => None,
            Self::Mutual(member) => Some(
                ClientTlsConfig::new()
                    .identity(member.identity.clone())
                    .ca_certificate(member.ca.clone())
                    .domain_name(name.map_or_else(|| MEMBER_NAME.to_owned(), node_name)),
            ),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The member's name in a certificate of the cluster's.
pub fn name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let end_entity = webpki::EndEntityCert::try_from(certificate).ok()?;
    let suffix = format!(".{NODE_SUFFIX}");
    end_entity.valid_dns_names().find_map(|name| name.strip_suffix(&suffix).map(str::to_owned))
}

/// Whether the caller's first certificate is that of the member called `name`.
pub fn claims_name(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(end_entity) = webpki::EndEntityCert::try_from(certificate) else {
        return false;
    };
    let Ok(server_name) = ServerName::try_from(node_name(name)) else {
        return false;
    };
    end_entity.verify_is_valid_for_subject_name(&server_name).is_ok()
}
