//! Writes answers to a socket: small pieces by one vectored write, ranges of log files by `sendfile(2)`, so that record
//! bytes go from the page cache to the socket without passing through this process. For an encrypted socket they have to be
//! read; that happens piece by piece.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use ottla_wire::encode::Segment;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use super::stream::{TlsWriter, WriteSide};
use crate::api::Response;

/// A range shorter than this is read into memory and sent with its neighbours: one system call instead of three.
const SENDFILE_BYTES_MIN: u64 = 32 * 1024;
/// Pieces of memory in one `sendmsg(2)`; the kernel takes up to 1024.
const SLICES_MAX: usize = 64;
/// How much one `sendfile(2)` is asked to move.
const SENDFILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How much of a file is read at a time for an encrypted socket.
const TLS_CHUNK_BYTES: u64 = 256 * 1024;

/// Bytes of a file that an answer holds by reference.
#[derive(Debug, Clone)]
pub struct FileRange {
    /// The file, kept open until the bytes are out (a deleted segment stays readable).
    pub file: Arc<File>,
    /// First byte.
    pub position: u64,
    /// How many.
    pub length: u64,
}

enum Piece {
    Memory(Bytes),
    File(FileRange),
}

/// What is to be written to one connection, in order.
#[derive(Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    bytes: u64,
}

