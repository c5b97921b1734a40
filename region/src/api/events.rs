//! `events/`: the history of machines, newest first, in pages.

use schema::{net::MacAddr, projection::Level};
use serde_json::{Value, json};

use super::{
    call::{Answer, Call, json},
    fault::Fault,
    oauth::encoded,
    params::Params,
    shape::{ROOT, results},
};
use crate::store::queries::EventFilter;

const LIMIT: i64 = 100;
const MOST: i64 = 1_000;

/// `events/?op=query`.
pub async fn all(call: Call) -> Answer {
    let ("GET", "query") = call.wants() else { return Err(call.unknown()) };
    call.user()?;
    let filter = read(&call.params)?;
    let (after, before) = (filter.after, filter.before);
    let rows = call.house.events(filter).await?;
    let newest = rows.first().map(|r| r.id).or(after).or(before).unwrap_or(0);
    let oldest = rows.last().map(|r| r.id).unwrap_or(newest);
    let kept = kept_parameters(&call.params);
    let uri = |name: &str, id: i64| format!("{ROOT}/events/?op=query{kept}&{name}={id}");
    Ok(json(&json!({
        "count": rows.len(), "events": rows.iter().map(results::event).collect::<Vec<Value>>(),
        "next_uri": uri("after", newest),
        "prev_uri": if rows.is_empty() { Value::Null } else { json!(uri("before", oldest)) },
    })))
}

fn kept_parameters(params: &Params) -> String {
    let kept = params.iter().filter(|(n, _)| !matches!(*n, "op" | "after" | "before"));
    kept.map(|(n, v)| format!("&{}={}", encoded(n), encoded(v))).collect()
}

fn read(params: &Params) -> Result<EventFilter, Fault> {
    let limit: i64 = params.parsed("limit")?.unwrap_or(LIMIT);
    if limit > MOST {
        return Err(Fault::Bad(format!("limit {limit} is above {MOST}; ask for pages with before and after.")));
    }
    let mut macs: Vec<MacAddr> = Vec::new();
    for mac in params.list("mac_address") {
        macs.push(mac.parse().map_err(|e| Fault::field("mac_address", format!("{e}.")))?);
    }
    let ids = [params.list("id"), params.list("system_id")].concat();
    let filter = EventFilter {
        system_ids: ids
            .iter()
            .map(|id| id.parse().map_err(|e| Fault::field("id", format!("{e}."))))
            .collect::<Result<_, _>>()?,
        // Full names are cut to the host's: there is one domain.
        hostnames: params.list("hostname").iter().filter_map(|n| n.split('.').next()).map(str::to_owned).collect(),
        macs,
        zones: params.list("zone").into_iter().map(|z| if z == "default" { String::new() } else { z }).collect(),
        owner: params.filled("owner").map(str::to_owned),
        level: params.filled("level").map(level).transpose()?,
        limit: limit.max(1),
        after: params.parsed("after")?,
        before: params.parsed("before")?,
    };
    if filter.after.is_some() && filter.before.is_some() {
        return Err(Fault::Bad(
            "There is undefined behaviour when both after and before are specified; give one.".into(),
        ));
    }
    Ok(filter)
}

fn level(text: &str) -> Result<Level, Fault> {
    let known = [Level::Audit, Level::Debug, Level::Info, Level::Warning, Level::Error];
    // MAAS's CRITICAL is no level here: nothing is written with it.
    let found = known.into_iter().find(|l| results::level(*l).eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        Fault::Bad(format!("Unrecognised log level: {text}; use one of AUDIT, DEBUG, INFO, WARNING, ERROR."))
    })
}
