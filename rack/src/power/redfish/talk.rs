//! HTTP with one Redfish service: session or basic authentication, redirects, bounded answers. What to ask stands in `model`.

use std::time::Duration;

use reqwest::{Client, Method, StatusCode, Url, header};
use schema::secret::Secret;
use serde_json::{Value, json};

use super::model::{self, ROOT, error_text, path_of};

/// No resource that power reads is near it.
const BODY: usize = 1 << 20;
/// Redirects that are followed: a slash at the end, and HTTP to HTTPS.
const HOPS: usize = 3;

/// Who speaks with whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) base: Url,
    pub(super) user: String,
    pub(super) password: Secret<String>,
    pub(super) node_id: Option<String>,
}

/// A service that was logged in to, or not yet.
#[derive(Debug)]
pub(super) struct Talk {
    http: Client,
    pub(super) login: Login,
    entry: Entry,
    /// The path of the system, once it was found.
    pub(super) system: Option<String>,
}

#[derive(Debug)]
enum Entry {
    Unknown,
    /// A session's token, and where it is ended.
    Session {
        token: Secret<String>,
        path: Option<String>,
    },
    /// The service gives no sessions.
    Basic,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) etag: Option<String>,
    pub(super) body: Value,
}

/// Why a conversation stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// No connection, or none that lasted.
    Transport(reqwest::Error),
    /// The BMC has another certificate than before.
    Certificate,
    /// Nothing in time.
    Late,
    /// User or password are wrong.
    Login,
    /// The user may not.
    Privilege(String),
    /// Too many requests or sessions, or starting up.
    Busy(String),
    /// It cannot be done at all: a parameter is wrong, or the service lacks it.
    Unfit { why: String, remedy: &'static str },
    /// Any other refusal.
    Refused { what: String, status: StatusCode, said: Option<String> },
}

impl Answer {
    /// The answer, if it is one of success.
    pub(super) fn good(self, what: &str) -> Result<Self, Stop> {
        let said = error_text(&self.body);
        match self.status {
            status if status.is_success() => Ok(self),
            StatusCode::FORBIDDEN => Err(Stop::Privilege(said.unwrap_or_else(|| "403 Forbidden".into()))),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                Err(Stop::Busy(said.unwrap_or_else(|| self.status.to_string())))
            }
            status => Err(Stop::Refused { what: what.into(), status, said }),
        }
    }
}

impl Talk {
    pub(super) fn new(http: Client, login: Login) -> Self {
        Self { http, login, entry: Entry::Unknown, system: None }
    }

    pub(super) async fn get(&mut self, path: &str) -> Result<Answer, Stop> {
        self.call(Method::GET, path, None, None).await
    }

    /// Sends a request, logged in. A token that ran out is renewed once.
    pub(super) async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Result<Answer, Stop> {
        let fresh = matches!(self.entry, Entry::Unknown);
        if fresh {
            self.log_in().await?;
        }
        let answer = self.send(&method, path, body, if_match).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        if fresh || matches!(self.entry, Entry::Basic) {
            return Err(Stop::Login);
        }
        self.log_in().await?;
        let answer = self.send(&method, path, body, if_match).await?;
        if answer.status == StatusCode::UNAUTHORIZED { Err(Stop::Login) } else { Ok(answer) }
    }

    /// A session where the service offers them. One that offers none, or shows not even its root to strangers (which it must, DSP0266
    /// section 13.3.2), has basic authentication: the password is not tried where it cannot be right, since wrong tries lock accounts.
    async fn log_in(&mut self) -> Result<(), Stop> {
        self.entry = Entry::Unknown;
        let root = self.send(&Method::GET, ROOT, None, None).await?;
        if root.status != StatusCode::UNAUTHORIZED && !root.status.is_success() {
            return root.good("GET of its service root").map(drop);
        }
        let Some(sessions) = model::sessions(&root.body) else {
            self.entry = Entry::Basic;
            return Ok(());
        };
        let (user, password) = (&self.login.user, self.login.password.expose());
        let body = json!({ "UserName": user, "Password": password });
        let response = self.exchange(&Method::POST, &sessions, Some(&body), None).await?;
        let status = response.status();
        let head = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        self.entry = match head("x-auth-token") {
            Some(token) if status.is_success() => {
                let path = head("location").map(path_of);
                Entry::Session { token: Secret::new(token.into()), path }
            }
            _ if status == StatusCode::UNAUTHORIZED => return Err(Stop::Login),
            // No session is left, or none can be made.
            _ => Entry::Basic,
        };
        Ok(())
    }

    /// Ends the session, if there is one. No answer matters.
    pub(super) async fn log_out(self) {
        if let Entry::Session { path: Some(path), .. } = &self.entry {
            self.exchange(&Method::DELETE, path, None, None).await.ok();
        }
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Result<Answer, Stop> {
        let mut response = self.exchange(method, path, body, if_match).await?;
        let etag = response.headers().get(header::ETAG).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(stop)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > BODY {
                let why = format!("its answer to {method} {path} is longer than {BODY} bytes");
                return Err(Stop::Unfit { why, remedy: "check that power_address is the BMC's" });
            }
        }
        // Some answers have no body, some have a page of HTML.
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Answer { status: response.status(), etag, body })
    }

    /// Sends a request as it is, and follows redirects within the BMC: the method stays, and the password goes to no other host.
    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Result<reqwest::Response, Stop> {
        let mut url = self.login.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(path);
        url.set_query(query);
        for _ in 0..=HOPS {
            let mut request = self.http.request(method.clone(), url.clone()).header(header::ACCEPT, "application/json");
            request = match &self.entry {
                Entry::Unknown => request,
                Entry::Session { token, .. } => request.header("X-Auth-Token", token.expose()),
                Entry::Basic => request.basic_auth(&self.login.user, Some(self.login.password.expose())),
            };
            if let Some(tag) = if_match {
                request = request.header(header::IF_MATCH, tag);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let response = request.send().await.map_err(stop)?;
            let moved = response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED;
            let to = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
            let Some(to) = to.filter(|_| moved).and_then(|to| url.join(to).ok()) else { return Ok(response) };
            let down = url.scheme() == "https" && to.scheme() != "https";
            if to.host_str() != url.host_str() || down {
                let why = format!("it redirects {path} to {}", to.origin().ascii_serialization());
                return Err(Stop::Unfit {
                    why,
                    remedy: "set power_address to the BMC itself, without a proxy in between",
                });
            }
            url = to;
        }
        let why = format!("it redirects {path} more than {HOPS} times");
        Err(Stop::Unfit { why, remedy: "look at the BMC's web server; it may want an update" })
    }
}

/// What an error of the client means.
fn stop(error: reqwest::Error) -> Stop {
    let refused = rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure);
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(present) = cause {
        if present.to_string().contains(&refused.to_string()) {
            return Stop::Certificate;
        }
        cause = present.source();
    }
    if error.is_timeout() { Stop::Late } else { Stop::Transport(error) }
}

/// A client for all BMCs. `timeout` bounds each request.
pub(super) fn client(tls: Option<rustls::ClientConfig>, timeout: Duration) -> Result<Client, reqwest::Error> {
    // The client takes the process's provider where it is given no configuration of its own.
    rustls::crypto::ring::default_provider().install_default().ok();
    let builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_idle_timeout(Duration::from_secs(15))
        .pool_max_idle_per_host(1);
    match tls {
        Some(tls) => builder.tls_backend_preconfigured(tls).build(),
        None => builder.build(),
    }
}
