//! The sections that a configuration file may have: those of all programs together, since one file may serve them all
//! (ADR 43).
//!
//! Each program passes the list to `service_kit::config::ConfigSource`. A section in it that the program does not read
//! is skipped; any other is an error that names the section and its line.
#![forbid(unsafe_code)]

/// The sections of all programs, those of the agent first.
pub const SECTIONS: [&str; 11] =
    // Not made of the programs' own types: each program would then have to link all others to check its file.
    ["node", "agent", "spool", "kafka", "catalog", "store", "ingest", "bulk", "compactor", "query", "admin"];
