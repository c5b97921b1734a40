//! The list of messages: everything that can be said to an actor, and everything region and rack say to each other.
//!
//! Wire enums grow only at the end and wire structs do not grow: bincode has no evolution, so a changed shape is a new variant.
//! Every wire message has a golden frame in `tests/golden.txt` and a line in `docs/protocol.md`.

pub mod enrol;
pub mod link;
pub mod machine;
pub mod report;
