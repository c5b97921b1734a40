//! One test binary: decisions obey their laws, and the shell its order.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

mod catalogue;
mod machine;
mod machine_laws;
//! The integration tests of the actors crate, one file per part.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

mod errand;
mod shell;
mod states_doc;
mod story;
