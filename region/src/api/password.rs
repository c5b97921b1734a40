//! Passwords: Argon2id hashes in PHC string format. Both functions take tens of milliseconds and much memory: run them off the workers.

use argon2::{
    Argon2, PasswordHasher, PasswordVerifier,
    password_hash::phc::{PasswordHash, Salt},
};

/// The hash of a password, with a new salt.
///
/// # Errors
/// When the parameters of the hash are refused, which is a fault of the program.
pub fn hash(password: &str) -> Result<String, String> {
    let salt: [u8; Salt::RECOMMENDED_LENGTH] = rand::random();
    let hash: PasswordHash =
        Argon2::default().hash_password_with_salt(password.as_bytes(), &salt).map_err(|e| e.to_string())?;
    Ok(hash.to_string())
}

/// Whether the password is that of the hash. Without one (an unknown user) it takes as long, and is not.
#[must_use]
pub fn verify(password: &str, stored: Option<&str>) -> bool {
    match stored.map(PasswordHash::new) {
        Some(Ok(hash)) => Argon2::default().verify_password(password.as_bytes(), &hash).is_ok(),
        _ => {
            hash(password).ok();
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_another_is_not() {
        let stored = hash("s3cret").unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert!(verify("s3cret", Some(&stored)));
        assert!(!verify("S3cret", Some(&stored)) && !verify("s3cret", None) && !verify("", Some("")));
    }
}
