//! What is mended in a lake from what it remembers: dead letters that go to the log once more, and rows that are made
//! again from their messages.

mod columns;
pub mod letters;
pub mod reprocess;
