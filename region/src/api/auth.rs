//! Who calls: an API key against the catalogue, compared in constant time. Roles are administrator and user. Keeps no session.

use schema::catalogue::{ApiKey, Catalogue};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    fault::Fault,
    oauth::{Claim, ClaimError, Nonces, WINDOW_S},
};

/// The user behind a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub username: String,
    pub is_superuser: bool,
}

/// The caller that a header proves. No header, or an incomplete one, is nobody; a wrong one is never downgraded to nobody.
///
/// # Errors
/// 401 for a wrong key, an old request or a repeated nonce; 400 for a timestamp that is none.
pub fn caller(header: Option<&str>, catalogue: &Catalogue, nonces: &Nonces, now: i64) -> Result<Option<Caller>, Fault> {
    let claim = match header.map(Claim::read) {
        None | Some(Err(ClaimError::None)) => return Ok(None),
        Some(Err(error @ ClaimError::Timestamp(_))) => return Err(Fault::Bad(error.to_string())),
        Some(Err(error @ ClaimError::Method(_))) => return Err(refused(&error.to_string())),
        Some(Ok(claim)) => claim,
    };
    let key = catalogue.api_keys.get(&claim.token_key);
    // An unknown token costs as much as a known one.
    let known = key.is_some() & secret_matches(key, &claim);
    let user = key.filter(|_| known).and_then(|k| catalogue.users.get(&k.username));
    let Some(user) = user else { return Err(Fault::NoKey("Authorization Error: Invalid API key.".into())) };
    if now - claim.timestamp > WINDOW_S {
        return Err(refused(&format!(
            "the request was signed {} s ago (limit {WINDOW_S} s); set the client's clock by this answer's Date header",
            now - claim.timestamp
        )));
    }
    if !nonces.fresh(&claim.token_key, &claim.nonce, now) {
        return Err(refused("the nonce was used before; sign each request anew"));
    }
    Ok(Some(Caller { username: user.username.clone(), is_superuser: user.is_superuser }))
}

fn refused(reason: &str) -> Fault {
    Fault::NoKey(format!("Authorization Error: '{reason}'"))
}

fn secret_matches(key: Option<&ApiKey>, claim: &Claim) -> bool {
    let given = secret_hash(claim.token_secret.expose());
    let (stored, consumer) =
        key.map_or((String::new(), String::new()), |k| (k.secret_sha256.clone(), k.consumer_key.clone()));
    let same_secret = given.as_bytes().ct_eq(stored.as_bytes());
    let same_consumer = claim.consumer_key.as_bytes().ct_eq(consumer.as_bytes());
    (same_secret & same_consumer).into()
}

/// What the catalogue keeps of a token secret: its SHA-256 in hexadecimal.
#[must_use]
pub fn secret_hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

/// A new key for that user, and the text that is shown once.
#[must_use]
pub fn new_key(username: &str, name: &str) -> (ApiKey, String) {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let draw = |length: usize| -> String {
        (0..length).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
    };
    let (consumer_key, token_key, secret) = (draw(18), draw(18), draw(32));
    let text = format!("{consumer_key}:{token_key}:{secret}");
    let secret_sha256 = secret_hash(&secret);
    (ApiKey { consumer_key, token_key, secret_sha256, username: username.into(), name: name.into() }, text)
}

#[cfg(test)]
mod tests {
    use schema::catalogue::User;

    use super::{super::oauth::Key, *};

    fn world() -> (Catalogue, Key) {
        let mut catalogue = Catalogue::default();
        let user = User {
            username: "ada".into(),
            email: String::new(),
            is_superuser: true,
            password_hash: String::new(),
            ssh_keys: Vec::new(),
        };
        catalogue.users.insert("ada".into(), user);
        let (key, text) = new_key("ada", "first");
        catalogue.api_keys.insert(key.token_key.clone(), key);
        (catalogue, text.parse().unwrap())
    }

    #[test]
    fn the_right_key_is_its_user_once() {
        let (catalogue, key) = world();
        let nonces = Nonces::default();
        let now = actors::clock::now().seconds();
        let header = key.header();
        let found = caller(Some(&header), &catalogue, &nonces, now).unwrap().unwrap();
        assert_eq!(found, Caller { username: "ada".into(), is_superuser: true });
        assert!(matches!(caller(Some(&header), &catalogue, &nonces, now), Err(Fault::NoKey(_))), "a replay");
        assert!(matches!(caller(Some(&key.header()), &catalogue, &nonces, now + 400), Err(Fault::NoKey(_))), "too old");
        assert!(caller(Some(&key.header()), &catalogue, &nonces, now - 4_000).is_ok(), "future stamps pass");
    }

    #[test]
    fn wrong_keys_are_401_and_no_key_is_nobody() {
        let (catalogue, key) = world();
        let nonces = Nonces::default();
        assert_eq!(caller(None, &catalogue, &nonces, 0), Ok(None));
        let wrong = [
            format!("{}:{}:wrong", key.consumer_key, key.token_key),
            format!("{}:wrong:{}", key.consumer_key, key.token_secret.expose()),
            format!("wrong:{}:{}", key.token_key, key.token_secret.expose()),
        ];
        for text in wrong {
            let key: Key = text.parse().unwrap();
            assert!(matches!(caller(Some(&key.header()), &catalogue, &nonces, 0), Err(Fault::NoKey(_))), "{text}");
        }
    }
}
