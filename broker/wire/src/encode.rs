//! Writes Kafka's primitive types into segments: small fields into one growing buffer, record batches by reference.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::api::ApiKey;
use crate::messages::Message;

/// Records of at least this many bytes become a segment of their own; fewer are cheaper to copy.
const BY_REFERENCE_BYTES_MIN: usize = 4096;

/// A value does not fit the protocol's integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value is too long for the protocol: {0} bytes or elements")]
pub struct EncodeError(pub usize);

/// Short for results of encoding.
pub type Encoded<T = ()> = Result<T, EncodeError>;

/// What a `records` field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records {
    /// Batches in memory.
    Bytes(Bytes),
    /// Batches elsewhere (a range of a file), known to the caller by a token. Never comes out of decoding.
    External {
        /// The caller's name for it.
        token: u32,
        /// How many bytes it stands for.
        length: usize,
    },
}

impl Records {
    /// How many bytes they are.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::External { length, .. } => *length,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

/// A piece of an encoded message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Bytes in memory.
    Bytes(Bytes),
    /// See [`Records::External`].
    External {
        /// The caller's name for it.
        token: u32,
        /// How many bytes it stands for.
        length: usize,
    },
}

/// An encoded message, in pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments(Vec<Segment>);

impl Segments {
    /// Bytes in all.
    pub fn length(&self) -> usize {
        self.0
            .iter()
            .map(|segment| match segment {
                Segment::Bytes(bytes) => bytes.len(),
                Segment::External { length, .. } => *length,
            })
            .sum()
    }

    /// The pieces.
    pub fn as_slice(&self) -> &[Segment] {
        &self.0
    }

    /// One buffer; external pieces are left out, so only for messages without them.
    pub fn into_bytes(self) -> Bytes {
        let mut pieces = self.0.into_iter().filter_map(|segment| match segment {
            Segment::Bytes(bytes) => Some(bytes),
            Segment::External { .. } => None,
        });
        let Some(first) = pieces.next() else { return Bytes::new() };
        let Some(second) = pieces.next() else { return first };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        pieces.for_each(|piece| all.extend_from_slice(&piece));
        all.freeze()
    }
}

impl FromIterator<Segment> for Segments {
    fn from_iter<I: IntoIterator<Item = Segment>>(segments: I) -> Self {
        Self(segments.into_iter().collect())
    }
}

impl IntoIterator for Segments {
    type Item = Segment;
    type IntoIter = std::vec::IntoIter<Segment>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Builds one message.
#[derive(Debug, Default)]
pub struct Encoder {
    done: Vec<Segment>,
    done_bytes: usize,
    buffer: BytesMut,
    /// Error codes that were written, each with how often.
    errors: ErrorCounts,
}

/// Kafka's error codes in one message, each with how often; success is not among them. Mostly empty, which allocates nothing.
pub type ErrorCounts = Vec<(i16, u32)>;

/// Where a tagged field began, so that its size can be put in front.
#[derive(Debug)]
pub struct TagStart {
    segments: usize,
    at: usize,
}

impl Encoder {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far.
    pub fn length(&self) -> usize {
        self.done_bytes + self.buffer.len()
    }

    /// The message.
    pub fn finish(mut self) -> Segments {
        self.close_buffer();
        Segments(self.done)
    }

    fn close_buffer(&mut self) {
        if !self.buffer.is_empty() {
            let bytes = self.buffer.split().freeze();
            self.done_bytes += bytes.len();
            self.done.push(Segment::Bytes(bytes));
        }
    }

