//! Profiles: URLs and keys by name, in one file that only its owner can read.

use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profiles {
    /// The profile that is used when none is named: the last one logged in to.
    pub current: Option<String>,
    pub profiles: BTreeMap<String, Profile>,
}

/// Where a region is, and the key to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    pub url: String,
    pub key: String,
}

/// `$XDG_CONFIG_HOME/hostler/profiles.toml`, or under `~/.config`.
pub fn path() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|h| h.join(".config")));
    let none =
        || Failure::usage("neither XDG_CONFIG_HOME nor HOME is set", "set HOME, or give HOSTLER_URL and HOSTLER_KEY");
    Ok(base.ok_or_else(none)?.join("hostler").join("profiles.toml"))
}

impl Profiles {
    /// Reads the file; a missing one is empty.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::file("read", path, &error)),
        };
        toml::from_str(&text).map_err(|e| {
            Failure::usage(format!("{} is not valid: {e}", path.display()), "correct it, or delete it and log in again")
        })
    }

    /// Writes the file, readable by its owner alone, in one move.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let failed = |e: &std::io::Error| Failure::file("write", path, e);
        let text = toml::to_string(self).map_err(|e| Failure::failed(format!("profiles cannot be written: {e}")))?;
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| failed(&e))?;
        }
        let new = path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(|e| failed(&e))?;
        // The mode holds only for a file that is made here.
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(|e| failed(&e))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| failed(&e))?;
        std::fs::rename(&new, path).map_err(|e| failed(&e))
    }

    /// The profile of that name, or the current one.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, name: Option<&str>) -> Result<&Profile, Failure> {
        let known: Vec<_> = self.profiles.keys().map(String::as_str).collect();
        let login = "log in: hostler login PROFILE URL KEY";
        match name.or(self.current.as_deref()) {
            None => Err(Failure::usage("no region is chosen", login)),
            Some(name) => self.profiles.get(name).ok_or_else(|| {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Failure::usage(format!("there is no profile \"{name}\" (known: {known})"), login)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_kept_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/profiles.toml");
        let mut profiles = Profiles::load(&path).unwrap();
        assert!(profiles.find(None).is_err());
        profiles.profiles.insert("x".into(), Profile { url: "http://h/MAAS".into(), key: "a:b:c".into() });
        profiles.current = Some("x".into());
        profiles.save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Profiles::load(&path).unwrap(), profiles);
        assert_eq!(profiles.find(None).unwrap().key, "a:b:c");
        assert!(profiles.find(Some("y")).unwrap_err().what.contains("known: x"));
    }
}
