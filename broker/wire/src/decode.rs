//! Reads Kafka's primitive types from a frame, bounded: no count or length on the wire is trusted beyond the bytes that
//! are there, and what is built from a frame costs at most a constant times its length.

use bytes::{Buf, Bytes};
use uuid::Uuid;

use crate::text::Text;

/// Bytes of array elements that decoding may build for each byte of the frame. An empty string is one byte on the wire
/// and 32 in memory; structs of empty fields stay below twice that.
pub const MEMORY_PER_BYTE_MAX: usize = 64;
/// Bytes of array elements that decoding may build whatever the frame's length.
pub const MEMORY_FREE_BYTES: usize = 64 * 1024;
/// Bytes that an array reserves at most before its elements have been read.
pub const ARRAY_RESERVE_BYTES_MAX: usize = 64 * 1024;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end early.
    #[error("the bytes end early")]
    Truncated,
    /// A length below what is allowed.
    #[error("a negative length")]
    NegativeLength,
    /// Null where the version has none.
    #[error("null where a value is required")]
    UnexpectedNull,
    /// A string that is not UTF-8.
    #[error("a string that is not UTF-8")]
    InvalidUtf8,
    /// A variable-length integer of more bytes than its type has room for or its value needs.
    #[error("an overlong variable-length integer")]
    OverlongVarint,
    /// A boolean other than 0 and 1, or a presence marker other than -1 and 1.
    #[error("an invalid marker byte")]
    InvalidMarker,
    /// More elements than the bytes that remain could hold.
    #[error("more elements than bytes")]
    TooManyElements,
    /// The message would take far more memory than its bytes.
    #[error("a message that would take far more memory than its bytes")]
    TooMuchMemory,
    /// Tagged fields out of order or twice, or one of another length than it says.
    #[error("malformed tagged fields")]
    MalformedTags,
    /// A version outside those of the schema.
    #[error("version {0} is not supported")]
    UnsupportedVersion(i16),
    /// A key of another type than the one asked for.
    #[error("a key of type {0}, which was not asked for")]
    UnexpectedType(i16),
    /// Bytes behind the end of the message.
    #[error("{0} bytes behind the end of the message")]
    TrailingBytes(usize),
}

/// Short for results of decoding.
pub type Decoded<T> = Result<T, DecodeError>;

/// Reads one frame from front to back.
#[derive(Debug)]
pub struct Decoder {
    bytes: Bytes,
    budget: usize,
}

