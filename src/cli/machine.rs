//! `hostler machine …`: the operator's commands on machines, over the public API.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::{
    Global,
    client::{Client, Fields},
    failure::{Code, Failure, summed},
    input::named,
    logs,
    output::{self, Column, Format},
    power_input, report,
};

/// What can be done with machines.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a machine; it stays New unless --commission
    Add(Add),
    /// List machines
    List(List),
    /// Show one machine; -o json shows all that is known
    Show { machine: String },
    /// Commission machines
    Commission(Commission),
    /// End what is under way
    Abort {
        #[arg(required = true)]
        machines: Vec<String>,
        /// Why
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// Switch machines, or ask their BMCs
    Power {
        action: Power,
        #[arg(required = true)]
        machines: Vec<String>,
    },
    /// The history of a machine, newest first
    Events {
        machine: String,
        /// Lines, at most 1000
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// What a machine wrote to syslog, oldest first
    Logs(logs::Logs),
    /// The results of the last commissioning's scripts
    Results {
        machine: String,
        /// Print what this script wrote
        #[arg(long)]
        script: Option<String>,
        /// Which of its outputs: combined, stdout, stderr or result
        #[arg(long, default_value = "combined")]
        stream: String,
    },
    /// Mark machines broken
    Broken {
        #[arg(required = true)]
        machines: Vec<String>,
        /// Why
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// Mark broken machines as fixed
    Fixed {
        #[arg(required = true)]
        machines: Vec<String>,
    },
    /// Delete machines
    Delete {
        #[arg(required = true)]
        machines: Vec<String>,
    },
}

/// What to do with the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Power {
    On,
    Off,
    /// Ask the BMC, which may take up to a minute
    Status,
}

/// A new machine.
#[derive(Debug, Args)]
pub struct Add {
    /// Host name; left out, one is made up
    pub name: Option<String>,
    /// MAC address of the card it boots from; may be repeated
    #[arg(long, required = true)]
    pub mac: Vec<String>,
    /// Architecture
    #[arg(long, default_value = "amd64")]
    pub arch: String,
    /// How it is switched
    #[arg(long, default_value = "manual")]
    pub power_type: String,
    /// Address of its BMC
    #[arg(long)]
    pub power_address: Option<String>,
    /// User of its BMC
    #[arg(long)]
    pub power_user: Option<String>,
    /// File with the BMC's password ("-": stdin); else HOSTLER_POWER_PASS
    #[arg(long)]
    pub power_pass_file: Option<PathBuf>,
    /// Another parameter of the power type, as NAME=VALUE; may be repeated
    #[arg(long = "power-parameter", value_name = "NAME=VALUE")]
    pub power_parameters: Vec<String>,
    /// A note
    #[arg(long, default_value = "")]
    pub description: String,
    /// Commission it at once
    #[arg(long)]
    pub commission: bool,
}

/// Which machines.
#[derive(Debug, Args)]
pub struct List {
    /// Only these statuses, as in "ready" or "failed commissioning"
    #[arg(long)]
    pub status: Vec<String>,
    /// Only these host names
    #[arg(long)]
    pub hostname: Vec<String>,
    /// Only these power states: on, off, unknown, error
    #[arg(long)]
    pub power: Vec<String>,
}

/// How to commission.
#[derive(Debug, Args)]
pub struct Commission {
    #[arg(required = true)]
    pub machines: Vec<String>,
    /// Wait until it ends; the exit code tells how
    #[arg(long)]
    pub wait: bool,
    /// The longest wait, as in 90s, 30m or 2h
    #[arg(long, default_value = "60m", value_parser = span)]
    pub timeout: Duration,
    /// Leave it on at the end, with the administrators' SSH keys
    #[arg(long)]
    pub enable_ssh: bool,
    /// Only these scripts (names or tags); may be repeated
    #[arg(long = "script")]
    pub scripts: Vec<String>,
    /// Testing scripts, or none
    #[arg(long = "testing-script")]
    pub testing_scripts: Vec<String>,
}

const COLUMNS: &[Column] = &[
    ("NAME", "/hostname"),
    ("ID", "/system_id"),
    ("STATUS", "/status_name"),
    ("POWER", "/power_state"),
    ("ARCH", "/architecture"),
    ("CPUS", "/cpu_count"),
    ("MEMORY", "/memory"),
    ("IP", "/ip_addresses"),
    ("WAITING FOR", "/waiting_for"),
];

/// Runs one of the commands.
///
/// # Errors
/// As the region or the waiting says.
pub async fn run(global: &Global, client: &Client, command: Command) -> Result<(), Failure> {
    let format = global.output;
    match command {
        Command::Add(add) => {
            let machine = client.post("machines/", &add.fields()?).await?;
            output::one(format, COLUMNS, "/system_id", &machine)
        }
        Command::List(list) => {
            let mut query: Fields<'_> = Vec::new();
            query.extend(list.status.into_iter().map(|s| ("status", s)));
            query.extend(list.hostname.into_iter().map(|s| ("hostname", s)));
            query.extend(list.power.into_iter().map(|s| ("power_state", s)));
            output::list(format, COLUMNS, "/system_id", array(&client.get("machines/", &query).await?))
        }
        Command::Show { machine } => report::machine(format, &find(client, &machine).await?),
        Command::Commission(commission) => commission_all(format, client, commission).await,
        Command::Abort { machines, comment } => operate(format, client, &machines, "abort", comment).await,
        Command::Broken { machines, comment } => operate(format, client, &machines, "mark_broken", comment).await,
        Command::Fixed { machines } => operate(format, client, &machines, "mark_fixed", String::new()).await,
        Command::Power { action: Power::On, machines } => {
            operate(format, client, &machines, "power_on", String::new()).await
        }
        Command::Power { action: Power::Off, machines } => {
            operate(format, client, &machines, "power_off", String::new()).await
        }
        Command::Power { action: Power::Status, machines } => power_status(format, client, &machines).await,
        Command::Events { machine, limit } => {
            let id = id(&find(client, &machine).await?)?;
            report::events(format, client, &id, limit).await
        }
        Command::Logs(asked) => logs::run(format, client, asked).await,
        Command::Results { machine, script, stream } => {
            let id = id(&find(client, &machine).await?)?;
            report::results(format, client, &id, script.as_deref(), &stream).await
        }
        Command::Delete { machines } => {
            let mut failures = Vec::new();
            for name in &machines {
                let deleted = async {
                    let id = id(&find(client, name).await?)?;
                    client.delete(&format!("machines/{id}/")).await
                };
                match deleted.await {
                    Ok(_) => eprintln!("{name}: deleted"),
                    Err(failure) => failures.push(failure.of(name, machines.len())),
                }
            }
            summed(machines.len(), failures)
        }
    }
}

impl Add {
    fn fields(&self) -> Result<Fields<'static>, Failure> {
        let mut fields: Fields<'static> = vec![
            ("architecture", self.arch.clone()),
            ("power_type", self.power_type.clone()),
            ("description", self.description.clone()),
            ("commission", self.commission.to_string()),
        ];
        fields.extend(self.name.iter().map(|n| ("hostname", n.clone())));
        fields.extend(self.mac.iter().map(|m| ("mac_addresses", m.clone())));
        let mut given = power_input::parameters(&self.power_parameters)?;
        for (name, value) in [("power_address", &self.power_address), ("power_user", &self.power_user)] {
            given.extend(value.iter().map(|v| (format!("power_parameters_{name}"), v.clone())));
        }
        if self.power_type != "manual" || self.power_pass_file.is_some() {
            given.extend(power_input::password(self.power_pass_file.as_deref())?);
        }
        // One JSON field keeps every name as it is.
        let map: serde_json::Map<String, Value> = given
            .into_iter()
            .map(|(n, v)| (n.trim_start_matches("power_parameters_").to_owned(), Value::String(v)))
            .collect();
        if !map.is_empty() {
            fields.push(("power_parameters", Value::Object(map).to_string()));
        }
        Ok(fields)
    }
}

