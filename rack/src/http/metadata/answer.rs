//! The answer to one metadata request, decided from a snapshot of the plan, the leases and the scripts' progress. Touches nothing.

use std::net::IpAddr;

use actix_web::http::Method;
use schema::{
    id::SystemId,
    messages::report::Fact,
    plan::{Ticket, TicketBoot},
    time::Timestamp,
};

use super::{
    Answer, Body, Credentials, Denied, Form, PREFIX, Progress, Request, Response, SIGNAL_LIMIT, STATUS_LIMIT, preseed,
    signal, status, tar,
};
use crate::{leases::LeaseTable, plan::Snapshot, proxy::proxy_url};

const VERSIONS: [&str; 2] = ["2012-03-01", "latest"];

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Versions,
    Status(&'a str),
    /// Something under a version; the first and the second name, empty where absent.
    Node(&'a str, &'a str),
    ById(&'a str),
    Closed(&'static str),
    Unknown,
}

fn route(path: &str) -> Route<'_> {
    let mut names = path.strip_prefix(PREFIX).unwrap_or("").split('/').filter(|n| !n.is_empty());
    let mut name = || names.next().unwrap_or("");
    match (name(), name(), name(), name()) {
        ("", ..) => Route::Versions,
        ("status", id, "", _) if !id.is_empty() => Route::Status(id),
        ("enlist" | "curtin", ..) => Route::Closed("enlistment and deployment are not served by this version"),
        (version, ..) if !VERSIONS.contains(&version) => Route::Unknown,
        (_, "enlist-preseed", ..) => Route::Closed("enlistment is not served by this version"),
        (_, "by-id", id, "") if !id.is_empty() => Route::ById(id),
        (_, "by-mac", ..) => Route::Closed("a MAC address is no proof of identity; use by-id"),
        (_, first, second, "") => Route::Node(first, second),
        _ => Route::Unknown,
    }
}

fn query_op(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("op="))
}

/// Decides from the head of a request whether its body is wanted: its limit in bytes, 0 for none.
///
/// # Errors
/// The answer to send without reading the body.
pub fn admit(request: &Request<'_>, snapshot: &Snapshot, now: Timestamp) -> Result<usize, Box<Answer>> {
    if *request.method != Method::POST {
        return Ok(0);
    }
    match route(request.path) {
        Route::Status(_) => match request.authorization.and_then(Credentials::parse) {
            Some(_) => Ok(STATUS_LIMIT),
            None => Err(Box::new(unsigned().into())),
        },
        Route::Node("", "") => node(request, snapshot, now).map(|_| SIGNAL_LIMIT),
        _ => Ok(1_024),
    }
}

/// Answers a request.
#[must_use]
pub fn answer(
    request: &Request<'_>,
    snapshot: &Snapshot,
    leases: &LeaseTable,
    progress: &Progress,
    now: Timestamp,
) -> Answer {
    let post = *request.method == Method::POST;
    if !post && *request.method != Method::GET && *request.method != Method::HEAD {
        return Response::text(405, "Use GET or POST.\n").into();
    }
    match (route(request.path), post) {
        (Route::Versions, false) => Response::text(200, VERSIONS.join("\n")).into(),
        (Route::Status(id), true) => event(request, id, snapshot, now),
        (Route::ById(id), _) => by_id(request, id, snapshot, leases, now),
        (Route::Node("", ""), true) => operate(request, snapshot, now),
        (Route::Node(first, second), false) => match node(request, snapshot, now) {
            Ok((ticket, boot)) => item(first, second, ticket, boot, progress),
            Err(refusal) => *refusal,
        },
        (Route::Closed(why), _) => Response::text(403, format!("{why}.\n")).into(),
        (Route::Versions | Route::Node(..), true) | (Route::Status(_), false) => {
            Response::text(405, "This URL does not take that method.\n").into()
        }
        (Route::Unknown, _) => Response::text(404, "Not found. Versions are 2012-03-01 and latest.\n").into(),
    }
}

fn unsigned() -> Response {
    Response::text(
        401,
        "Authorization Error: sign the request with the node's key (OAuth 1.0 PLAINTEXT); the preseed holds it.\n",
    )
}

/// The ticket that the request's signature opens, or the refusal.
fn node<'a>(
    request: &Request<'_>,
    snapshot: &'a Snapshot,
    now: Timestamp,
) -> Result<(&'a Ticket, &'a TicketBoot), Box<Answer>> {
    let credentials = request.authorization.and_then(Credentials::parse).ok_or_else(|| Box::new(unsigned().into()))?;
    credentials.open(snapshot, now).map_err(|denied| Box::new(refused(&credentials, denied, snapshot, now)))
}

