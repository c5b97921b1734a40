//! Reads the LXD resources JSON (API 1.0) that the inventory script prints into a [`HardwareReport`]. Every fault names its field.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::{HardwareDisk, HardwareInterface, HardwareReport, NumaNode, SystemInfo, json::Node};
use crate::net::MacAddr;

/// The longest inventory in bytes.
pub const RESOURCES_LIMIT: usize = 4 * 1024 * 1024;
/// Threads a machine may have.
const THREADS: u64 = 65_536;
/// Memory a machine may have, in bytes: 1 PiB.
const MEMORY: u64 = 1 << 50;
/// Disks up to this many bytes are no disks (MAAS: 4 MiB).
const SMALLEST_DISK: u64 = 4 * 1024 * 1024;
/// What LXD must know for this reading.
const EXTENSIONS: [&str; 4] = ["resources", "resources_v2", "api_os", "resources_system"];
const MIB: u64 = 1024 * 1024;

/// An inventory that cannot be used: field, value, rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HardwareError {
    #[error("the inventory has {len} bytes, more than {RESOURCES_LIMIT}; look at the script's output")]
    TooLong { len: usize },
    #[error("the inventory is not JSON: {0}; look at the script's output")]
    Json(String),
    #[error("api_version \"{0}\" of the inventory is not \"1.0\"; run the built-in inventory script")]
    Version(String),
    #[error("api_extensions of the inventory lacks \"{0}\"; run the built-in inventory script")]
    Extension(&'static str),
    #[error("{field} of the inventory is missing; it must be {rule}")]
    Missing { field: String, rule: &'static str },
    #[error("{field} of the inventory is {value}; it must be {rule}")]
    Wrong { field: String, value: String, rule: String },
    #[error("{field} of the inventory has {count} entries, more than {max}")]
    TooMany { field: String, count: usize, max: usize },
    #[error("MAC address {mac} stands at both {first} and {second}; a machine's addresses must differ")]
    SameMac { mac: MacAddr, first: String, second: String },
}

impl HardwareReport {
    /// Reads an inventory. `boot_mac` is filled where the inventory carries the kernel's command line (ours does, LXD's does not).
    ///
    /// # Errors
    /// When it is too long, no JSON, of another version, or a value is outside its rule.
    pub fn from_resources(json: &[u8]) -> Result<Self, HardwareError> {
        if json.len() > RESOURCES_LIMIT {
            return Err(HardwareError::TooLong { len: json.len() });
        }
        let root: Value = serde_json::from_slice(json).map_err(|e| HardwareError::Json(e.to_string()))?;
        let root = Node::root(&root);
        check_version(&root)?;
        let resources = root.required("resources", "a map")?;
        let environment = root.get("environment");
        let cpu = Cpu::read(&resources.required("cpu", "a map")?)?;
        let memory = resources.required("memory", "a map")?;
        let total = memory.get("total").whole(MEMORY)?;
        if total == 0 {
            return Err(HardwareError::Missing { field: memory.field("total"), rule: "the installed bytes" });
        }
        Ok(Self {
            architecture: debian_arch(&environment.get("kernel_architecture").text()),
            kernel: environment.get("kernel_version").text(),
            cpu_count: cpu.count,
            cpu_model: cpu.model,
            cpu_speed: cpu.speed,
            memory: total / MIB,
            numa_nodes: numa_nodes(&memory, &cpu.threads, total)?,
            interfaces: interfaces(&resources.get("network"), &root.get("networks"))?,
            disks: disks(&resources.get("storage"))?,
            system: system(&resources.get("system")),
            boot_mac: boot_mac(&environment.get("kernel_cmdline").long_text()),
        })
    }
}

/// The boot interface of a kernel command line: `BOOTIF=01-52-54-00-77-00-01` (PXELINUX's form: hardware type, then the MAC).
#[must_use]
pub fn boot_mac(cmdline: &str) -> Option<MacAddr> {
    let value = cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix("BOOTIF="))?;
    let (kind, mac) = value.split_once(['-', ':'])?;
    (kind.len() == 2 && kind.bytes().all(|b| b.is_ascii_hexdigit())).then(|| mac.parse().ok())?
}

/// Debian's name of a kernel's architecture; what is not known stays as it is.
#[must_use]
pub fn debian_arch(kernel: &str) -> String {
    match kernel {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "ppc64le" => "ppc64el",
        "i386" | "i486" | "i586" | "i686" => "i386",
        "armv7l" | "armv8l" => "armhf",
        other => other,
    }
    .to_owned()
}

