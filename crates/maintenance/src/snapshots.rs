//! Which snapshots of a table stay: all of the last hour, then fewer the older they are.
