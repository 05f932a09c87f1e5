//! HTTPS GET: as HTTP, within TLS 1.2 or 1.3. Each round makes a whole handshake, so that a certificate that has expired
//! is seen at once.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use ycloud_api::probe::HttpsCheck;

use crate::failure::{Failure, Step};
use crate::kind::http::Http;
use crate::probe::Invalid;
use crate::round::Round;
use crate::stream;

/// Most bytes of a connection: a chain of certificates, and the answer's head. rustls keeps at most 64 KiB of a message.
const LIMIT: usize = 192 * 1024;

/// Most certificates in a CA bundle.
const MOST_CERTIFICATES: usize = 32;

const CURE: &str = "write certificates in PEM, each between -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----";

/// An HTTPS GET.
#[derive(Debug, Clone)]
pub struct Https {
    request: Http,
    server_name: Option<ServerName<'static>>,
    /// Of one [`Trust`], equal for equal CA bundles.
    config: Arc<ClientConfig>,
}

impl PartialEq for Https {
    fn eq(&self, other: &Self) -> bool {
        let same = Arc::ptr_eq(&self.config, &other.config);
        same && self.request == other.request && self.server_name == other.server_name
    }
}

/// The TLS configurations in use, one for each CA bundle: ten thousand probes with the same bundle share one.
#[derive(Debug, Default)]
pub struct Trust {
    /// By bundle; `None` trusts every certificate.
    configs: HashMap<Option<String>, Weak<ClientConfig>>,
}

impl Trust {
    fn config(&mut self, bundle: Option<&str>) -> Result<Arc<ClientConfig>, Invalid> {
        let key = bundle.map(str::to_owned);
        if let Some(config) = self.configs.get(&key).and_then(Weak::upgrade) {
            return Ok(config);
        }
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match bundle {
            Some(bundle) => {
                let roots = Arc::new(roots(bundle)?);
                WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                    .build()
                    .map_err(|error| Invalid::new("https.caBundle", error, CURE))?
            }
            None => Arc::new(AnyCertificate(provider.clone())),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Invalid::new("https", error, "this build's TLS has no such version"))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        self.configs.retain(|_, config| config.strong_count() > 0);
        self.configs.insert(key, Arc::downgrade(&config));
        Ok(config)
    }
}

/// The certificates of a bundle. Every one must be understood: half a bundle would trust half of what was meant.
fn roots(bundle: &str) -> Result<RootCertStore, Invalid> {
    let mut roots = RootCertStore::empty();
    let field = "https.caBundle";
    for (index, certificate) in CertificateDer::pem_slice_iter(bundle.as_bytes()).enumerate() {
        let number = index + 1;
        if number > MOST_CERTIFICATES {
            return Err(Invalid::new(field, "more than 32 certificates", CURE));
        }
        let certificate = certificate
            .map_err(|e| Invalid::new(field, format!("certificate {number}: {e}"), CURE))?;
        roots
            .add(certificate)
            .map_err(|e| Invalid::new(field, format!("certificate {number}: {e}"), CURE))?;
    }
    if roots.is_empty() {
        return Err(Invalid::new(field, "no certificate in it", CURE));
    }
    Ok(roots)
}

impl Https {
    pub(crate) fn new(
        spec: &HttpsCheck,
        target: Option<u16>,
        trust: &mut Trust,
    ) -> Result<Self, Invalid> {
        let skip = spec.insecure_skip_verify.unwrap_or(false);
        let bundle = spec.ca_bundle.as_deref();
        if skip == bundle.is_some() {
            let cure = "exactly one of caBundle and insecureSkipVerify: true";
            return Err(Invalid::new("https", "neither or both", cure));
        }
        let name = spec.server_name.as_deref();
        let server_name = name.map(|name| {
            let parsed = ServerName::try_from(name.to_owned());
            parsed.map_err(|_| Invalid::new("https.serverName", name, "write a host name"))
        });
        Ok(Self {
            request: Http::named(&spec.request, target, "https", name)?,
            server_name: server_name.transpose()?,
            config: trust.config(bundle)?,
        })
    }

    pub(crate) async fn ask(&self, round: &Round<'_>) -> Result<(), Failure> {
        let stream = stream::connect(round, self.request.port, LIMIT).await?;
        round.enter(Step::Handshake);
        let address = || ServerName::from(round.address());
        let name = self.server_name.clone().unwrap_or_else(address);
        let connector = TlsConnector::from(self.config.clone());
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|error| Failure::io(Step::Handshake, &error))?;
        round.enter(Step::Answer);
        self.request.get(round, stream).await
    }
}

/// `insecureSkipVerify`: any certificate will do, but its key must have signed the handshake.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
