//! What there is to choose from: server models, processors, disks, network cards, accelerators.

/// A server as SMBIOS names it.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    pub vendor: &'static str,
    pub product: &'static str,
    pub firmware: (&'static str, &'static str, &'static str),
    pub board: &'static str,
    pub sockets: u32,
    pub cpus: &'static [Cpu],
}

/// A processor.
#[derive(Debug, PartialEq, Eq)]
pub struct Cpu {
    pub vendor: &'static str,
    pub name: &'static str,
    pub cores: u32,
    /// MHz: base, turbo.
    pub mhz: (u32, u32),
}

/// A disk. `rpm` 0: flash.
#[derive(Debug, PartialEq, Eq)]
pub struct Disk {
    pub model: &'static str,
    pub kind: &'static str,
    pub bytes: u64,
    pub rpm: u32,
    pub block: u32,
    pub firmware: &'static str,
}

/// A network card.
#[derive(Debug, PartialEq, Eq)]
pub struct NicModel {
    pub vendor: &'static str,
    pub product: &'static str,
    pub driver: &'static str,
    pub prefix: &'static str,
    pub oui: [u8; 3],
    /// Mbit/s.
    pub speed: u32,
    pub virtual_functions: u32,
}

const fn intel(name: &'static str, cores: u32, base: u32, turbo: u32) -> Cpu {
    Cpu { vendor: "GenuineIntel", name, cores, mhz: (base, turbo) }
}

const fn amd(name: &'static str, cores: u32, base: u32, turbo: u32) -> Cpu {
    Cpu { vendor: "AuthenticAMD", name, cores, mhz: (base, turbo) }
}

const CASCADE_LAKE: [Cpu; 3] = [
    intel("Intel(R) Xeon(R) Silver 4210 CPU @ 2.20GHz", 10, 2_200, 3_200),
    intel("Intel(R) Xeon(R) Gold 5218 CPU @ 2.30GHz", 16, 2_300, 3_900),
    intel("Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz", 20, 2_100, 3_900),
];
const ICE_LAKE: [Cpu; 2] = [
    intel("Intel(R) Xeon(R) Gold 5318Y CPU @ 2.10GHz", 24, 2_100, 3_400),
    intel("Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz", 32, 2_000, 3_200),
];
const ROME: [Cpu; 3] = [
    amd("AMD EPYC 7302 16-Core Processor", 16, 3_000, 3_300),
    amd("AMD EPYC 7402 24-Core Processor", 24, 2_800, 3_350),
    amd("AMD EPYC 7502 32-Core Processor", 32, 2_500, 3_350),
];
const MILAN: [Cpu; 2] = [
    amd("AMD EPYC 7313P 16-Core Processor", 16, 3_000, 3_700),
    amd("AMD EPYC 7543 32-Core Processor", 32, 2_800, 3_700),
];

const fn model(
    vendor: &'static str,
    product: &'static str,
    firmware: (&'static str, &'static str, &'static str),
    board: &'static str,
    sockets: u32,
    cpus: &'static [Cpu],
) -> Model {
    Model { vendor, product, firmware, board, sockets, cpus }
}

pub(super) static MODELS: [Model; 8] = [
    model("Dell Inc.", "PowerEdge R640", ("Dell Inc.", "2.17.1", "11/15/2022"), "0H28RR", 2, &CASCADE_LAKE),
    model("Dell Inc.", "PowerEdge R750", ("Dell Inc.", "1.9.2", "11/17/2022"), "0PJ80M", 2, &ICE_LAKE),
    model("Dell Inc.", "PowerEdge R7525", ("Dell Inc.", "2.9.3", "10/06/2022"), "0PYVT1", 2, &ROME),
    model("HPE", "ProLiant DL360 Gen10", ("HPE", "U32", "09/29/2022"), "ProLiant DL360 Gen10", 2, &CASCADE_LAKE),
    model("HPE", "ProLiant DL365 Gen10 Plus", ("HPE", "A42", "10/27/2022"), "ProLiant DL365 Gen10 Plus", 2, &MILAN),
    model(
        "Supermicro",
        "SYS-620U-TNR",
        ("American Megatrends International, LLC.", "1.4a", "08/04/2022"),
        "X12DPU-6",
        2,
        &ICE_LAKE,
    ),
    model(
        "Supermicro",
        "AS -1114S-WN10RT",
        ("American Megatrends International, LLC.", "2.4", "04/22/2022"),
        "H12SSW-NTR",
        1,
        &MILAN,
    ),
    model("Lenovo", "ThinkSystem SR650", ("Lenovo", "-[IVE180G-3.40]-", "06/30/2022"), "01PE828", 2, &CASCADE_LAKE),
];

const fn disk(
    model: &'static str,
    kind: &'static str,
    bytes: u64,
    rpm: u32,
    block: u32,
    firmware: &'static str,
) -> Disk {
    Disk { model, kind, bytes, rpm, block, firmware }
}

pub(super) static DISKS: [Disk; 6] = [
    disk("SAMSUNG MZ7LH480HAHQ-00005", "sata", 480_103_981_056, 0, 512, "HXT7904Q"),
    disk("INTEL SSDSC2KB960G8", "sata", 960_197_124_096, 0, 512, "XCV10132"),
    disk("SAMSUNG MZQL21T9HCJR-00A07", "nvme", 1_920_383_410_176, 0, 512, "GDC5602Q"),
    disk("Micron_7450_MTFDKCC3T2TFS", "nvme", 3_200_631_791_616, 0, 512, "E2MU200"),
    disk("ST4000NM003A", "sas", 4_000_787_030_016, 7_200, 4_096, "E002"),
    disk("TOSHIBA AL15SEB120NY", "sas", 1_200_243_695_616, 10_500, 512, "EF06"),
];

pub(super) static NICS: [NicModel; 4] = [
    NicModel {
        vendor: "Broadcom Inc. and subsidiaries",
        product: "NetXtreme BCM5720 Gigabit Ethernet PCIe",
        driver: "tg3",
        prefix: "eno",
        oui: [0x4c, 0xd9, 0x80],
        speed: 1_000,
        virtual_functions: 0,
    },
    NicModel {
        vendor: "Intel Corporation",
        product: "Ethernet Controller X710 for 10GbE SFP+",
        driver: "i40e",
        prefix: "enp94s0f",
        oui: [0x3c, 0xfd, 0xf0],
        speed: 10_000,
        virtual_functions: 32,
    },
    NicModel {
        vendor: "Mellanox Technologies",
        product: "MT27800 Family [ConnectX-5]",
        driver: "mlx5_core",
        prefix: "enp59s0f",
        oui: [0x0c, 0x42, 0xa0],
        speed: 25_000,
        virtual_functions: 8,
    },
    NicModel {
        vendor: "Broadcom Inc. and subsidiaries",
        product: "BCM57416 NetXtreme-E Dual-Media 10G RDMA Ethernet Controller",
        driver: "bnxt_en",
        prefix: "enp65s0f",
        oui: [0xbc, 0x97, 0xe0],
        speed: 10_000,
        virtual_functions: 16,
    },
];

pub(super) static GPUS: [&str; 3] = ["GA100 [A100 PCIe 40GB]", "TU104GL [Tesla T4]", "AD102GL [L40S]"];
