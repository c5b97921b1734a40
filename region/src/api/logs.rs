//! GET `/logs/<machine>`: a machine's log, a JSON object a line, oldest first; with `follow` it goes on as lines come.

use std::{net::IpAddr, time::Duration};

use actix_web::{HttpResponse, web::Bytes};
use actors::{
    clock,
    logbook::{Place, Wanted},
};
use futures_util::stream;
use schema::{id::SystemId, logs::KeptLine, time::Timestamp};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    call::{Own, OwnAnswer},
    fault::Fault,
};
use crate::logs::Logs;

/// Lines that are shown where nothing else is asked for, and at most.
const LINES: usize = 1_000;
const MOST: usize = 100_000;
/// An empty line that often: so that both ends know of each other while a machine is silent.
const STILL_HERE: Duration = Duration::from_secs(15);

/// The lines of a machine (its system id), or of a stranger (its address).
pub async fn show(Own(call): Own) -> OwnAnswer {
    call.user()?;
    let name = call.part("machine").to_owned();
    match (name.parse::<SystemId>(), name.parse::<IpAddr>()) {
        (Ok(id), _) => drop(call.house.state(id).await?),
        (_, Ok(_)) => {}
        _ => return Err(Fault::NotFound("There is no machine of that id.".into()).into()),
    }
    let lines: usize = call.params.parsed("lines")?.unwrap_or(LINES);
    if lines > MOST {
        return Err(Fault::field("lines", format!("{lines} is above {MOST}.")).into());
    }
    let wanted = Wanted {
        attempt: call.params.parsed("attempt")?,
        since: call.params.filled("since").map(since).transpose()?,
        last: Some(lines),
        after: Place::default(),
    };
    let follow = call.params.truth("follow")?.unwrap_or(false);
    let logs = call.house.app.logs.clone();
    let grown = logs.grown();
    let (first, place) = read(&logs, &name, wanted).await.map_err(|e| unread(&e))?;
    let mut answer = HttpResponse::Ok();
    answer.content_type("application/x-ndjson; charset=utf-8");
    if !follow {
        return Ok(answer.body(text(&first)));
    }
    let following =
        Following { logs, name, grown, wanted: Wanted { after: place, last: None, ..wanted }, first: Some(first) };
    let more = stream::unfold(following, |mut following| async {
        let bytes = following.next().await?;
        Some((Ok::<_, std::io::Error>(Bytes::from(bytes)), following))
    });
    Ok(answer.streaming(more))
}

/// A point in time (RFC 3339), or a number of seconds ago.
fn since(text: &str) -> Result<Timestamp, Fault> {
    let ago = text.parse().ok().map(|seconds| clock::now() - Duration::from_secs(seconds));
    let wrong = || Fault::field("since", format!("\"{text}\" is neither a time (RFC 3339) nor a number of seconds."));
    ago.or_else(|| Timestamp::parse_rfc3339(text)).ok_or_else(wrong)
}

fn unread(error: &std::io::Error) -> Fault {
    Fault::unavailable(
        format!("The log cannot be read: {error}."),
        "Look at the region's data directory, and try again.",
    )
}

async fn read(logs: &Logs, name: &str, wanted: Wanted) -> std::io::Result<(Vec<KeptLine>, Place)> {
    let (logs, name) = (logs.clone(), name.to_owned());
    let reading = tokio::task::spawn_blocking(move || logs.read(&name, wanted));
    reading.await.map_err(std::io::Error::other)?
}

/// JSON objects, one a line.
fn text(lines: &[KeptLine]) -> String {
    let mut out = String::new();
    for line in lines {
        if let Ok(json) = serde_json::to_string(line) {
            out.push_str(&json);
            out.push('\n');
        }
    }
    out
}

/// A reader that waits for more.
struct Following {
    logs: Logs,
    name: String,
    grown: broadcast::Receiver<String>,
    wanted: Wanted,
    first: Option<Vec<KeptLine>>,
}

impl Following {
    /// The next lines, or an empty one after a silence; `None` at the end of the region.
    async fn next(&mut self) -> Option<String> {
        if let Some(first) = self.first.take().filter(|lines| !lines.is_empty()) {
            return Some(text(&first));
        }
        loop {
            match tokio::time::timeout(STILL_HERE, self.grown.recv()).await {
                Ok(Ok(name)) if name != self.name => continue,
                Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => return Some("\n".into()),
            }
            let (lines, place) = read(&self.logs, &self.name, self.wanted).await.ok()?;
            self.wanted.after = place;
            if !lines.is_empty() {
                return Some(text(&lines));
            }
        }
    }
}
