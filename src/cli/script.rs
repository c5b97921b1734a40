//! `hostler script …`: commissioning and testing scripts of one's own, over the public API.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    Global,
    client::{Client, Fields},
    failure::Failure,
    machine::array,
    output::{self, Column},
};

/// What can be done with scripts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a script; it runs at every commissioning unless it is tagged noauto
    Add(Add),
    /// List scripts
    List,
    /// Print a script's text
    Show { name: String },
    /// Delete a script; built-in ones stay
    Delete { name: String },
}

/// A new script.
#[derive(Debug, Args)]
pub struct Add {
    /// The file; its header (MAAS script metadata 1.0) may name everything else
    pub file: PathBuf,
    /// Its name; left out, the header's, or the file's
    #[arg(long)]
    pub name: Option<String>,
    /// commissioning or testing
    #[arg(long = "type", value_name = "TYPE")]
    pub script_type: Option<String>,
    /// May be repeated
    #[arg(long)]
    pub tag: Vec<String>,
    /// Seconds, or H:MM:SS
    #[arg(long)]
    pub timeout: Option<String>,
}

const COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("ID", "/id"),
    ("TYPE", "/type_name"),
    ("TAGS", "/tags"),
    ("TIMEOUT", "/timeout"),
    ("BUILT-IN", "/default"),
];

/// Runs one of the commands.
///
/// # Errors
/// As the region says.
pub async fn run(global: &Global, client: &Client, command: Command) -> Result<(), Failure> {
    match command {
        Command::Add(add) => add.run(global, client).await,
        Command::List => {
            let scripts = client.get("scripts/", &Vec::new()).await?;
            output::list(global.output, COLUMNS, "/name", array(&scripts))
        }
        Command::Show { name } => match client.get(&format!("scripts/{name}"), &vec![("op", "download".into())]).await?
        {
            Value::String(text) => output::print(&text),
            other => output::print(&other.to_string()),
        },
        Command::Delete { name } => {
            client.delete(&format!("scripts/{name}")).await?;
            eprintln!("{name}: deleted");
            Ok(())
        }
    }
}

impl Add {
    async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let text = std::fs::read_to_string(&self.file).map_err(|e| Failure::file("read", &self.file, &e))?;
        let named = schema::script::header::ScriptHeader::parse(&text).is_ok_and(|h| h.name.is_some());
        let file_name = || self.file.file_name().map(|n| n.to_string_lossy().into_owned());
        let name = self.name.clone().or_else(|| if named { None } else { file_name() });
        let mut form: Fields<'_> = vec![("script", text)];
        let optional = [("name", name), ("type", self.script_type.clone()), ("timeout", self.timeout.clone())];
        form.extend(optional.into_iter().filter_map(|(n, v)| v.map(|v| (n, v))));
        if !self.tag.is_empty() {
            form.push(("tags", self.tag.join(",")));
        }
        let script = client.post("scripts/", &form).await?;
        output::one(global.output, COLUMNS, "/name", &script)
    }
}
