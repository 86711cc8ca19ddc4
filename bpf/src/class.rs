//! The classes of what the probes send: loss is counted by class. A family of probes has a class.

use event_schema::stream::EventStream;

use crate::skeleton::types::cw_class;

/// What loss is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Calls of CUDA and NCCL functions.
    Call,
    /// Waits of traced threads.
    Sched,
    /// Exec, exit and fork of traced processes.
    Process,
    /// Hints for discovery ([`Notice`](crate::Notice)); not events.
    Notice,
}

/// A ring buffer of the kernel, in the order in which they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ring {
    /// Small, for records that are never sampled.
    Critical,
    /// For hints, of which the oldest may be missed.
    Notice,
    /// For calls and waits.
    Data,
}

/// What is to be known of a class.
struct Row {
    name: &'static str,
    number: u32,
    ring: Ring,
    /// The stream of its records; `None` where they are no events.
    stream: Option<EventStream>,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Call, Self::Sched, Self::Process, Self::Notice];

    /// The table: a new class is a value of `enum cw_class` in `c/record.h` and a row here.
    const fn row(self) -> Row {
        match self {
            Self::Call => Row {
                name: "call",
                number: cw_class::CW_CLASS_CALL.0,
                ring: Ring::Data,
                stream: Some(EventStream::Data),
            },
            Self::Sched => Row {
                name: "sched",
                number: cw_class::CW_CLASS_SCHED.0,
                ring: Ring::Data,
                stream: Some(EventStream::Data),
            },
            Self::Process => Row {
                name: "process",
                number: cw_class::CW_CLASS_PROCESS.0,
                ring: Ring::Critical,
                stream: Some(EventStream::Critical),
            },
            Self::Notice => {
                Row { name: "notice", number: cw_class::CW_CLASS_NOTICE.0, ring: Ring::Notice, stream: None }
            }
        }
    }

    /// As in log lines.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// As in the kernel's counters and in front of each record.
    pub(crate) const fn number(self) -> u32 {
        self.row().number
    }

    /// The ring that its records take.
    pub const fn ring(self) -> Ring {
        self.row().ring
    }

    /// The stream that its records travel in. It follows from the ring, since losses of a ring are reported by its
    /// stream.
    pub const fn stream(self) -> Option<EventStream> {
        self.row().stream
    }
}

/// A value for each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PerClass<T>([T; Class::ALL.len()]);

impl<T> std::ops::Index<Class> for PerClass<T> {
    type Output = T;

    fn index(&self, class: Class) -> &T {
        &self.0[class as usize]
    }
}

impl<T> std::ops::IndexMut<Class> for PerClass<T> {
    fn index_mut(&mut self, class: Class) -> &mut T {
        &mut self.0[class as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_are_those_of_the_probes() {
        let numbers: Vec<u32> = Class::ALL.into_iter().map(Class::number).collect();
        assert_eq!(numbers, (0..cw_class::CW_CLASSES.0).collect::<Vec<_>>());
    }

    #[test]
    fn what_lies_in_one_ring_is_told_by_one_stream() {
        for class in Class::ALL {
            let stream = match class.ring() {
                Ring::Data => Some(EventStream::Data),
                Ring::Critical => Some(EventStream::Critical),
                Ring::Notice => None,
            };
            assert_eq!(class.stream(), stream, "{}", class.name());
        }
    }
}
