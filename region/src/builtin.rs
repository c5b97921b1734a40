//! What every machine is handed: the runner (as user-data) and the built-in scripts. Texts only; storing and choosing them is done elsewhere.

use schema::script::header::{HeaderError, ScriptHeader};

/// The user-data of a commissioning: the runner itself, which cloud-init runs in its last stage.
/// It finds URL and key in the cloud-config of the kernel command line, so that one body serves every machine.
pub const USER_DATA: &str = include_str!("../machine/runner.py");

/// The script whose output is the machine's hardware (LXD resources JSON, for `HardwareReport::from_resources`).
pub const INVENTORY: &str = "50-maas-01-commissioning";
/// The script whose output is the machine's LLDP neighbours (for `schema::lldp::parse`).
pub const LLDP: &str = "maas-capture-lldpd";
/// The script whose output is the kernel's command line. (The inventory carries it too, for `HardwareReport::boot_mac`.)
pub const KERNEL_CMDLINE: &str = "maas-kernel-cmdline";

const TEXTS: [(&str, &str); 4] = [
    ("20-maas-01-install-lldpd", include_str!("../machine/scripts/20-maas-01-install-lldpd")),
    (INVENTORY, include_str!("../machine/scripts/50-maas-01-commissioning")),
    (LLDP, include_str!("../machine/scripts/maas-capture-lldpd")),
    (KERNEL_CMDLINE, include_str!("../machine/scripts/maas-kernel-cmdline")),
];

/// A script that ships with Hostler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builtin {
    pub name: &'static str,
    pub text: &'static str,
    /// What its header says: type, hardware, parallelism, time-out.
    pub header: ScriptHeader,
}

/// All built-in scripts, in the order they run.
///
/// # Errors
/// When a header is wrong: a defect that a test catches.
pub fn scripts() -> Result<Vec<Builtin>, HeaderError> {
    TEXTS.iter().map(|&(name, text)| Ok(Builtin { name, text, header: ScriptHeader::parse(text)? })).collect()
}

#[cfg(test)]
mod tests {
    use schema::script::ScriptType;

    use super::*;

    #[test]
    fn every_header_is_right_and_names_its_script() {
        for script in scripts().unwrap() {
            assert_eq!(script.header.name.as_deref(), Some(script.name));
            assert_eq!(script.header.script_type, Some(ScriptType::Commissioning));
            assert!((1..=60).contains(&script.header.timeout_s), "{}", script.name);
            // Installing needs a mirror; a built-in must work on a machine without one.
            assert!(script.header.packages.is_empty());
        }
    }

    #[test]
    fn user_data_is_what_cloud_init_runs() {
        assert!(USER_DATA.starts_with("#!/usr/bin/python3\n"));
    }
}
