//! The codecs of record batches, always bounded.
//!
//! Compressed records are read as a stream ([`Reader`], [`Limited`]), so that nobody holds what a small hostile batch
//! grows to. Ids and names are Kafka's `compression.type`; the frames are what Java's libraries read and write: gzip
//! members, Snappy in the framing of Java's library ([`xerial`]), standard LZ4 frames with independent blocks,
//! Zstandard frames.

pub mod xerial;

use std::io::{self, BufRead, Read, Write};

use bytes::Bytes;

/// Largest window that a Zstandard frame may ask for, as a power of two: 128 MiB, which level 22 uses and Java's
/// library accepts. The window is only touched as far as output really goes.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Level of Zstandard when none is given, as in Kafka.
const ZSTD_LEVEL_DEFAULT: i32 = 3;

/// Level of gzip when none is given, as in Java.
const GZIP_LEVEL_DEFAULT: u32 = 6;

/// Bytes copied at a time from one codec to another.
const COPY_BUFFER_BYTES: usize = 16 * 1024;

/// Largest snappy block of plain text (raw blocks of a whole batch, as librdkafka writes them); 64 MiB.
pub const SNAPPY_BLOCK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a codec refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// Attribute bits that name no codec.
    #[error("no codec has the id {0}")]
    UnknownCodec(i16),
    /// A level outside the codec's range.
    #[error("{codec} has no level {level}")]
    Level {
        /// The codec.
        codec: &'static str,
        /// The level asked for.
        level: i32,
    },
    /// Bytes that the codec cannot read.
    #[error("the compressed bytes are damaged: {0}")]
    Damaged(String),
    /// More output than the caller allows.
    #[error("the output is larger than the limit of {limit} bytes")]
    OutputLimit {
        /// The limit, bytes.
        limit: u64,
    },
    /// A block claims more plain bytes than is allowed or than its compressed bytes could hold.
    #[error("a block claims {claimed} bytes, more than the {limit} that are allowed or possible")]
    BlockTooLarge {
        /// The claim, bytes.
        claimed: u64,
        /// The bound, bytes.
        limit: u64,
    },
}

impl CompressionError {
    /// Takes the named error out of the one that `Read` can give.
    pub(crate) fn from_read(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(named) => named,
            Err(other) => Self::Damaged(other.to_string()),
        }
    }
}

impl From<CompressionError> for io::Error {
    fn from(error: CompressionError) -> Self {
        Self::other(error)
    }
}

/// A codec of record batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Plain records.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, raw or in Java's framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard (KIP-110).
    Zstd,
}

impl Codec {
    /// Every codec, in the order of the ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The bits of a batch's attributes that hold the codec.
    pub const ATTRIBUTE_MASK: i16 = 7;

    /// The codec of a batch with these attributes.
    pub fn from_attributes(attributes: i16) -> Result<Self, CompressionError> {
        match attributes & Self::ATTRIBUTE_MASK {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            other => Err(CompressionError::UnknownCodec(other)),
        }
    }

    /// The attribute bits.
    pub fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Kafka's name: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec of a name; `uncompressed` (as topics say it) is `none` too.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "uncompressed" => Some(Self::None),
            name => Self::ALL.into_iter().find(|codec| codec.name() == name),
        }
    }
}

/// Decompresses as a stream. Concatenated gzip members and Zstandard frames are read on, as Java does.
pub struct Reader<'a, B: BufRead>(Kind<'a, B>);

enum Kind<'a, B: BufRead> {
    Plain(B),
    Gzip(Box<flate2::bufread::MultiGzDecoder<B>>),
    Snappy(xerial::Reader<B>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<B>>),
    Zstd(zstd::stream::read::Decoder<'a, B>),
}