fn check_version(root: &Node<'_>) -> Result<(), HardwareError> {
    let version = root.get("api_version").text();
    if version != "1.0" {
        return Err(HardwareError::Version(version));
    }
    let known: Vec<_> = root.get("api_extensions").list(4_096)?.iter().map(Node::text).collect();
    let lacking = EXTENSIONS.into_iter().find(|e| !known.iter().any(|k| k == e));
    lacking.map_or(Ok(()), |e| Err(HardwareError::Extension(e)))
}

struct Cpu {
    count: u32,
    model: String,
    speed: u32,
    /// Thread ids by NUMA node.
    threads: BTreeMap<u32, Vec<u32>>,
}

impl Cpu {
    fn read(cpu: &Node<'_>) -> Result<Self, HardwareError> {
        let count = cpu.get("total").number(THREADS)?;
        if count == 0 {
            return Err(HardwareError::Missing { field: cpu.field("total"), rule: "the number of threads" });
        }
        let sockets = cpu.get("sockets").list(1_024)?;
        let mut threads: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let (mut turbo, mut frequencies) = (0, Vec::new());
        for socket in &sockets {
            turbo = turbo.max(socket.get("frequency_turbo").number(1_000_000)?);
            frequencies.push(socket.get("frequency").number(1_000_000)?);
            for core in socket.get("cores").list(65_536)? {
                for thread in core.get("threads").list(1_024)? {
                    let node = thread.get("numa_node").node_index();
                    threads.entry(node).or_default().push(thread.get("id").number(THREADS)?);
                }
            }
        }
        threads.values_mut().for_each(|ids| ids.sort_unstable());
        let names: Vec<String> = sockets.iter().map(|s| s.get("name").text()).collect();
        let name = names.first().filter(|first| names.iter().all(|n| n == *first)).cloned().unwrap_or_default();
        let model = name.split(" @").next().unwrap_or_default().trim().to_owned();
        Ok(Self { count, model, speed: speed(&name, turbo, &frequencies), threads })
    }
}

/// MHz: what the name says (`@ 2.40GHz`), else the highest turbo, else the mean rounded to 100.
fn speed(name: &str, turbo: u32, frequencies: &[u32]) -> u32 {
    if let Some(named) = name.split_once('@').and_then(|(_, rest)| megahertz(rest.trim())) {
        return named;
    }
    if turbo > 0 {
        return turbo;
    }
    let known: Vec<u64> = frequencies.iter().filter(|f| **f > 0).map(|f| u64::from(*f)).collect();
    let mean = known.iter().sum::<u64>() / (known.len() as u64).max(1);
    u32::try_from((mean + 50) / 100 * 100).unwrap_or(0)
}

fn megahertz(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let (number, factor) = match lower.split_once("ghz") {
        Some((number, _)) => (number, 1_000.0),
        None => (lower.split_once("mhz")?.0, 1.0),
    };
    let value = number.trim().parse::<f64>().ok()? * factor;
    // Whole numbers below 2^24 pass through the text form unharmed, and nothing is cut by a cast.
    (0.0..1_000_000.0).contains(&value).then(|| format!("{value:.0}").parse().ok())?
}

fn numa_nodes(
    memory: &Node<'_>,
    threads: &BTreeMap<u32, Vec<u32>>,
    total: u64,
) -> Result<Vec<NumaNode>, HardwareError> {
    let mut nodes: BTreeMap<u32, u64> = BTreeMap::new();
    for node in memory.get("nodes").list(1_024)? {
        *nodes.entry(node.get("numa_node").node_index()).or_default() += node.get("total").whole(MEMORY)?;
    }
    if nodes.is_empty() {
        nodes.insert(0, total);
    }
    // A node may have processors and no memory.
    for index in threads.keys() {
        nodes.entry(*index).or_default();
    }
    let cores = |index| threads.get(index).cloned().unwrap_or_default();
    Ok(nodes.iter().map(|(i, bytes)| NumaNode { index: *i, cores: cores(i), memory: bytes / MIB }).collect())
}

fn interfaces(network: &Node<'_>, networks: &Node<'_>) -> Result<Vec<HardwareInterface>, HardwareError> {
    let mut found: Vec<HardwareInterface> = Vec::new();
    let mut seen: HashMap<MacAddr, String> = HashMap::new();
    for card in network.get("cards").list(1_024)? {
        let mut ports = card.get("ports").list(256)?;
        // LXD nests virtual functions; they are no interfaces of the machine's own.
        ports.retain(|port| port.get("protocol").text_or("ethernet") == "ethernet");
        for port in ports {
            let interface = interface(&card, &port, networks)?;
            if let Some(first) = seen.insert(interface.mac, interface.name.clone()) {
                return Err(HardwareError::SameMac { mac: interface.mac, first, second: interface.name });
            }
            found.push(interface);
        }
    }
    Ok(found)
}

