//! One request to the MAAS API, read: caller, operation, parameters. Decides nothing about resources.

use std::{future::Future, pin::Pin};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    dev::Payload,
    http::{Method, StatusCode, header},
    web::{Bytes, Data},
};
use serde_json::Value;

use super::{
    auth::{self, Caller},
    fault::{Fault, Problem},
    front,
    house::House,
    params::Params,
};

/// What a handler of the MAAS API answers.
pub type Answer = Result<HttpResponse, Fault>;
/// What a handler of Hostler's own paths answers.
pub type OwnAnswer = Result<HttpResponse, Problem>;

/// A request, read whole.
pub struct Call {
    pub caller: Option<Caller>,
    pub params: Params,
    pub house: Data<House>,
    verb: Method,
    op: String,
    request: HttpRequest,
}

impl Call {
    /// Method and operation (empty where there is none): what handlers match on.
    #[must_use]
    pub fn wants(&self) -> (&str, &str) {
        (self.verb.as_str(), &self.op)
    }

    /// A part of the path, percent-decoded.
    #[must_use]
    pub fn part(&self, name: &str) -> &str {
        self.request.match_info().get(name).unwrap_or("")
    }

    /// The path as it was asked for, without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.request.path()
    }

    /// The caller.
    ///
    /// # Errors
    /// 401 without one.
    pub fn user(&self) -> Result<&Caller, Fault> {
        self.caller.as_ref().ok_or_else(nobody)
    }

    /// The caller, who is an administrator.
    ///
    /// # Errors
    /// 401 without a caller, 403 for an ordinary user.
    pub fn admin(&self) -> Result<&Caller, Fault> {
        admin(self.caller.as_ref())
    }

    /// MAAS's answer to a method and operation that the resource does not have.
    #[must_use]
    pub fn unknown(&self) -> Fault {
        Fault::Bad(format!(
            "Unrecognised signature: method={} op={}",
            self.verb,
            if self.op.is_empty() { "None" } else { &self.op }
        ))
    }
}

fn nobody() -> Fault {
    Fault::NoKey("This resource needs an API key: sign the request with OAuth 1.0 PLAINTEXT.".into())
}

fn admin(caller: Option<&Caller>) -> Result<&Caller, Fault> {
    let caller = caller.ok_or_else(nobody)?;
    if caller.is_superuser {
        Ok(caller)
    } else {
        Err(Fault::Forbidden(format!("User {} may not do this: it takes an administrator.", caller.username)))
    }
}

/// Reads the caller of a request.
///
/// A browser's session reads and never changes anything: another site could make a browser send what changes.
fn caller(request: &HttpRequest, house: &House) -> Result<Option<Caller>, Fault> {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    if header.is_none()
        && *request.method() == Method::GET
        && let Some(username) = front::viewer(request, house)
    {
        let is_superuser = house.catalogue().users.get(&username).is_some_and(|u| u.is_superuser);
        return Ok(Some(Caller { username, is_superuser }));
    }
    auth::caller(header, &house.catalogue(), &house.nonces, actors::clock::now().seconds())
}

fn house(request: &HttpRequest) -> Result<Data<House>, Fault> {
    request
        .app_data::<Data<House>>()
        .cloned()
        .ok_or_else(|| Fault::unavailable("The region is starting.", "Try again."))
}

type Reading<T, E> = Pin<Box<dyn Future<Output = Result<T, E>>>>;

impl FromRequest for Call {
    type Error = Fault;
    type Future = Reading<Self, Fault>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let house = house(&request)?;
            let caller = caller(&request, &house)?;
            let query = Params::form(request.query_string());
            let verb = request.method().clone();
            let params = if matches!(verb, Method::POST | Method::PUT) {
                let body = Bytes::from_request(&request, &mut payload).await.map_err(|e| unread(&e))?;
                let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
                Params::body(content_type.unwrap_or(""), body).await?.or(query)
            } else {
                query
            };
            // `op` from the path (`…/op-NAME`), the query, or the body; empty is none.
            let suffix = request.match_info().get("op").map(str::to_owned);
            let op = suffix.or_else(|| params.get("op").map(str::to_owned)).unwrap_or_default();
            Ok(Self { caller, params, house, verb, op, request })
        })
    }
}

fn unread(error: &actix_web::Error) -> Fault {
    if error.as_response_error().status_code() == StatusCode::PAYLOAD_TOO_LARGE {
        Fault::TooLarge(format!("The body is longer than {} bytes.", super::params::BODY_LIMIT))
    } else {
        Fault::Bad(format!("The body cannot be read: {error}."))
    }
}

/// A request to Hostler's own paths: as [`Call`], with faults as problem JSON.
pub struct Own(pub Call);

impl FromRequest for Own {
    type Error = Problem;
    type Future = Reading<Self, Problem>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let call = Call::from_request(request, payload);
        Box::pin(async move { Ok(Self(call.await?)) })
    }
}

/// A request whose body the handler streams: only the caller, an administrator, is read.
pub struct Admin {
    pub caller: Caller,
    pub house: Data<House>,
}

impl FromRequest for Admin {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let read = || {
            let house = house(request)?;
            let caller = admin(caller(request, &house)?.as_ref())?.clone();
            Ok::<_, Fault>(Self { caller, house })
        };
        std::future::ready(read().map_err(Problem::from))
    }
}

/// 200 with JSON.
#[must_use]
pub fn json(value: &Value) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json; charset=utf-8").body(value.to_string())
}

/// 200 with one line of text.
#[must_use]
pub fn text(line: impl Into<String>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(line.into())
}

/// 204. It carries a content type that is not JSON, since clients look at it.
#[must_use]
pub fn gone() -> HttpResponse {
    HttpResponse::NoContent().content_type("text/plain").finish()
}
