//! `/`: one plain page about the whole fleet, rendered here and kept up to date by server-sent events; and the door to it.
//! The dashboard that is to come takes its place.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite, time::Duration as Span},
    http::header,
    web::{Bytes, Data},
};
use actors::{clock, findings::Finding};
use tokio::sync::watch;

mod page;

use super::{house::House, params::Params, users};
use crate::{
    inspect::LATELY,
    sessions::{COOKIE, SESSION},
};

/// The least time between two events of one viewer.
const PACE: Duration = Duration::from_millis(500);
/// Without a change, an event is sent at this interval: waits grow older.
const BEAT: Duration = Duration::from_secs(5);
/// How long findings are shown before they are looked for anew.
const FINDINGS: Duration = Duration::from_secs(3);
/// Nothing but our own files, no frames, no forms elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// GET `/`.
pub async fn index(request: HttpRequest, house: Data<House>) -> HttpResponse {
    match viewer(&request, &house) {
        Some(user) => {
            let (fleet, found) = (house.app.census.fleet(clock::now()), findings(&house).await);
            html(HttpResponse::Ok(), page::fleet(&fleet, &found, &user, clock::now()))
        }
        None => html(HttpResponse::Unauthorized(), page::login("")),
    }
}

/// GET `/explain/ID`: why a machine is where it is, for reading.
pub async fn explain(request: HttpRequest, house: Data<House>) -> HttpResponse {
    if viewer(&request, &house).is_none() {
        return html(HttpResponse::Unauthorized(), page::login(""));
    }
    let id = request.match_info().query("system_id");
    let explained = match id.parse() {
        Ok(id) => super::explain::now(&house, id).await.ok(),
        Err(_) => None,
    };
    match explained {
        Some(explained) => html(HttpResponse::Ok(), page::explained(&explained)),
        None => html(HttpResponse::NotFound(), page::no_machine(id)),
    }
}

/// What deserves a look beside the stuck machines, which the page names themselves.
async fn findings(house: &House) -> Vec<Finding> {
    let sample = house.app.sample(LATELY).await;
    house.app.found(&sample).iter().filter(|finding| finding.id != "machines.stuck").cloned().collect()
}

/// GET `/live`: the page's changing part, now and whenever it changed.
pub async fn live(request: HttpRequest, house: Data<House>) -> HttpResponse {
    if viewer(&request, &house).is_none() {
        return html(HttpResponse::Unauthorized(), page::login(""));
    }
    let changes = house.app.census.watch();
    let viewing = Viewing { house, changes, first: true, found: Vec::new(), looked: None };
    let events = futures_util::stream::unfold(viewing, |mut viewing| async {
        let text = viewing.next().await;
        Some((Ok::<_, Infallible>(Bytes::from(text)), viewing))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(events)
}

/// One who has the page open.
struct Viewing {
    house: Data<House>,
    changes: watch::Receiver<u64>,
    first: bool,
    found: Vec<Finding>,
    looked: Option<Instant>,
}

impl Viewing {
    /// The next event.
    async fn next(&mut self) -> String {
        if !std::mem::take(&mut self.first) {
            tokio::time::sleep(PACE).await;
            tokio::time::timeout(BEAT, self.changes.changed()).await.ok(); // Either way it is time.
        }
        // All actors are looked at for it: less often than the fleet is counted.
        if self.looked.is_none_or(|at| at.elapsed() >= FINDINGS) {
            (self.found, self.looked) = (findings(&self.house).await, Some(clock::tick()));
        }
        let body = page::body(&self.house.app.census.fleet(clock::now()), &self.found, clock::now());
        let lines: String = body.lines().map(|line| format!("data: {line}\n")).collect();
        format!("event: fleet\n{lines}\n")
    }
}

/// GET `/login?once=SECRET`: a one-time link becomes a session.
pub async fn once(request: HttpRequest, house: Data<House>) -> HttpResponse {
    let params = Params::form(request.query_string());
    match params.get("once").and_then(|secret| house.app.sessions.redeem(secret)) {
        Some(cookie) => enter(cookie.expose().clone()),
        None => html(HttpResponse::Unauthorized(), page::login("This link was used, or is too old. Sign in instead.")),
    }
}

/// POST `/MAAS/accounts/login/` with a user's name and password.
pub async fn login(request: HttpRequest, house: Data<House>, body: Bytes) -> HttpResponse {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let refused = || html(HttpResponse::Unauthorized(), page::login("User name or password is wrong."));
    let Ok(params) = Params::body(content_type, body).await else { return refused() };
    let (username, password) = (params.get("username").unwrap_or(""), params.get("password").unwrap_or(""));
    let stored = house.catalogue().users.get(username).map(|u| u.password_hash.clone());
    match users::verified(password.to_owned(), stored).await {
        Ok(true) => enter(house.app.sessions.open(username).expose().clone()),
        _ => refused(),
    }
}

/// GET `/front.css`.
pub async fn style() -> HttpResponse {
    file("text/css; charset=utf-8", include_str!("../../web/front.css"))
}

/// GET `/front.js`.
pub async fn script() -> HttpResponse {
    file("text/javascript; charset=utf-8", include_str!("../../web/front.js"))
}

/// The user whose session's cookie came along.
#[must_use]
pub fn viewer(request: &HttpRequest, house: &House) -> Option<String> {
    let username = house.app.sessions.user(request.cookie(COOKIE)?.value())?;
    house.catalogue().users.contains_key(&username).then_some(username)
}

fn enter(cookie: String) -> HttpResponse {
    let cookie = Cookie::build(COOKIE, cookie)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .max_age(Span::seconds(i64::try_from(SESSION.as_secs()).unwrap_or(0)))
        .finish();
    HttpResponse::SeeOther().cookie(cookie).insert_header((header::LOCATION, "/")).finish()
}

fn html(mut answer: actix_web::HttpResponseBuilder, text: String) -> HttpResponse {
    answer
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(text)
}

fn file(content_type: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((header::CACHE_CONTROL, "max-age=300"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(text)
}