/// The machine of that system id, host name, full name or MAC address.
///
/// # Errors
/// Exit code 3 when there is none, 2 when there are several.
pub async fn find(client: &Client, name: &str) -> Result<Value, Failure> {
    // The region takes an empty filter for none: every machine would be it.
    let name = named(name).map_err(|why| Failure::usage(format!("\"{name}\": {why}"), "see `hostler machine list`"))?;
    let name = name.as_str();
    let like_id = name.len() == 6 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if like_id {
        match client.get(&format!("machines/{name}/"), &Vec::new()).await {
            Err(failure) if failure.code == Code::NotFound => {}
            other => return other,
        }
    }
    let filter = if name.contains(':') { "mac_address" } else { "hostname" };
    let found = client.get("machines/", &vec![(filter, name.to_owned())]).await?;
    match array(&found) {
        [one] => Ok(one.clone()),
        [] => {
            Err(Failure::new(Code::NotFound, format!("there is no machine \"{name}\""), "see `hostler machine list`"))
        }
        many => {
            let ids: Vec<_> = many.iter().filter_map(|m| m["system_id"].as_str()).collect();
            Err(Failure::usage(
                format!("\"{name}\" is the name of several machines: {}", ids.join(", ")),
                "give the system id",
            ))
        }
    }
}

/// An array's items; none of anything else.
#[must_use]
pub fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The system id in a machine's object.
pub(super) fn id(machine: &Value) -> Result<String, Failure> {
    let none = || Failure::failed("the region sent a machine without an id");
    machine["system_id"].as_str().map(str::to_owned).ok_or_else(none)
}

