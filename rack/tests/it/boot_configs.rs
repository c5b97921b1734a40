//! Boot configs and names: which loader asks for what, who is known, and what each is told. GRUB's own checker reads its configs.

use std::{io::Write, net::SocketAddr, process::Stdio};

use rack::{
    boot::{Answer, Asked, Content, Holders, answer, grub, names},
    plan::Snapshot,
};
use schema::{messages::report::FileKind, net::MacAddr};

use crate::boot_yard::{AT_REST, ORDERED, Yard};

const RACK: &str = "127.77.9.1:5248";

fn ask<'a>(snapshot: &'a Snapshot, name: &str, peer: &str, mac: Option<&str>) -> Answer<'a> {
    let asked = Asked { name, peer: peer.parse().unwrap(), rack: RACK.parse::<SocketAddr>().unwrap(), names: false };
    let holders = Holders { now: mac.map(|m| m.parse::<MacAddr>().unwrap()), lately: None };
    answer(snapshot, &asked, holders, actors::clock::now())
}

fn text(answer: &Answer<'_>) -> String {
    match &answer.content {
        Content::Text(text) => text.clone(),
        other => panic!("{}: {other:?}", answer.name),
    }
}

/// Every name of maas-flow 8.2, who answers it, and what it is called in reports.
#[test]
fn names_that_loaders_ask_are_known() {
    let yard = Yard::new(b"kernel", 5_248);
    let snapshot = Snapshot::new(yard.plan.clone());
    let kernel = format!("/images/{}/boot-kernel", yard.image().kernel.sha256);
    let squashfs = format!("images/{}/squashfs", yard.image().squashfs.unwrap().sha256);
    let config = FileKind::Config;
    let table: &[(&str, FileKind, bool)] = &[
        ("ipxe.cfg", config, true),
        ("/ipxe.cfg-52:54:00:aa:00:01", config, true),
        ("ipxe.cfg-default-amd64", config, true),
        ("pxelinux.cfg/01-52-54-00-aa-00-01", config, true),
        ("pxelinux.cfg/default", config, true),
        ("pxelinux.cfg/default-arm-xgene", config, true),
        ("pxelinux.cfg/default.amd64-generic", config, true),
        ("/grub/grub.cfg", config, true),
        ("grub//grub.cfg-52-54-00-aa-00-01", config, true),
        ("\\grub\\grub.cfg-52:54:00:AA:00:01", config, true),
        ("grub/grub.cfg-default-amd64", config, true),
        ("bootx64.efi", FileKind::Loader, true),
        ("/bootx64.efi", FileKind::Loader, true),
        (&kernel, FileKind::Kernel, true),
        (&squashfs, FileKind::Squashfs, true),
        ("grubx64.efi", FileKind::Loader, false),
        ("pxelinux.cfg/4c4c4544-0035-3210-8052-b4c04f4d3432", FileKind::Other, false),
        ("pxelinux.cfg/0A4D0050", FileKind::Other, false),
        ("pxelinux.cfg/0", FileKind::Other, false),
        ("pxelinux.cfg/20-00-01", FileKind::Other, false),
        ("grub/x86_64-efi/command.lst", FileKind::Other, false),
        ("revocations_sku.efi", FileKind::Other, false),
        ("revocations_sbat.efi", FileKind::Other, false),
        ("shim_certificate_0.efi", FileKind::Other, false),
        ("ipxe.cfgx", FileKind::Other, false),
        ("images/zz/boot-kernel", FileKind::Other, false),
        ("", FileKind::Other, false),
    ];
    for (name, kind, found) in table {
        let answer = ask(&snapshot, name, "127.77.9.11", Some(ORDERED));
        assert_eq!((answer.kind, answer.content != Content::Missing), (*kind, *found), "{name}");
        assert_eq!(answer.ticket.unwrap().machine.as_str(), "abc123", "{name}");
    }
    assert_eq!(names::plain("\\\\a//./b/../c"), "a/b/../c");
}

#[test]
fn a_client_is_found_by_lease_then_name_then_reservation_and_else_not() {
    let mut yard = Yard::new(b"kernel", 5_248);
    yard.plan.reservations.push(schema::plan::Reservation {
        subnet: schema::id::SubnetId(1),
        mac: AT_REST.parse().unwrap(),
        ip: "127.77.9.40".parse().unwrap(),
        hostname: None,
    });
    let snapshot = Snapshot::new(yard.plan.clone());
    let stranger = "52:54:00:ff:ff:ff";
    let by_name = format!("ipxe.cfg-{ORDERED}");
    let whose = |name: &str, ip: &str, mac| ask(&snapshot, name, ip, mac).ticket.map(|t| t.machine.to_string());
    assert_eq!(whose("ipxe.cfg", "127.77.9.99", Some(AT_REST)).as_deref(), Some("def456"));
    assert_eq!(whose(&by_name, "127.77.9.99", Some(AT_REST)).as_deref(), Some("def456"), "the lease outranks the name");
    assert_eq!(whose(&by_name, "127.77.9.99", Some(stranger)).as_deref(), Some("abc123"));
    assert_eq!(whose("ipxe.cfg", "127.77.9.40", None).as_deref(), Some("def456"));
    assert_eq!(whose("ipxe.cfg", "127.77.9.99", Some(stranger)), None);
    for name in ["ipxe.cfg", "grub/grub.cfg", "pxelinux.cfg/default", "ipxe.cfg-52:54:00:ff:ff:ff"] {
        let answer = ask(&snapshot, name, "127.77.9.99", None);
        assert!(answer.content == Content::Missing && answer.ticket.is_none(), "{name}");
    }
    assert_ne!(ask(&snapshot, "bootx64.efi", "127.77.9.99", None).content, Content::Missing, "loaders are for all");
    let lately = Holders { now: None, lately: Some(ORDERED.parse().unwrap()) };
    let asked =
        Asked { name: "ipxe.cfg", peer: "127.77.9.99".parse().unwrap(), rack: RACK.parse().unwrap(), names: false };
    assert_ne!(answer(&snapshot, &asked, lately, actors::clock::now()).content, Content::Missing);
    let late = actors::clock::now() + std::time::Duration::from_secs(7_200);
    assert_eq!(answer(&snapshot, &asked, lately, late).content, Content::Missing, "the ticket is void");
}

