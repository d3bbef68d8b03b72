//! Record batches as a producer may send them: headers, checksums, compressed records, all within their limits.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla_wire::records::Batches;

/// Bytes that the records of one batch may take when decompressed.
const RECORDS_BYTES_MAX: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    for batch in Batches::new(Bytes::copy_from_slice(data)) {
        let Ok(batch) = batch else { return };
        // A wrong checksum would stop nearly all inputs here, so the records are read whatever it says.
        let _ = batch.verify_crc();
        if let Ok(records) = batch.records_limited(RECORDS_BYTES_MAX) {
            let _ = records.take_while(Result::is_ok).count();
        }
    }
});
