//! The hands of a Redfish conversation: one HTTP request, bounded in bytes and time. What to ask stands in `talk` and `run`.

use std::time::Duration;

use reqwest::{Client, header};

use super::talk::{Broken, Call, Pass, Reply};

/// No resource that power reads is near it.
const BODY: usize = 1 << 20;

/// Sends a request as it is; redirects are `talk`'s.
pub(super) async fn exchange(http: &Client, call: Call) -> Result<Reply, Broken> {
    let mut request = http.request(call.method, call.url).header(header::ACCEPT, "application/json");
    request = match &call.pass {
        Pass::None => request,
        Pass::Token(token) => request.header("X-Auth-Token", token.expose()),
        Pass::Basic { user, password } => request.basic_auth(user, Some(password.expose())),
    };
    if let Some(tag) = call.if_match {
        request = request.header(header::IF_MATCH, tag);
    }
    if let Some(body) = &call.body {
        request = request.json(body);
    }
    let mut response = request.send().await.map_err(broken)?;
    let head = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let (etag, location, token) = (head("etag"), head("location"), head("x-auth-token"));
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > BODY {
            return Err(Broken::Long(BODY));
        }
    }
    // Some answers have no body, some have a page of HTML.
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    Ok(Reply { status: response.status(), etag, location, token, body })
}

/// What an error of the client means.
fn broken(error: reqwest::Error) -> Broken {
    let refused = rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure);
    // The last cause says what the others only wrap.
    let (mut last, mut cause) = (error.to_string(), std::error::Error::source(&error));
    while let Some(present) = cause {
        last = present.to_string();
        if last.contains(&refused.to_string()) {
            return Broken::Certificate;
        }
        cause = present.source();
    }
    if error.is_timeout() { Broken::Late } else { Broken::Lost(last) }
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
