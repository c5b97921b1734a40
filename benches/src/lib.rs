//! The yard: where all of it runs at once.

pub mod relayed;
