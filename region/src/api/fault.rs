//! What goes wrong at the edge, and how it is said: MAAS's conventions under `/MAAS`, RFC 9457 problem JSON elsewhere. Decides nothing.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, ResponseError, http::StatusCode, http::header};
use serde_json::{Value, json};

/// A request that cannot be served. Each kind has one status code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// 400 with a JSON map of fields: what is wrong with each.
    #[error("{}", flat(.0))]
    Fields(BTreeMap<String, Vec<String>>),
    /// 400 with one line.
    #[error("{0}")]
    Bad(String),
    /// 401: no key, a wrong key, or a request too old.
    #[error("{0}")]
    NoKey(String),
    /// 403: known, but not permitted.
    #[error("{0}")]
    Forbidden(String),
    /// 403: nobody may, as the region is set up.
    #[error("{why} {remedy}")]
    Off { why: String, remedy: String },
    /// 404.
    #[error("{0}")]
    NotFound(String),
    /// 409: the present state does not admit it; why, and the way out.
    #[error("{why} {remedy}")]
    Conflict { why: String, remedy: String },
    /// 410.
    #[error("{0}")]
    Gone(String),
    /// 413.
    #[error("{0}")]
    TooLarge(String),
    /// 503, and when to try again.
    #[error("{why} {remedy}")]
    Unavailable { why: String, remedy: String },
}

fn flat(fields: &BTreeMap<String, Vec<String>>) -> String {
    let parts: Vec<_> = fields.iter().map(|(k, v)| format!("{k}: {}", v.join(" "))).collect();
    parts.join("; ")
}

/// Seconds that a client waits after a 503.
const RETRY_AFTER_S: &str = "10";

impl Fault {
    /// One field is wrong.
    pub fn field(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Fields(BTreeMap::from([(name.into(), vec![message.into()])]))
    }

    /// MAAS's words for an object that is not there.
    #[must_use]
    pub fn no(kind: &str) -> Self {
        Self::NotFound(format!("No {kind} matches the given query."))
    }

    /// The region cannot do it now.
    pub fn unavailable(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unavailable { why: why.into(), remedy: remedy.into() }
    }

    /// The state does not admit it.
    pub fn conflict(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Conflict { why: why.into(), remedy: remedy.into() }
    }

    /// RFC 9457: type, title, status, detail, and the remedy.
    #[must_use]
    pub fn problem(&self) -> Value {
        let status = self.status_code();
        let (kind, remedy) = match self {
            Self::Fields(_) => ("fields", "Correct the fields named in \"fields\".".into()),
            Self::Bad(_) => ("bad-request", "Correct the request.".into()),
            Self::NoKey(_) => ("no-key", "Sign the request with an API key (`hostler login PROFILE URL KEY`).".into()),
            Self::Forbidden(_) => ("forbidden", "Ask an administrator, or use an administrator's key.".into()),
            Self::Off { remedy, .. } => ("off", remedy.clone()),
            Self::NotFound(_) => ("not-found", "Check the name; the listing above it shows what exists.".into()),
            Self::Gone(_) => ("gone", "Use /MAAS/api/2.0/.".into()),
            Self::TooLarge(_) => ("too-large", "Send less, or in parts.".into()),
            Self::Conflict { remedy, .. } => ("conflict", remedy.clone()),
            Self::Unavailable { remedy, .. } => ("unavailable", remedy.clone()),
        };
        let detail = match self {
            Self::Conflict { why, .. } | Self::Unavailable { why, .. } | Self::Off { why, .. } => why.clone(),
            other => other.to_string(),
        };
        let mut problem = json!({
            "type": format!("urn:hostler:problem:{kind}"),
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": detail,
            "remedy": remedy,
        });
        if let Self::Fields(fields) = self {
            problem["fields"] = json!(fields);
        }
        problem
    }
}

impl ResponseError for Fault {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Fields(_) | Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::NoKey(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::Off { .. } => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::Gone(_) => StatusCode::GONE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// MAAS's way: a JSON map for fields, one line of text for the rest. A 409 never carries `Retry-After`: clients would sleep and repeat it.
    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status_code());
        match self {
            Self::Fields(fields) => {
                return answer.content_type("application/json; charset=utf-8").body(json!(fields).to_string());
            }
            Self::NoKey(_) => {
                answer.insert_header((header::WWW_AUTHENTICATE, "OAuth realm=\"OAuth\""));
            }
            Self::Unavailable { .. } => {
                answer.insert_header((header::RETRY_AFTER, RETRY_AFTER_S));
            }
            _ => {}
        }
        answer.content_type("text/plain; charset=utf-8").body(self.to_string().replace('\n', " "))
    }
}

/// A fault outside the MAAS API: problem JSON with `remedy`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Problem(#[from] pub Fault);

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status_code());
        match &self.0 {
            Fault::NoKey(_) => answer.insert_header((header::WWW_AUTHENTICATE, "OAuth realm=\"OAuth\"")),
            Fault::Unavailable { .. } => answer.insert_header((header::RETRY_AFTER, RETRY_AFTER_S)),
            _ => &mut answer,
        };
        answer.content_type("application/problem+json").body(self.0.problem().to_string())
    }
}

/// Gathers what is wrong with the fields of one request, so that all of it is said at once.
#[derive(Debug, Default)]
pub struct Faults(BTreeMap<String, Vec<String>>);

impl Faults {
    /// That field is wrong, so.
    pub fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.entry(field.into()).or_default().push(message.into());
    }

    /// The value; or `None`, with the fault kept.
    pub fn take<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Fault::Fields(fields)) => {
                for (name, messages) in fields {
                    self.0.entry(name).or_default().extend(messages);
                }
                None
            }
            Err(other) => {
                self.add("__all__", other.to_string());
                None
            }
        }
    }

    /// # Errors
    /// [`Fault::Fields`] when any field is wrong.
    pub fn check(self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err(Fault::Fields(self.0)) }
    }
}
