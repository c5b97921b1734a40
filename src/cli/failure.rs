//! Why a command failed: the exit code of the contract, a sentence, and what to do.

use std::fmt;

/// Exit codes, fixed by the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    NotAuthorised = 4,
    Conflict = 5,
    Unreachable = 6,
    TimedOut = 7,
    Partly = 8,
}

/// A failure, as it is printed on stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub what: String,
    /// Empty when there is nothing to add.
    pub remedy: String,
}

impl Failure {
    /// A failure with a remedy.
    pub fn new(code: Code, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, what: what.into(), remedy: remedy.into() }
    }

    /// The operation failed.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Code::Failed, what, "")
    }

    /// The command line or a configuration is wrong.
    pub fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Code::Usage, what, remedy)
    }

    /// That file cannot be read or written.
    pub fn file(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(
            Code::Failed,
            format!("cannot {doing} {}: {error}", path.display()),
            "check the path and its permissions",
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what.trim_end())?;
        if !self.remedy.is_empty() {
            write!(f, "\n  try: {}", self.remedy)?;
        }
        Ok(())
    }
}

/// One failure for several targets: none when all went well, the first one's code when none did, 8 in between.
///
/// # Errors
/// That failure.
pub fn summed(total: usize, failures: Vec<Failure>) -> Result<(), Failure> {
    let count = failures.len();
    let Some(first) = failures.first().cloned() else { return Ok(()) };
    if total == 1 {
        return Err(first);
    }
    for failure in &failures {
        eprintln!("{failure}");
    }
    let code = if count == total { first.code } else { Code::Partly };
    Err(Failure::new(code, format!("{count} of {total} failed"), ""))
}
