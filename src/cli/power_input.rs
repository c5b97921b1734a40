//! Power parameters from the command line, and secrets from a file, the environment or stdin: never needed in argv.

use std::{io::Read, path::Path};

use super::failure::Failure;

/// The field that a BMC's password stands in.
const PASSWORD: &str = "power_parameters_power_pass";

/// `NAME=VALUE` pairs as form fields.
///
/// # Errors
/// When one has no `=` or no name.
pub fn parameters(pairs: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let read = |pair: &String| {
        let (name, value) = pair.split_once('=').filter(|(n, _)| !n.is_empty()).ok_or_else(|| {
            Failure::usage(format!("\"{pair}\" is not NAME=VALUE"), "write it as --power-parameter power_user=admin")
        })?;
        Ok((format!("power_parameters_{name}"), value.to_owned()))
    };
    pairs.iter().map(read).collect()
}

/// The BMC's password: from the file (`-` is stdin), else from `HOSTLER_POWER_PASS`; `None` when neither is given.
///
/// # Errors
/// When the file cannot be read.
pub fn password(file: Option<&Path>) -> Result<Option<(String, String)>, Failure> {
    let text = match file {
        Some(path) if path == Path::new("-") => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| Failure::file("read the password from", path, &e))?;
            Some(text)
        }
        Some(path) => {
            Some(std::fs::read_to_string(path).map_err(|e| Failure::file("read the password from", path, &e))?)
        }
        None => std::env::var("HOSTLER_POWER_PASS").ok().filter(|t| !t.is_empty()),
    };
    // A trailing line break belongs to the file, not to the password.
    Ok(text.map(|t| (PASSWORD.to_owned(), t.trim_end_matches(['\r', '\n']).to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_password_files_become_fields() {
        let got = parameters(&["power_user=a=b".into()]).unwrap();
        assert_eq!(got, [("power_parameters_power_user".to_owned(), "a=b".to_owned())]);
        assert!(parameters(&["power_user".into()]).is_err() && parameters(&["=x".into()]).is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        std::fs::write(&path, "s3cret \n").unwrap();
        assert_eq!(password(Some(&path)).unwrap().unwrap().1, "s3cret ");
        assert!(password(Some(&folder.path().join("none"))).is_err());
    }
}
