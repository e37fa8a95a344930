//! Bare sockets, for what no client would send.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::deployment::Deployment;

/// A TLS connection to the parties' side, with a party's certificate or none.
pub async fn tls(city: &Deployment, party: Option<&str>) -> TlsStream<TcpStream> {
    tls_at(city, city.config.api, party).await
}

/// The same to an address that leads there.
pub async fn tls_at(city: &Deployment, at: std::net::SocketAddr, party: Option<&str>) -> TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&city.read("pki/ca.pem")).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match party {
        None => config.with_no_client_auth(),
        Some(party) => {
            let cert = CertificateDer::from_pem_slice(&city.read(&format!("parties/{party}.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_slice(&city.read(&format!("parties/{party}.key"))).unwrap();
            config.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    let tcp = TcpStream::connect(at).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

/// Everything that comes until the other side closes; `None` where it does not close in time.
pub async fn to_the_end(stream: &mut (impl AsyncRead + Unpin), within: Duration) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    // A reset closes as well; what came before it counts.
    tokio::time::timeout(within, stream.read_to_end(&mut all)).await.ok().map(|_| all)
}
