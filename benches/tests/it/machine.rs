//! The simulated machine beside captures of real firmware, real loaders, a real kernel and real cloud-init: the same messages in the same order.

use std::{net::Ipv4Addr, sync::Arc};

use benches::{
    hardware::{Firmware, Hardware},
    machine::{
        Action, Event, Machine, STATUS_EVENTS,
        dhcp::{Identity, Kind, message},
    },
};
use dhcproto::{Decodable, Decoder, v4::Message};
use schema::hardware::HardwareReport;

const FULL_BOOT: &str = include_str!("samples/full-boot.log");
const BIOS: &str = include_str!("samples/bios-full.txt");
const UEFI: &str = include_str!("samples/uefi-shim-grub.txt");
const NOW: i64 = 1_790_000_000;

fn hardware(firmware: Firmware) -> Arc<Hardware> {
    let drawn = (0..200).map(|index| Hardware::draw(7, index, 0, true)).find(|h| h.firmware == firmware);
    Arc::new(drawn.unwrap())
}

/// The options of a message, in their order on the wire: code and length (values that name a machine differ).
fn options(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut rest, mut found) = (&bytes[240..], Vec::new());
    while let [code, len, tail @ ..] = rest
        && *code != 255
    {
        let (value, next) = tail.split_at(usize::from(*len));
        found.push((*code, value.to_vec()));
        rest = next;
    }
    found
}

/// The codes of option lines in a capture, of messages of that type, with option 55 and 60 as they were.
fn captured(text: &str, kind: &str, vendor: &str) -> (Vec<u8>, Vec<u8>) {
    let line = text.lines().find(|l| l.contains(&format!("53(msg)={kind} ")) && l.contains(vendor)).unwrap();
    // A value may hold blanks only within quotes or braces.
    let mut depth = false;
    let words = line.trim().split(|c: char| {
        depth ^= c == '\'' || c == '{' || c == '}';
        c == ' ' && !depth
    });
    let words: Vec<_> = words.collect();
    let codes = words.iter().filter_map(|w| w.split('(').next()?.parse().ok()).collect();
    let asked = words.iter().find_map(|w| w.strip_prefix("55(param-list)=")).unwrap();
    (codes, asked.split(',').map(|code| code.parse().unwrap()).collect())
}

#[test]
fn dhcp_messages_hold_the_captured_options_in_their_order() {
    let taken = Some((Ipv4Addr::new(10, 77, 0, 80), Ipv4Addr::new(10, 77, 0, 1)));
    let cases = [
        (Identity::UefiPxe, Kind::Discover, UEFI, "DISCOVER", "PXEClient:Arch:00007"),
        (Identity::UefiPxe, Kind::Request, UEFI, "REQUEST", "PXEClient:Arch:00007"),
        (Identity::IpxeRom, Kind::Discover, BIOS, "DISCOVER", "PXEClient:Arch:00000"),
        (Identity::IpxeRom, Kind::Request, BIOS, "REQUEST", "PXEClient:Arch:00000"),
        (Identity::Initramfs, Kind::Discover, BIOS, "DISCOVER", "Linux ipconfig"),
        (Identity::Initramfs, Kind::Request, BIOS, "REQUEST", "Linux ipconfig"),
        (Identity::System, Kind::Discover, BIOS, "DISCOVER", "12(hostname)"),
        (Identity::System, Kind::Request, BIOS, "REQUEST", "12(hostname)"),
    ];
    let hardware = hardware(Firmware::UefiTftp);
    for (identity, kind, capture, word, vendor) in cases {
        let bytes = message(&hardware, "m1", identity, kind, 7, taken.filter(|_| kind == Kind::Request));
        let sent = options(&bytes);
        let (codes, asked) = captured(capture, word, vendor);
        assert_eq!(sent.iter().map(|(code, _)| *code).collect::<Vec<_>>(), codes, "{identity:?} {word}");
        assert_eq!(sent.iter().find(|(code, _)| *code == 55).unwrap().1, asked, "{identity:?} {word}");
        assert!(bytes.len() >= 300);
        // A second reader finds a whole message.
        assert_eq!(Message::decode(&mut Decoder::new(&bytes)).unwrap().chaddr(), hardware.mac().0);
    }
    // iPXE names its abilities in option 175 byte for byte as the card of the capture did.
    let sent = options(&message(&hardware, "m1", Identity::IpxeRom, Kind::Discover, 7, None));
    let ipxe = &sent.iter().find(|(code, _)| *code == 175).unwrap().1;
    let shown: Vec<_> = ipxe_features(ipxe).iter().map(|(code, value)| format!("{code}={value}")).collect();
    assert!(BIOS.contains(&format!("175(ipxe)={{{}}}", shown.join(" "))), "{shown:?}");
}

