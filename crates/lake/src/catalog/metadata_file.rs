//! A metadata file as it lies in the store: JSON, compressed where the table says so (Iceberg spec, "Table metadata JSON
//! serialization"; `write.metadata.compression-codec`). A table with a commit every second has thousands of snapshots in
//! its metadata, which is written with each commit: gzip makes a fifth of it.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use iceberg::spec::TableMetadata;

use super::MetadataFileError;
use crate::table::schema::METADATA_CODEC;

/// The first bytes of a gzip file (RFC 1952, section 2.3.1). The content decides and not the name, as in PyIceberg and
/// Java a name may lack the suffix.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// A metadata file that is larger is damaged or made to fill the memory.
const MAX_BYTES: u64 = 1 << 30;

/// The end of a metadata file's name.
pub(super) const PLAIN_SUFFIX: &str = ".metadata.json";
pub(super) const GZIP_SUFFIX: &str = ".gz.metadata.json";

/// The content of a metadata file, and the end of its name.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) suffix: &'static str,
}

/// Writes metadata as its table wants it.
///
/// # Errors
/// The metadata is no JSON, or cannot be compressed.
pub(super) fn encode(table: &TableMetadata) -> Result<Encoded, MetadataFileError> {
    let json = serde_json::to_vec(table)?;
    let codec = table.properties().get(METADATA_CODEC);
    if !codec.is_some_and(|codec| codec.eq_ignore_ascii_case("gzip")) {
        return Ok(Encoded { bytes: json, suffix: PLAIN_SUFFIX });
    }
    // The fastest level: the file is written again with the next commit, and a better one saves 15 % of it for three
    // times the time.
    let mut encoder = GzEncoder::new(Vec::with_capacity(json.len() / 4), Compression::fast());
    encoder.write_all(&json)?;
    Ok(Encoded { bytes: encoder.finish()?, suffix: GZIP_SUFFIX })
}

/// The JSON of a metadata file.
///
/// # Errors
/// The file is no gzip although it begins as one, or has more than [`MAX_BYTES`].
pub(super) fn decode(file: &[u8]) -> io::Result<Cow<'_, [u8]>> {
    if !file.starts_with(&GZIP) {
        return Ok(Cow::Borrowed(file));
    }
    let mut json = Vec::new();
    let read = MultiGzDecoder::new(file).take(MAX_BYTES + 1).read_to_end(&mut json)?;
    if read as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {MAX_BYTES} bytes of JSON")));
    }
    Ok(Cow::Owned(json))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::catalog::{Head, HeadError};

    fn table(codec: &str) -> TableMetadata {
        let table = crate::table::schema::new_table(&crate::tests::def(), "file:///w/t", Uuid::nil(), 0).unwrap();
        let set = [(METADATA_CODEC.to_owned(), codec.to_owned())].into();
        table.into_builder(None).set_properties(set).unwrap().build().unwrap().metadata
    }

    #[test]
    fn metadata_is_read_as_it_was_written_compressed_or_not() {
        for (codec, suffix) in [("gzip", GZIP_SUFFIX), ("GZIP", GZIP_SUFFIX), ("none", PLAIN_SUFFIX)] {
            let table = table(codec);
            let encoded = encode(&table).unwrap();
            assert_eq!((encoded.suffix, encoded.bytes.starts_with(&GZIP)), (suffix, suffix == GZIP_SUFFIX));
            let head = Head::parse("file:///w/t/metadata/00001-x.metadata.json", &encoded.bytes).unwrap();
            assert_eq!((*head.metadata == table, head.version()), (true, 1), "{codec}");
        }
    }

    #[test]
    fn a_file_that_was_cut_is_an_error_that_names_it() {
        let whole = encode(&table("gzip")).unwrap().bytes;
        let cut = Head::parse("file:///w/t/metadata/7", &whole[..whole.len() - 9]).unwrap_err();
        assert!(matches!(&cut, HeadError::Compressed { location, .. } if location.ends_with("/7")), "{cut}");
        assert!(!cut.is_transient());
    }
}
