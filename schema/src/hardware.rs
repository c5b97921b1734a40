//! What commissioning learns of a machine's hardware: the LXD resources schema (API 1.0), read into rows that clients ask for.

mod json;
pub mod parse;

use serde::{Deserialize, Serialize};

pub use self::parse::{HardwareError, boot_mac};

use crate::net::MacAddr;

/// A machine's hardware in the units of the MAAS API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareReport {
    /// Debian's word: `amd64`.
    pub architecture: String,
    pub kernel: String,
    /// Threads.
    pub cpu_count: u32,
    pub cpu_model: String,
    /// MHz; 0 when unknown.
    pub cpu_speed: u32,
    /// MiB.
    pub memory: u64,
    pub numa_nodes: Vec<NumaNode>,
    pub interfaces: Vec<HardwareInterface>,
    pub disks: Vec<HardwareDisk>,
    pub system: SystemInfo,
    /// The interface the machine booted from, by the kernel's BOOTIF.
    pub boot_mac: Option<MacAddr>,
}

/// One NUMA node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    pub index: u32,
    /// Thread ids.
    pub cores: Vec<u32>,
    /// MiB.
    pub memory: u64,
}

/// One physical network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareInterface {
    pub name: String,
    pub mac: MacAddr,
    pub vendor: String,
    pub product: String,
    pub firmware_version: String,
    pub driver: String,
    pub link_connected: bool,
    /// Mbit/s; 0 when unknown.
    pub link_speed: u32,
    /// The fastest mode it knows, Mbit/s; 0 when unknown.
    pub interface_speed: u32,
    pub sriov_max_vf: u32,
    pub numa_node: u32,
    pub pci_address: String,
    /// Addresses with prefix as the running system shows them.
    pub addresses: Vec<String>,
}

/// One disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareDisk {
    pub name: String,
    pub model: String,
    pub serial: String,
    /// `/dev/disk/by-id/…`, or `/dev/NAME` without a serial.
    pub id_path: String,
    /// Bytes.
    pub size: u64,
    /// Bytes; 512 when the system says 0.
    pub block_size: u32,
    pub rotational: bool,
    pub removable: bool,
    pub firmware_version: String,
    pub numa_node: u32,
    /// "nvme", "sata", "virtio", …
    pub kind: String,
}

/// What SMBIOS says of the machine. Empty where it is silent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemInfo {
    pub uuid: String,
    pub vendor: String,
    pub product: String,
    pub family: String,
    pub version: String,
    pub sku: String,
    pub serial: String,
    pub mainboard_vendor: String,
    pub mainboard_product: String,
    pub mainboard_serial: String,
    pub mainboard_version: String,
    pub firmware_vendor: String,
    pub firmware_date: String,
    pub firmware_version: String,
    pub chassis_vendor: String,
    pub chassis_type: String,
    pub chassis_serial: String,
    pub chassis_version: String,
    /// "physical", "virtual-machine", "container".
    pub kind: String,
}