fn ipxe_features(mut rest: &[u8]) -> Vec<(u8, String)> {
    let mut found = Vec::new();
    while let [code, len, tail @ ..] = rest {
        let (value, next) = tail.split_at(usize::from(*len));
        found.push((*code, value.iter().map(|b| format!("{b:02x}")).collect()));
        rest = next;
    }
    found
}

#[test]
fn three_identities_of_one_machine_name_themselves_differently() {
    let hardware = hardware(Firmware::UefiTftp);
    let id = |identity| {
        let sent = options(&message(&hardware, "m1", identity, Kind::Discover, 1, None));
        sent.into_iter().find(|(code, _)| *code == 61).map(|(_, value)| value)
    };
    let (mac, system) = (hardware.mac().0, id(Identity::System).unwrap());
    assert_eq!(id(Identity::Ipxe).unwrap(), [&[1][..], &mac].concat());
    assert_eq!(id(Identity::Initramfs), None);
    assert!(system.starts_with(&[255]) && system.ends_with(&mac));
}

/// A rack that answers just what it must: the far end of a machine that runs without sockets.
#[derive(Default)]
struct Rack {
    /// What was asked, in the words of the captures.
    heard: Vec<String>,
    blocks: Vec<Vec<u8>>,
}

const RACK: Ipv4Addr = Ipv4Addr::new(127, 77, 9, 2);
const PRESEED: &str = "#cloud-config\ndatasource:\n  MAAS:\n    metadata_url: \"http://127.77.9.2:5248/MAAS/metadata/\"\n    consumer_key: \"c\"\n    \
    token_key: \"t\"\n    token_secret: \"s\"\nreporting:\n  maas:\n    endpoint: \"http://127.77.9.2:5248/MAAS/metadata/status/abc123\"\n";

fn body(name: &str) -> Vec<u8> {
    name.as_bytes().repeat(300)
}

fn image(name: &str) -> String {
    format!("images/{}/{name}", schema::boot::Sha256::of(&body(name)))
}

impl Rack {
    fn dhcp(&self, request: &[u8]) -> Vec<u8> {
        let kind = if request[242] == 1 { 2 } else { 5 };
        let mut answer = request[..240].to_vec();
        answer[0] = 2;
        answer[16..20].copy_from_slice(&[127, 77, 9, 11]);
        answer.extend([53, 1, kind, 54, 4, 127, 77, 9, 2, 51, 4, 0, 0, 0, 30]);
        let class = options(request).into_iter().find(|(code, _)| *code == 60).map(|(_, v)| v).unwrap_or_default();
        if class.starts_with(b"PXEClient:Arch:00007") {
            answer.extend([67, 11]);
            answer.extend(b"bootx64.efi");
        }
        answer.push(255);
        answer
    }

    fn file(&self, name: &str) -> Option<Vec<u8>> {
        let name = name.trim_start_matches('/');
        let params = format!(
            "ro root=squash:http://{RACK}:5248/{} cloud-config-url=http://{RACK}:5248/MAAS/metadata/latest/by-id/abc123/\\?op=get_preseed",
            image("squashfs")
        );
        match name {
            "bootx64.efi" | "grubx64.efi" => Some(body(name)),
            "grub/grub.cfg" => Some(
                format!(
                    "menuentry 'x' {{\n  linux /{} {params} BOOTIF=01-x\n  initrd /{}\n}}\n",
                    image("boot-kernel"),
                    image("boot-initrd")
                )
                .into_bytes(),
            ),
            _ if name.starts_with("images/") => Some(body(name.rsplit('/').next().unwrap())),
            _ => None,
        }
    }

