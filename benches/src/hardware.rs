//! Hardware of simulated machines: plausible, varied, and the same for the same seed. What a machine's scripts print about it stands below.

use std::net::Ipv4Addr;

use schema::net::MacAddr;

mod outputs;
mod resources;
mod tables;

pub use outputs::output;
use tables::{Cpu, DISKS, GPUS, MODELS, Model, NICS, NicModel};

/// A stream of draws from a seed (SplitMix64): the same seed gives the same machine on every host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw(u64);

impl Draw {
    /// The stream of one thing among many.
    #[must_use]
    pub fn of(seed: u64, index: u64) -> Self {
        Self(seed ^ index.wrapping_mul(0xd134_2543_de82_ef95).rotate_left(17))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits().checked_rem(end).unwrap_or(0)
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
        &from[at]
    }
}

/// How a machine's firmware boots from the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Firmware {
    /// BIOS PXE: `lpxelinux.0` by TFTP, all else by HTTP.
    Bios,
    /// UEFI PXE: shim and GRUB, all by TFTP.
    UefiTftp,
    /// UEFI HTTP boot of a loader that is iPXE.
    UefiHttp,
    /// A network card whose own ROM is iPXE: no loader.
    IpxeRom,
}

/// A network port of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    pub name: String,
    pub mac: MacAddr,
    pub model: &'static NicModel,
    pub linked: bool,
}

/// One simulated machine's hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// Its number in the fleet.
    pub index: u32,
    pub firmware: Firmware,
    pub model: &'static Model,
    pub cpu: &'static Cpu,
    pub sockets: u32,
    /// GiB.
    pub memory: u64,
    /// Places in the table of disks, with a serial number each.
    pub disks: Vec<(&'static tables::Disk, String)>,
    /// The first one boots.
    pub nics: Vec<Nic>,
    pub gpus: Vec<&'static str>,
    pub serial: String,
    pub uuid: [u8; 16],
    /// The switch that its first port is plugged into, and the port there.
    pub switch: String,
    pub switch_port: String,
}

impl Hardware {
    /// Machine `index` of the fleet with that seed; `rack` names its switch. `rom`: some machines have iPXE in their card's ROM.
    #[must_use]
    pub fn draw(seed: u64, index: u32, rack: u32, rom: bool) -> Self {
        let mut draw = Draw::of(seed, index.into());
        let model = draw.pick(&MODELS);
        let cpu = draw.pick(model.cpus);
        let sockets = if model.sockets > 1 && draw.below(4) > 0 { 2 } else { 1 };
        let firmware = match draw.below(10) {
            0..=3 => Firmware::Bios,
            4..=7 => Firmware::UefiTftp,
            8 => Firmware::UefiHttp,
            _ if rom => Firmware::IpxeRom,
            _ => Firmware::UefiTftp,
        };
        let memory = u64::from(sockets) * *draw.pick(&[64, 96, 128, 192, 256, 384, 512]);
        let disks = disks(&mut draw);
        let nics = nics(&mut draw, index);
        let gpus = if draw.below(12) == 0 { vec![*draw.pick(&GPUS); 1 << draw.below(4)] } else { Vec::new() };
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&draw.bits().to_be_bytes());
        uuid[8..].copy_from_slice(&draw.bits().to_be_bytes());
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let serial = serial(&mut draw, 7);
        let switch = format!("leaf-{:02}-{}", rack + 1, if index.is_multiple_of(2) { "a" } else { "b" });
        let switch_port = format!("Ethernet1/{}", index / 2 % 48 + 1);
        Self { index, firmware, model, cpu, sockets, memory, disks, nics, gpus, serial, uuid, switch, switch_port }
    }

    /// The MAC it boots with.
    #[must_use]
    pub fn mac(&self) -> MacAddr {
        self.nics.first().map_or(MacAddr([2; 6]), |nic| nic.mac)
    }

    /// Threads.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.sockets * self.cpu.cores * 2
    }

    /// As SMBIOS prints it.
    #[must_use]
    pub fn uuid_text(&self) -> String {
        let hex: String = self.uuid.iter().map(|b| format!("{b:02x}")).collect();
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
    }

    /// As option 97 carries it: a zero, then SMBIOS's byte order (the first three fields are little-endian).
    #[must_use]
    pub fn uuid_option(&self) -> [u8; 17] {
        let u = &self.uuid;
        [0, u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]]
    }

    /// The inventory as LXD's resources JSON, as the running system at `ip` with that kernel command line prints it.
    #[must_use]
    pub fn resources(&self, cmdline: &str, ip: Ipv4Addr) -> Vec<u8> {
        resources::json(self, cmdline, ip).to_string().into_bytes()
    }
}

fn serial(draw: &mut Draw, len: usize) -> String {
    const ALPHABET: &[u8] = b"0123456789BCDFGHJKLMNPQRSTVWXYZ";
    (0..len).map(|_| char::from(*draw.pick(ALPHABET))).collect()
}

/// One or two disks to boot from, then what the machine is for: nothing more, or many.
fn disks(draw: &mut Draw) -> Vec<(&'static tables::Disk, String)> {
    let (boot, data) = (draw.pick(&DISKS), draw.pick(&DISKS));
    let many = match draw.below(6) {
        0 => 10,
        1 | 2 => 4,
        _ => 0,
    };
    let models = std::iter::repeat_n(boot, 1 + usize::from(draw.below(2) == 1)).chain(std::iter::repeat_n(data, many));
    models.collect::<Vec<_>>().into_iter().map(|disk| (disk, serial(draw, 12))).collect()
}

fn nics(draw: &mut Draw, index: u32) -> Vec<Nic> {
    let model = draw.pick(&NICS);
    let ports = if draw.below(3) == 0 { 4 } else { 2 };
    let [_, hi, mid, lo] = index.to_be_bytes();
    let nic = |port: u8| Nic {
        name: format!("{}{}", model.prefix, port),
        // Unique in the fleet: the machine's number, and the port in the vendor's last bits.
        mac: MacAddr([model.oui[0], model.oui[1], model.oui[2] & 0xf0 | port, hi, mid, lo]),
        model,
        linked: port < 2,
    };
    (0..ports).map(nic).collect()
}
