//! The metadata service's routes.

use actix_web::web::ServiceConfig;

use super::HttpState;

/// Mounts the routes below `/MAAS/`.
pub fn configure(_config: &mut ServiceConfig, _state: &HttpState) {}
