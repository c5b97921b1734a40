//! Hands near the operator: API, store, plans, the link's server side.
