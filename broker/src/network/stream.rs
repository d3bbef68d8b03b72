//! A client's socket, encrypted or not, as a side to read and a side to write.
//!
//! Plain sockets are written by `sendmsg(2)` and `sendfile(2)` directly; what goes through TLS passes this process.

use std::io;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp;
use tokio_rustls::server::TlsStream;

/// A connection's socket.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Where a connection's bytes come from.
pub(crate) enum ReadSide<'a> {
    Plain(tcp::ReadHalf<'a>),
    Tls(tokio::io::ReadHalf<&'a mut TlsStream<TcpStream>>),
}

/// Where its answers go.
pub(crate) enum WriteSide<'a> {
    Plain(tcp::WriteHalf<'a>),
    Tls(TlsWriter<'a>),
}

/// The writing side of an encrypted socket.
pub(crate) struct TlsWriter<'a> {
    pub(super) half: tokio::io::WriteHalf<&'a mut TlsStream<TcpStream>>,
    /// Something was written that may not have left the process.
    pub(super) unflushed: bool,
}

impl Stream {
    /// Both sides.
    pub(crate) fn split(&mut self) -> (ReadSide<'_>, WriteSide<'_>) {
        match self {
            Self::Plain(socket) => {
                let (read, write) = socket.split();
                (ReadSide::Plain(read), WriteSide::Plain(write))
            }
            Self::Tls(stream) => {
                let (read, half) = tokio::io::split(&mut **stream);
                (ReadSide::Tls(read), WriteSide::Tls(TlsWriter { half, unflushed: false }))
            }
        }
    }
}

impl ReadSide<'_> {
    /// Waits for bytes before a buffer is made for them; an encrypted side cannot tell and returns at once.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(half) => half.readable().await,
            Self::Tls(_) => Ok(()),
        }
    }

    /// Appends what is there; 0 at the end. Safe to cancel.
    pub(crate) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(half) => half.read_buf(buffer).await,
            Self::Tls(half) => half.read_buf(buffer).await,
        }
    }
}
