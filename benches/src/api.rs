//! The yard as an operator: the public API over connections that are kept, signed as any client signs.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use region::api::oauth::Key;
use serde_json::Value;
use tokio::sync::Mutex;

pub mod stream;

use crate::{
    fleet::http::{Answer, Connection, exchange},
    machine::Request,
    yard::{Trouble, trouble},
};

/// Where its connections come from. Not where the region listens: a region that starts again must find its port free.
const OWN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A client; cloned freely, its connections are shared.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    to: SocketAddrV4,
    key: Key,
    idle: Mutex<Vec<Connection>>,
}

impl Api {
    /// A client of the region at that URL.
    ///
    /// # Errors
    /// When URL or key have the wrong form.
    pub fn new(url: &str, key: &str) -> Result<Self, Trouble> {
        let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let to = host.parse().map_err(trouble(format!("{url} is not http://ADDRESS:PORT/…")))?;
        Ok(Self(Arc::new(Inner { to, key: key.parse().map_err(Trouble)?, idle: Mutex::default() })))
    }

    /// GET of any path of the region.
    ///
    /// # Errors
    /// What the region answered, if it is no success.
    pub async fn get(&self, path: &str) -> Result<Value, Trouble> {
        self.call("GET", path, &[]).await
    }

    /// GET of any path, as the bytes that came.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn bytes(&self, path: &str) -> Result<Vec<u8>, Trouble> {
        accepted(self.exchange("GET", path, &[]).await?, "GET", path)
    }

    /// POST of a form.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<Value, Trouble> {
        self.call("POST", path, form).await
    }

    /// POST without a body, whatever the answer: its status and its words.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn told(&self, path: &str) -> Result<(u16, String), Trouble> {
        let answer = self.exchange("POST", path, &[]).await?;
        Ok((answer.status, words(&answer)))
    }

    /// GET of a stream of events: each piece as it comes. It ends when the region ends it.
    ///
    /// # Errors
    /// What ended it.
    pub async fn listen(&self, path: &str, heard: impl FnMut(&[u8])) -> Result<(), Trouble> {
        let Inner { to, key, .. } = &*self.0;
        stream::listen(*to, path, &[("Authorization", key.header())], heard).await
    }

    async fn call(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Result<Value, Trouble> {
        let body = accepted(self.exchange(method, path, form).await?, method, path)?;
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn exchange(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Result<Answer, Trouble> {
        let Inner { to, key, idle } = &*self.0;
        let body = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&");
        let bytes = format!(
            "{method} {path} HTTP/1.1\r\nHost: {to}\r\nAuthorization: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            key.header(),
            body.len()
        );
        let request = Request { to: *to, name: None, bytes: bytes.into_bytes(), keep: true, head: false };
        let kept = idle.lock().await.pop();
        let answered = exchange(kept, OWN, &request).await;
        let (answer, connection) = answered.map_err(trouble(format!("{method} {path}")))?;
        idle.lock().await.extend(connection);
        Ok(answer)
    }
}

/// The body of an answer that is a success.
fn accepted(answer: Answer, method: &str, path: &str) -> Result<Vec<u8>, Trouble> {
    match answer.status {
        200..=299 => Ok(answer.body),
        status => Err(Trouble(format!("{method} {path} was answered {status}: {}", words(&answer)))),
    }
}

/// What an answer says, in short.
fn words(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).chars().take(300).collect()
}

/// Percent-encodes what is not unreserved (RFC 3986 section 2.3).
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
