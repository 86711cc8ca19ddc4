//! What an argument of an operation is: its name, the column that carries it, its type and its unit.

/// One argument of an operation. Operations that mean the same thing give it the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arg {
    /// The column of the view `typed_events`.
    pub name: &'static str,
    /// The column of `silver.events` that carries it.
    pub column: ArgColumn,
    /// Type and unit.
    pub kind: ArgKind,
    /// What it says of the event.
    pub doc: &'static str,
}

/// The column of an event that carries an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgColumn {
    Arg0,
    Arg1,
    Bytes,
}

impl ArgColumn {
    /// The column's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arg0 => "arg0",
            Self::Arg1 => "arg1",
            Self::Bytes => "bytes",
        }
    }
}

/// The type of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgKind {
    Bytes,
    /// Units of 512 bytes, whatever the device's own sectors are.
    Sectors,
    Nanoseconds,
    /// A number of things, or a place in an order.
    Count,
    /// An address in the memory of the process or of its device.
    Address,
    /// A pointer or number that names an object to its library and has no meaning elsewhere.
    Handle,
    /// Thread id.
    Thread,
    /// Process id.
    Process,
    /// Rank in a communicator.
    Rank,
    /// A number whose values the meaning lists.
    Code,
    /// Bits.
    Flags,
    /// Parts packed into one number, as the meaning says.
    Packed,
}

impl ArgKind {
    /// The SQL type that holds every value.
    pub const fn sql_type(self) -> &'static str {
        match self {
            Self::Thread | Self::Process | Self::Rank | Self::Code => "int",
            _ => "long",
        }
    }

    /// The unit, or what the number is.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Sectors => "sectors of 512 bytes",
            Self::Nanoseconds => "nanoseconds",
            Self::Count => "count",
            Self::Address => "address",
            Self::Handle => "handle",
            Self::Thread => "thread id",
            Self::Process => "process id",
            Self::Rank => "rank",
            Self::Code => "code",
            Self::Flags => "bits",
            Self::Packed => "packed",
        }
    }
}
