//! GET `/metrics`: for who asks from an allowed network (loopback, unless it is set otherwise), or shows an API key.

use actix_web::{HttpRequest, HttpResponse};

use super::{
    call::{Own, OwnAnswer},
    fault::Fault,
};

/// The page.
pub async fn show(request: HttpRequest, Own(call): Own) -> OwnAnswer {
    let from = request.peer_addr().map(|peer| peer.ip().to_canonical());
    let allowed = &call.house.app.config.metrics_allow;
    if call.caller.is_none() && !from.is_some_and(|ip| allowed.iter().any(|network| network.contains(ip))) {
        let from = from.map_or_else(String::new, |ip| format!(" from {ip}"));
        let why = format!(
            "Metrics are not served{from}: set metrics.allow in region.toml, or sign the request with an API key."
        );
        return Err(Fault::Forbidden(why).into());
    }
    let text = call.house.app.metrics().await;
    Ok(HttpResponse::Ok().content_type(actors::metrics::CONTENT_TYPE).body(text))
}
