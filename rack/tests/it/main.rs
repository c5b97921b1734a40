//! The one integration binary of this crate: one module per part.

mod peers_power;
