//! The header of a message, field by field. Writing and reading stand side by side so that they do not
//! diverge.

use bytes::{BufMut, Bytes, BytesMut};

use super::{EncodeError, Header, NAME_BYTES_MAX, RAW_BYTES_MAX, ROWS_MAX, VERSION, WireError};
use crate::clock::Beacon;
use crate::kind::RecordKind;
use crate::loss::LossCounters;
use crate::stream::Stream;

pub(super) const MAGIC: &[u8; 4] = b"CSWY";
/// Magic, version, header length, checksum: what is read before the checksum is known to hold.
const PREFIX_BYTES: usize = 12;
const CODEC_ZSTD: u8 = 1;

/// The compressed body and what it unpacks to.
pub(super) struct Frame<'a> {
    version: u16,
    packed: &'a [u8],
    /// Size of the body once decompressed, as the header states it; at most [`RAW_BYTES_MAX`].
    raw_bytes: u32,
}

impl Frame<'_> {
    /// The wire version of the message.
    pub(super) fn version(&self) -> u16 {
        self.version
    }

    /// The body, which has the size that the header states.
    pub(super) fn unpack(&self) -> Result<Vec<u8>, WireError> {
        // The stated size is the capacity and no hint: zstd fails rather than write more (decompression bomb).
        let raw = zstd::bulk::decompress(self.packed, self.raw_bytes as usize)
            .map_err(|source| WireError::Decompress { raw_bytes: self.raw_bytes, source })?;
        if raw.len() != self.raw_bytes as usize {
            return Err(WireError::BadBody { what: "its length differs from the one stated" });
        }
        Ok(raw)
    }
}

pub(super) fn write(header: &Header, version: u16, packed: &[u8], raw_bytes: u32) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::with_capacity(256 + packed.len());
    out.put_slice(MAGIC);
    out.put_u16_le(version);
    out.put_u16_le(0); // header length, known below
    out.put_u32_le(0); // checksum, known last
    out.put_u8(header.kind.number());
    out.put_u8(CODEC_ZSTD);
    out.put_u16_le(0); // reserved
    out.put_u32_le(raw_bytes);
    out.put_u32_le(header.rows);
    out.put_i32_le(header.stream.number());
    let times = [header.first_boot_ns, header.last_boot_ns];
    let beacon = [header.beacon.boot_ns, header.beacon.wall_ns, header.beacon.error_ns];
    for value in [header.epoch, header.first_seq].into_iter().chain(times).chain(beacon) {
        out.put_i64_le(value);
    }
    let l = header.losses;
    for value in [l.emitted, l.ring_drop, l.shed, l.sampled_out, l.spool_drop] {
        out.put_u64_le(value);
    }
    let names = [&header.cluster, &header.node, &header.boot_id, &header.agent];
    for (field, name) in ["cluster", "node", "boot_id", "agent"].into_iter().zip(names) {
        // Checked on the way out as well as in: a longer name would make every message of the node a dead letter.
        if name.len() > NAME_BYTES_MAX {
            return Err(EncodeError::NameTooLong { field, bytes: name.len() });
        }
        // Fits: checked just above.
        out.put_u16_le(u16::try_from(name.len()).unwrap_or(0));
        out.put_slice(name.as_bytes());
    }
    // Fits: four names of `NAME_BYTES_MAX` and the fixed fields are less than 1,300 bytes.
    let header_bytes = u16::try_from(out.len()).unwrap_or(u16::MAX);
    out[6..8].copy_from_slice(&header_bytes.to_le_bytes());
    out.put_slice(packed);
    // Last, since it covers everything behind the prefix, the packed body included.
    let checksum = crc32c::crc32c(&out[PREFIX_BYTES..]);
    out[8..PREFIX_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(out.freeze())
}

pub(super) fn read(message: &[u8]) -> Result<(Header, Frame<'_>), WireError> {
    let mut at = Cursor { bytes: message, part: "prefix" };
    if at.take::<4>()? != *MAGIC {
        return Err(WireError::BadMagic);
    }
    let version = u16::from_le_bytes(at.take()?);
    // Before the checksum: a later version may have another one, and must not be reported as damage.
    if !(1..=VERSION).contains(&version) {
        return Err(WireError::UnknownVersion { version });
    }
    let header_bytes = usize::from(u16::from_le_bytes(at.take()?));
    let stated = u32::from_le_bytes(at.take()?);
    // Before any field is read: a damaged message is reported as such, and not as one of impossible values.
    let found = crc32c::crc32c(at.bytes);
    if stated != found {
        return Err(WireError::BadChecksum { stated, found });
    }
    // The header length lies in the prefix, which the checksum does not cover: it is checked on its own.
    let Some((fixed, packed)) = header_bytes.checked_sub(PREFIX_BYTES).and_then(|n| at.bytes.split_at_checked(n))
    else {
        return Err(WireError::Truncated { part: "header", bytes: message.len() });
    };
    let mut at = Cursor { bytes: fixed, part: "header" };
    let (kind, raw_bytes) = read_frame(&mut at)?;
    let header = read_fields(&mut at, kind)?;
    Ok((header, Frame { version, packed, raw_bytes }))
}