impl<B: BufRead> Reader<'_, B> {
    /// A reader of `compressed`.
    pub fn new(codec: Codec, compressed: B) -> Result<Self, CompressionError> {
        Ok(Self(match codec {
            Codec::None => Kind::Plain(compressed),
            Codec::Gzip => Kind::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(compressed))),
            Codec::Snappy => Kind::Snappy(xerial::Reader::new(compressed)),
            Codec::Lz4 => Kind::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(compressed))),
            Codec::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)
                    .map_err(CompressionError::from_read)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(CompressionError::from_read)?;
                Kind::Zstd(decoder)
            }
        }))
    }
}

impl<B: BufRead> Read for Reader<'_, B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(reader) => reader.read(buffer),
            Kind::Gzip(reader) => reader.read(buffer),
            Kind::Snappy(reader) => reader.read(buffer),
            Kind::Lz4(reader) => reader.read(buffer),
            Kind::Zstd(reader) => reader.read(buffer),
        }
    }
}

/// Ends a stream with [`CompressionError::OutputLimit`] as soon as it gives more than `limit` bytes.
pub struct Limited<R> {
    reader: R,
    limit: u64,
    passed: u64,
}

impl<R: Read> Limited<R> {
    /// Limits `reader` to `limit` bytes.
    pub fn new(reader: R, limit: u64) -> Self {
        Self { reader, limit, passed: 0 }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.passed += read as u64;
        if self.passed > self.limit {
            return Err(CompressionError::OutputLimit { limit: self.limit }.into());
        }
        Ok(read)
    }
}

/// Decompresses into memory, at most `limit` bytes.
pub fn decompress(codec: Codec, compressed: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
    let mut plain = Vec::new();
    Limited::new(Reader::new(codec, compressed)?, limit as u64)
        .read_to_end(&mut plain)
        .map_err(CompressionError::from_read)?;
    Ok(plain.into())
}

/// Compresses in memory. `level` is Kafka's `compression.<codec>.level`; none is the codec's default.
pub fn compress(codec: Codec, level: Option<i32>, plain: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let sink = Sink { bytes: Vec::with_capacity(plain.len() / 2 + 64), limit: usize::MAX };
    let mut writer = Writer::new(codec, level, sink)?;
    writer.write_all(plain).map_err(CompressionError::from_read)?;
    writer.finish()
}

/// Brings compressed bytes from one codec into another as a stream: holds the result and two small windows only.
/// Neither more than `plain_limit` bytes between, nor more than `output_limit` bytes behind `prefix` may come out.
pub fn transcode(
    from: Codec,
    compressed: &[u8],
    to: Codec,
    level: Option<i32>,
    prefix: &[u8],
    plain_limit: u64,
    output_limit: usize,
) -> Result<Vec<u8>, CompressionError> {
    let mut reader = Limited::new(Reader::new(from, compressed)?, plain_limit);
    let mut bytes = Vec::with_capacity(prefix.len() + compressed.len().min(output_limit));
    bytes.extend_from_slice(prefix);
    let sink = Sink { bytes, limit: output_limit.saturating_add(prefix.len()) };
    let mut writer = Writer::new(to, level, sink)?;
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        let read = reader.read(&mut buffer).map_err(CompressionError::from_read)?;
        if read == 0 {
            return writer.finish();
        }
        writer.write_all(&buffer[..read]).map_err(CompressionError::from_read)?;
    }
}

