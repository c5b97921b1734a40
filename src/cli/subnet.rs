//! `hostler subnet …`: subnets with their VLAN's DHCP switch and their dynamic ranges, over the public API.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    Global,
    client::{Client, Fields},
    failure::Failure,
    machine::array,
    output::{self, Column},
};

/// What can be done with subnets.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a subnet; with --dynamic its racks serve DHCP there
    Add(Add),
    /// List subnets
    List,
    /// Delete a subnet with its ranges
    Delete {
        /// Id, network or name
        subnet: String,
    },
}

/// A new subnet.
#[derive(Debug, Args)]
pub struct Add {
    /// As in 10.77.0.0/24
    pub cidr: String,
    #[arg(long)]
    pub name: Option<String>,
    /// Default gateway of its machines
    #[arg(long)]
    pub gateway: Option<String>,
    /// DNS servers; may be repeated
    #[arg(long)]
    pub dns: Vec<String>,
    /// Addresses for leases, as START-END; may be repeated. Switches DHCP on
    #[arg(long, value_name = "START-END")]
    pub dynamic: Vec<String>,
    /// Addresses that are never given out, as START-END; may be repeated
    #[arg(long, value_name = "START-END")]
    pub reserved: Vec<String>,
    /// What racks do for unknown MAC addresses: ignore, local or enlist
    #[arg(long)]
    pub strangers: Option<String>,
    /// The VLAN it belongs to, by id; left out, an untagged one
    #[arg(long)]
    pub vlan: Option<String>,
}

const COLUMNS: &[Column] = &[
    ("CIDR", "/cidr"),
    ("NAME", "/name"),
    ("ID", "/id"),
    ("VLAN", "/vlan/id"),
    ("FABRIC", "/vlan/fabric"),
    ("DHCP", "/vlan/dhcp_on"),
    ("GATEWAY", "/gateway_ip"),
    ("DYNAMIC", "/dynamic"),
    ("STRANGERS", "/strangers"),
];

/// Runs one of the commands.
///
/// # Errors
/// As the region says.
pub async fn run(global: &Global, client: &Client, command: Command) -> Result<(), Failure> {
    match command {
        Command::Add(add) => add.run(global, client).await,
        Command::List => {
            let subnets = client.get("subnets/", &Vec::new()).await?;
            let ranges = client.get("ipranges/", &Vec::new()).await?;
            let mut shown = array(&subnets).to_vec();
            for subnet in &mut shown {
                let of = array(&ranges).iter().filter(|r| r["subnet"]["id"] == subnet["id"] && r["type"] == "dynamic");
                let edge = |r: &Value, name: &str| r[name].as_str().unwrap_or("").to_owned();
                let dynamic: Vec<_> = of.map(|r| format!("{}-{}", edge(r, "start_ip"), edge(r, "end_ip"))).collect();
                subnet["dynamic"] = dynamic.into();
            }
            output::list(global.output, COLUMNS, "/cidr", &shown)
        }
        Command::Delete { subnet } => {
            client.delete(&format!("subnets/{subnet}/")).await?;
            eprintln!("{subnet}: deleted");
            Ok(())
        }
    }
}

impl Add {
    async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let split = |kind: &'static str| move |text: &String| edges(text).map(|(a, b)| (kind, a, b));
        let ranges = self.dynamic.iter().map(split("dynamic")).chain(self.reserved.iter().map(split("reserved")));
        // All of them are read before anything is made.
        let ranges: Vec<_> = ranges.collect::<Result<_, _>>()?;
        let mut form: Fields<'_> = vec![("cidr", self.cidr.clone())];
        let optional =
            [("name", self.name), ("gateway_ip", self.gateway), ("strangers", self.strangers), ("vlan", self.vlan)];
        form.extend(optional.into_iter().filter_map(|(n, v)| v.map(|v| (n, v))));
        if !self.dns.is_empty() {
            form.push(("dns_servers", self.dns.join(",")));
        }
        if !self.dynamic.is_empty() {
            form.push(("dhcp_on", "true".into()));
        }
        let mut subnet = client.post("subnets/", &form).await?;
        let id = subnet["id"].to_string();
        let mut dynamic = Vec::new();
        for (kind, start, end) in ranges {
            let form = vec![
                ("type", kind.to_owned()),
                ("start_ip", start.clone()),
                ("end_ip", end.clone()),
                ("subnet", id.clone()),
            ];
            if let Err(mut failure) = client.post("ipranges/", &form).await {
                // Half a subnet helps nobody: what was made goes again.
                client.delete(&format!("subnets/{id}/")).await.ok();
                failure.what = format!("range {start}-{end}: {}", failure.what);
                return Err(failure);
            }
            if kind == "dynamic" {
                dynamic.push(format!("{start}-{end}"));
            }
        }
        subnet["dynamic"] = dynamic.into();
        output::one(global.output, COLUMNS, "/cidr", &subnet)
    }
}

fn edges(text: &str) -> Result<(String, String), Failure> {
    let parts = text.split_once('-').map(|(a, b)| (a.trim().to_owned(), b.trim().to_owned()));
    parts.filter(|(a, b)| a.parse::<std::net::IpAddr>().is_ok() && b.parse::<std::net::IpAddr>().is_ok()).ok_or_else(
        || Failure::usage(format!("\"{text}\" is not a range"), "write it as START-END, as in 10.77.0.100-10.77.0.199"),
    )
}