fn read_frame(at: &mut Cursor<'_>) -> Result<(RecordKind, u32), WireError> {
    let [kind, codec, ..] = at.take::<4>()?;
    let kind = RecordKind::from_number(kind).ok_or(WireError::BadField { field: "kind", value: i64::from(kind) })?;
    if codec != CODEC_ZSTD {
        return Err(WireError::BadField { field: "codec", value: i64::from(codec) });
    }
    let raw_bytes = u32::from_le_bytes(at.take()?);
    if raw_bytes > RAW_BYTES_MAX {
        return Err(WireError::BadField { field: "raw_bytes", value: i64::from(raw_bytes) });
    }
    Ok((kind, raw_bytes))
}

fn read_fields(at: &mut Cursor<'_>, kind: RecordKind) -> Result<Header, WireError> {
    let rows = u32::from_le_bytes(at.take()?);
    if rows > ROWS_MAX {
        return Err(WireError::BadField { field: "rows", value: i64::from(rows) });
    }
    let stream = i32::from_le_bytes(at.take()?);
    let stream =
        Stream::from_number(stream).ok_or(WireError::BadField { field: "stream", value: i64::from(stream) })?;
    let epoch = at.counted("epoch")?;
    let first_seq = at.counted("first_seq")?;
    // The numbers of all rows are in range then, and no later sum of them needs a check.
    if first_seq.checked_add(i64::from(rows)).is_none() {
        return Err(WireError::BadField { field: "first_seq", value: first_seq });
    }
    let first_boot_ns = at.long()?;
    let last_boot_ns = at.long()?;
    // A file per day and table: one message of few bytes could otherwise make thousands of objects.
    if super::span_days(first_boot_ns, last_boot_ns) > super::DAYS_MAX {
        return Err(WireError::BadField { field: "last_boot_ns", value: last_boot_ns });
    }
    let beacon = Beacon { boot_ns: at.long()?, wall_ns: at.long()?, error_ns: at.long()? };
    let losses = LossCounters {
        emitted: at.count()?,
        ring_drop: at.count()?,
        shed: at.count()?,
        sampled_out: at.count()?,
        spool_drop: at.count()?,
    };
    let cluster = at.name("cluster")?;
    let node = at.name("node")?;
    let boot_id = at.name("boot_id")?;
    let agent = at.name("agent")?;
    // Event ids, keys of messages and the ledger name the node. The other names may be empty.
    if node.is_empty() {
        return Err(WireError::BadName { field: "node" });
    }
    Ok(Header {
        kind,
        cluster,
        node,
        boot_id,
        epoch,
        stream,
        first_seq,
        rows,
        first_boot_ns,
        last_boot_ns,
        beacon,
        losses,
        agent,
    })
}

/// Takes bytes from the front; an error names the part in which they ran out.
struct Cursor<'a> {
    bytes: &'a [u8],
    part: &'static str,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let truncated = WireError::Truncated { part: self.part, bytes: self.bytes.len() };
        let (head, rest) = self.bytes.split_first_chunk::<N>().ok_or(truncated)?;
        self.bytes = rest;
        Ok(*head)
    }

    fn long(&mut self) -> Result<i64, WireError> {
        self.take().map(i64::from_le_bytes)
    }

    fn count(&mut self) -> Result<u64, WireError> {
        self.take().map(u64::from_le_bytes)
    }

    /// A number that cannot be negative.
    fn counted(&mut self, field: &'static str) -> Result<i64, WireError> {
        let value = self.long()?;
        if value < 0 { Err(WireError::BadField { field, value }) } else { Ok(value) }
    }

    fn name(&mut self, field: &'static str) -> Result<String, WireError> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        // Taken before its length is judged, so that a message that is cut off is reported as truncated.
        let (name, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or(WireError::Truncated { part: self.part, bytes: self.bytes.len() })?;
        self.bytes = rest;
        if length > NAME_BYTES_MAX {
            return Err(WireError::BadName { field });
        }
        String::from_utf8(name.to_vec()).map_err(|_| WireError::BadName { field })
    }
}
