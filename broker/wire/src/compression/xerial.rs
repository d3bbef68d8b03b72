//! The Snappy framing of Java's library (xerial), and raw Snappy blocks.
//!
//! | bytes | |
//! |---:|---|
//! | 8 | magic: 0x82 `SNAPPY` 0 |
//! | 4 | version, big-endian: 1 |
//! | 4 | oldest reader's version: 1 |
//! | 4 + n | length of a block (big-endian), the raw block; repeated |
//!
//! Java's reader takes input without the magic for one raw block (librdkafka and others write that) and allows the
//! 16-byte header again between blocks, where streams were concatenated; so does this one.

use std::io::{self, BufRead, Read, Write};

use super::{CompressionError, SNAPPY_BLOCK_BYTES_MAX};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// The magic and both versions, as Java writes them.
const HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];

/// Plain bytes of a block that is written; Java's default.
const BLOCK_BYTES: usize = 32 * 1024;

/// Snappy's best case is 64 bytes out of a copy element of 3; no honest block claims more.
const EXPANSION_MAX: usize = 22;

/// Bytes reserved for a compressed block before they are seen.
const RESERVE_BYTES_MAX: usize = 64 * 1024;

/// Largest compressed block: what the largest plain block can grow to.
const COMPRESSED_BLOCK_BYTES_MAX: usize = SNAPPY_BLOCK_BYTES_MAX + SNAPPY_BLOCK_BYTES_MAX / 6 + 32;

/// Decompresses block by block; holds one plain block.
pub struct Reader<B> {
    input: B,
    framed: Option<bool>,
    compressed: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
}

impl<B: BufRead> Reader<B> {
    /// A reader of `input`, framed or raw.
    pub fn new(input: B) -> Self {
        Self { input, framed: None, compressed: Vec::new(), plain: Vec::new(), at: 0 }
    }

    /// Reads up to `length` bytes into the block buffer; returns how many there were.
    fn read_compressed(&mut self, length: usize) -> io::Result<usize> {
        self.compressed.clear();
        self.compressed.reserve(length.min(RESERVE_BYTES_MAX));
        self.input.by_ref().take(length as u64).read_to_end(&mut self.compressed)
    }

    /// Decompresses the next block; false at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        match self.framed {
            None => self.first_block(),
            Some(false) => Ok(false),
            Some(true) => self.next_framed_block(),
        }
    }

    fn first_block(&mut self) -> io::Result<bool> {
        let read = self.read_compressed(HEADER.len())?;
        if read == 0 {
            return Err(damaged("there are no bytes"));
        }
        if self.compressed.starts_with(&MAGIC) {
            if read < HEADER.len() {
                return Err(damaged("the snappy header is cut"));
            }
            self.framed = Some(true);
            return self.next_framed_block();
        }
        self.framed = Some(false);
        let limit = (COMPRESSED_BLOCK_BYTES_MAX - read) as u64;
        self.input.by_ref().take(limit).read_to_end(&mut self.compressed)?;
        if !self.input.fill_buf()?.is_empty() {
            return Err(too_large(COMPRESSED_BLOCK_BYTES_MAX + 1, COMPRESSED_BLOCK_BYTES_MAX));
        }
        self.decompress()?;
        Ok(true)
    }

    fn next_framed_block(&mut self) -> io::Result<bool> {
        loop {
            match self.read_compressed(4)? {
                0 => return Ok(false),
                4 => {}
                _ => return Err(damaged("the length of a snappy block is cut")),
            }
            if self.compressed == MAGIC[..4] {
                // A concatenated stream: its header is 16 bytes, four of which are read.
                if self.read_compressed(HEADER.len() - 4)? < HEADER.len() - 4 {
                    return Err(damaged("the snappy header is cut"));
                }
                continue;
            }
            let length = self.compressed.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
            if length > COMPRESSED_BLOCK_BYTES_MAX {
                return Err(too_large(length, COMPRESSED_BLOCK_BYTES_MAX));
            }
            if self.read_compressed(length)? < length {
                return Err(damaged("a snappy block is cut"));
            }
            self.decompress()?;
            return Ok(true);
        }
    }

    fn decompress(&mut self) -> io::Result<()> {
        let claimed =
            snap::raw::decompress_len(&self.compressed).map_err(|error| damaged(&error.to_string()))?;
        let limit = SNAPPY_BLOCK_BYTES_MAX.min(self.compressed.len().saturating_mul(EXPANSION_MAX));
        if claimed > limit {
            return Err(too_large(claimed, limit));
        }
        self.plain.resize(claimed, 0);
        let length = snap::raw::Decoder::new()
            .decompress(&self.compressed, &mut self.plain)
            .map_err(|error| damaged(&error.to_string()))?;
        self.plain.truncate(length);
        self.at = 0;
        Ok(())
    }
}

