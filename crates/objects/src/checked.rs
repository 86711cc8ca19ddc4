//! An object store that checks what it reads of the lake's own objects. Everything else passes through.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result,
};
use parquet::file::metadata::ParquetMetaDataReader;

use crate::checksum::{Checksums, Damage, Guard, Tail, check_whole};

/// Bytes that are read at the end of a data file to find its checksums. Readers ask for the last 64 KiB first. With one
/// block more, the same bytes answer them.
const TAIL_BYTES: u64 = (64 << 10) + crate::checksum::BLOCK_BYTES as u64;
/// Bytes of checksums that are kept in memory: at four bytes per block of 16 KiB, those of 256 GiB of data files.
const KEPT_BYTES: usize = 64 << 20;
/// Columns that are named when a block is damaged; narrow ones share a block.
const NAMED_COLUMNS: usize = 4;

/// A data file whose checksums were read.
#[derive(Debug, Clone)]
struct Known {
    checksums: Arc<Checksums>,
    meta: ObjectMeta,
}

/// The checksums of data files read before. Files never change, so that they stay valid.
#[derive(Debug, Default)]
struct Kept {
    files: HashMap<Path, Known>,
    bytes: usize,
}

/// The last bytes of a file.
struct LastBytes {
    start: u64,
    bytes: Bytes,
}

