//! The relay's self-signed certificate for address discovery.
//!
//! It is made from the bootstrap peer's secret, so a restarted relay has the same one and tickets
//! stay good. Clients believe this one certificate and no authority; the relay itself speaks plain
//! http (its clients prove their keys, and what it carries is encrypted end to end).

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SerialNumber};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use crate::resolve::RELAY_NAME;

/// RFC 8410: the 16 bytes before an ed25519 seed in PKCS #8.
const PKCS8_ED25519: [u8; 16] = [
    0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
];

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("the relay's certificate could not be made")]
    Make(#[from] rcgen::Error),
    #[error("the relay's TLS configuration was refused")]
    Tls(#[from] rustls::Error),
}

/// The certificate that goes into the ticket, and the server's half.
pub(crate) struct RelayCertificate {
    pub(crate) der: Vec<u8>,
    pub(crate) server: rustls::ServerConfig,
}

/// Makes it; the same secret gives the same bytes.
pub(crate) fn from_secret(secret: &[u8; 32]) -> Result<RelayCertificate, CertificateError> {
    let mut hash = Sha256::new();
    hash.update(b"steading/relay-certificate/1\0");
    hash.update(secret);
    let seed: [u8; 32] = hash.finalize().into();
    let mut pkcs8 = PKCS8_ED25519.to_vec();
    pkcs8.extend_from_slice(&seed);
    let key = PrivatePkcs8KeyDer::from(pkcs8);
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519)?;
    let mut params = CertificateParams::new(vec![RELAY_NAME.to_owned()])?;
    params.serial_number = Some(SerialNumber::from(vec![1]));
    let certificate = params.self_signed(&pair)?;
    let der = certificate.der().to_vec();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(der.clone())], PrivateKeyDer::Pkcs8(key))?;
    Ok(RelayCertificate { der, server })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_secret_gives_the_same_certificate() {
        let one = from_secret(&[1; 32]).unwrap().der;
        assert_eq!(one, from_secret(&[1; 32]).unwrap().der);
        assert_ne!(one, from_secret(&[2; 32]).unwrap().der);
        assert!(one.len() < 512, "{} bytes", one.len());
    }
}
