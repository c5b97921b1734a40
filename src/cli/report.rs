//! What the commands show of one machine: its page, its explanation, its history, its script results.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Global,
    client::Client,
    failure::{Code, Failure},
    machine::{array, find},
    output::{self, Column, Format},
    yaml,
};

/// `hostler explain MACHINE`.
///
/// # Errors
/// When there is no such machine, or the region cannot be asked.
pub async fn explain(global: &Global, client: &Client, name: &str) -> Result<(), Failure> {
    let machine = find(client, name).await?;
    let id = machine["system_id"].as_str().unwrap_or(name);
    let told = client.own(Method::GET, &format!("/inspect/v1/explain/{id}"), None).await?;
    match global.output {
        Format::Table => output::print(told["text"].as_str().unwrap_or_default()),
        Format::Json => output::print(&format!("{told:#}\n")),
        Format::Yaml => output::print(&yaml::text(&told)),
        Format::Csv => output::list(Format::Csv, STEPS, "/number", array(&told["steps"])),
        Format::Ndjson | Format::Name => output::list(global.output, STEPS, "/machine", std::slice::from_ref(&told)),
    }
}

const STEPS: &[Column] = &[
    ("NUMBER", "/number"),
    ("NAME", "/name"),
    ("STATE", "/state"),
    ("STARTED", "/started"),
    ("DURATION MS", "/duration_ms"),
    ("RACK", "/rack"),
    ("SERVICE", "/service"),
    ("EVIDENCE", "/evidence"),
];

const PAGE: &[Column] = &[
    ("Name", "/fqdn"),
    ("System id", "/system_id"),
    ("Status", "/status_name"),
    ("Message", "/status_message"),
    ("Power", "/power_state"),
    ("Power type", "/power_type"),
    ("Architecture", "/architecture"),
    ("CPUs", "/cpu_count"),
    ("CPU model", "/hardware_info/cpu_model"),
    ("CPU MHz", "/cpu_speed"),
    ("Memory MiB", "/memory"),
    ("Storage MB", "/storage"),
    ("System", "/system"),
    ("Firmware", "/bios_boot_method"),
    ("Addresses", "/ip_addresses"),
    ("Commissioning", "/commissioning_status_name"),
];

/// `hostler machine show`.
///
/// # Errors
/// When stdout is closed.
pub fn machine(format: Format, machine: &Value) -> Result<(), Failure> {
    let mut shown = machine.clone();
    if format != Format::Table {
        return output::one(format, PAGE, "/system_id", &shown);
    }
    let info = |name: &str| machine["hardware_info"][name].as_str().unwrap_or("").to_owned();
    shown["system"] = json!(format!("{} {}", info("system_vendor"), info("system_product")));
    output::one(format, PAGE, "/system_id", &shown)?;
    part("Interfaces", INTERFACES, array(&machine["interface_set"]))?;
    part("Disks", DISKS, array(&machine["physicalblockdevice_set"]))?;
    let near: Vec<Value> =
        array(&machine["interface_set"]).iter().flat_map(|i| array(&i["neighbours"]).to_vec()).collect();
    part("LLDP neighbours", NEIGHBOURS, &near)
}

fn part(title: &str, columns: &[Column], items: &[Value]) -> Result<(), Failure> {
    if items.is_empty() {
        return Ok(());
    }
    output::print(&format!("\n{title}\n"))?;
    output::list(Format::Table, columns, "/name", items)
}

const INTERFACES: &[Column] = &[
    ("NAME", "/name"),
    ("MAC", "/mac_address"),
    ("LINK", "/link_connected"),
    ("MBIT/S", "/link_speed"),
    ("VENDOR", "/vendor"),
    ("PRODUCT", "/product"),
    ("DRIVER", "/driver"),
];

const DISKS: &[Column] = &[
    ("NAME", "/name"),
    ("SIZE", "/size"),
    ("BLOCK", "/block_size"),
    ("MODEL", "/model"),
    ("SERIAL", "/serial"),
    ("TAGS", "/tags"),
];

const NEIGHBOURS: &[Column] = &[
    ("INTERFACE", "/interface"),
    ("SWITCH", "/chassis_name"),
    ("CHASSIS", "/chassis_id"),
    ("PORT", "/port_id"),
    ("PORT DESCRIPTION", "/port_description"),
    ("VLANS", "/vlan_ids"),
];

/// `hostler machine events`.
///
/// # Errors
/// When the region cannot be asked.
pub async fn events(format: Format, client: &Client, id: &str, limit: u32) -> Result<(), Failure> {
    const COLUMNS: &[Column] =
        &[("AT", "/at"), ("LEVEL", "/level"), ("TYPE", "/type"), ("BY", "/username"), ("DESCRIPTION", "/description")];
    let query = vec![("op", "query".to_owned()), ("id", id.to_owned()), ("limit", limit.to_string())];
    let page = client.get("events/", &query).await?;
    output::list(format, COLUMNS, "/id", array(&page["events"]))
}

/// `hostler machine results`.
///
/// # Errors
/// Exit code 3 when there is no commissioning, or no such script in it.
pub async fn results(
    format: Format,
    client: &Client,
    id: &str,
    script: Option<&str>,
    stream: &str,
) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        ("SCRIPT", "/name"),
        ("STATUS", "/status_name"),
        ("EXIT", "/exit_status"),
        ("RUNTIME", "/runtime"),
        ("STARTED", "/started"),
        ("ID", "/id"),
    ];
    let path = format!("nodes/{id}/results/current-commissioning/");
    let Some(script) = script else {
        let sets = client.get(&format!("nodes/{id}/results/"), &Vec::new()).await?;
        let newest = array(&sets).first().cloned();
        let none = || {
            Failure::new(
                Code::NotFound,
                "the machine was never commissioned",
                format!("hostler machine commission {id}"),
            )
        };
        return output::list(format, COLUMNS, "/name", array(&newest.ok_or_else(none)?["results"]));
    };
    let set = client.get(&path, &Vec::new()).await?;
    if !array(&set["results"]).iter().any(|r| r["name"] == script) {
        let names: Vec<_> = array(&set["results"]).iter().filter_map(|r| r["name"].as_str()).collect();
        let what = format!("there is no result of a script \"{script}\"");
        return Err(Failure::new(Code::NotFound, what, format!("the scripts were: {}", names.join(", "))));
    }
    let query = vec![("op", "download".to_owned()), ("filters", script.to_owned()), ("output", stream.to_owned())];
    match client.get(&path, &query).await? {
        Value::String(text) => output::print(&text),
        Value::Null => Ok(()),
        other => output::print(&other.to_string()),
    }
}
