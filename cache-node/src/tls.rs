//! Mutual TLS between members. A member's certificate names it twice: by [`MEMBER_NAME`], which
//! every member carries, and by its own name under [`node_name`]. Callers check the name they mean;
//! servers check a caller's claim against its certificate by [`claims_name`].
//!
//! The files of an identity may be replaced while the member runs: [`Security::look`] takes in a set
//! that fits together, and connections that begin after that use it. What is open goes on.
//!
//! Plain text exists only as [`Security::Insecure`], which configuration must ask for by name.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

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
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] TlsError),
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

/// A member's certificate, key and authority, as they are now.
pub struct MemberIdentity {
    files: TlsFiles,
    current: RwLock<Arc<Pem>>,
}

impl MemberIdentity {
    fn current(&self) -> Arc<Pem> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

type Make<T> = Box<dyn Fn(&Pem) -> Result<T, IdentityError> + Send + Sync>;

/// What is made of an identity, and made anew when that has changed.
pub struct Derived<T> {
    member: Arc<MemberIdentity>,
    make: Make<T>,
    last: Mutex<(u64, T)>,
}

impl<T: Clone> Derived<T> {
    fn new(
        member: &Arc<MemberIdentity>,
        make: impl Fn(&Pem) -> Result<T, IdentityError> + Send + Sync + 'static,
    ) -> Result<Self, IdentityError> {
        let pem = member.current();
        let last = Mutex::new((pem.generation, make(&pem)?));
        Ok(Self { member: Arc::clone(member), make: Box::new(make), last })
    }

    /// What is made of the identity of now.
    pub fn get(&self) -> T {
        let pem = self.member.current();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != pem.generation {
            // Files are taken in only after this was tried with them.
            if let Ok(made) = (self.make)(&pem) {
                *last = (pem.generation, made);
            }
        }
        last.1.clone()
    }
}

/// An identity as it stands in files.
struct Pem {
    /// Counts the sets of files that were taken in.
    generation: u64,
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pem {
    fn read(files: &TlsFiles, generation: u64) -> Result<Self, TlsError> {
        let read = |what, path: &Path| {
            std::fs::read(path).map_err(|source| TlsError { what, path: path.to_owned(), source })
        };
        let ca = read("tls.ca", &files.ca)?;
        let cert = read("tls.cert", &files.cert)?;
        let key = read("tls.key", &files.key)?;
        Ok(Self { generation, ca, cert, key })
    }

    fn is_as(&self, other: &Self) -> bool {
        (&self.ca, &self.cert, &self.key) == (&other.ca, &other.cert, &other.key)
    }

    fn accepting(&self, protocols: &[Vec<u8>]) -> Result<Arc<ServerConfig>, IdentityError> {
        let callers = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(callers.build()?)
            .with_single_cert(self.chain()?, self.key()?)?;
        config.alpn_protocols = protocols.to_vec();
        Ok(Arc::new(config))
    }

    fn calling(&self, protocols: &[Vec<u8>]) -> Result<Arc<ClientConfig>, IdentityError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.chain()?, self.key()?)?;
        config.alpn_protocols = protocols.to_vec();
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca) {
            roots.add(certificate?)?;
        }
        Ok(Arc::new(roots))
    }

    fn ca(&self) -> Certificate {
        Certificate::from_pem(&self.ca)
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(&self.cert, &self.key)
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
        let current = RwLock::new(Arc::new(Pem::read(files, 0)?));
        Ok(Self::Mutual(Arc::new(MemberIdentity { files: files.clone(), current })))
    }

    /// Counts the identities that were taken in since the start.
    pub fn generation(&self) -> u64 {
        match self {
            Self::Insecure => 0,
            Self::Mutual(member) => member.current().generation,
        }
    }

    /// Looks at the files; whether they have changed, and are used from now on.
    ///
    /// # Errors
    /// When they have changed and cannot be used, for instance because they are being replaced:
    /// then everything stays as it is.
    pub fn look(&self) -> Result<bool, IdentityError> {
        let Self::Mutual(member) = self else { return Ok(false) };
        let before = member.current();
        let now = Pem::read(&member.files, before.generation + 1)?;
        if now.is_as(&before) {
            return Ok(false);
        }
        now.accepting(&[])?;
        now.calling(&[])?;
        *member.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(now);
        Ok(true)
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
    ) -> Result<Option<Derived<Arc<ServerConfig>>>, IdentityError> {
        let Self::Mutual(member) = self else { return Ok(None) };
        let protocols: Vec<_> = protocols.iter().map(|name| name.to_vec()).collect();
        Derived::new(member, move |pem| pem.accepting(&protocols)).map(Some)
    }

    /// The client's side for a connection of our own; the name to expect comes with the connection.
    ///
    /// # Errors
    /// When the identity cannot be used.
    pub fn calling(
        &self,
        protocols: &[&[u8]],
    ) -> Result<Option<Derived<Arc<ClientConfig>>>, IdentityError> {
        let Self::Mutual(member) = self else { return Ok(None) };
        let protocols: Vec<_> = protocols.iter().map(|name| name.to_vec()).collect();
        Derived::new(member, move |pem| pem.calling(&protocols)).map(Some)
    }

    /// The server's side of now; `None` for plain text.
    pub fn server(&self) -> Option<ServerTlsConfig> {
        match self {
            Self::Insecure => None,
            Self::Mutual(member) => {
                let pem = member.current();
                Some(ServerTlsConfig::new().identity(pem.identity()).client_ca_root(pem.ca()))
            }
        }
    }

    /// The client's side of now, expecting the member called `name`, or any member; `None` for plain text.
    pub fn client(&self, name: Option<&str>) -> Option<ClientTlsConfig> {
        match self {
            Self::Insecure => None,
            Self::Mutual(member) => {
                let pem = member.current();
                let name = name.map_or_else(|| MEMBER_NAME.to_owned(), node_name);
                let config = ClientTlsConfig::new().identity(pem.identity());
                Some(config.ca_certificate(pem.ca()).domain_name(name))
            }
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
