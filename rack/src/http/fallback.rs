//! Boot files for a connection that actix-web already holds: a client that asked for metadata first. Slower than `images`, the same answers.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, MessageBody},
    http::{Method, StatusCode, header},
};
use actors::clock::tick;
use bytes::Bytes;

use super::{
    ends,
    files::{self, Asking},
    images::entity,
};
use crate::boot::{
    Asked,
    desk::{BootDesk, Held, Opened, Tracking, map},
};

/// Bytes of one piece of a body.
const PIECE: usize = 65_536;

/// Answers whatever no route took.
pub(super) async fn serve(desk: BootDesk, request: HttpRequest) -> HttpResponse {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return HttpResponse::MethodNotAllowed()
            .insert_header((header::ALLOW, "GET, HEAD"))
            .body("files are read with GET or HEAD.\n");
    }
    let text =
        |name| request.headers().get(name).and_then(|v: &header::HeaderValue| v.to_str().ok()).map(str::to_owned);
    let asking = Asking {
        head_only: request.method() == Method::HEAD,
        path: files::path_of(request.path()),
        keep_alive: true,
        range: text(header::RANGE),
        if_range: text(header::IF_RANGE),
        if_none_match: text(header::IF_NONE_MATCH),
    };
    let ends = ends(&request);
    let asked =
        Asked { name: &asking.path, peer: ends.peer.ip(), rack: ends.local, names: desk.plan.has_dns(ends.local.ip()) };
    let Opened { content, tracking, .. } = desk.open("http", &asked);
    let reply = files::reply(&asking, entity(&content));
    let mut response =
        HttpResponse::build(StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    for (name, value) in &reply.fields {
        response.insert_header((*name, value.as_str()));
    }
    let bytes = match content {
        Held::Text(text) => Bytes::from(text),
        Held::Small { bytes, .. } => bytes,
        Held::Body { file, .. } => match map(&file) {
            Ok(bytes) => bytes,
            Err(error) => {
                return HttpResponse::InternalServerError().body(format!("the body cannot be read: {error}\n"));
            }
        },
        Held::Missing | Held::Absent(_) => return response.body(reply.note),
    };
    let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
    let whole = reply.ends_at(bytes.len() as u64) && !asking.head_only;
    let part = bytes.slice(at(reply.range.start)..at(reply.range.end));
    let len = bytes.len() as u64;
    response.body(Pieces { rest: part, len, since: tick(), tracking: whole.then_some(tracking) })
}

/// A body in pieces. Reports it as fetched when the last piece was taken, as aborted when it is dropped before.
struct Pieces {
    rest: Bytes,
    len: u64,
    since: Instant,
    tracking: Option<Tracking>,
}

impl MessageBody for Pieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let at = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(self.rest.split_to(at))))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        let Some(tracking) = self.tracking.take() else { return };
        if self.rest.is_empty() {
            tracking.fetched(self.len, self.since.elapsed());
        } else {
            tracking.aborted("the connection closed before the last byte");
        }
    }
}
