//! Accepts connections and sees to their handshakes beside one another: a caller that says nothing holds up nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

/// Handshakes under way; further connections wait in the backlog.
pub(crate) const HANDSHAKES_MAX: usize = 256;
/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A pause after the system refused a connection: file handles may be free again.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Accepts for as long as it is polled, and sends on what `handshake` makes of a connection; `None`: it was refused, and the log
/// says so. `port` is how the log calls the listener.
pub(crate) async fn accept<T, Handshake>(
    port: &'static str,
    listener: TcpListener,
    sender: mpsc::Sender<T>,
    handshake: impl Fn(TcpStream, SocketAddr) -> Handshake,
) where
    T: Send + 'static,
    Handshake: Future<Output = Option<T>> + Send + 'static,
{
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection of the {port} port could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                continue;
            }
        };
        let (sender, handshake) = (sender.clone(), handshake(socket, address));
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                // Nobody takes it any more when the server has ended.
                Ok(Some(ready)) => drop(sender.send(ready).await),
                Ok(None) => {}
                Err(_) => tracing::info!(%address, "a handshake of the {port} port took too long"),
            }
            drop(permit);
        });
    }
}