/// Collects output up to a limit.
struct Sink {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len().min(self.limit) {
            return Err(CompressionError::OutputLimit { limit: self.limit as u64 }.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Writer {
    Plain(Sink),
    Gzip(Box<flate2::write::GzEncoder<Sink>>),
    Snappy(Box<xerial::Writer<Sink>>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Sink>>),
    Zstd(zstd::stream::write::Encoder<'static, Sink>),
}

impl Writer {
    fn new(codec: Codec, level: Option<i32>, sink: Sink) -> Result<Self, CompressionError> {
        Ok(match codec {
            Codec::None => Self::Plain(sink),
            Codec::Gzip => {
                let level = gzip_level(level)?;
                Self::Gzip(Box::new(flate2::write::GzEncoder::new(sink, flate2::Compression::new(level))))
            }
            Codec::Snappy => Self::Snappy(Box::new(xerial::Writer::new(sink))),
            // The crate has one speed: Kafka's levels 1 to 17 are accepted and give the same frames.
            Codec::Lz4 => {
                let frame = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::with_frame_info(frame, sink)))
            }
            Codec::Zstd => {
                let level = level.unwrap_or(ZSTD_LEVEL_DEFAULT);
                if !zstd::compression_level_range().contains(&level) {
                    return Err(CompressionError::Level { codec: "zstd", level });
                }
                Self::Zstd(
                    zstd::stream::write::Encoder::new(sink, level).map_err(CompressionError::from_read)?,
                )
            }
        })
    }

    fn finish(self) -> Result<Vec<u8>, CompressionError> {
        let sink = match self {
            Self::Plain(sink) => sink,
            Self::Gzip(writer) => writer.finish().map_err(CompressionError::from_read)?,
            Self::Snappy(writer) => writer.finish().map_err(CompressionError::from_read)?,
            Self::Lz4(writer) => {
                writer.finish().map_err(|error| CompressionError::from_read(io::Error::from(error)))?
            }
            Self::Zstd(writer) => writer.finish().map_err(CompressionError::from_read)?,
        };
        Ok(sink.bytes)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(writer) => writer.write(bytes),
            Self::Gzip(writer) => writer.write(bytes),
            Self::Snappy(writer) => writer.write(bytes),
            Self::Lz4(writer) => writer.write(bytes),
            Self::Zstd(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Kafka's levels are 1 to 9, and -1 for the default.
fn gzip_level(level: Option<i32>) -> Result<u32, CompressionError> {
    match level {
        None | Some(-1) => Ok(GZIP_LEVEL_DEFAULT),
        Some(level @ 1..=9) => Ok(level.unsigned_abs()),
        Some(level) => Err(CompressionError::Level { codec: "gzip", level }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_round_trips() {
        for length in [0, 1, 100, 32 * 1024, 32 * 1024 + 1, 300_000] {
            let plain: Vec<u8> = (0..length).map(|i: u32| (i / 7 % 251).to_le_bytes()[0]).collect();
            for codec in Codec::ALL {
                let compressed = compress(codec, None, &plain).unwrap();
                assert_eq!(decompress(codec, &compressed, plain.len()).unwrap(), plain, "{codec:?} {length}");
            }
        }
    }

    #[test]
    fn output_beyond_the_limit_is_a_named_error() {
        for codec in Codec::ALL {
            let compressed = compress(codec, None, &vec![0; 100_000]).unwrap();
            let error = decompress(codec, &compressed, 99_999).unwrap_err();
            assert_eq!(error, CompressionError::OutputLimit { limit: 99_999 }, "{codec:?}");
        }
    }

    #[test]
    fn transcoding_beyond_the_output_limit_is_a_named_error() {
        let compressed = compress(Codec::Zstd, None, &vec![0; 100_000]).unwrap();
        let error =
            transcode(Codec::Zstd, &compressed, Codec::None, None, b"", u64::MAX, 50_000).unwrap_err();
        assert_eq!(error, CompressionError::OutputLimit { limit: 50_000 });
        let gzip =
            transcode(Codec::Zstd, &compressed, Codec::Gzip, Some(9), b"head", u64::MAX, 50_000).unwrap();
        assert_eq!(&gzip[..4], b"head");
        assert_eq!(decompress(Codec::Gzip, &gzip[4..], 100_000).unwrap(), vec![0; 100_000]);
    }

    #[test]
    fn levels_outside_the_range_are_refused() {
        assert!(compress(Codec::Gzip, Some(10), b"x").is_err());
        assert!(compress(Codec::Gzip, Some(0), b"x").is_err());
        assert!(compress(Codec::Zstd, Some(23), b"x").is_err());
        assert!(compress(Codec::Zstd, Some(-5), b"x").is_ok());
    }
}
