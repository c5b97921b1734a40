//! Logins of browsers: one-time links and cookies, in memory. A restart of the region ends them all. Only their hashes are kept.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::clock;
use schema::{boot::Sha256, secret::Secret, time::Timestamp};

/// The cookie's name.
pub const COOKIE: &str = "hostler_session";
/// How long a session lasts, and how long a one-time link waits to be used.
pub const SESSION: Duration = Duration::from_secs(12 * 3_600);
const LINK: Duration = Duration::from_secs(3_600);
/// Logins kept at once; beyond that the oldest go.
const MOST: usize = 1_000;

/// All of them.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<Sha256, Login>>);

struct Login {
    username: String,
    expires: Timestamp,
    once: bool,
}

impl Sessions {
    /// The secret of a link that logs that user in, once.
    #[must_use]
    pub fn link(&self, username: &str) -> Secret<String> {
        self.begin(username, LINK, true)
    }

    /// The cookie of a new session for a user who has proved who he is.
    #[must_use]
    pub fn open(&self, username: &str) -> Secret<String> {
        self.begin(username, SESSION, false)
    }

    /// Uses a link up: its session's cookie.
    #[must_use]
    pub fn redeem(&self, secret: &str) -> Option<Secret<String>> {
        let username = {
            let mut logins = self.logins();
            let login = logins.get(&hash(secret)).filter(|l| l.once && l.expires > clock::now())?;
            let username = login.username.clone();
            logins.remove(&hash(secret));
            username
        };
        Some(self.open(&username))
    }

    /// Whose cookie that is.
    #[must_use]
    pub fn user(&self, cookie: &str) -> Option<String> {
        let logins = self.logins();
        let login = logins.get(&hash(cookie)).filter(|l| !l.once && l.expires > clock::now())?;
        Some(login.username.clone())
    }

    fn begin(&self, username: &str, lasts: Duration, once: bool) -> Secret<String> {
        let secret = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let now = clock::now();
        let mut logins = self.logins();
        logins.retain(|_, login| login.expires > now);
        while logins.len() >= MOST
            && let Some(oldest) = logins.iter().min_by_key(|(_, l)| l.expires).map(|(key, _)| *key)
        {
            logins.remove(&oldest);
        }
        logins.insert(hash(&secret), Login { username: username.to_owned(), expires: now + lasts, once });
        Secret::new(secret)
    }

    fn logins(&self) -> MutexGuard<'_, HashMap<Sha256, Login>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The secrets have 256 random bits, so a fast hash is enough, and a look-up by it tells nothing.
fn hash(secret: &str) -> Sha256 {
    Sha256::of(secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_serves_once_and_is_no_cookie() {
        let sessions = Sessions::default();
        let link = sessions.link("ada");
        assert_eq!(sessions.user(link.expose()), None);
        let cookie = sessions.redeem(link.expose()).unwrap();
        assert_eq!(sessions.user(cookie.expose()).as_deref(), Some("ada"));
        assert!(sessions.redeem(link.expose()).is_none() && sessions.redeem(cookie.expose()).is_none());
        assert_eq!(sessions.user("guess"), None);
    }
}
