//! What each script prints on a simulated machine, and how long it runs there.

use std::{net::Ipv4Addr, time::Duration};

use super::Hardware;

/// The output of the script with that name, and its run time on real hardware. A script that is not known says that it is done.
#[must_use]
pub fn output(hardware: &Hardware, script: &str, cmdline: &str, ip: Ipv4Addr) -> (Vec<u8>, Duration) {
    let seconds = Duration::from_secs_f32;
    match script {
        "20-maas-01-install-lldpd" => (b"lldpd started.\n".to_vec(), seconds(0.6)),
        "20-maas-02-dhcp-unconfigured-ifaces" => (unconfigured(hardware).into(), seconds(4.0)),
        "40-maas-01-network-interfaces" => (addresses(hardware, ip).into(), seconds(0.1)),
        "50-maas-01-commissioning" => (hardware.resources(cmdline, ip), seconds(1.4)),
        "maas-capture-lldpd" => (neighbours(hardware).into(), seconds(10.0)),
        "maas-kernel-cmdline" => (format!("{cmdline}\n").into(), seconds(0.1)),
        "maas-list-modaliases" => (modaliases(hardware).into(), seconds(0.3)),
        "maas-lshw" => (lshw(hardware).into(), seconds(3.0)),
        "maas-serial-ports" => {
            (b"ttyS0: 16550A at 0x3f8 (irq 4)\nttyS1: 16550A at 0x2f8 (irq 3)\n".to_vec(), seconds(0.1))
        }
        "maas-support-info" => (support_info(hardware, cmdline).into(), seconds(2.0)),
        _ => (b"done\n".to_vec(), seconds(1.0)),
    }
}

fn unconfigured(hardware: &Hardware) -> String {
    hardware
        .nics
        .iter()
        .skip(1)
        .filter(|nic| nic.linked)
        .map(|nic| format!("{}: no DHCP server answered\n", nic.name))
        .collect()
}

fn addresses(hardware: &Hardware, ip: Ipv4Addr) -> String {
    let mut text = "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536\n    inet 127.0.0.1/8 scope host lo\n".to_owned();
    for (number, nic) in hardware.nics.iter().enumerate() {
        let flags = if nic.linked { "BROADCAST,MULTICAST,UP,LOWER_UP" } else { "NO-CARRIER,BROADCAST,MULTICAST,UP" };
        text += &format!("{}: {}: <{flags}> mtu 1500\n    link/ether {}\n", number + 2, nic.name, nic.mac);
        if number == 0 {
            text += &format!("    inet {ip}/24 scope global {}\n", nic.name);
        }
    }
    text
}

fn neighbours(hardware: &Hardware) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<lldp label=\"LLDP neighbors\">\n".to_owned();
    for (number, nic) in hardware.nics.iter().enumerate().filter(|(_, nic)| nic.linked) {
        let switch = if number == 0 { hardware.switch.clone() } else { format!("{}-2", hardware.switch) };
        let tail: u32 = switch.bytes().map(u32::from).sum();
        text += &format!(
            " <interface label=\"Interface\" name=\"{}\" via=\"LLDP\" rid=\"1\" age=\"0 day, 00:00:21\">\n  \
               <chassis label=\"Chassis\">\n   <id label=\"ChassisID\" type=\"mac\">74:83:ef:00:{:02x}:{:02x}</id>\n   \
               <name label=\"SysName\">{switch}</name>\n   <descr label=\"SysDescr\">Arista Networks EOS version 4.28.3M</descr>\n  \
               </chassis>\n  <port label=\"Port\">\n   <id label=\"PortID\" type=\"ifname\">{}</id>\n   \
               <descr label=\"PortDescr\">{} {}</descr>\n   <ttl label=\"TTL\">120</ttl>\n  </port>\n  \
               <vlan label=\"VLAN\" vlan-id=\"100\" pvid=\"yes\">provision</vlan>\n </interface>\n",
            nic.name,
            tail >> 8 & 0xff,
            tail & 0xff,
            hardware.switch_port,
            hardware.serial,
            nic.name,
        );
    }
    text + "</lldp>\n"
}

fn modaliases(hardware: &Hardware) -> String {
    let nic = hardware.nics.first().map_or("e1000e", |nic| nic.model.driver);
    let fixed = [
        "acpi:ACPI0007:",
        "acpi:IPI0001:",
        "acpi:PNP0501:",
        "cpu:type:x86,ven0000fam0006mod0055",
        "pci:v00008086d0000A1D2sv*",
    ];
    let mut lines: Vec<String> = fixed.iter().map(|l| (*l).to_owned()).collect();
    lines.push(format!("dmi:bvn{}:pn{}:", hardware.model.firmware.0, hardware.model.product).replace(' ', ""));
    lines.push(format!("module:{nic}"));
    lines.sort();
    lines.join("\n") + "\n"
}

fn lshw(hardware: &Hardware) -> String {
    let nodes: String = hardware
        .disks
        .iter()
        .map(|(disk, serial)| {
            format!(
                "  <node class=\"disk\"><product>{}</product><serial>{serial}</serial><size units=\"bytes\">{}</size></node>\n",
                disk.model, disk.bytes
            )
        })
        .chain(hardware.nics.iter().map(|nic| {
            format!("  <node class=\"network\"><logicalname>{}</logicalname><serial>{}</serial></node>\n", nic.name, nic.mac)
        }))
        .collect();
    format!(
        "<?xml version=\"1.0\" standalone=\"yes\" ?>\n<list>\n <node id=\"node\" class=\"system\"><vendor>{}</vendor><product>{}</product><serial>{}</serial>\n{nodes} </node>\n</list>\n",
        hardware.model.vendor, hardware.model.product, hardware.serial
    )
}

fn support_info(hardware: &Hardware, cmdline: &str) -> String {
    let (model, nic) = (hardware.model, hardware.nics.first());
    format!(
        "-----BEGIN KERNEL INFO-----\nLinux 6.1.0-50-amd64 x86_64\n-----END KERNEL INFO-----\n\
         -----BEGIN KERNEL CMDLINE-----\n{cmdline}\n-----END KERNEL CMDLINE-----\n\
         -----BEGIN DMI KEYPAIRS-----\nchassis_vendor={v}\nproduct_name={p}\nproduct_serial={s}\nbios_vendor={b}\nbios_version={w}\n-----END DMI KEYPAIRS-----\n\
         -----BEGIN PCI INFO-----\n00:00.0 Host bridge [0600]: Sky Lake-E DMI3 Registers\n5e:00.0 Ethernet controller [0200]: {n}\n-----END PCI INFO-----\n",
        v = model.vendor,
        p = model.product,
        s = hardware.serial,
        b = model.firmware.0,
        w = model.firmware.1,
        n = nic.map_or("none", |nic| nic.model.product),
    )
}