fn refused(credentials: &Credentials, denied: Denied, snapshot: &Snapshot, now: Timestamp) -> Answer {
    let mut answer = Answer::from(Response::text(denied.status, denied.why.clone()));
    if let Some(ticket) = snapshot.ticket_by_token(&credentials.token, now) {
        answer.about = Some((ticket.machine, ticket.attempt));
        answer.facts.push(Fact::AuthRefused { why: denied.why, skew_s: denied.skew_s });
    }
    answer
}

/// An answer with one fact about the ticket's machine.
fn with(response: Response, ticket: &Ticket, facts: Vec<Fact>) -> Answer {
    Answer { response, about: Some((ticket.machine, ticket.attempt)), facts, keep: Vec::new() }
}

/// What a node reads with its key. Items that may be missing answer 200 or 404 and nothing else: cloud-init gives up on other codes.
fn item(first: &str, second: &str, ticket: &Ticket, boot: &TicketBoot, progress: &Progress) -> Answer {
    let text = |text: String| Response::text(200, text);
    let fetched = |response| with(response, ticket, vec![Fact::MetadataFetched { item: second.to_owned() }]);
    match (first, second) {
        ("", "") => text("maas-commissioning-scripts\nmeta-data\nuser-data".into()).into(),
        ("meta-data", "") => {
            let keys = if boot.ssh_keys.is_empty() { "" } else { "public-keys\n" };
            text(format!("instance-id\nlocal-hostname\n{keys}vendor-data")).into()
        }
        ("meta-data", "instance-id") => fetched(text(ticket.machine.to_string())),
        ("meta-data", "local-hostname") => fetched(text(fqdn(ticket))),
        ("meta-data", "public-keys") if !boot.ssh_keys.is_empty() => fetched(text(boot.ssh_keys.join("\n"))),
        ("meta-data", "vendor-data") => fetched(Response {
            status: 200,
            content_type: "application/x-yaml; charset=utf-8",
            body: Body::Bytes(preseed::vendor_data().into_bytes()),
        }),
        ("user-data", "") => {
            let body = Body::Stored(boot.user_data);
            let response = Response { status: 200, content_type: "application/octet-stream", body };
            with(response, ticket, vec![Fact::UserDataFetched])
        }
        ("maas-scripts", "") => {
            let (members, scripts) = tar::scripts(ticket, boot, progress);
            let fact = vec![Fact::ScriptsFetched { scripts }];
            if members.is_empty() {
                return with(Response::empty(204), ticket, fact);
            }
            with(Response { status: 200, content_type: "application/x-tar", body: Body::Tar(members) }, ticket, fact)
        }
        ("maas-commissioning-scripts", "") => {
            let body = Body::Tar(tar::legacy(boot));
            Response { status: 200, content_type: "application/tar", body }.into()
        }
        _ => Response::text(404, "No such metadata item.\n").into(),
    }
}

fn fqdn(ticket: &Ticket) -> String {
    if ticket.domain.is_empty() { ticket.hostname.clone() } else { format!("{}.{}", ticket.hostname, ticket.domain) }
}

/// `POST <version>/`: signals, and netboot on or off.
fn operate(request: &Request<'_>, snapshot: &Snapshot, now: Timestamp) -> Answer {
    let (ticket, boot) = match node(request, snapshot, now) {
        Ok(opened) => opened,
        Err(refusal) => return *refusal,
    };
    let form = match Form::parse(request.content_type, request.body) {
        Ok(form) => form,
        Err(error) => return unread(ticket, 400, error.to_string()),
    };
    match query_op(request.query).or(form.text("op").map(str::trim)) {
        Some("signal") => match signal::read(&form, boot) {
            Ok(heard) => {
                let mut answer = with(Response::text(200, "OK"), ticket, heard.facts);
                answer.keep = heard.keep;
                answer
            }
            Err(why) => unread(ticket, 400, why),
        },
        // The plan, not the node, says what a machine boots; the request is granted for what it is worth.
        Some("netboot_off" | "netboot_on") => with(Response::text(200, "OK"), ticket, vec![Fact::Heartbeat]),
        Some(op) => {
            let op: String = op.chars().take(60).collect();
            unread(ticket, 400, format!("op \"{op}\" is not one of signal, netboot_off, netboot_on"))
        }
        None => unread(ticket, 400, "the field \"op\" is missing; send op=signal".into()),
    }
}

/// What came with a node's own key and cannot be used: its machine waits for an answer that is none, so somebody is told.
fn unread(ticket: &Ticket, status: u16, why: String) -> Answer {
    with(Response::text(status, format!("{why}.\n")), ticket, vec![Fact::SignalRefused { why }])
}

