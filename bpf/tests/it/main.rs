//! The probes against the real kernel, traced processes and stub libraries. Needs root: a test run by another user says
//! that it was skipped; run by root, it must pass.

mod calls;
mod harness;
mod process;
mod refusals;
mod sched;