/// The same operation on each machine.
async fn operate(format: Format, client: &Client, names: &[String], op: &str, comment: String) -> Result<(), Failure> {
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    let mut form: Fields<'_> = Vec::new();
    if !comment.is_empty() {
        form.push(("comment", comment));
    }
    for name in names {
        match post(client, name, op, &form).await {
            Ok(machine) => done.push(machine),
            Err(failure) => failures.push(failure.of(name, names.len())),
        }
    }
    if !done.is_empty() {
        output::list(format, COLUMNS, "/system_id", &done)?;
    }
    summed(names.len(), failures)
}

async fn post(client: &Client, name: &str, op: &str, form: &Fields<'_>) -> Result<Value, Failure> {
    let id = id(&find(client, name).await?)?;
    client.post(&format!("machines/{id}/?op={op}"), form).await
}

async fn power_status(format: Format, client: &Client, names: &[String]) -> Result<(), Failure> {
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        let asked = async {
            let mut machine = find(client, name).await?;
            let path = format!("machines/{}/", id(&machine)?);
            let answer = client.get(&path, &vec![("op", "query_power_state".into())]).await?;
            machine["power_state"] = answer["state"].clone();
            Ok(machine)
        };
        match asked.await {
            Ok(machine) => done.push(machine),
            Err(failure) => failures.push(Failure::of(failure, name, names.len())),
        }
    }
    if !done.is_empty() {
        let columns = &[("NAME", "/hostname"), ("ID", "/system_id"), ("POWER", "/power_state")];
        output::list(format, columns, "/system_id", &done)?;
    }
    summed(names.len(), failures)
}

impl Failure {
    /// With the machine's name in front, when there are several.
    fn of(mut self, name: &str, total: usize) -> Self {
        if total > 1 {
            self.what = format!("{name}: {}", self.what);
        }
        self
    }
}

async fn commission_all(format: Format, client: &Client, asked: Commission) -> Result<(), Failure> {
    let mut form: Fields<'_> = vec![("enable_ssh", asked.enable_ssh.to_string())];
    form.extend(asked.scripts.iter().map(|s| ("commissioning_scripts", s.clone())));
    form.extend(asked.testing_scripts.iter().map(|s| ("testing_scripts", s.clone())));
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for name in &asked.machines {
        match post(client, name, "commission", &form).await {
            Ok(machine) => done.push(machine),
            Err(failure) => failures.push(failure.of(name, asked.machines.len())),
        }
    }
    if asked.wait {
        let limit = tick() + asked.timeout;
        for machine in &mut done {
            match wait(client, machine, limit).await {
                Ok(()) => {}
                Err(failure) => {
                    failures.push(failure.of(machine["hostname"].as_str().unwrap_or("?"), asked.machines.len()))
                }
            }
        }
    }
    if !done.is_empty() {
        output::list(format, COLUMNS, "/system_id", &done)?;
    }
    summed(asked.machines.len(), failures)
}

const LOOK: Duration = Duration::from_millis(700);

#[expect(clippy::disallowed_methods, reason = "a command's own time-out; nothing is decided by it but when to give up")]
fn tick() -> Instant {
    Instant::now()
}

/// Waits until a machine has left Commissioning; says on stderr what it waits for whenever that changes.
async fn wait(client: &Client, machine: &mut Value, limit: Instant) -> Result<(), Failure> {
    let path = format!("machines/{}/", id(machine)?);
    let name = machine["hostname"].as_str().unwrap_or("?").to_owned();
    let mut said = String::new();
    loop {
        let status = machine["status_name"].as_str().unwrap_or("");
        let message = machine["status_message"].as_str().unwrap_or("");
        match status {
            "Ready" => {
                eprintln!("{name}: Ready");
                return Ok(());
            }
            "Commissioning" | "Testing" => {}
            other => {
                let what = format!("{name} ended as \"{other}\": {message}");
                return Err(Failure::new(
                    Code::Failed,
                    what,
                    format!("see hostler explain {name}, hostler machine results {name}"),
                ));
            }
        }
        if message != said {
            let step = machine["status_action"].as_str().unwrap_or("");
            eprintln!("{name}: {step}: {message}");
            message.clone_into(&mut said);
        }
        if tick() >= limit {
            let what = format!("{name} is still in \"{status}\" ({message})");
            return Err(Failure::new(Code::TimedOut, what, format!("it goes on; see hostler explain {name}")));
        }
        tokio::time::sleep(LOOK).await;
        match client.get(&path, &Vec::new()).await {
            Ok(now) => *machine = now,
            // The region may be restarting; the machine goes on without it.
            Err(failure) if matches!(failure.code, Code::Unreachable | Code::TimedOut) => {
                if failure.what != said {
                    eprintln!("{name}: {}", failure.what);
                    said = failure.what;
                }
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// A span as in `90s`, `30m`, `2h`; a bare number is seconds.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a span; write it as 90s, 30m or 2h");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).filter(|s| *s <= 366 * 86_400).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        assert_eq!(span("90s").unwrap().as_secs(), 90);
        assert_eq!(span("30m").unwrap().as_secs(), 1_800);
        assert_eq!(span("7").unwrap().as_secs(), 7);
        for text in ["", "m", "5d", "-1s", "99999999999h"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