/// The answer to a request whose body did not come whole, or is too long.
pub(super) fn without_body(
    request: &Request<'_>,
    snapshot: &Snapshot,
    status: u16,
    why: String,
    now: Timestamp,
) -> Answer {
    match (route(request.path), node(request, snapshot, now)) {
        (Route::Node("", ""), Ok((ticket, _))) => unread(ticket, status, why),
        _ => Response::text(status, format!("{why}.\n")).into(),
    }
}

/// `status/<system_id>`: always 204 for what can be read, and quickly: cloud-init waits for every one of them.
fn event(request: &Request<'_>, id: &str, snapshot: &Snapshot, now: Timestamp) -> Answer {
    let Some(credentials) = request.authorization.and_then(Credentials::parse) else { return unsigned().into() };
    let fact = match status::read(request.body) {
        Ok(fact) => fact,
        Err(why) => return Response::text(400, why).into(),
    };
    let heard = Response::empty(204);
    // The last events of a boot come after the final signal, when the ticket may be gone: no error.
    let Some(ticket) = snapshot.ticket_by_token(&credentials.token, now) else { return heard.into() };
    let signed = ticket.boot.as_ref().is_some_and(|boot| credentials.signed_by(boot));
    if !signed || ticket.machine.as_str() != id {
        let why = format!("a status event for \"{}\" came with a key that is not its own", id.escape_default());
        return with(heard, ticket, vec![Fact::AuthRefused { why, skew_s: None }]);
    }
    with(heard, ticket, fact.into_iter().collect())
}

/// `by-id/<system_id>/`: unsigned, so bound to the address that holds the machine's lease while its ticket is open.
fn by_id(request: &Request<'_>, id: &str, snapshot: &Snapshot, leases: &LeaseTable, now: Timestamp) -> Answer {
    let form = Form::parse(request.content_type, request.body).unwrap_or_default();
    let op = query_op(request.query).or(form.text("op").map(str::trim)).unwrap_or("");
    let known = id.parse::<SystemId>().ok().and_then(|id| snapshot.ticket(id, now));
    let Some((ticket, boot)) = known.and_then(|t| Some((t, t.boot.as_ref()?))) else {
        let why = "No machine of that id is being booted by this rack now. Commission it first.\n";
        return Response::text(404, why).into();
    };
    if let Err(why) = holds_lease(request.from, ticket, snapshot, leases, now) {
        let answer = Response::text(403, format!("Refused: {why}.\n"));
        return with(answer, ticket, vec![Fact::PreseedRefused { from: request.from, why }]);
    }
    match (*request.method == Method::POST, op) {
        (false, "get_preseed") => {
            let rack = request.host.rsplit_once(':').map_or(request.host, |(rack, _)| rack);
            let proxy = proxy_url(snapshot, request.from, rack, request.proxy);
            let body = Body::Bytes(preseed::preseed(ticket, boot, request.host, proxy.as_deref()).into_bytes());
            let response = Response { status: 200, content_type: "text/plain; charset=utf-8", body };
            with(response, ticket, vec![Fact::PreseedFetched { from: request.from }])
        }
        (true, "netboot_off") => Response::text(200, "OK").into(),
        _ => Response::text(400, "Use GET with op=get_preseed or POST with op=netboot_off.\n").into(),
    }
}

fn holds_lease(
    from: IpAddr,
    ticket: &Ticket,
    snapshot: &Snapshot,
    leases: &LeaseTable,
    now: Timestamp,
) -> Result<(), String> {
    let IpAddr::V4(ip) = from else {
        return Err(format!("{from} is not an IPv4 address; leases are of IPv4"));
    };
    let Some(mac) = leases.mac_of(ip, now) else {
        return Err(format!("{from} holds no lease of this rack; the machine must ask from the address DHCP gave it"));
    };
    match snapshot.ticket_by_mac(mac, now) {
        Some(owner) if owner.machine == ticket.machine => Ok(()),
        _ => Err(format!("{from} is leased to {mac}, which is not a MAC of machine {}", ticket.machine)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_with_any_number_of_slashes() {
        let under = |p: &str| format!("{PREFIX}{p}");
        for path in ["", "/", "//"] {
            assert_eq!(route(&under(path)), Route::Versions);
        }
        for path in ["//2012-03-01/meta-data/instance-id", "/latest//meta-data/instance-id/"] {
            assert_eq!(route(&under(path)), Route::Node("meta-data", "instance-id"));
        }
        assert_eq!(route(&under("/2012-03-01/")), Route::Node("", ""));
        assert_eq!(route(&under("//latest/by-id/abc123/")), Route::ById("abc123"));
        assert_eq!(route(&under("/status/abc123")), Route::Status("abc123"));
        assert_eq!(route(&under("/1999/meta-data")), Route::Unknown);
        assert_eq!(route(&under("/latest/meta-data/a/b/c")), Route::Unknown);
    }
}
