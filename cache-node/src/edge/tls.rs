//! TLS towards clients: one certificate, from files that are read again when they change.
//!
//! Invariants: TLS 1.2 and 1.3 alone; `h2` before `http/1.1` by ALPN; files that do not fit together
//! (while both are being replaced, say) change nothing: what was read last goes on, and connections
//! that are open keep what they began with. Not here: several certificates by SNI.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Between two looks at the files, in milliseconds.
const LOOK_EVERY_MS: u64 = 5_000;
/// The ALPN id of HTTP/2.
pub(super) const HTTP2: &[u8] = b"h2";
/// Protocols offered, the dearest first.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];

/// Files that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}; expected a certificate chain and its private key, PEM", path.display())]
pub struct EdgeTlsError {
    path: PathBuf,
    reason: String,
}

/// What clients are shown.
pub struct EdgeTls {
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Current>,
}

struct Current {
    /// Of the files' bytes.
    hash: blake3::Hash,
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for EdgeTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeTls").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl EdgeTls {
    /// Reads the files.
    ///
    /// # Errors
    /// When they are no certificate and its key.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, EdgeTlsError> {
        let current = RwLock::new(Pem::read(cert, key)?.parsed(cert, key)?);
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), current })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current.config))
    }

    /// Looks at the files again and again, for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        let mut refused: Option<String> = None;
        loop {
            tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
            let reason = self.look().err().map(|error| error.to_string());
            if reason != refused
                && let Some(reason) = &reason
            {
                tracing::warn!(reason, "the edge's certificate stays as it was");
            }
            refused = reason;
        }
    }

    /// Takes the files' certificate where it is another; whether it was.
    pub(super) fn look(&self) -> Result<bool, EdgeTlsError> {
        let found = Pem::read(&self.cert, &self.key)?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).hash == found.hash() {
            return Ok(false);
        }
        let parsed = found.parsed(&self.cert, &self.key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = parsed;
        tracing::info!("the edge has a new certificate");
        Ok(true)
    }
}

/// The files' bytes.
struct Pem {
    cert: Vec<u8>,
    key: Vec<u8>,
}

fn failed(path: &Path, reason: impl ToString) -> EdgeTlsError {
    EdgeTlsError { path: path.to_owned(), reason: reason.to_string() }
}

impl Pem {
    fn read(cert: &Path, key: &Path) -> Result<Self, EdgeTlsError> {
        let bytes = |path: &Path| std::fs::read(path).map_err(|error| failed(path, error));
        Ok(Self { cert: bytes(cert)?, key: bytes(key)? })
    }

    fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.cert.len() as u64).to_le_bytes());
        hasher.update(&self.cert);
        hasher.update(&self.key);
        hasher.finalize()
    }

    /// What clients are shown; `cert` and `key` are where it came from.
    fn parsed(&self, cert: &Path, key: &Path) -> Result<Current, EdgeTlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(|error| failed(cert, error))?;
        let private = PrivateKeyDer::from_pem_slice(&self.key);
        let private = private.map_err(|error| failed(key, error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|error| failed(cert, error))?;
        config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Current { hash: self.hash(), config: Arc::new(config) })
    }
}
