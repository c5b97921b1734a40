//! A level from 0 to 5 for each actor of a kind, as bytes: what a picture of ten thousand actors needs. The order is that of `heat/index`.

use actix_web::{HttpResponse, http::header};
use actors::shell::Gauge;
use schema::{boot::Sha256, time::Timestamp};
use serde_json::json;

use super::{asked, listed, looked, millis, oldest};
use crate::{
    api::call::{Own, OwnAnswer},
    inspect::{LATELY, One, Sample},
};

pub(super) const METRICS: &[&str] = &["queue", "wait", "handler", "rate", "age"];

/// GET `/inspect/v1/heat?kind=&metric=`: a u32 (little endian) that counts, then a byte each; the header `x-age-ms` says how old the numbers are.
pub(super) async fn levels(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let sample = call.house.app.sample(LATELY).await;
    let mut asked = asked(&call, &["kind", "metric"]);
    let (kind, metric) =
        (asked.kind(call.house.registry(), &sample.nodes), asked.choice("metric", METRICS).unwrap_or("queue"));
    asked.done()?;
    let bytes = bytes(&sample, kind, metric);
    let age = oldest(&sample.nodes).max(millis(sample.age()));
    Ok(HttpResponse::Ok().content_type("application/octet-stream").insert_header(("x-age-ms", age)).body(bytes))
}

/// GET `/inspect/v1/heat/index?kind=`: the paths, in the order of the levels; with an ETag that changes when the order does.
pub(super) async fn index(Own(call): Own) -> OwnAnswer {
    looked(&call)?;
    let sample = call.house.app.sample(LATELY).await;
    let mut asked = asked(&call, &["kind", "as"]);
    let (kind, lines) = (asked.kind(call.house.registry(), &sample.nodes), asked.lines());
    asked.done()?;
    let path = |one: One<'_>| format!("{}/{}/{}", one.node, one.kind, one.id);
    let paths: Vec<_> = of_kind(&sample, kind).map(path).collect();
    let tag = Sha256::of(paths.join("\n").as_bytes()).to_string();
    let tag = format!("\"{}\"", tag.get(..16).unwrap_or(&tag));
    let mut answer =
        listed(lines, json!({ "etag": tag, "count": paths.len() }), paths.into_iter().map(Into::into).collect());
    if let Ok(tag) = header::HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    Ok(answer)
}

fn of_kind<'a>(sample: &'a Sample, kind: Option<&'a str>) -> impl Iterator<Item = One<'a>> {
    sample.ordered().into_iter().filter(move |one| kind.is_none_or(|kind| kind == one.kind))
}

/// The levels, with their count before them.
pub(super) fn bytes(sample: &Sample, kind: Option<&str>, metric: &str) -> Vec<u8> {
    let levels: Vec<_> = of_kind(sample, kind).map(|one| level(one.gauge, metric, sample.at)).collect();
    let mut bytes = u32::try_from(levels.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    bytes.extend(levels);
    bytes
}

/// From 0 (still) to 5 (look at it).
fn level(gauge: &Gauge, metric: &str, now: Timestamp) -> u8 {
    let (value, bounds): (u64, [u64; 5]) = match metric {
        "wait" => (gauge.oldest_wait_us.unwrap_or(0), [1_000, 10_000, 100_000, 1_000_000, 10_000_000]),
        "handler" => (gauge.handle_us.p99, [1_000, 10_000, 50_000, 250_000, 1_000_000]),
        "rate" => ((gauge.rate * 10.0) as u64, [1, 10, 100, 1_000, 10_000]),
        "age" => (gauge.last_at.map_or(u64::MAX, |at| now.since(at).as_secs()), [10, 60, 300, 900, 3_600]),
        _ => (gauge.queue as u64, [1, 4, 16, 64, 128]),
    };
    bounds.iter().filter(|bound| value >= **bound).count() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_rise_with_what_they_measure() {
        let now = Timestamp::from_seconds(10_000);
        let queue = |queue| level(&Gauge { queue, ..Gauge::default() }, "queue", now);
        assert_eq!([0, 1, 4, 16, 64, 128, 9_999].map(queue), [0, 1, 2, 3, 4, 5, 5]);
        let still = Gauge::default();
        assert_eq!(["wait", "handler", "rate", "age"].map(|metric| level(&still, metric, now)), [0, 0, 0, 5]);
    }
}
