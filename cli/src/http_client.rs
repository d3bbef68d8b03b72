//! One GET on a node's HTTP port: as much of HTTP/1.1 as the probes need.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ottla_broker::security::ClientSecurity;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::node_config::{Address, HttpAddress};

/// An answer that is longer is no answer of ours.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// No read or write waits shorter than this: zero would mean for ever.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The `Date` of the server.
    pub(crate) date: Option<String>,
    pub(crate) body: String,
}

/// Asks and waits no longer than `timeout` in all. A server with TLS is not asked who it is: nothing secret goes there.
pub(crate) fn get(target: &HttpAddress, path: &str, timeout: Duration) -> Result<Answer> {
    get_up_to(target, path, timeout, ANSWER_BYTES_MAX, None)
}

/// As [`get`], of an answer of which more is wanted, and with `tls` of a server that has to be who it says.
pub(crate) fn get_up_to(
    target: &HttpAddress,
    path: &str,
    timeout: Duration,
    bytes_max: u64,
    tls: Option<ClientConfig>,
) -> Result<Answer> {
    let deadline = Instant::now() + timeout;
    let left = || deadline.saturating_duration_since(Instant::now()).max(WAIT_MIN);
    let address = &target.address;
    let mut failure = Error::new(ErrorKind::NotFound, "the name has no address");
    for one in (address.host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&one, left()) {
            Ok(socket) => {
                socket.set_write_timeout(Some(left()))?;
                socket.set_read_timeout(Some(left()))?;
                // The same socket: a limit that is set on it holds for what TLS makes of it.
                let mut stream: Box<dyn Stream> = if target.is_tls {
                    Box::new(encrypted(socket.try_clone()?, address, tls)?)
                } else {
                    Box::new(socket.try_clone()?)
                };
                let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).map_err(in_time)?;
                return read(&answer(stream, &socket, deadline, bytes_max)?)
                    .ok_or_else(|| Error::new(ErrorKind::InvalidData, "no HTTP answer"));
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A connection of either kind.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

fn encrypted(
    socket: TcpStream,
    address: &Address,
    tls: Option<ClientConfig>,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let config = match tls {
        Some(config) => config,
        None => ClientSecurity::unchecked_tls().map_err(Error::other)?,
    };
    let name = ServerName::try_from(address.host.clone()).map_err(Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(Error::other)?;
    Ok(StreamOwned::new(connection, socket))
}

/// Sockets say in two ways that a limit has passed.
fn in_time(error: Error) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::new(ErrorKind::TimedOut, "no answer in time"),
        _ => error,
    }
}

/// Everything that comes until the other side closes.
fn answer(
    mut stream: Box<dyn Stream>,
    socket: &TcpStream,
    deadline: Instant,
    bytes_max: u64,
) -> Result<String> {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    while (text.len() as u64) < bytes_max {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(ErrorKind::TimedOut, "no answer in time"));
        }
        socket.set_read_timeout(Some(left.max(WAIT_MIN)))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) => return Err(in_time(error)),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn read(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.split("\r\n").next()?.parse().ok()?;
    let date = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, value)| name.eq_ignore_ascii_case("date").then(|| value.trim().to_owned()));
    Some(Answer { status, date, body: body.trim().to_owned() })
}

/// Where a port that is bound to every address is reached from this machine.
pub(crate) fn reached(bound: &HttpAddress) -> HttpAddress {
    let host = match bound.address.host.as_str() {
        "" | "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let address = Address { host: host.to_owned(), port: bound.address.port };
    HttpAddress { address, is_tls: bound.is_tls }
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that servers write (RFC 9110, 5.6.7).
pub(crate) fn date_s(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words.as_slice() else { return None };
    let month = i64::try_from(MONTHS.iter().position(|name| name == month)?).ok()? + 1;
    let clock: Vec<i64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = clock.as_slice() else { return None };
    let days = crate::calendar::days_since_1970(year.parse().ok()?, month, day.parse().ok()?)?;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_every_address_is_asked_on_this_machine() {
        let of = |text: &str| reached(&HttpAddress::parse(text).unwrap()).to_string();
        assert_eq!(of("0.0.0.0:9644"), "127.0.0.1:9644");
        assert_eq!(of(":1"), "127.0.0.1:1");
        assert_eq!(of("[::]:2"), "[::1]:2");
        assert_eq!(of("10.0.0.1:3"), "10.0.0.1:3");
        assert_eq!(of("https://0.0.0.0:9644"), "https://127.0.0.1:9644");
    }

    #[test]
    fn an_answer_is_status_date_and_body() {
        let text = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 15\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nbroker: fenced\n";
        let answer = read(text).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "broker: fenced"));
        assert_eq!(date_s(&answer.date.unwrap()), Some(784_111_777));
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\n").unwrap().status, 200);
        for wrong in ["", "HTTP/1.1 200 OK", "SSH-2.0\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        for wrong in ["", "Sun, 06 Nov 1994 08:49 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "a b c d e GMT"] {
            assert_eq!(date_s(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_server_that_says_nothing_is_waited_for_only_so_long() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for scheme in ["http", "https"] {
            let address = format!("{scheme}://{}", silent.local_addr().unwrap());
            let address = HttpAddress::parse(&address).unwrap();
            let error = get(&address, "/livez", Duration::from_millis(50)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{scheme}: {error}");
        }
    }
}
