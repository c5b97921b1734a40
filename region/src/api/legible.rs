//! JSON for who follows a link in a browser: with line breaks. Programs, which do not ask for HTML, get it in one line.

use actix_web::{
    Error,
    body::{self, BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    middleware::Next,
};
use serde_json::Value;

/// Larger answers stay as they are, in bytes.
const MOST: u64 = 4 << 20;

/// Breaks the answer into lines, if it is JSON and the asker would take HTML.
pub async fn legible<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let reads = accept.is_some_and(|kinds| kinds.contains("text/html"));
    let answer = next.call(request).await?;
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let json = kind.starts_with("application/json") || kind.starts_with("application/problem+json");
    let small = matches!(answer.response().body().size(), body::BodySize::Sized(len) if len <= MOST);
    if !(reads && json && small) {
        return Ok(answer.map_into_boxed_body());
    }
    let (request, answer) = answer.into_parts();
    let (head, text) = answer.into_parts();
    let text = body::to_bytes(text).await.map_err(Into::into)?;
    let broken = serde_json::from_slice::<Value>(&text).map(|value| format!("{value:#}\n"));
    let body = broken.map_or_else(|_| BoxBody::new(text), BoxBody::new);
    Ok(ServiceResponse::new(request, head.set_body(body)))
}