    /// TFTP with the options left out: blocks of 512 bytes, one at a time, but OVMF's probe gets its OACK.
    fn tftp(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        match bytes {
            [0, 1, rest @ ..] => {
                let words: Vec<_> = rest.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
                self.heard.push(format!("TFTP RRQ {}", words[..words.len() - 1].join(" ")));
                let Some(body) = self.file(&words[0]) else { return Some(b"\0\x05\0\x01not found\0".to_vec()) };
                if words[0] == "bootx64.efi" && words.iter().any(|word| word == "tsize") {
                    return Some(format!("\0\x06tsize\0{}\0", body.len()).into_bytes());
                }
                self.blocks = body.chunks(512).map(<[u8]>::to_vec).collect();
                if body.len().is_multiple_of(512) {
                    self.blocks.push(Vec::new());
                }
                Some(self.block(1))
            }
            [0, 4, hi, lo] => {
                let next = u16::from_be_bytes([*hi, *lo]) + 1;
                (usize::from(next) <= self.blocks.len()).then(|| self.block(next))
            }
            [0, 5, 0, code, ..] => {
                self.heard.push(format!("TFTP ERROR {code}"));
                None
            }
            _ => None,
        }
    }

    fn block(&self, number: u16) -> Vec<u8> {
        [&[0, 3][..], &number.to_be_bytes(), &self.blocks[usize::from(number) - 1]].concat()
    }

    fn http(&mut self, request: &[u8]) -> (u16, Vec<u8>) {
        let text = String::from_utf8_lossy(request);
        let (head, posted) = text.split_once("\r\n\r\n").unwrap();
        let field = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ")).unwrap_or("none");
        let path = head.split(' ').nth(1).unwrap();
        let auth = if field("Authorization") == "none" { "none" } else { "ok" };
        if path.contains("/status/") {
            let event: serde_json::Value = serde_json::from_str(posted).unwrap();
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            self.heard.push(format!(
                "STATUS auth={auth} {} {} {} {}",
                text("event_type"),
                text("name"),
                text("result"),
                text("description")
            ));
            return (204, Vec::new());
        }
        if head.starts_with("POST") {
            let field = |name: &str| {
                posted
                    .split_once(&format!("name=\"{name}\"\r\n\r\n"))
                    .map(|(_, rest)| rest.split("\r\n").next().unwrap().to_owned())
            };
            self.heard.push(format!(
                "SIGNAL auth={auth} {} {} {}",
                field("status").unwrap(),
                field("name").unwrap_or_default(),
                field("exit_status").unwrap_or_default()
            ));
            return (200, b"OK".to_vec());
        }
        self.heard.push(format!("GET {path} auth={auth} ua={}", field("User-Agent")));
        let path = path.trim_start_matches('/');
        match path {
            _ if path.starts_with("images/") => (200, self.file(path).unwrap()),
            _ if path.contains("get_preseed") => (200, PRESEED.as_bytes().to_vec()),
            _ if path.ends_with("public-keys") => (404, Vec::new()),
            _ if path.ends_with("maas-scripts") && self.heard.iter().any(|l| l.starts_with("SIGNAL")) => {
                (204, Vec::new())
            }
            _ if path.ends_with("maas-scripts") => (200, scripts()),
            _ => (200, b"#!x\n".to_vec()),
        }
    }
}

