//! Boot time and wall time. Agents stamp `CLOCK_BOOTTIME`, which is monotonic and survives suspend; the centre turns it
//! into wall time by the beacon that travels with each batch.

/// A simultaneous reading of boot time and wall time on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Beacon {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_ns: i64,
    /// `CLOCK_REALTIME`, unix nanoseconds.
    pub wall_ns: i64,
    /// Half the width of the sampling window: the reading is right to within this.
    pub error_ns: i64,
}

impl Beacon {
    /// For data whose times are unix nanoseconds already (imports): boot time and wall time are the same clock.
    pub const WALL: Self = Self { boot_ns: 0, wall_ns: 0, error_ns: 0 };

    /// Unix nanoseconds of a boot-time stamp. Saturates instead of wrapping on hostile input.
    pub fn wall_ns_of(&self, boot_ns: i64) -> i64 {
        // One offset for the whole message: a step of the wall clock within it shows from the next beacon on.
        boot_ns.saturating_add(self.wall_ns.saturating_sub(self.boot_ns))
    }
}
