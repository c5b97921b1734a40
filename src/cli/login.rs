//! `hostler login`: checks a key against its region and keeps both.

use std::io::Read;

use clap::Args;

use super::{
    Global,
    client::Client,
    failure::Failure,
    profile::{self, Profile, Profiles},
};

/// Which region, and with which key.
#[derive(Debug, Args)]
pub struct Login {
    /// A name for it
    pub name: String,
    /// As in http://HOST:5240/MAAS
    pub target: String,
    /// CONSUMER:TOKEN:SECRET. Left out, or "-": HOSTLER_KEY, or read from stdin
    pub api_key: Option<String>,
}

/// Logs in.
///
/// # Errors
/// When the region cannot be reached or refuses the key; then nothing is kept.
pub async fn run(global: &Global, login: Login) -> Result<(), Failure> {
    let key = match login.api_key.filter(|k| k != "-").or_else(|| global.key.clone()) {
        Some(key) => key,
        None => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|e| {
                Failure::usage(format!("the key cannot be read from stdin: {e}"), "give it as HOSTLER_KEY")
            })?;
            text.trim().to_owned()
        }
    };
    let client = Client::at(&login.target, &key, global.verbose)?;
    let me = client.get("users/", &vec![("op", "whoami".into())]).await?;
    let path = profile::path()?;
    let mut profiles = Profiles::load(&path)?;
    profiles.profiles.insert(login.name.clone(), Profile { url: client.base().to_owned(), key });
    profiles.current = Some(login.name.clone());
    profiles.save(&path)?;
    let user = me["username"].as_str().unwrap_or("?");
    eprintln!("Logged in to {} as {user}; profile \"{}\" is in use.", client.base(), login.name);
    Ok(())
}
