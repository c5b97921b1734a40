//! chrony under supervision: started, watched, started again when it dies, given a new configuration when the plan changes.

use std::{fs, io, net::SocketAddrV4, path::Path, process::Stdio, time::Duration};

use actors::{clock, link::client::BackOff};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use super::{
    NtpConfig, Shown, StartError,
    chrony::{self, Files, Programs, Tracking},
    wanted,
};
use crate::{
    kernel::{Bound, spawn_bound},
    places::LOOK_AGAIN,
    plan::PlanHandle,
};

/// How often it is asked how it stands.
const ASK: Duration = Duration::from_secs(15);
/// How long it may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a death; doubling. One that lived for a minute begins at the first again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const LIVED: Duration = Duration::from_secs(60);
/// Linux's CAP_SYS_TIME (capabilities(7)).
const SYS_TIME: u32 = 25;

/// The supervisor. Dropping it ends chrony at once.
#[derive(Debug)]
pub(super) struct Task {
    stop: Option<oneshot::Sender<()>>,
    pub(super) task: JoinHandle<()>,
}

impl Task {
    pub(super) async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.ok(); // A panic there was logged.
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.stop.is_some() {
            self.task.abort();
        }
    }
}

pub(super) fn start(config: NtpConfig, plan: PlanHandle, programs: Programs, shown: Shown) -> Result<Task, StartError> {
    let files = Files::below(&config.state);
    let failed = |source| StartError::Files { dir: files.dir.clone(), source };
    make_dir(&files.dir).map_err(failed)?;
    let (stop, stopped) = oneshot::channel();
    let supervisor = Supervisor { config, plan, programs, files, shown, answered: 0 };
    let task = tokio::spawn(supervisor.run(stopped));
    Ok(Task { stop: Some(stop), task })
}

/// chrony insists on a directory that nobody else may enter.
fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

struct Supervisor {
    config: NtpConfig,
    plan: PlanHandle,
    programs: Programs,
    files: Files,
    shown: Shown,
    /// Questions that this chrony has answered, as it counts.
    answered: u64,
}

/// Why one chrony came to its end.
enum End {
    Stopped,
    Changed,
    Died(String),
}

