//! One test binary: decisions obey their laws, and the shell its order.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

mod catalogue;
mod errand;
mod machine;
mod machine_laws;
mod shell;
mod states_doc;
mod story;