impl Decoder {
    /// A decoder of a whole frame.
    pub fn new(bytes: Bytes) -> Self {
        let budget = bytes.len().saturating_mul(MEMORY_PER_BYTE_MAX).saturating_add(MEMORY_FREE_BYTES);
        Self { bytes, budget }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing may be left.
    pub fn finish(&self) -> Decoded<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes(self.bytes.len())) }
    }

    /// Accounts for memory that is about to be used.
    pub fn charge(&mut self, bytes: usize) -> Decoded<()> {
        self.budget = self.budget.checked_sub(bytes).ok_or(DecodeError::TooMuchMemory)?;
        Ok(())
    }

    fn need(&self, count: usize) -> Decoded<()> {
        if self.bytes.len() < count { Err(DecodeError::Truncated) } else { Ok(()) }
    }

    /// A byte that is 0 or not.
    pub fn boolean(&mut self) -> Decoded<bool> {
        Ok(self.i8()? != 0)
    }

    /// INT8.
    pub fn i8(&mut self) -> Decoded<i8> {
        self.need(1)?;
        Ok(self.bytes.get_i8())
    }

    /// INT16.
    pub fn i16(&mut self) -> Decoded<i16> {
        self.need(2)?;
        Ok(self.bytes.get_i16())
    }

    /// UINT16.
    pub fn u16(&mut self) -> Decoded<u16> {
        self.need(2)?;
        Ok(self.bytes.get_u16())
    }

    /// INT32.
    pub fn i32(&mut self) -> Decoded<i32> {
        self.need(4)?;
        Ok(self.bytes.get_i32())
    }

    /// UINT32.
    pub fn u32(&mut self) -> Decoded<u32> {
        self.need(4)?;
        Ok(self.bytes.get_u32())
    }

    /// INT64.
    pub fn i64(&mut self) -> Decoded<i64> {
        self.need(8)?;
        Ok(self.bytes.get_i64())
    }

    /// FLOAT64.
    pub fn f64(&mut self) -> Decoded<f64> {
        self.need(8)?;
        Ok(self.bytes.get_f64())
    }

    /// UUID.
    pub fn uuid(&mut self) -> Decoded<Uuid> {
        self.need(16)?;
        Ok(Uuid::from_u128(self.bytes.get_u128()))
    }

    /// UNSIGNED_VARINT of up to 32 bits.
    pub fn unsigned_varint(&mut self) -> Decoded<u32> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            self.need(1)?;
            let byte = self.bytes.get_u8();
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero adds nothing: the same number has a shorter form, which is the only one allowed.
                return if byte == 0 && shift > 0 { Err(DecodeError::OverlongVarint) } else { Ok(value) };
            }
        }
        Err(DecodeError::OverlongVarint)
    }

    /// A length: INT32 with -1 for null, or in flexible versions UNSIGNED_VARINT of one more with 0 for null.
    fn nullable_length(&mut self, flexible: bool) -> Decoded<Option<usize>> {
        if flexible {
            return Ok(self.unsigned_varint()?.checked_sub(1).map(|length| length as usize));
        }
        Self::signed_length(i64::from(self.i32()?))
    }

    fn signed_length(length: i64) -> Decoded<Option<usize>> {
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| DecodeError::NegativeLength),
        }
    }

    fn take(&mut self, length: usize) -> Decoded<Bytes> {
        self.need(length)?;
        Ok(self.bytes.split_to(length))
    }

    /// BYTES that may be null.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Decoded<Option<Bytes>> {
        self.nullable_length(flexible)?.map(|length| self.take(length)).transpose()
    }

    /// BYTES.
    pub fn bytes(&mut self, flexible: bool) -> Decoded<Bytes> {
        self.nullable_bytes(flexible)?.ok_or(DecodeError::UnexpectedNull)
    }

    /// STRING that may be null: INT16 length, or compact.
    pub fn nullable_text(&mut self, flexible: bool) -> Decoded<Option<Text>> {
        let length =
            if flexible { self.nullable_length(true)? } else { Self::signed_length(i64::from(self.i16()?))? };
        let Some(length) = length else { return Ok(None) };
        Text::from_utf8(self.take(length)?).map(Some).ok_or(DecodeError::InvalidUtf8)
    }

    /// The client id of a request's header: never compact, and what is not UTF-8 in it is replaced, because a client that
    /// names itself oddly is served all the same.
    pub fn nullable_text_lossy(&mut self) -> Decoded<Option<Text>> {
        let Some(length) = Self::signed_length(i64::from(self.i16()?))? else { return Ok(None) };
        let bytes = self.take(length)?;
        Ok(Some(
            Text::from_utf8(bytes.clone())
                .unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned().into()),
        ))
    }

    /// STRING.
    pub fn text(&mut self, flexible: bool) -> Decoded<Text> {
        self.nullable_text(flexible)?.ok_or(DecodeError::UnexpectedNull)
    }

    /// Whether a nullable struct is there: INT8 of 1, or -1 for null.
    pub fn is_present(&mut self) -> Decoded<bool> {
        match self.i8()? {
            -1 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::InvalidMarker),
        }
    }

    /// The marker of a nullable struct in a tagged field, where Kafka writes 0 for null and 1 in front of the struct.
    pub fn is_present_tagged(&mut self) -> Decoded<bool> {
        match self.unsigned_varint()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::InvalidMarker),
        }
    }

    /// ARRAY that may be null. Its count is only believed as far as there are bytes for elements of `element_min` bytes,
    /// and its memory grows as elements are read.
    pub fn nullable_array<T>(
        &mut self,
        flexible: bool,
        element_min: usize,
        mut element: impl FnMut(&mut Self) -> Decoded<T>,
    ) -> Decoded<Option<Vec<T>>> {
        let Some(count) = self.nullable_length(flexible)? else { return Ok(None) };
        if count > self.bytes.len() / element_min.max(1) {
            return Err(DecodeError::TooManyElements);
        }
        let size = size_of::<T>().max(1);
        let mut elements = Vec::with_capacity(count.min(ARRAY_RESERVE_BYTES_MAX / size));
        for _ in 0..count {
            self.charge(size)?;
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    /// ARRAY.
    pub fn array<T>(
        &mut self,
        flexible: bool,
        element_min: usize,
        element: impl FnMut(&mut Self) -> Decoded<T>,
    ) -> Decoded<Vec<T>> {
        self.nullable_array(flexible, element_min, element)?.ok_or(DecodeError::UnexpectedNull)
    }

    /// Begins the tagged fields of a struct.
    pub fn tagged_fields(&mut self) -> Decoded<TaggedFields> {
        let count = self.unsigned_varint()?;
        // A tag and its size take a byte each.
        if count as usize > self.bytes.len() / 2 {
            return Err(DecodeError::TooManyElements);
        }
        Ok(TaggedFields { left: count, last_tag: None, end: 0 })
    }

    /// Passes over the tagged fields of a struct that knows none.
    pub fn skip_tagged_fields(&mut self) -> Decoded<()> {
        let mut fields = self.tagged_fields()?;
        while fields.next(self)?.is_some() {
            fields.skip(self)?;
        }
        Ok(())
    }
}

/// Walks the tagged fields of one struct: rising tags, each with its length.
#[derive(Debug)]
pub struct TaggedFields {
    left: u32,
    last_tag: Option<u32>,
    /// Bytes that remain in the decoder when the current field has been read.
    end: usize,
}

impl TaggedFields {
    /// The next tag.
    pub fn next(&mut self, decoder: &mut Decoder) -> Decoded<Option<u32>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let tag = decoder.unsigned_varint()?;
        if self.last_tag.is_some_and(|last| last >= tag) {
            return Err(DecodeError::MalformedTags);
        }
        self.last_tag = Some(tag);
        let size = decoder.unsigned_varint()? as usize;
        self.end = decoder.remaining().checked_sub(size).ok_or(DecodeError::Truncated)?;
        Ok(Some(tag))
    }

    /// The field must have been read to its end.
    pub fn end(&mut self, decoder: &Decoder) -> Decoded<()> {
        if decoder.remaining() == self.end { Ok(()) } else { Err(DecodeError::MalformedTags) }
    }

    /// Passes over the field.
    pub fn skip(&mut self, decoder: &mut Decoder) -> Decoded<()> {
        let size = decoder.remaining().checked_sub(self.end).ok_or(DecodeError::MalformedTags)?;
        decoder.take(size).map(drop)
    }
}
