//! Snapshot files: one file, replaced whole.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `OTTLASN1` |
//! | 4 | CRC-32C of all that follows, big-endian |
//! | 4 | length of the head, big-endian |
//! | head | JSON: last log id, membership |
//! | body | `SnapshotChunk` messages, each behind its length (varint) |

use std::fs;
use std::io;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use ottla_metadata::image::{LogIndex, MetadataImage};
use ottla_proto::controller::SnapshotChunk;
use prost::Message;

use crate::files;
use crate::types::{Snapshot, SnapshotMeta};

const NAME: &str = "metadata.snapshot";
const MAGIC: &[u8; 8] = b"OTTLASN1";
/// Records of one chunk.
const CHUNK_RECORDS: usize = 1_000;

fn broken(path: &Path, what: &str) -> io::Error {
    let text = format!(
        "the snapshot {} is broken ({what}); empty the metadata directory of this controller and \
                        let it take its state from the others",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// An image in chunks.
pub(crate) fn chunks(image: &MetadataImage, term: u64) -> impl Iterator<Item = SnapshotChunk> {
    let index = image.index().0;
    let (records, brokers) = image.to_records();
    let mut records = records.into_iter();
    let mut brokers = Some(brokers);
    std::iter::from_fn(move || {
        // The chunk that holds the last records takes the brokers with it; without records there is one chunk all the same.
        brokers.as_ref()?;
        let part: Vec<_> = records.by_ref().take(CHUNK_RECORDS).collect();
        let last = records.len() == 0;
        // The epochs come last: every registration that they belong to is then there.
        let broker_epochs = if last { brokers.take().unwrap_or_default() } else { Vec::new() };
        Some(SnapshotChunk { index, term, records: part, broker_epochs, last })
    })
}

/// The body of an image's snapshot.
pub(crate) fn from_image(image: &MetadataImage, term: u64) -> Bytes {
    let mut body = BytesMut::new();
    for chunk in chunks(image, term) {
        body.extend_from_slice(&chunk.encode_length_delimited_to_vec());
    }
    body.freeze()
}

/// The image of a body.
pub(crate) fn to_image(index: i64, body: &Bytes) -> io::Result<MetadataImage> {
    let mut rest = body.clone();
    let (mut records, mut brokers) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let chunk = SnapshotChunk::decode_length_delimited(&mut rest).map_err(io::Error::other)?;
        records.extend(chunk.records);
        brokers.extend(chunk.broker_epochs);
    }
    MetadataImage::from_records(LogIndex(index), &records, &brokers).map_err(io::Error::other)
}

/// Writes the snapshot of a directory, durable on return.
pub(crate) fn write(directory: &Path, meta: &SnapshotMeta, body: &[u8]) -> io::Result<()> {
    let head = serde_json::to_vec(meta)?;
    let length = u32::try_from(head.len()).map_err(io::Error::other)?.to_be_bytes();
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for part in [&length[..], &head, body] {
        digest.update(part);
    }
    let crc = u32::try_from(digest.finalize()).map_err(io::Error::other)?.to_be_bytes();
    files::replace(&directory.join(NAME), &[MAGIC, &crc, &length, &head, body])
}

/// The snapshot of a directory, if there is one.
pub(crate) fn read(directory: &Path) -> io::Result<Option<Snapshot>> {
    let path = directory.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let number =
        |at: usize| bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map(u32::from_be_bytes);
    let (Some(crc), Some(length)) = (number(8), number(12)) else { return Err(broken(&path, "too short")) };
    if !bytes.starts_with(MAGIC) {
        return Err(broken(&path, "not a snapshot of this version"));
    }
    if crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[12..]) != u64::from(crc) {
        return Err(broken(&path, "wrong checksum"));
    }
    let end = 16 + usize::try_from(length).map_err(io::Error::other)?;
    if end > bytes.len() {
        return Err(broken(&path, "too short"));
    }
    let meta: SnapshotMeta = serde_json::from_slice(&bytes[16..end])?;
    Ok(Some(Snapshot { meta, snapshot: bytes.slice(end..) }))
}
