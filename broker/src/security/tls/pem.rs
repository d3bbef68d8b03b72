//! PEM, as property files hold it: line ends may be lost, and texts may stand between the blocks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// Blocks that are read of one text.
const BLOCKS_MAX: usize = 4096;

/// One block: its label (`CERTIFICATE`) and bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) label: String,
    pub(super) bytes: Vec<u8>,
}

/// All blocks of a text, in order.
pub(super) fn parse(text: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (label, after) = after.split_once(DASHES).ok_or("is no PEM: a block has no label")?;
        let end = format!("{END}{label}{DASHES}");
        let (body, after) =
            after.split_once(&end).ok_or_else(|| format!("is no PEM: the block {label} has no end"))?;
        // Headers of the old form of encrypted keys end with an empty line and name their values by a colon.
        if body.contains(':') {
            return Err(format!(
                "the block {label} is encrypted in OpenSSL's old form: convert it by 'openssl pkcs8 -topk8'"
            ));
        }
        let body: String = body.split_whitespace().collect();
        let bytes = BASE64.decode(body).map_err(|_| format!("is no PEM: the block {label} is not base64"))?;
        if blocks.len() == BLOCKS_MAX {
            return Err("has too many blocks".to_owned());
        }
        blocks.push(Block { label: label.to_owned(), bytes });
        rest = after;
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_with_and_without_line_ends() {
        let text = "subject=x\n-----BEGIN CERTIFICATE-----\nAQID\nBAUG\n-----END CERTIFICATE-----\n\
                    -----BEGIN PRIVATE KEY----- AQ== -----END PRIVATE KEY-----";
        let blocks = parse(text).unwrap();
        assert_eq!(blocks[0], Block { label: "CERTIFICATE".into(), bytes: vec![1, 2, 3, 4, 5, 6] });
        assert_eq!(blocks[1], Block { label: "PRIVATE KEY".into(), bytes: vec![1] });
        assert_eq!(parse("nothing").unwrap(), []);
    }

    #[test]
    fn broken_blocks_are_errors() {
        for text in [
            "-----BEGIN X",
            "-----BEGIN X-----AQ==",
            "-----BEGIN X-----!-----END X-----",
            "-----BEGIN X-----a: b\n\nAQ==-----END X-----",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