fn interface(card: &Node<'_>, port: &Node<'_>, networks: &Node<'_>) -> Result<HardwareInterface, HardwareError> {
    let name = port.required("id", "the interface's name")?.text();
    let address = port.required("address", "a MAC address")?;
    let mac = address.text().parse().map_err(|_| address.wrong("a MAC address, as in 52:54:00:12:34:56"))?;
    let modes = port.get("supported_modes").list(512)?;
    let shown = networks.get(&name).get("addresses").list(1_024)?;
    let addresses = shown.iter().map(|a| format!("{}/{}", a.get("address").text(), a.get("netmask").text()));
    Ok(HardwareInterface {
        mac,
        vendor: card.get("vendor").text(),
        product: card.get("product").text(),
        firmware_version: card.get("firmware_version").text(),
        driver: card.get("driver").text(),
        link_connected: port.get("link_detected").flag(),
        link_speed: port.get("link_speed").number(10_000_000)?,
        interface_speed: modes.iter().filter_map(|m| mode_speed(&m.text())).max().unwrap_or(0),
        sriov_max_vf: card.get("sriov").get("maximum_vfs").number(65_536)?,
        numa_node: card.get("numa_node").node_index(),
        pci_address: card.get("pci_address").text(),
        addresses: addresses.collect(),
        name,
    })
}

/// Mbit/s of a link mode: `1000baseT/Full` is 1000.
fn mode_speed(mode: &str) -> Option<u32> {
    mode.split_once("base")?.0.parse().ok()
}

fn disks(storage: &Node<'_>) -> Result<Vec<HardwareDisk>, HardwareError> {
    let mut found = Vec::new();
    for disk in storage.get("disks").list(4_096)? {
        let (name, kind) = (disk.required("id", "the disk's name")?.text(), disk.get("type").text());
        let size = disk.get("size").whole(u64::MAX)?;
        let unfit = disk.get("read_only").flag() || kind == "cdrom" || name.starts_with("loop");
        if unfit || size <= SMALLEST_DISK {
            continue;
        }
        let (serial, device_id) = (disk.get("serial").text(), disk.get("device_id").text());
        let id_path = if serial.is_empty() || device_id.is_empty() {
            format!("/dev/{name}")
        } else {
            format!("/dev/disk/by-id/{device_id}")
        };
        let block_size = disk.get("block_size").number(1 << 24)?;
        found.push(HardwareDisk {
            name,
            model: disk.get("model").text(),
            serial,
            id_path,
            size,
            block_size: if block_size == 0 { 512 } else { block_size },
            rotational: disk.get("rpm").whole(u64::MAX)? > 0,
            removable: disk.get("removable").flag(),
            firmware_version: disk.get("firmware_version").text(),
            numa_node: disk.get("numa_node").node_index(),
            kind,
        });
    }
    Ok(found)
}

fn system(system: &Node<'_>) -> SystemInfo {
    let told = |node: &Node<'_>, key: &str| meaning(node.get(key).text());
    let (firmware, chassis, board) = (system.get("firmware"), system.get("chassis"), system.get("motherboard"));
    SystemInfo {
        uuid: Some(system.get("uuid").text().to_ascii_lowercase()).filter(|u| is_uuid(u)).unwrap_or_default(),
        vendor: told(system, "vendor"),
        product: told(system, "product"),
        family: told(system, "family"),
        version: told(system, "version"),
        sku: told(system, "sku"),
        serial: told(system, "serial"),
        mainboard_vendor: told(&board, "vendor"),
        mainboard_product: told(&board, "product"),
        mainboard_serial: told(&board, "serial"),
        mainboard_version: told(&board, "version"),
        firmware_vendor: told(&firmware, "vendor"),
        firmware_date: told(&firmware, "date"),
        firmware_version: told(&firmware, "version"),
        chassis_vendor: told(&chassis, "vendor"),
        chassis_type: told(&chassis, "type"),
        chassis_serial: told(&chassis, "serial"),
        chassis_version: told(&chassis, "version"),
        kind: system.get("type").text(),
    }
}

/// What vendors write where they had nothing to say is nothing.
fn meaning(text: String) -> String {
    const EMPTY: [&str; 7] = [
        "none",
        "0123456789",
        "not specified",
        "to be filled by o.e.m.",
        "default string",
        "system serial number",
        "n/a",
    ];
    if EMPTY.contains(&text.to_ascii_lowercase().as_str()) { String::new() } else { text }
}

/// A UUID that names something: the right form, and not all digits alike.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    let formed = groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12]) && text.is_ascii();
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    formed && digits.iter().all(u8::is_ascii_hexdigit) && digits.windows(2).any(|w| w[0] != w[1])
}