    /// INT8.
    pub fn i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }
    /// INT16.
    pub fn i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }
    /// INT16 that is one of Kafka's error codes: it is counted beside.
    pub fn error_code(&mut self, code: i16) {
        self.buffer.put_i16(code);
        if code != 0 {
            match self.errors.iter_mut().find(|(known, _)| *known == code) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => self.errors.push((code, 1)),
            }
        }
    }
    /// UINT16.
    pub fn u16(&mut self, value: u16) {
        self.buffer.put_u16(value);
    }
    /// INT32.
    pub fn i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }
    /// UINT32.
    pub fn u32(&mut self, value: u32) {
        self.buffer.put_u32(value);
    }
    /// INT64.
    pub fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }
    /// FLOAT64.
    pub fn f64(&mut self, value: f64) {
        self.buffer.put_f64(value);
    }
    /// UUID.
    pub fn uuid(&mut self, value: Uuid) {
        self.buffer.put_u128(value.as_u128());
    }

    /// UNSIGNED_VARINT.
    pub fn unsigned_varint(&mut self, value: u32) {
        put_varint(&mut self.buffer, value);
    }

    /// The length of an array or of bytes.
    pub fn length_of(&mut self, length: Option<usize>, flexible: bool) -> Encoded {
        let checked = |length: usize| i32::try_from(length).map_err(|_| EncodeError(length));
        match (length, flexible) {
            (Some(length), false) => self.i32(checked(length)?),
            (None, false) => self.i32(-1),
            (Some(length), true) => self.unsigned_varint(checked(length)?.unsigned_abs() + 1),
            (None, true) => self.unsigned_varint(0),
        }
        Ok(())
    }

    /// The length of an array.
    pub fn length_prefix(&mut self, length: usize, flexible: bool) -> Encoded {
        self.length_of(Some(length), flexible)
    }

    /// The length of an array that is null.
    pub fn null_length(&mut self, flexible: bool) -> Encoded {
        self.length_of(None, flexible)
    }

    /// STRING that may be null.
    pub fn nullable_text(&mut self, value: Option<&str>, flexible: bool) -> Encoded {
        let length = value.map_or(0, str::len);
        let short = i16::try_from(length).map_err(|_| EncodeError(length))?;
        match (value, flexible) {
            (None, false) => self.i16(-1),
            (Some(_), false) => self.i16(short),
            (value, true) => self.length_of(value.map(str::len), true)?,
        }
        self.buffer.put_slice(value.unwrap_or_default().as_bytes());
        Ok(())
    }

    /// STRING.
    pub fn text(&mut self, value: &str, flexible: bool) -> Encoded {
        self.nullable_text(Some(value), flexible)
    }

    /// BYTES that may be null.
    pub fn nullable_bytes(&mut self, value: Option<&Bytes>, flexible: bool) -> Encoded {
        self.length_of(value.map(Bytes::len), flexible)?;
        self.buffer.put_slice(value.map(|bytes| &bytes[..]).unwrap_or_default());
        Ok(())
    }

    /// BYTES.
    pub fn bytes(&mut self, value: &Bytes, flexible: bool) -> Encoded {
        self.nullable_bytes(Some(value), flexible)
    }

    /// RECORDS that may be null: by reference unless small.
    pub fn nullable_records(&mut self, value: Option<&Records>, flexible: bool) -> Encoded {
        self.length_of(value.map(Records::len), flexible)?;
        match value {
            None => {}
            Some(Records::Bytes(bytes)) if bytes.len() < BY_REFERENCE_BYTES_MIN => {
                self.buffer.put_slice(bytes);
            }
            Some(Records::Bytes(bytes)) => {
                self.close_buffer();
                self.done_bytes += bytes.len();
                self.done.push(Segment::Bytes(bytes.clone()));
            }
            Some(Records::External { length: 0, .. }) => {}
            Some(Records::External { token, length }) => {
                self.close_buffer();
                self.done_bytes += length;
                self.done.push(Segment::External { token: *token, length: *length });
            }
        }
        Ok(())
    }

    /// Begins a tagged field.
    pub fn begin_tag(&mut self, tag: u32) -> TagStart {
        self.unsigned_varint(tag);
        TagStart { segments: self.done.len(), at: self.buffer.len() }
    }

    /// Ends a tagged field: its size goes in front of it.
    pub fn end_tag(&mut self, start: TagStart) -> Encoded {
        if start.segments != self.done.len() {
            // No tagged field holds records.
            return Err(EncodeError(self.length()));
        }
        let end = self.buffer.len();
        let size = u32::try_from(end - start.at).map_err(|_| EncodeError(end - start.at))?;
        self.unsigned_varint(size);
        // The size was written behind the field; it goes in front.
        if let Some(field) = self.buffer.get_mut(start.at..) {
            field.rotate_left(end - start.at);
        }
        Ok(())
    }
}

fn put_varint(buffer: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        let [low, ..] = value.to_le_bytes();
        buffer.put_u8(low | 0x80);
        value >>= 7;
    }
    let [low, ..] = value.to_le_bytes();
    buffer.put_u8(low);
}

/// A response with its header, the length in front.
pub fn encode_response_frame(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    body: &impl Message,
) -> Encoded<Segments> {
    encode_counted_frame(key, version, correlation_id, body).map(|(frame, _)| frame)
}

/// As [`encode_response_frame`], with the error codes that the response tells.
pub fn encode_counted_frame(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    body: &impl Message,
) -> Encoded<(Segments, ErrorCounts)> {
    let mut encoder = Encoder::new();
    encoder.i32(0);
    encoder.i32(correlation_id);
    if key.response_header_version(version) > 0 {
        encoder.unsigned_varint(0);
    }
    body.encode(&mut encoder, version)?;
    let errors = std::mem::take(&mut encoder.errors);
    finish_frame(encoder).map(|frame| (frame, errors))
}

/// A request with its header, the length in front.
pub fn encode_request_frame(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    body: &impl Message,
) -> Encoded<Segments> {
    let mut encoder = Encoder::new();
    encoder.i32(0);
    encoder.i16(key.code());
    encoder.i16(version);
    encoder.i32(correlation_id);
    encoder.nullable_text(client_id, false)?;
    if key.request_header_version(version) > 1 {
        encoder.unsigned_varint(0);
    }
    body.encode(&mut encoder, version)?;
    finish_frame(encoder)
}

/// Puts the length into the four bytes that were left for it.
fn finish_frame(encoder: Encoder) -> Encoded<Segments> {
    let length = encoder.length() - 4;
    let prefix = i32::try_from(length).map_err(|_| EncodeError(length))?.to_be_bytes();
    let mut segments = encoder.finish();
    if let Some(Segment::Bytes(first)) = segments.0.first_mut() {
        let mut bytes = BytesMut::from(std::mem::take(first));
        if let Some(room) = bytes.first_chunk_mut() {
            *room = prefix;
        }
        *first = bytes.freeze();
    }
    Ok(segments)
}