impl LastBytes {
    fn slice(&self, wanted: &Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(wanted.start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(wanted.end.checked_sub(self.start)?).ok()?;
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

/// The store; see the module.
#[derive(Debug)]
pub(crate) struct Checked {
    inner: Arc<dyn ObjectStore>,
    kept: Mutex<Kept>,
}

impl Checked {
    pub(crate) fn new(inner: impl ObjectStore) -> Self {
        Self { inner: Arc::new(inner), kept: Mutex::default() }
    }

    fn known(&self, path: &Path) -> Option<Known> {
        // What a panic of another thread may have left is at worst a wrong count of bytes: a poisoned lock is used as
        // it is.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).files.get(path).cloned()
    }

    fn keep(&self, path: &Path, known: &Known) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = known.checksums.memory_bytes() + path.as_ref().len();
        if kept.bytes + bytes > KEPT_BYTES {
            // The cache is emptied instead of evicting the oldest entry: this is rare, and the checksums of a file are
            // read again together with its footer.
            *kept = Kept::default();
        }
        // Two readers that insert one file at the same time count it twice, which only empties the cache earlier.
        kept.bytes += bytes;
        kept.files.insert(path.clone(), known.clone());
    }

    /// The checksums of a data file, and its last bytes when they had to be read.
    async fn checksums(&self, path: &Path, expected: u32) -> Result<(Known, Option<LastBytes>)> {
        if let Some(known) = self.known(path) {
            return Ok((known, None));
        }
        let mut wanted = TAIL_BYTES;
        loop {
            let (meta, bytes) = self.last_bytes(path, wanted).await?;
            let start = meta.size.saturating_sub(bytes.len() as u64);
            match Checksums::read(&bytes, meta.size, expected).map_err(damaged)? {
                Tail::Checksums(checksums) => {
                    let known = Known { checksums: Arc::new(checksums), meta };
                    self.keep(path, &known);
                    return Ok((known, Some(LastBytes { start, bytes })));
                }
                // The loop ends: each pass asks for more bytes, and never for more than the file has.
                Tail::Longer(more) if more > wanted => wanted = more,
                Tail::Longer(_) => return Err(damaged(Damage::new("it changed while it was read"))),
            }
        }
    }

    async fn last_bytes(&self, path: &Path, count: u64) -> Result<(ObjectMeta, Bytes)> {
        // A suffix range needs no size: one request returns the size and the last bytes (RFC 9110, section 14.1.2).
        let options = GetOptions { range: Some(GetRange::Suffix(count)), ..GetOptions::default() };
        match self.inner.get_opts(path, options).await {
            Ok(result) => Ok((result.meta.clone(), result.bytes().await?)),
            Err(error @ Error::NotFound { .. }) => Err(error),
            // No range of an empty object can be satisfied (RFC 9110, status 416): some stores answer with an error.
            Err(error) => match self.inner.head(path).await {
                Ok(meta) if meta.size == 0 => Err(damaged(Damage::new("it has 0 bytes"))),
                _ => Err(error),
            },
        }
    }

    /// Checked ranges of a data file.
    async fn blocks(
        &self,
        path: &Path,
        known: &Known,
        last: Option<LastBytes>,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>> {
        let checksums = &known.checksums;
        // Readers take ranges from the manifest or the footer: one behind the end means that the file was cut.
        if let Some(beyond) = ranges.iter().find(|range| range.end > checksums.size()) {
            return Err(damaged(shorter(checksums.size(), beyond.end)));
        }
        // Widened to whole blocks, the unit of the checksums. Overlaps are merged, so that no block is fetched or
        // compared twice.
        let units = merged(ranges.iter().map(|range| checksums.widen(range)).collect());
        // Bytes that were fetched for the checksums answer the request if they cover it: opening a file costs one
        // request.
        let parts = match last.and_then(|last| units.iter().map(|unit| last.slice(unit)).collect()) {
            Some(parts) => parts,
            None => self.inner.get_ranges(path, &units).await?,
        };
        for (unit, bytes) in units.iter().zip(&parts) {
            if bytes.len() as u64 != unit.end - unit.start {
                return Err(damaged(shorter(unit.start + bytes.len() as u64, unit.end)));
            }
            if let Some(place) = checksums.first_damaged(unit.start, bytes) {
                return Err(damaged(self.describe(path, checksums, &place).await));
            }
        }
        let wanted = ranges.iter().map(|range| {
            // Each range lies within one unit, because it was widened and then merged.
            let at = units.iter().position(|unit| unit.start <= range.start && range.end <= unit.end)?;
            LastBytes { start: units[at].start, bytes: parts.get(at)?.clone() }.slice(range)
        });
        let wanted: Option<Vec<Bytes>> = wanted.collect();
        wanted.ok_or_else(|| damaged(Damage::new("a range of it that ends before it begins was asked for")))
    }

    /// Says which columns lie in a damaged place, as far as the footer can be read.
    async fn describe(&self, path: &Path, checksums: &Checksums, place: &Range<u64>) -> Damage {
        let mut text = format!("bytes {} to {} do not match their checksum", place.start, place.end);
        // The footer is compared first: names from a damaged footer would mislead.
        let columns = match self.inner.get_range(path, checksums.footer()).await {
            Ok(footer) if checksums.first_damaged(checksums.footer().start, &footer).is_none() => {
                columns_in(&footer, place)
            }
            _ => Vec::new(),
        };
        if !columns.is_empty() {
            let more = if columns.len() > NAMED_COLUMNS { " and others" } else { "" };
            let named: Vec<&str> = columns.iter().take(NAMED_COLUMNS).map(String::as_str).collect();
            text += &format!(" ({}{more})", named.join(", "));
        }
        Damage::new(text)
    }

    /// A checked part of an object as the answer to a request.
    async fn guarded(&self, path: &Path, guard: Guard, options: GetOptions) -> Result<GetResult> {
        match guard {
            Guard::Whole(expected) => {
                // The checksum covers the object as a whole, so the whole is read. Objects of this kind are small.
                let range = options.range.clone();
                let whole = self.inner.get_opts(path, GetOptions { range: None, ..options }).await?;
                let meta = whole.meta.clone();
                let bytes = whole.bytes().await?;
                check_whole(&bytes, expected).map_err(damaged)?;
                let range = resolve(range, bytes.len() as u64)?;
                let last = LastBytes { start: 0, bytes };
                let part = last.slice(&range).ok_or_else(|| damaged(shorter(meta.size, range.end)))?;
                Ok(result(part, range, meta))
            }
            Guard::Blocks(expected) => {
                let (known, last) = self.checksums(path, expected).await?;
                let range = resolve(options.range, known.checksums.size())?;
                let bytes = self.blocks(path, &known, last, std::slice::from_ref(&range)).await?;
                // `blocks` returns one part for each range.
                Ok(result(bytes.into_iter().next().unwrap_or_default(), range, known.meta))
            }
        }
    }
}

fn shorter(size: u64, end: u64) -> Damage {
    Damage::new(format!("it has {size} bytes, and byte {end} of it was asked for"))
}

fn damaged(damage: Damage) -> Error {
    Error::Generic { store: "checksum", source: Box::new(damage) }
}

fn resolve(range: Option<GetRange>, size: u64) -> Result<Range<u64>> {
    let Some(range) = range else { return Ok(0..size) };
    // A store returns what exists of a range (RFC 9110, section 14.1.2). An object with checksums has all bytes that
    // its readers ask for: a shorter one is damaged.
    if let GetRange::Bounded(Range { end, .. }) = &range
        && *end > size
    {
        return Err(damaged(shorter(size, *end)));
    }
    range.as_range(size).map_err(|source| Error::Generic { store: "checksum", source: Box::new(source) })
}

fn result(bytes: Bytes, range: Range<u64>, meta: ObjectMeta) -> GetResult {
    let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
    GetResult { payload, meta, range, attributes: Attributes::default() }
}

/// Ranges in ascending order, those that overlap as one.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            // Ranges that only touch stay apart: `object_store` coalesces close ranges itself.
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The columns that have bytes in a place of a file, by its footer.
fn columns_in(footer: &[u8], place: &Range<u64>) -> Vec<String> {
    // The last eight bytes are the length of the footer and the magic.
    let encoded = footer.get(..footer.len().saturating_sub(8)).unwrap_or_default();
    let Ok(metadata) = ParquetMetaDataReader::decode_metadata(encoded) else { return Vec::new() };
    let mut found = Vec::new();
    for (number, group) in metadata.row_groups().iter().enumerate() {
        for chunk in group.columns() {
            let (start, length) = chunk.byte_range();
            if start < place.end && place.start < start + length {
                found.push(format!("column {} of row group {number}", chunk.column_path().string()));
            }
        }
    }
    found
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Checked {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match Guard::of(location.as_ref()) {
            // The answer to HEAD has no content to compare.
            Some(guard) if !options.head => self.guarded(location, guard, options).await,
            _ => self.inner.get_opts(location, options).await,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match Guard::of(location.as_ref()) {
            None => self.inner.get_ranges(location, ranges).await,
            Some(Guard::Blocks(expected)) => {
                let (known, last) = self.checksums(location, expected).await?;
                self.blocks(location, &known, last, ranges).await
            }
            Some(Guard::Whole(_)) => {
                let whole = LastBytes { start: 0, bytes: self.get(location).await?.bytes().await? };
                let size = whole.bytes.len() as u64;
                ranges.iter().map(|range| whole.slice(range).ok_or_else(|| damaged(shorter(size, range.end)))).collect()
            }
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