impl<B: BufRead> Read for Reader<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Empty blocks are legal, so a block may give nothing.
        while self.at == self.plain.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let take = buffer.len().min(self.plain.len() - self.at);
        buffer[..take].copy_from_slice(&self.plain[self.at..self.at + take]);
        self.at += take;
        Ok(take)
    }
}

fn damaged(what: &str) -> io::Error {
    CompressionError::Damaged(what.to_owned()).into()
}

fn too_large(claimed: usize, limit: usize) -> io::Error {
    CompressionError::BlockTooLarge { claimed: claimed as u64, limit: limit as u64 }.into()
}

/// Compresses in Java's framing, blocks of 32 KiB.
pub struct Writer<W: Write> {
    output: W,
    block: Vec<u8>,
    encoder: snap::raw::Encoder,
    compressed: Vec<u8>,
    begun: bool,
}

impl<W: Write> Writer<W> {
    /// A writer to `output`.
    pub fn new(output: W) -> Self {
        Self {
            output,
            block: Vec::with_capacity(BLOCK_BYTES),
            encoder: snap::raw::Encoder::new(),
            compressed: vec![0; snap::raw::max_compress_len(BLOCK_BYTES)],
            begun: false,
        }
    }

    fn write_block(&mut self) -> io::Result<()> {
        self.begin()?;
        let length = self
            .encoder
            .compress(&self.block, &mut self.compressed)
            .map_err(|error| damaged(&error.to_string()))?;
        self.block.clear();
        let prefix = u32::try_from(length).map_err(|_| too_large(length, COMPRESSED_BLOCK_BYTES_MAX))?;
        self.output.write_all(&prefix.to_be_bytes())?;
        self.output.write_all(&self.compressed[..length])
    }

    fn begin(&mut self) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            self.output.write_all(&HEADER)?;
        }
        Ok(())
    }

    /// Writes what is left and gives the output back.
    pub fn finish(mut self) -> io::Result<W> {
        self.begin()?;
        if !self.block.is_empty() {
            self.write_block()?;
        }
        Ok(self.output)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..take]);
        if self.block.len() == BLOCK_BYTES {
            self.write_block()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Codec, compress, decompress};
    use super::*;

    #[test]
    fn raw_blocks_and_concatenated_streams_are_read() {
        let raw = snap::raw::Encoder::new().compress_vec(b"hello hello hello").unwrap();
        assert_eq!(decompress(Codec::Snappy, &raw, 100).unwrap(), "hello hello hello");
        let mut twice = compress(Codec::Snappy, None, b"one ").unwrap();
        twice.extend(compress(Codec::Snappy, None, b"two").unwrap());
        assert_eq!(decompress(Codec::Snappy, &twice, 100).unwrap(), "one two");
    }

    #[test]
    fn a_block_that_claims_the_impossible_is_refused_before_memory_is_taken() {
        // A varint of 2^32-1 and two bytes of data.
        for claim in [&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0][..], &[0xff, 0xff, 0xff, 0x0f, 0, 0]] {
            assert!(matches!(
                decompress(Codec::Snappy, claim, usize::MAX),
                Err(CompressionError::BlockTooLarge { .. })
            ));
        }
        let mut framed = HEADER.to_vec();
        framed.extend([0x7f, 0xff, 0xff, 0xff, 0]);
        assert!(matches!(
            decompress(Codec::Snappy, &framed, usize::MAX),
            Err(CompressionError::BlockTooLarge { .. })
        ));
    }

    #[test]
    fn the_best_possible_ratio_is_accepted() {
        let raw = snap::raw::Encoder::new().compress_vec(&vec![0; 1_000_000]).unwrap();
        assert_eq!(decompress(Codec::Snappy, &raw, 1_000_000).unwrap().len(), 1_000_000);
    }
}
