//! Gets the keys that OAuth tokens are checked by (`sasl.oauthbearer.jwks.endpoint.url`): now, every
//! `sasl.oauthbearer.jwks.endpoint.refresh.ms`, and when a token names a key that is not known.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::peer::PeerStream;
use super::properties::ListenerProperties;
use super::sasl::jwt::KeySet;
use super::sasl::oauthbearer::AuthorityKeys;
use super::tls;

/// Longest document that is read, in bytes.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Everything of one request takes at most this long.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// Tokens with unknown keys make the authority be asked at most so often: anybody can make up a token.
const WANTED_PERIOD_MIN: Duration = Duration::from_secs(10);

/// Keeps the keys fresh for as long as it is polled.
pub(super) async fn keep_fresh(url: String, properties: ListenerProperties, keys: Arc<AuthorityKeys>) {
    let ms = |name: &str| Duration::from_millis(u64::try_from(properties.number(name)).unwrap_or(0).max(10));
    let refresh = ms("sasl.oauthbearer.jwks.endpoint.refresh.ms");
    let pause_min = ms("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms");
    let pause_max = ms("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms").max(pause_min);
    let mut pause = pause_min;
    loop {
        match fetch(&url, &properties).await {
            Ok(found) => {
                tracing::debug!(%url, keys = found.len(), "keys of the authority were read");
                keys.publish(found);
                pause = pause_min;
                tokio::time::sleep(WANTED_PERIOD_MIN.min(refresh)).await;
                drop(timeout(refresh.saturating_sub(WANTED_PERIOD_MIN), keys.wanted()).await);
            }
            Err(error) => {
                tracing::warn!(%url, %error, "keys of the authority cannot be read; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(pause_max);
            }
        }
    }
}

/// Reads the keys once.
async fn fetch(url: &str, properties: &ListenerProperties) -> Result<KeySet, String> {
    let document = match url.strip_prefix("file:") {
        Some(path) => {
            let path = path.strip_prefix("//").unwrap_or(path).to_owned();
            let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
            read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?.into()
        }
        None => timeout(REQUEST_TIME_MAX, get(url, properties))
            .await
            .map_err(|_| format!("no answer within {} s", REQUEST_TIME_MAX.as_secs()))??,
    };
    let keys = KeySet::parse(&document)?;
    if keys.is_empty() {
        return Err("the document has no key that can be used".to_owned());
    }
    Ok(keys)
}

async fn get(url: &str, properties: &ListenerProperties) -> Result<Bytes, String> {
    let uri: Uri = url.parse().map_err(|error| format!("no URL: {error}"))?;
    let host = uri.host().ok_or("the URL has no host")?.trim_matches(['[', ']']).to_owned();
    let stream = connect(&uri, &host, properties).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = hyper::Request::get(path)
        .header("host", uri.authority().map_or(host.as_str(), |authority| authority.as_str()))
        .header("accept", "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("the authority answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            // What has arrived is in the answer's hands.
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

async fn connect(
    uri: &Uri,
    host: &str,
    properties: &ListenerProperties,
) -> Result<Box<dyn PeerStream>, String> {
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("the URL begins with none of https://, http://, file://".to_owned()),
    };
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let socket = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    if !is_tls {
        return Ok(Box::new(socket));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = tls::roots(properties).map_err(|error| error.to_string())?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    Ok(Box::new(stream.map_err(|error| error.to_string())?))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const KEYS: &str = r#"{"keys":[{"kty":"RSA","kid":"1","n":"AQAB","e":"AQAB"}]}"#;

    fn view() -> ListenerProperties {
        ListenerProperties::new(Arc::default(), "X")
    }

    async fn serve(answer: String) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = socket.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /keys?x=1 HTTP/1.1\r\n"));
            socket.write_all(answer.as_bytes()).await.unwrap();
        });
        format!("http://{address}/keys?x=1")
    }

    #[tokio::test]
    async fn keys_come_over_http() {
        let url = serve(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{KEYS}", KEYS.len())).await;
        assert_eq!(fetch(&url, &view()).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn answers_that_hold_no_keys_are_errors() {
        for answer in [
            "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{}",
            "nonsense\r\n\r\n",
        ] {
            let url = serve(answer.to_owned()).await;
            assert!(fetch(&url, &view()).await.is_err(), "{answer}");
        }
        for url in ["ftp://localhost/x", "file:///nowhere", "", "http:///x"] {
            assert!(fetch(url, &view()).await.is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn keys_come_out_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        std::fs::write(&path, KEYS).unwrap();
        assert_eq!(fetch(&format!("file://{}", path.display()), &view()).await.unwrap().len(), 1);
    }
}