fn scripts() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let index = r#"{"1.0": {"commissioning_scripts": [
        {"name": "50-maas-01-commissioning", "path": "commissioning/50-maas-01-commissioning", "script_result_id": 7, "script_version_id": 1},
        {"name": "maas-lshw", "path": "commissioning/maas-lshw", "script_result_id": 8, "script_version_id": 1}]}}"#;
    for (name, body) in
        [("commissioning/50-maas-01-commissioning", "#!/x"), ("commissioning/maas-lshw", "#!/x"), ("index.json", index)]
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(body.len() as u64);
        tar.append_data(&mut header, name, body.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Runs a machine from power-on until it is off or hangs.
fn boot(machine: &mut Machine, rack: &mut Rack) -> Option<String> {
    let mut actions = machine.step(Event::PowerOn { network: true }, NOW);
    for _ in 0..10_000 {
        let mut next = None;
        for action in actions {
            next = match action {
                Action::Dhcp { bytes, .. } => {
                    let (class, kind) = (options(&bytes).into_iter().find(|(code, _)| *code == 60), bytes[242]);
                    let class = class.map_or("dhclient".into(), |(_, v)| String::from_utf8_lossy(&v).into_owned());
                    rack.heard.push(format!("DHCP {kind} {class}"));
                    Some((Some(rack.dhcp(&bytes)), (0, Vec::new())))
                }
                Action::TftpAsk(bytes) | Action::TftpSay(bytes) => match rack.tftp(&bytes) {
                    Some(answer) => Some((Some(answer), (0, Vec::new()))),
                    None => next,
                },
                Action::Http(request) => Some((None, rack.http(&request.bytes))),
                Action::Wait(_) => Some((None, (1, Vec::new()))),
                Action::Off => return None,
                Action::Hang(why) => return Some(why),
                Action::Address(_) | Action::Expect(_) => next,
            };
        }
        actions = match next.expect("a machine that waits for nothing") {
            (Some(bytes), _) => machine.step(Event::Datagram(&bytes), NOW),
            (None, (1, _)) => machine.step(Event::Elapsed, NOW),
            (None, (status, body)) => machine.step(Event::Answered { status, body: &body }, NOW),
        };
    }
    panic!("no end: {:?}", rack.heard)
}

#[test]
fn a_boot_asks_for_the_captured_things_in_their_order() {
    let mut machine = Machine::new(hardware(Firmware::UefiTftp), 7);
    let mut rack = Rack::default();
    assert_eq!(boot(&mut machine, &mut rack), None, "{:#?}", rack.heard);
    assert!(!machine.is_on());
    // Firmware, shim and GRUB, by TFTP: names and options as OVMF, shim 16.1 and GRUB 2.06 asked.
    let asked: Vec<_> =
        rack.heard.iter().filter_map(|l| l.strip_prefix("TFTP RRQ ")).filter(|l| !l.contains("images/")).collect();
    let real = UEFI
        .lines()
        .filter_map(|l| l.split_once("RRQ ["))
        .map(|(_, rest)| rest.trim_end_matches(']').replace(['\'', ','], ""));
    let real: Vec<_> = real.filter(|l| !l.contains("vmlinuz") && !l.contains("initrd")).collect();
    assert_eq!(asked.len(), real.len());
    for (asked, real) in asked.iter().zip(&real) {
        let set = |line: &str| {
            let mut words: Vec<_> = line.split(' ').collect();
            let mut pairs: Vec<_> = words.split_off(2).chunks(2).map(|p| p.join("=")).collect();
            pairs.sort();
            (words.join(" "), pairs)
        };
        assert_eq!(set(asked), set(real));
    }
    assert!(rack.heard.contains(&"TFTP ERROR 8".to_owned()), "the probe is broken off");
    // Three clients ask for addresses: firmware, initramfs, system; the last one gives back.
    let dhcp: Vec<_> = rack.heard.iter().filter(|l| l.starts_with("DHCP")).cloned().collect();
    let clients = ["PXEClient:Arch:00007:UNDI:003000", "Linux ipconfig", "dhclient"];
    let expected = clients.iter().flat_map(|c| [format!("DHCP 1 {c}"), format!("DHCP 3 {c}")]);
    assert_eq!(dhcp, expected.chain(["DHCP 7 dhclient".to_owned()]).collect::<Vec<_>>());
    // cloud-init: what it asks and posts is a part of what the real one did, in its order.
    let simulated: Vec<_> =
        rack.heard.iter().filter(|l| l.contains("/metadata/") || l.starts_with("STATUS")).map(|l| told(l)).collect();
    let mut real = FULL_BOOT.lines().filter(|l| l.contains("/metadata/") || l.contains(" STATUS ")).map(|l| {
        let line = l.split_once(' ').unwrap().1.split_once(' ').unwrap().1;
        told(line.split(" 200 ").next().unwrap())
    });
    for line in simulated.iter().filter(|l| !l.contains("maas-scripts")) {
        assert!(real.any(|r| r == *line), "{line} is not in the capture, or not there in its order");
    }
    let count = |word: &str| simulated.iter().filter(|l| l.contains(word)).count();
    assert_eq!(
        (count("preseed"), count("meta-data/") + count("user-data auth"), count("STATUS")),
        (2, 6, STATUS_EVENTS.len())
    );
    // The runner: two signals for each script, a sign of life, the last word.
    let signals: Vec<_> = rack.heard.iter().filter_map(|l| l.strip_prefix("SIGNAL auth=ok ")).map(str::trim).collect();
    assert_eq!(
        signals,
        [
            "WORKING 50-maas-01-commissioning",
            "WORKING 50-maas-01-commissioning 0",
            "WORKING maas-lshw",
            "WORKING maas-lshw 0",
            "WORKING",
            "OK"
        ]
    );
}

/// A line without what differs by rack and phase: enlistment's preseed has another name.
fn told(line: &str) -> String {
    let line = line
        .replace("latest/by-id/abc123/?op=get_preseed", "preseed")
        .replace("latest/enlist-preseed/?op=get_enlist_preseed", "preseed");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_damaged_body_and_a_refusal_stop_a_machine_with_the_reason() {
    struct Damaged(Rack);
    let mut machine = Machine::new(hardware(Firmware::UefiTftp), 7);
    let mut rack = Damaged(Rack::default());
    let mut actions = machine.step(Event::PowerOn { network: true }, NOW);
    let why = loop {
        let mut event = None;
        for action in actions {
            match action {
                Action::Dhcp { bytes, .. } => event = Some(rack.0.dhcp(&bytes)),
                Action::TftpAsk(bytes) | Action::TftpSay(bytes) => {
                    if let Some(mut answer) = rack.0.tftp(&bytes) {
                        if answer[1] == 3 && answer.len() < 516 && answer.ends_with(b"boot-kernel") {
                            answer.pop();
                        }
                        event = Some(answer);
                    }
                }
                Action::Hang(why) => return assert!(why.contains("damaged"), "{why}"),
                _ => {}
            }
        }
        actions = match event {
            Some(bytes) => machine.step(Event::Datagram(&bytes), NOW),
            None => machine.step(Event::Elapsed, NOW),
        };
        if !machine.is_on() {
            break "it went off";
        }
    };
    panic!("{why}");
}

#[test]
fn hardware_is_varied_plausible_and_the_same_for_a_seed() {
    let draw = |seed| (0..400).map(|i| Hardware::draw(seed, i, i % 4, true)).collect::<Vec<_>>();
    let machines = draw(1);
    assert_eq!(machines, draw(1));
    assert_ne!(machines, draw(2));
    let distinct =
        |of: &dyn Fn(&Hardware) -> String| machines.iter().map(of).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(distinct(&|h| h.mac().to_string()), 400);
    assert!(distinct(&|h| h.model.product.into()) == 8 && distinct(&|h| format!("{:?}", h.firmware)) == 4);
    assert!(distinct(&|h| h.cpu.name.into()) >= 8 && machines.iter().any(|h| !h.gpus.is_empty()));
    for hardware in &machines {
        let ip = Ipv4Addr::new(127, 77, 0, 9);
        let cmdline = format!("ro BOOTIF=01-{}", hardware.mac().dashed());
        let report = HardwareReport::from_resources(&hardware.resources(&cmdline, ip)).unwrap();
        assert_eq!((report.cpu_count, report.memory), (hardware.threads(), hardware.memory * 1_024));
        assert_eq!((report.disks.len(), report.interfaces.len()), (hardware.disks.len(), hardware.nics.len()));
        assert_eq!((report.boot_mac, report.numa_nodes.len()), (Some(hardware.mac()), hardware.sockets as usize));
        assert_eq!(report.system.uuid, hardware.uuid_text());
        let (lldp, _) = benches::hardware::output(hardware, "maas-capture-lldpd", &cmdline, ip);
        let neighbours = schema::lldp::parse(&lldp).unwrap();
        assert!(!neighbours.is_empty());
    }
}