impl Outbox {
    /// Queues an answer.
    pub(crate) fn push(&mut self, response: Response) {
        let Response { segments, files, .. } = response;
        for segment in segments {
            match segment {
                Segment::Bytes(bytes) if bytes.is_empty() => {}
                Segment::Bytes(bytes) => {
                    self.bytes += bytes.len() as u64;
                    self.pieces.push_back(Piece::Memory(bytes));
                }
                Segment::External { token, .. } => {
                    if let Some(range) = files.get(token as usize) {
                        self.bytes += range.length;
                        self.pieces.push_back(Piece::File(range.clone()));
                    }
                }
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes that are not written yet.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes until all is out or the socket takes no more; the latter is `Ok(false)`, and [`Outbox::wait`] goes on. For an
    /// encrypted socket this only gets the next bytes out of a file.
    pub(crate) async fn write(&mut self, socket: &mut WriteSide<'_>) -> io::Result<bool> {
        match socket {
            WriteSide::Plain(half) => self.write_plain(half.as_ref()).await,
            WriteSide::Tls(writer) => {
                self.load_front().await?;
                Ok(self.is_empty() && !writer.unflushed)
            }
        }
    }

    /// Waits until a plain socket takes more; writes to an encrypted one what it takes. Safe to cancel.
    pub(crate) async fn wait(&mut self, socket: &mut WriteSide<'_>) -> io::Result<()> {
        match socket {
            WriteSide::Plain(half) => half.writable().await,
            WriteSide::Tls(writer) => std::future::poll_fn(|task| self.poll_tls(writer, task)).await,
        }
    }

    /// Writes everything, however long it takes.
    pub(crate) async fn write_all(&mut self, socket: &mut WriteSide<'_>) -> io::Result<()> {
        while !self.write(socket).await? {
            self.wait(socket).await?;
        }
        Ok(())
    }

    /// Writes memory at the front until it is out, or a file is next, or the socket takes no more.
    fn poll_tls(&mut self, writer: &mut TlsWriter<'_>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(Piece::Memory(bytes)) = self.pieces.front() {
            let written = ready!(Pin::new(&mut writer.half).poll_write(task, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            writer.unflushed = true;
            self.advance(written as u64);
        }
        if self.is_empty() {
            ready!(Pin::new(&mut writer.half).poll_flush(task))?;
            writer.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads the beginning of a range of a file that is next.
    async fn load_front(&mut self) -> io::Result<()> {
        let Some(Piece::File(range)) = self.pieces.front_mut() else { return Ok(()) };
        let length = range.length.min(TLS_CHUNK_BYTES);
        let chunk = FileRange { length, ..range.clone() };
        let bytes = read_range(chunk).await?;
        range.position += length;
        range.length -= length;
        if range.length == 0 {
            self.pieces.pop_front();
        }
        self.pieces.push_front(Piece::Memory(bytes));
        Ok(())
    }

    async fn write_plain(&mut self, socket: &TcpStream) -> io::Result<bool> {
        while let Some(front) = self.pieces.front_mut() {
            let result = match front {
                Piece::Memory(_) => self.write_memory(socket),
                Piece::File(range) if range.length < SENDFILE_BYTES_MIN || !is_cached(range) => {
                    let range = range.clone();
                    let bytes = read_range(range).await?;
                    self.pieces[0] = Piece::Memory(bytes);
                    continue;
                }
                Piece::File(_) => self.send_file(socket),
            };
            match result {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write_memory(&mut self, socket: &TcpStream) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        let mut more = SendFlags::NOSIGNAL;
        for piece in &self.pieces {
            match piece {
                Piece::Memory(bytes) if count < SLICES_MAX => {
                    slices[count] = IoSlice::new(bytes);
                    count += 1;
                }
                // What follows at once goes into the same packets.
                _ => {
                    more |= SendFlags::MORE;
                    break;
                }
            }
        }
        let written = socket.try_io(Interest::WRITABLE, || {
            Ok(rustix::net::sendmsg(socket, &slices[..count], &mut SendAncillaryBuffer::default(), more)?)
        })?;
        self.advance(written as u64);
        Ok(())
    }

    fn send_file(&mut self, socket: &TcpStream) -> io::Result<()> {
        let Some(Piece::File(range)) = self.pieces.front() else { return Ok(()) };
        let mut position = range.position;
        let length = usize::try_from(range.length.min(SENDFILE_BYTES_MAX)).unwrap_or(usize::MAX);
        let written = socket.try_io(Interest::WRITABLE, || {
            Ok(rustix::fs::sendfile(socket, &*range.file, Some(&mut position), length)?)
        })?;
        if written == 0 {
            // The file is shorter than the range that was promised: the answer cannot be completed.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.advance(written as u64);
        Ok(())
    }

    fn advance(&mut self, mut written: u64) {
        self.bytes -= written;
        while written > 0 {
            let Some(front) = self.pieces.front_mut() else { return };
            let length = match front {
                Piece::Memory(bytes) => bytes.len() as u64,
                Piece::File(range) => range.length,
            };
            if written >= length {
                written -= length;
                self.pieces.pop_front();
                continue;
            }
            match front {
                Piece::Memory(bytes) => bytes.advance(usize::try_from(written).unwrap_or(usize::MAX)),
                Piece::File(range) => {
                    range.position += written;
                    range.length -= written;
                }
            }
            return;
        }
    }
}

/// Whether the end of a range is in the page cache, by a read that does not wait. A range that is not would block the
/// worker inside `sendfile`.
fn is_cached(range: &FileRange) -> bool {
    let mut byte = [0u8; 1];
    let last = range.position + range.length - 1;
    match rustix::io::preadv2(
        &*range.file,
        &mut [io::IoSliceMut::new(&mut byte)],
        last,
        rustix::io::ReadWriteFlags::NOWAIT,
    ) {
        Ok(_) => true,
        Err(rustix::io::Errno::AGAIN) => false,
        // A file system without RWF_NOWAIT: nothing can be known.
        Err(_) => true,
    }
}

async fn read_range(range: FileRange) -> io::Result<Bytes> {
    let length = usize::try_from(range.length).map_err(io::Error::other)?;
    if range.length <= TLS_CHUNK_BYTES && is_cached(&range) {
        return read_now(&range, length);
    }
    tokio::task::spawn_blocking(move || read_now(&range, length)).await.map_err(io::Error::other)?
}

fn read_now(range: &FileRange, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    range.file.read_exact_at(&mut buffer, range.position)?;
    Ok(buffer.into())
}
