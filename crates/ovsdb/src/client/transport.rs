//! Connections to servers: unix, TCP, TLS.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::config::{Remote, Tls};

/// Why a server could not be connected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ConnectError {
    /// The operating system refused.
    #[error("failed to connect to {remote}")]
    Connect {
        remote: Remote,
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("failed to agree on TLS with {remote}")]
    Handshake {
        remote: Remote,
        #[source]
        source: io::Error,
    },
    /// The remote is `ssl:` and no files are given.
    #[error("failed to connect to {remote}: no TLS files are configured")]
    NoTls { remote: Remote },
    /// A PEM file is missing or malformed.
    #[error("failed to read {path}")]
    Pem {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    /// The files do not make a TLS configuration.
    #[error("failed to set up TLS")]
    Tls(#[from] rustls::Error),
    /// The name to expect is not a name.
    #[error("failed to read server name {name:?}")]
    ServerName {
        name: String,
        #[source]
        source: rustls_pki_types::InvalidDnsNameError,
    },
}

/// A stream of bytes to and from a server.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Connects to a server.
pub(super) async fn connect(
    remote: &Remote,
    tls: Option<&Tls>,
) -> Result<Box<dyn Transport>, ConnectError> {
    let error = |source| ConnectError::Connect {
        remote: remote.clone(),
        source,
    };
    match remote {
        Remote::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(error)?)),
        Remote::Tcp { host, port } => Ok(Box::new(connect_tcp(host, *port).await.map_err(error)?)),
        Remote::Ssl { host, port } => {
            let tls = tls.ok_or_else(|| ConnectError::NoTls {
                remote: remote.clone(),
            })?;
            let config = client_config(tls)?;
            // The name goes into the handshake only where it is also checked: else the address of the remote stands there.
            let name = tls.server_name.as_deref().unwrap_or(host);
            let name = ServerName::try_from(name.to_owned()).map_err(|source| {
                ConnectError::ServerName {
                    name: name.to_owned(),
                    source,
                }
            })?;
            let stream = connect_tcp(host, *port).await.map_err(error)?;
            let stream = TlsConnector::from(Arc::new(config))
                .connect(name, stream)
                .await;
            Ok(Box::new(stream.map_err(|source| {
                ConnectError::Handshake {
                    remote: remote.clone(),
                    source,
                }
            })?))
        }
    }
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    // Requests are small and awaited.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn client_config(tls: &Tls) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca)? {
        roots.add(certificate)?;
    }
    let key =
        PrivateKeyDer::from_pem_file(&tls.key).map_err(|source| pem_error(&tls.key, source))?;
    let verifier =
        ChainVerifier::new(Arc::new(roots), provider.clone(), tls.server_name.is_some())?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(certificates(&tls.certificate)?, key)?;
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let certificates =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(pem_error(path, pem::Error::NoItemsFound))
        }
        Ok(certificates) => Ok(certificates),
        Err(source) => Err(pem_error(path, source)),
    }
}

fn pem_error(path: &Path, source: pem::Error) -> ConnectError {
    ConnectError::Pem {
        path: path.to_owned(),
        source,
    }
}

/// Checks that the server's certificate is signed by one of the authorities and is for the expected name if there is one.
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    /// Does everything, the name included.
    inner: Arc<WebPkiServerVerifier>,
    check_name: bool,
}

impl ChainVerifier {
    fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        check_name: bool,
    ) -> Result<Self, rustls::Error> {
        let inner = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(ChainVerifier {
            roots,
            provider,
            inner,
            check_name,
        })
    }
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.check_name {
            return self.inner.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
