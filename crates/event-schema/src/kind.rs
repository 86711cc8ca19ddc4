//! The field catalogue. A wire message carries rows of one [`RecordKind`]; each kind is a list of [`Field`]s with
//! stable ids, from which the Arrow schema on the wire, the columns of its silver table and `docs/EVENTS.md` are
//! derived.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};

mod fields;

/// The wire version that this build writes. A version is a schema: a new field on the wire is a new version.
pub const WIRE_VERSION: u16 = 2;

/// The kind of the rows of a message. Numbers are on the wire and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordKind {
    Event = 1,
    Stack = 2,
    Process = 3,
    Session = 4,
    System = 5,
    Cgroup = 6,
    Chain = 7,
    Aggregate = 8,
}

impl RecordKind {
    pub const ALL: [Self; 8] = [
        Self::Event,
        Self::Stack,
        Self::Process,
        Self::Session,
        Self::System,
        Self::Cgroup,
        Self::Chain,
        Self::Aggregate,
    ];

    pub const fn number(self) -> u8 {
        self as u8
    }

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.number() == number)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Stack => "stack",
            Self::Process => "process",
            Self::Session => "session",
            Self::System => "system",
            Self::Cgroup => "cgroup",
            Self::Chain => "chain",
            Self::Aggregate => "aggregate",
        }
    }

    /// All fields of the kind: the origin of the row, then its own fields, then where its message lies.
    pub fn fields(self) -> impl Iterator<Item = &'static Field> {
        // Other kinds need no id of their own: node, boot and `seq` identify their rows. Chains refer to events alone,
        // as evidence.
        let lead = if self == Self::Event { fields::EVENT_ID } else { &[] };
        lead.iter().chain(fields::ORIGIN).chain(self.rows()).chain(fields::COORDINATES)
    }

    fn rows(self) -> &'static [Field] {
        match self {
            Self::Event => fields::EVENT,
            Self::Stack => fields::STACK,
            Self::Process => fields::PROCESS,
            Self::Session => fields::SESSION,
            Self::System => fields::SYSTEM,
            Self::Cgroup => fields::CGROUP,
            Self::Chain => fields::CHAIN,
            Self::Aggregate => fields::AGGREGATE,
        }
    }

    /// The Arrow schema of a batch of the current wire version: the fields whose place is [`Place::Row`].
    pub fn wire_schema(self) -> SchemaRef {
        self.wire_schema_of(WIRE_VERSION)
    }

    /// The Arrow schema of a batch of wire version `version`. Versions after the current one have its schema.
    pub(crate) fn wire_schema_of(self, version: u16) -> SchemaRef {
        // In range for both indices: versions are clamped, and kinds are numbered from 1 without a gap.
        let version = usize::from(version.clamp(1, WIRE_VERSION));
        Arc::clone(&WIRE_SCHEMAS[version - 1][usize::from(self.number()) - 1])
    }
}

// Made once: encoder and decoder need a schema per message.
static WIRE_SCHEMAS: LazyLock<[[SchemaRef; 8]; WIRE_VERSION as usize]> =
    LazyLock::new(|| std::array::from_fn(|before| RecordKind::ALL.map(|kind| make_wire_schema(kind, before + 1))));

fn make_wire_schema(kind: RecordKind, version: usize) -> SchemaRef {
    // Ids count the dictionary columns in order, as the writer of Arrow IPC does: no schema message travels that could
    // state others.
    let mut dictionary_id = 0;
    let rows = kind.fields().filter(|field| field.place == Place::Row && usize::from(field.since) <= version);
    Arc::new(Schema::new(rows.map(|field| field.wire_field(&mut dictionary_id)).collect::<Vec<_>>()))
}

/// Where a field's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// One value for the whole message, in its header.
    Header,
    /// A column of the batch on the wire.
    Row,
    /// Computed where the message lands.
    Centre,
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    Int,
    /// 64 bits without a pattern: pointers, hashes, ids.
    Long,
    /// 64 bits near the neighbouring row's value: times, sequence numbers, durations.
    Rising,
    Float,
    Double,
    /// `timestamptz`, microseconds.
    Timestamp,
    /// Text that repeats from row to row; a dictionary on the wire.
    Word,
    /// Text that shares its beginning with the row before.
    Id,
    /// Free text.
    Text,
}

/// One field of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The Iceberg field id of its column: stable, never reused within the kind.
    pub id: i32,
    /// Name of the column, on the wire and in the table.
    pub name: &'static str,
    /// Its type, from which those of Arrow and Iceberg follow.
    pub kind: FieldType,
    /// Whether a row may have no value.
    pub nullable: bool,
    /// Where the value is when the message arrives.
    pub place: Place,
    /// The wire version that brought the field; a message of an earlier one does not have its column.
    pub since: u16,
    /// Description of the column in `docs/EVENTS.md` and in the table.
    pub doc: &'static str,
}

impl Field {
    #[expect(
        deprecated,
        reason = "a decoder without a schema message must know dictionary ids from the schema it was given"
    )]
    fn wire_field(&self, next_dictionary_id: &mut i64) -> ArrowField {
        let kind = match self.kind {
            FieldType::Int => DataType::Int32,
            FieldType::Long | FieldType::Rising | FieldType::Timestamp => DataType::Int64,
            FieldType::Float => DataType::Float32,
            FieldType::Double => DataType::Float64,
            FieldType::Id | FieldType::Text => DataType::Utf8,
            FieldType::Word => {
                let id = *next_dictionary_id;
                *next_dictionary_id += 1;
                let words = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
                // Not ordered: words come in the order of their first use.
                return ArrowField::new_dict(self.name, words, self.nullable, id, false);
            }
        };
        ArrowField::new(self.name, kind, self.nullable)
    }
}
