//! Hands near the operator: API, store, plans, the link's server side.

pub mod bodies;
pub mod builtin;
pub mod seal;
pub mod store;
pub mod testing;
