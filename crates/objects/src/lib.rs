//! The objects of a warehouse: one store over a directory or an S3 bucket, with its settings, durability and checksums. It
//! knows no table; `lake` keeps Iceberg tables in it.
//!
//! - [`Store`]: put, get, byte ranges, verify, delete; every path is confined to the warehouse.
//! - `checked`, `checksum`: what is read of the lake's own objects is compared with the checksum in the object's name.
//! - `durable`: files of a directory survive a power cut.
//! - [`config`]: the `[store]` section.

mod checked;
mod checksum;
pub mod config;
mod durable;
mod store;

pub use checksum::Damage;
pub use config::S3Options;
pub use store::{Store, StoreError, Verified, has_checksums, seal, stamp};
