//! One part of the bench in a process of its own: lines of JSON both ways. It ends when its standard input does, so it cannot outlive us.

use std::{path::Path, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout, Command},
};

use crate::yard::{Trouble, trouble};

/// The process.
pub(super) struct Child {
    part: String,
    process: tokio::process::Child,
    pid: u32,
    say: ChildStdin,
    hear: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts `program bench part NAME` with its folder and its spec.
    pub(super) fn start(program: &Path, part: &str, dir: &Path, spec: &Value) -> Result<Self, Trouble> {
        let what = || trouble(format!("the {part} did not start"));
        let mut command = Command::new(program);
        command.args(["bench", "part", part, "--dir"]).arg(dir).arg("--spec").arg(spec.to_string());
        // A bench measures the parts, not their logs.
        if std::env::var_os("HOSTLER_LOG").is_none() {
            command.env("HOSTLER_LOG", "error");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().map_err(what())?;
        let lost = || Trouble(format!("the {part} has no pipes"));
        let (say, hear) = process.stdin.take().zip(process.stdout.take()).ok_or_else(lost)?;
        let pid = process.id().ok_or_else(lost)?;
        Ok(Self { part: part.to_owned(), process, pid, say, hear: BufReader::new(hear).lines() })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The next line.
    pub(super) async fn hear(&mut self) -> Result<Value, Trouble> {
        let line = self.hear.next_line().await.map_err(trouble(&self.part))?;
        let line = line.ok_or_else(|| Trouble(format!("the {} ended; see its words above", self.part)))?;
        let value: Value = serde_json::from_str(&line).map_err(trouble(&self.part))?;
        match value["error"].as_str() {
            Some(error) => Err(Trouble(format!("the {}: {error}", self.part))),
            None => Ok(value),
        }
    }

    /// A question and its answer.
    pub(super) async fn ask(&mut self, question: &Value) -> Result<Value, Trouble> {
        self.say.write_all(format!("{question}\n").as_bytes()).await.map_err(trouble(&self.part))?;
        self.hear().await
    }

    /// `kill -9`: it has no time for a word.
    pub(super) async fn kill(&mut self) -> Result<(), Trouble> {
        self.process.kill().await.map_err(trouble(format!("the {} could not be killed", self.part)))
    }

    /// Ends it and waits.
    pub(super) async fn stop(self) {
        let Self { mut process, say, .. } = self;
        drop(say);
        if tokio::time::timeout(std::time::Duration::from_secs(20), process.wait()).await.is_err() {
            process.kill().await.ok(); // It is gone either way.
        }
    }
}
