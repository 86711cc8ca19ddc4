//! The objects of a warehouse: one store over a directory or an S3 bucket, with its settings, durability and checksums.
//! This crate contains nothing about tables; `lake` stores Iceberg tables in it.
//!
//! - [`Store`]: put, get, byte ranges, head, verify, delete; every path is confined to the warehouse.
//! - [`Upload`]: an object that is written as a stream, in parts. [`Sealer`]: the checksums of a data file written so.
//! - [`Tags`]: read, replaced, and given to what is written; in S3 only.
//! - [`Storage`]: the class that an object lies in, and copies of archived objects; in S3 only.
//! - [`tiers`]: the class that a rule gives, and what classes cost.
//! - [`Bucket`]: objects that other programs wrote, read in ranges at one revision.
//! - [`Store::list`]: what lies below a location, with sizes and times.
//! - `checked`, `checksum`: what is read of the lake's own objects is compared with the checksum in the object's name.
//! - `durable`: files of a directory survive a power cut.
//! - [`config`]: the `[store]` section.
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::cognitive_complexity,
        reason = "tests count small numbers"
    )
)]

mod archive;
mod bucket;
mod calls;
mod checked;
mod checksum;
pub mod config;
mod durable;
mod list;
mod location;
mod store;
mod tags;
pub mod tiers;
mod upload;

pub use archive::{ArchiveError, Copied, RestoreOrder, Restoring, Storage, is_archived};
pub use bucket::{Bucket, BucketError, Credentials, Dropped, Revision};
pub use checksum::sealer::Sealer;
pub use checksum::{Damage, named_unix_ms};
pub use config::S3Options;
pub use list::{ListError, ObjectInfo};
pub use location::Outside;
pub use store::{Store, StoreError, Verified, has_checksums, seal, stamp};
pub use tags::{InvalidTags, TagError, Tags, TagsNotSupported};
pub use upload::{PART_BYTES, PARTS_AT_ONCE, Upload, UploadError};