impl Supervisor {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut pauses = BackOff::new(AGAIN.0, AGAIN.1);
        self.end_leftover().await;
        loop {
            let (places, born) = (wanted(&self.config, &self.plan), clock::tick());
            let text = self.configuration(&places);
            let end = match self.spawn(&text).await {
                Ok(chronyd) => self.watch(chronyd, &text, &places, &mut stopped).await,
                Err(error) => End::Died(format!("it cannot be started: {error}")),
            };
            self.shown.bound.set(Vec::new());
            match end {
                End::Stopped => return,
                End::Changed => {
                    pauses.reset();
                    continue;
                }
                End::Died(why) => {
                    self.shown.set_amiss(true);
                    let remedy =
                        "see what it says; `chronyd -p -f FILE` checks the configuration in the rack's state directory";
                    self.shown.meter.complain("restarts", format!("chronyd ended: {why}"), remedy);
                }
            }
            if born.elapsed() >= LIVED {
                pauses.reset();
            }
            tokio::select! {
                _ = &mut stopped => return,
                () = tokio::time::sleep(pauses.pause(rand::random())) => {}
            }
        }
    }

    fn configuration(&self, places: &[SocketAddrV4]) -> String {
        let plan = self.plan.load();
        chrony::configuration(&plan.plan.settings, &plan.plan.subnets, places, &self.files)
    }

    /// A chronyd that an earlier run has left, which may have bound none to itself: ours by its configuration file, and nobody else's.
    async fn end_leftover(&self) {
        let Ok(text) = fs::read_to_string(self.files.pid()) else { return };
        let Ok(pid) = text.trim().parse::<i32>() else { return };
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let config = self.files.config();
        if command.split(|b| *b == 0).any(|word| word == config.as_os_str().as_encoded_bytes()) {
            tracing::info!(pid, "a chronyd of an earlier run is ended");
            end(pid).await;
            for _ in 0..50 {
                if !Path::new(&format!("/proc/{pid}")).exists() {
                    break;
                }
                tokio::time::sleep(PATIENCE / 50).await;
            }
        }
        fs::remove_file(self.files.pid()).ok(); // It may have removed it itself.
    }

    async fn spawn(&self, text: &str) -> io::Result<Bound> {
        fs::write(self.files.config(), text)?;
        let mut command = Command::new(&self.programs.chronyd);
        // In the foreground, its messages on stderr, as the rack's own user: its files are the rack's.
        command.arg("-d").args(["-L", "0", "-f"]).arg(self.files.config());
        match nix::unistd::geteuid() {
            root if root.is_root() => command.args(["-u", "root"]),
            _ => command.arg("-U"),
        };
        if !self.may_set_clock() {
            command.arg("-x");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        spawn_bound(command).await
    }

    /// Only where somebody asked for sources, the rights are there, and nobody else keeps the host's clock.
    fn may_set_clock(&self) -> bool {
        let sources = !self.plan.load().plan.settings.ntp_servers.is_empty();
        self.config.set_clock && sources && crate::doctor::capable(SYS_TIME) && chrony::keepers(None).is_empty()
    }

    async fn watch(
        &mut self,
        mut chronyd: Bound,
        text: &str,
        places: &[SocketAddrV4],
        stopped: &mut oneshot::Receiver<()>,
    ) -> End {
        let said = chronyd.child.stderr.take().map(|stderr| BufReader::new(stderr).lines());
        let listening = tokio::spawn(last_words(said));
        self.answered = 0;
        let (mut looked, mut ask) = (tokio::time::interval(LOOK_AGAIN), tokio::time::interval(ASK));
        // The first look is a second from now: it needs a moment to open its ports.
        looked.reset();
        ask.reset_after(LOOK_AGAIN);
        loop {
            tokio::select! {
                _ = &mut *stopped => {
                    self.finish(chronyd).await;
                    return End::Stopped;
                }
                status = chronyd.child.wait() => {
                    let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                    let last = listening.await.unwrap_or_default();
                    return End::Died(format!("{status}; its last words: {last}"));
                }
                _ = looked.tick() => {
                    if self.configuration(&wanted(&self.config, &self.plan)) != text {
                        tracing::info!("chrony gets a new configuration");
                        self.finish(chronyd).await;
                        return End::Changed;
                    }
                }
                _ = ask.tick() => self.ask(places).await,
            }
        }
    }

    async fn finish(&self, mut chronyd: Bound) {
        let child = &mut chronyd.child;
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            end(pid).await;
        }
        if timeout(PATIENCE, child.wait()).await.is_err() {
            child.kill().await.ok(); // It has ended by itself.
        }
    }

    /// Asks chrony how it stands, and says what is amiss.
    async fn ask(&mut self, places: &[SocketAddrV4]) {
        let meter = self.shown.meter.clone();
        let told = self.chronyc("tracking").await;
        let Some(tracking) = told.as_deref().ok().and_then(Tracking::parse) else {
            let why = told.err().unwrap_or_else(|| "its answer has another form".into());
            meter.complain(
                "source",
                format!("chrony does not say how it stands: {why}"),
                "look at the rack's log; it is asked again",
            );
            return self.shown.set_amiss(true);
        };
        self.shown.bound.set(places.iter().map(|p| (*p).into()).collect());
        let plan = self.plan.load();
        let wanting = !plan.plan.settings.ntp_servers.is_empty() && (tracking.alone || !tracking.synchronised);
        if wanting {
            let servers = plan.plan.settings.ntp_servers.join(", ");
            let remedy = "check that this rack reaches them (123/udp) and that they are right; machines get the rack's own time meanwhile";
            meter.complain("source", format!("none of the NTP servers {servers} gives the time yet"), remedy);
        }
        for name in chrony::no_sources(&plan.plan.settings) {
            let why = format!("ntp_servers: \"{}\" is no host name and no address", name.escape_default());
            meter.complain("setting", why, "correct it with `set_config`; it is left out");
        }
        self.shown.set_amiss(wanting);
        if let Some(answered) = self.chronyc("serverstats").await.ok().as_deref().and_then(chrony::answered) {
            meter.add("answered", answered.saturating_sub(self.answered));
            self.answered = answered;
        }
    }

    async fn chronyc(&self, what: &str) -> Result<String, String> {
        let mut command = Command::new(&self.programs.chronyc);
        command.arg("-c").arg("-h").arg(self.files.socket()).arg(what).stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await.map_err(|_| "it does not answer".to_owned())?;
        let output = output.map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(text.trim().to_owned()) }
    }
}

async fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGTERM).ok(); // It has ended by itself.
}

/// Passes chrony's messages to the log, until it has closed them; the last one.
async fn last_words(said: Option<tokio::io::Lines<BufReader<tokio::process::ChildStderr>>>) -> String {
    let mut last = String::new();
    let Some(mut said) = said else { return last };
    while let Ok(Some(line)) = said.next_line().await {
        tracing::debug!(target: "rack::ntp", "chronyd: {line}");
        last = line;
    }
    last
}
