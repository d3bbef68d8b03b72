//! Cuts a connection's bytes into frames: a 4-byte big-endian length, then that many bytes.
//!
//! The buffer grows only with bytes that have arrived: a length on the wire reserves nothing by itself. An idle
//! connection holds no buffer at all.

use std::io;

use bytes::{Bytes, BytesMut};

use super::stream::ReadSide;

/// What one read of a connection may bring at least; several small requests arrive in one read.
const READ_BYTES_MIN: usize = 16 * 1024;
/// Room that an announced length may reserve before its bytes arrive (it stays untouched, so not resident, until then).
const READ_BYTES_TRUSTED: usize = 1024 * 1024;

/// Why a connection's bytes cannot be cut into frames.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {length} bytes; at most {limit} are allowed (socket.request.max.bytes)")]
    TooLarge { length: i64, limit: usize },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The unread bytes of one connection.
pub(crate) struct FrameReader {
    buffer: BytesMut,
    frame_bytes_max: usize,
    /// Length of the last frame: the next one is likely as long, and then arrives without being moved.
    last_frame_bytes: usize,
}

impl FrameReader {
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), frame_bytes_max, last_frame_bytes: 0 }
    }

    /// Changes the longest frame: a client that is not known yet may send less.
    pub(crate) fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Waits for bytes and takes what is there; `false` when the peer has closed. Safe to cancel.
    pub(crate) async fn fill(&mut self, socket: &mut ReadSide<'_>) -> Result<bool, FrameError> {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            socket.readable().await?;
        }
        self.make_room();
        Ok(socket.read(&mut self.buffer).await? > 0)
    }

    /// The next whole frame, without its length; `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.announced()? else { return Ok(None) };
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(4 + length);
        let _ = frame.split_to(4);
        self.last_frame_bytes = length;
        Ok(Some(frame.freeze()))
    }

    /// The length of the frame at the front, once its four bytes are here.
    fn announced(&self) -> Result<Option<usize>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = i32::from_be_bytes(*head);
        match usize::try_from(length) {
            Ok(length) if length <= self.frame_bytes_max => Ok(Some(length)),
            _ => Err(FrameError::TooLarge { length: i64::from(length), limit: self.frame_bytes_max }),
        }
    }

    /// Room for the next read: as much as the last frame took, or for a frame that is arriving its rest, but never more
    /// than what is already here or the trusted size, whichever is larger.
    fn make_room(&mut self) {
        let missing = match self.announced() {
            Ok(Some(length)) => (4 + length).saturating_sub(self.buffer.len()),
            _ => (4 + self.last_frame_bytes).min(READ_BYTES_TRUSTED),
        };
        let wanted = missing.min(self.buffer.len().max(READ_BYTES_TRUSTED)).max(1);
        if self.buffer.capacity() - self.buffer.len() < wanted {
            self.buffer.reserve(wanted.max(READ_BYTES_MIN));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    async fn frames(bytes: &[u8], limit: usize) -> Result<Vec<Bytes>, FrameError> {
        let (mut near, mut far) = pair().await;
        near.write_all(bytes).await.unwrap();
        drop(near);
        let mut far = ReadSide::Plain(far.split().0);
        let mut reader = FrameReader::new(limit);
        let mut out = Vec::new();
        loop {
            while let Some(frame) = reader.next()? {
                out.push(frame);
            }
            if !reader.fill(&mut far).await? {
                return Ok(out);
            }
        }
    }

    #[tokio::test]
    async fn frames_come_out_in_order_however_they_arrive() {
        let mut bytes = Vec::new();
        for n in 0..100u8 {
            bytes.extend_from_slice(&(i32::from(n)).to_be_bytes());
            bytes.extend(std::iter::repeat_n(n, usize::from(n)));
        }
        let out = frames(&bytes, 1000).await.unwrap();
        assert_eq!(out.len(), 100);
        assert!(
            out.iter()
                .enumerate()
                .all(|(n, frame)| frame.len() == n && frame.iter().all(|b| usize::from(*b) == n))
        );
    }

    #[tokio::test]
    async fn a_large_frame_is_read_whole() {
        let mut bytes = 3_000_000i32.to_be_bytes().to_vec();
        bytes.resize(3_000_004, 7);
        let (mut near, mut far) = pair().await;
        let mut far = ReadSide::Plain(far.split().0);
        let writer = tokio::spawn(async move { near.write_all(&bytes).await });
        let mut reader = FrameReader::new(4_000_000);
        let frame = loop {
            if let Some(frame) = reader.next().unwrap() {
                break frame;
            }
            reader.fill(&mut far).await.unwrap();
        };
        assert_eq!(frame.len(), 3_000_000);
        writer.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_or_below_zero_is_refused() {
        assert!(matches!(
            frames(&101i32.to_be_bytes(), 100).await,
            Err(FrameError::TooLarge { length: 101, .. })
        ));
        assert!(matches!(
            frames(&(-1i32).to_be_bytes(), 100).await,
            Err(FrameError::TooLarge { length: -1, .. })
        ));
    }

    #[tokio::test]
    async fn a_huge_announced_length_reserves_little() {
        let (mut near, mut far) = pair().await;
        let mut far = ReadSide::Plain(far.split().0);
        near.write_all(&100_000_000i32.to_be_bytes()).await.unwrap();
        let mut reader = FrameReader::new(100_000_000);
        reader.fill(&mut far).await.unwrap();
        assert_eq!(reader.next().unwrap(), None);
        reader.make_room();
        assert!(reader.buffer.capacity() <= 2 * READ_BYTES_TRUSTED, "{}", reader.buffer.capacity());
    }
}
