//! HTTP with one Redfish service: session or basic authentication, redirects. What to ask stands in `model`; who carries a request is not
//! known here.

use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use schema::secret::Secret;
use serde_json::{Value, json};

use super::model::{self, ROOT, error_text, path_of};
use crate::power::dialogue::Asker;

/// Redirects that are followed: a slash at the end, and HTTP to HTTPS.
const HOPS: usize = 3;

/// A request, as it is to be sent.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub url: Url,
    pub pass: Pass,
    pub if_match: Option<String>,
    pub body: Option<Value>,
}

/// How a request says who asks.
#[derive(Debug, Clone)]
pub enum Pass {
    None,
    /// `X-Auth-Token`.
    Token(Secret<String>),
    Basic {
        user: String,
        password: Secret<String>,
    },
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub etag: Option<String>,
    pub location: Option<String>,
    /// `X-Auth-Token`.
    pub token: Option<String>,
    pub body: Value,
}

impl Reply {
    /// That status, without a body. `None`: it is none of HTTP's.
    #[must_use]
    pub fn of(status: u16) -> Option<Self> {
        let status = StatusCode::from_u16(status).ok()?;
        Some(Self { status, etag: None, location: None, token: None, body: Value::Null })
    }
}

/// Why nothing came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// No connection, or none that lasted.
    Lost(String),
    /// The BMC has another certificate than before.
    Certificate,
    /// Nothing in time.
    Late,
    /// More than so many bytes.
    Long(usize),
}

/// What a conversation asks of its hands.
#[derive(Debug, Clone)]
pub enum Ask {
    /// To be sent, and answered by [`Told::Reply`].
    Call(Box<Call>),
    /// Nothing for so long; then [`Told::Rested`].
    Pause(Duration),
}

/// What its hands tell a conversation.
#[derive(Debug, Clone)]
pub enum Told {
    Reply(Result<Reply, Broken>),
    Rested,
}

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
pub struct Talk {
    pub(super) desk: Asker<Ask, Told>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// No connection, or none that lasted.
    Transport(String),
    /// The BMC has another certificate than before.
    Certificate,
    /// Nothing in time.
    Late,
    /// User or password are wrong, or count no more; with the BMC's word.
    Login(Option<String>),
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
    pub(super) fn new(login: Login) -> Self {
        Self { desk: Asker::default(), login, entry: Entry::Unknown, system: None }
    }

    /// Does nothing for so long.
    pub(super) async fn pause(&self, time: Duration) {
        self.desk.ask(Ask::Pause(time)).await;
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
            return Err(Stop::Login(error_text(&answer.body)));
        }
        self.log_in().await?;
        let answer = self.send(&method, path, body, if_match).await?;
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(Stop::Login(error_text(&answer.body))),
            _ => Ok(answer),
        }
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
        let reply = self.exchange(&Method::POST, &sessions, Some(&body), None).await?;
        self.entry = match reply.token {
            Some(token) if reply.status.is_success() => {
                let path = reply.location.as_deref().map(path_of);
                Entry::Session { token: Secret::new(token), path }
            }
            _ if reply.status == StatusCode::UNAUTHORIZED => return Err(Stop::Login(error_text(&reply.body))),
            // No session is left, or none can be made.
            _ => Entry::Basic,
        };
        Ok(())
    }

    /// Ends the session, if there is one. No answer matters.
    pub(super) async fn log_out(&self) {
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
        let reply = self.exchange(method, path, body, if_match).await?;
        Ok(Answer { status: reply.status, etag: reply.etag, body: reply.body })
    }

    /// Sends a request as it is, and follows redirects within the BMC: the method stays, and the password goes to no other host.
    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Result<Reply, Stop> {
        let mut url = self.login.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(path);
        url.set_query(query);
        for _ in 0..=HOPS {
            let pass = match &self.entry {
                Entry::Unknown => Pass::None,
                Entry::Session { token, .. } => Pass::Token(token.clone()),
                Entry::Basic => Pass::Basic { user: self.login.user.clone(), password: self.login.password.clone() },
            };
            let (method, if_match, body) = (method.clone(), if_match.map(str::to_owned), body.cloned());
            let call = Box::new(Call { method: method.clone(), url: url.clone(), pass, if_match, body });
            let reply = match self.desk.ask(Ask::Call(call)).await {
                Told::Reply(reply) => reply.map_err(|broken| stop(broken, &method, path))?,
                Told::Rested => return Err(Stop::Transport("a request was answered by a pause".into())),
            };
            let moved = reply.status.is_redirection() && reply.status != StatusCode::NOT_MODIFIED;
            let to = reply.location.as_deref().filter(|_| moved).and_then(|to| url.join(to).ok());
            let Some(to) = to else { return Ok(reply) };
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

/// What a broken exchange means.
fn stop(broken: Broken, method: &Method, path: &str) -> Stop {
    match broken {
        Broken::Lost(cause) => Stop::Transport(cause),
        Broken::Certificate => Stop::Certificate,
        Broken::Late => Stop::Late,
        Broken::Long(most) => {
            let why = format!("its answer to {method} {path} is longer than {most} bytes");
            Stop::Unfit { why, remedy: "check that power_address is the BMC's" }
        }
    }
}