#[test]
fn kernel_parameters_are_filled_and_stay_on_one_line() {
    let yard = Yard::new(b"kernel", 5_248);
    let snapshot = Snapshot::new(yard.plan.clone());
    let image = yard.image();
    let (kernel, initrd, squashfs) = (image.kernel.sha256, image.initrd.sha256, image.squashfs.unwrap().sha256);
    let parameters = format!(
        "nomodeset ro root=squash:http://{RACK}/images/{squashfs}/squashfs ip=dhcp cc:{{'datasource_list':['MAAS']}}end_cc \
         cloud-config-url=http://{RACK}/MAAS/metadata/latest/by-id/abc123/?op=get_preseed log_host=127.77.9.1 log_port=5247 \
         console=ttyS0 quiet"
    );
    let ipxe = text(&ask(&snapshot, "ipxe.cfg", "127.77.9.11", Some(ORDERED)));
    assert!(ipxe.starts_with("#!ipxe\n"));
    for line in [
        format!("kernel http://{RACK}/images/{kernel}/boot-kernel || goto again"),
        format!("imgargs boot-kernel initrd=boot-initrd {parameters} BOOTIF=01-52-54-00-aa-00-01 || goto again"),
        format!("initrd http://{RACK}/images/{initrd}/boot-initrd || goto again"),
    ] {
        assert!(ipxe.lines().any(|l| l == line), "{line}\n{ipxe}");
    }
    let pxelinux = text(&ask(&snapshot, "pxelinux.cfg/default", "127.77.9.11", Some(ORDERED)));
    for line in [
        format!("  KERNEL http://{RACK}/images/{kernel}/boot-kernel"),
        format!("  INITRD http://{RACK}/images/{initrd}/boot-initrd"),
        format!("  APPEND {parameters}"),
        "  IPAPPEND 2".to_owned(),
    ] {
        assert!(pxelinux.lines().any(|l| l == line), "{line}\n{pxelinux}");
    }
    let grub = text(&ask(&snapshot, "grub/grub.cfg", "127.77.9.11", Some(ORDERED)));
    let escaped = grub::escape(&parameters);
    assert!(
        escaped.contains("cc:\\{\\'datasource_list\\':[\\'MAAS\\']\\}end_cc") && escaped.contains("/\\?op=get_preseed")
    );
    for line in [
        format!("  linux /images/{kernel}/boot-kernel {escaped} BOOTIF=01-52-54-00-aa-00-01"),
        format!("  initrd /images/{initrd}/boot-initrd"),
    ] {
        assert!(grub.lines().any(|l| l == line), "{line}\n{grub}");
    }
    assert!(!grub.contains("(http"), "GRUB 2.06 knows no port and the signed image no http");
}

#[test]
fn a_machine_without_orders_boots_from_its_disk() {
    let yard = Yard::new(b"kernel", 5_248);
    let snapshot = Snapshot::new(yard.plan.clone());
    let local = |name: &str| text(&ask(&snapshot, name, "127.77.9.12", Some(AT_REST)));
    let ipxe = local("ipxe.cfg");
    assert!(ipxe.contains("sanboot --no-describe --drive 0x80 ||\n") && ipxe.ends_with("exit 1\n"));
    assert!(local("pxelinux.cfg/default").ends_with("  LOCALBOOT 0\n"));
    let grub = local("grub/grub.cfg");
    assert!(grub.contains("chainloader ($root)/efi/debian/shimx64.efi") && grub.contains("exit 1"));
    for config in [ipxe, grub] {
        assert!(!config.contains("/images/"), "{config}");
    }
}

mod peers_grub {
    use super::*;

    /// GRUB's own parser accepts what we write.
    #[test]
    fn grub_script_check_accepts_the_configs() {
        let yard = Yard::new(b"kernel", 5_248);
        let snapshot = Snapshot::new(yard.plan.clone());
        for (peer, mac) in [("127.77.9.11", ORDERED), ("127.77.9.12", AT_REST)] {
            let config = text(&ask(&snapshot, "grub/grub.cfg", peer, Some(mac)));
            let child =
                std::process::Command::new("grub-script-check").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
            let mut child = match child {
                Ok(child) => child,
                Err(error) if std::env::var("HOSTLER_TEST_SKIP").is_ok_and(|v| v == "1") => {
                    return println!("SKIPPED: grub-script-check: {error}");
                }
                Err(error) => panic!("grub-script-check: {error}; apt-get install grub-common"),
            };
            child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}\n{config}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
