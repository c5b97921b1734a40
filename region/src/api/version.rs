//! What clients ask before anything else: versions, liveness, readiness, and the answer to paths that are not there.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;

use super::{
    call::{Answer, OwnAnswer, json, text},
    fault::{Fault, Problem},
    house::House,
};

/// The MAAS version that the API follows.
const VERSION: &str = "3.6.0";

/// GET `/MAAS/api/2.0/version/`.
pub async fn version() -> HttpResponse {
    json(&json!({
        "version": VERSION, "subversion": concat!("hostler-", env!("CARGO_PKG_VERSION")),
        "capabilities": [
            "networks-management", "static-ipaddresses", "ipv6-deployment-ubuntu", "devices-management",
            "storage-deployment-ubuntu", "network-deployment-ubuntu", "bridging-interface-ubuntu",
            "bridging-automatic-ubuntu", "authenticate-api",
        ],
    }))
}

/// GET `/MAAS/api/version/`.
pub async fn api_version() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("2.0")
}

/// Anything under `/MAAS/api/1.0/`.
pub async fn old() -> Answer {
    Err(Fault::Gone("The 1.0 API is no longer available. Please use API version 2.0.".into()))
}

/// GET `/healthz`: the process answers.
pub async fn alive() -> HttpResponse {
    text("ok")
}

/// GET `/readyz`: the store answers too.
pub async fn ready(house: Data<House>) -> OwnAnswer {
    house.ready().await?;
    Ok(json(&json!({"ready": true})))
}

/// Any other path.
pub async fn nowhere(request: HttpRequest) -> HttpResponse {
    use actix_web::ResponseError;
    let path = request.path();
    if path.starts_with("/MAAS/") {
        return Fault::NotFound(format!("Unknown API endpoint: {path}.")).error_response();
    }
    Problem(Fault::NotFound(format!("There is nothing at {path}."))).error_response()
}
