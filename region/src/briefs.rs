//! The brief of a decision: which racks, which image, which scripts. Pure but for the result ids, which the store allots.

use std::collections::BTreeSet;

use schema::{
    boot::Image,
    catalogue::{Catalogue, Script},
    id::{RackId, ResultId, SubnetId},
    messages::machine::{Ailment, Brief, BriefScript, CommissionOptions, MachineSpec},
    script::ScriptType,
};

use crate::plans::{self, deb_arch};

/// The racks as a brief needs them.
pub struct Racks<Ails, Awaited, AwaitedBmc> {
    /// Connected ones.
    pub linked: Vec<RackId>,
    /// What keeps a connected rack from booting machines.
    pub ails: Ails,
    /// Those that may be back in a moment.
    pub awaited: Awaited,
    /// Those that switch the machine, best first.
    pub bmc: Vec<RackId>,
    /// Those that may do so in a moment, best first.
    pub awaited_bmc: AwaitedBmc,
}

/// The brief without its result ids, and the scripts that need one.
#[must_use]
pub fn compose(
    c: &Catalogue,
    racks: Racks<impl Fn(RackId) -> Option<Ailment>, impl Fn() -> Vec<RackId>, impl Fn() -> Vec<RackId>>,
    spec: &MachineSpec,
    options: Option<&CommissionOptions>,
) -> (Brief, Vec<Script>) {
    let dhcp = plans::dhcp_racks(c, spec.vlan);
    let (mut boot_racks, mut lame) = (Vec::new(), Vec::new());
    for rack in racks.linked.iter().copied().filter(|id| dhcp.contains(id)) {
        match (racks.ails)(rack) {
            None => boot_racks.push(rack),
            Some(ailment) => lame.push((rack, ailment)),
        }
    }
    if boot_racks.is_empty() {
        boot_racks.extend((racks.awaited)().into_iter().filter(|id| dhcp.contains(id)));
    }
    let mut bmc_racks = racks.bmc;
    // What takes minutes can wait for a rack; who switches a machine by hand is to hear at once that there is none.
    if bmc_racks.is_empty() && options.is_some() {
        bmc_racks = (racks.awaited_bmc)();
    }
    let nobody = boot_racks.is_empty() && lame.is_empty();
    let chosen: BTreeSet<_> = bmc_racks.iter().chain(&boot_racks).copied().collect();
    let brief = Brief {
        away: chosen.into_iter().filter(|id| !racks.linked.contains(id)).collect(),
        bmc_racks,
        unserved: nobody.then(|| unserved(c, spec)).flatten(),
        boot_racks,
        lame,
        boot_subnets: boot_subnets(c, spec),
        image: image(c, deb_arch(&spec.architecture)),
        kernel_opts: text_setting(c, "kernel_opts"),
        scripts: Vec::new(),
        place: None,
    };
    (brief, options.map(|o| scripts(c, o)).unwrap_or_default())
}

/// Why no rack serves the VLAN where that machine boots, and what brings one.
fn unserved(c: &Catalogue, spec: &MachineSpec) -> Option<(String, String)> {
    let vlan = plans::serving(c, c.vlans.get(&spec.vlan?)?);
    let (name, place) = (&vlan.name, format!("/MAAS/api/2.0/fabrics/{}/vlans/{}/", vlan.fabric, vlan.vid));
    let racks: Vec<_> = [vlan.primary_rack, vlan.secondary_rack].into_iter().flatten().collect();
    let all = racks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    Some(if racks.is_empty() {
        let remedy =
            format!("give it one: PUT {place} with primary_rack=ID and dhcp_on=true; `hostler rack` starts one");
        (format!("its VLAN {name} has no rack"), remedy)
    } else if !vlan.dhcp_on {
        (format!("DHCP is off on its VLAN {name}"), format!("switch it on: PUT {place} with dhcp_on=true"))
    } else {
        let remedy = "start it, or look at its link and its disk: `hostler doctor` on it, and its log".to_owned();
        (format!("its VLAN {name} is served by rack {all}, which is not connected or not fit for it"), remedy)
    })
}

/// The brief with its scripts; result ids count up from `first`.
#[must_use]
pub fn with_results(brief: Brief, scripts: &[Script], first: i64) -> Brief {
    let numbered = scripts.iter().zip(first..).map(|(script, result)| BriefScript {
        result: ResultId(result),
        name: script.name.clone(),
        script_type: script.script_type,
        timeout_s: script.timeout_s,
        may_reboot: script.may_reboot,
    });
    Brief { scripts: numbered.collect(), ..brief }
}

/// Where a machine boots is known when its VLAN is, or when only one subnet leases addresses.
fn boot_subnets(c: &Catalogue, spec: &MachineSpec) -> Vec<SubnetId> {
    if spec.vlan.is_some() {
        return c.subnets.values().filter(|s| Some(s.vlan) == spec.vlan).map(|s| s.id).collect();
    }
    let on = |s: &&schema::catalogue::Subnet| c.vlans.get(&s.vlan).is_some_and(|v| v.dhcp_on || v.relay_vlan.is_some());
    let leasing: Vec<_> = c.subnets.values().filter(on).map(|s| s.id).collect();
    if leasing.len() == 1 { leasing } else { Vec::new() }
}

/// The default image of the architecture, or its newest.
fn image(c: &Catalogue, arch: &str) -> Option<Image> {
    let fitting = || c.images.values().filter(|i| i.image.arch == arch);
    let chosen = fitting().find(|i| i.default).or_else(|| fitting().next_back());
    chosen.map(|i| i.image.clone())
}

/// MAAS's choice. Commissioning: the built-in ones always, and of the others those named (by name or tag), or, when none are named,
/// all without the tag `noauto`. Testing: those named, or those tagged `commissioning`. The word `none` names none.
fn scripts(c: &Catalogue, options: &CommissionOptions) -> Vec<Script> {
    let named = |script: &Script, names: &[String]| names.iter().any(|n| *n == script.name || script.tags.contains(n));
    let chosen = |script: &&Script| match script.script_type {
        ScriptType::Commissioning => {
            let wanted = &options.commissioning_scripts;
            let skipped = options.skip_bmc_config && script.tags.iter().any(|t| t == "bmc-config");
            let auto = wanted.is_empty() && !script.tags.iter().any(|t| t == "noauto");
            !skipped && (script.default || auto || named(script, wanted))
        }
        ScriptType::Testing if options.testing_scripts.is_empty() => script.tags.iter().any(|t| t == "commissioning"),
        ScriptType::Testing => named(script, &options.testing_scripts),
    };
    let mut scripts: Vec<_> = c.scripts.values().filter(chosen).cloned().collect();
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    scripts
}

/// A setting that is a text; empty when there is none.
fn text_setting(c: &Catalogue, name: &str) -> String {
    let value = c.settings.get(name).and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok());
    value.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::{
        boot::{BodyRef, Sha256},
        power::{PowerConfig, PowerType},
    };

    fn script(id: i64, name: &str, script_type: ScriptType, tags: &[&str], default: bool) -> Script {
        Script {
            id,
            version: 1,
            name: name.into(),
            title: String::new(),
            description: String::new(),
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            script_type,
            hardware_type: 0,
            parallel: 0,
            timeout_s: 60,
            packages: "{}".into(),
            may_reboot: false,
            default,
            body: BodyRef { sha256: Sha256([0; 32]), len: 1 },
        }
    }

    fn names(c: &Catalogue, commissioning: &[&str], testing: &[&str]) -> Vec<String> {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
        let options = CommissionOptions {
            commissioning_scripts: own(commissioning),
            testing_scripts: own(testing),
            ..CommissionOptions::default()
        };
        scripts(c, &options).into_iter().map(|s| s.name).collect()
    }

    #[test]
    fn scripts_are_chosen_as_maas_chooses_them() {
        let mut c = Catalogue::default();
        let (commissioning, testing) = (ScriptType::Commissioning, ScriptType::Testing);
        for s in [
            script(1, "50-built-in", commissioning, &[], true),
            script(2, "60-mine", commissioning, &["raid"], false),
            script(3, "70-never", commissioning, &["noauto"], false),
            script(4, "smart", testing, &["commissioning"], true),
            script(5, "memtest", testing, &["memory"], true),
        ] {
            c.scripts.insert(s.id, s);
        }
        assert_eq!(names(&c, &[], &[]), ["50-built-in", "60-mine", "smart"]);
        assert_eq!(names(&c, &["none"], &["none"]), ["50-built-in"]);
        assert_eq!(names(&c, &["70-never"], &["memory"]), ["50-built-in", "70-never", "memtest"]);
        assert_eq!(names(&c, &["raid"], &["none"]), ["50-built-in", "60-mine"]);
    }

    #[test]
    fn a_brief_names_the_racks_that_lease_and_those_that_switch() {
        let rack = |n: u8| format!("rack0{n}").parse().unwrap();
        let spec = MachineSpec {
            system_id: "mach01".parse().unwrap(),
            hostname: "m".into(),
            domain: "maas".into(),
            architecture: "amd64/generic".into(),
            macs: Vec::new(),
            power: PowerConfig { power_type: PowerType::Manual, ..PowerConfig::default() },
            description: String::new(),
            zone: String::new(),
            pool: String::new(),
            vlan: None,
        };
        let mut c = actors::catalogue::Catalogue::first().content;
        let vlan = c.vlans.values_mut().next().unwrap();
        (vlan.dhcp_on, vlan.primary_rack, vlan.secondary_rack) = (true, Some(rack(2)), Some(rack(4)));
        let dead = Ailment { serves: false, why: "its dhcp is dead".into(), remedy: "free the port".into() };
        let ails = |id: RackId| (id == rack(4)).then(|| dead.clone());
        let racks = |linked: &[u8]| Racks {
            linked: linked.iter().map(|n| rack(*n)).collect(),
            ails,
            awaited: || vec![rack(2), rack(5)],
            bmc: vec![rack(3)],
            awaited_bmc: Vec::new,
        };
        let (brief, _) = compose(&c, racks(&[1, 2, 3, 4]), &spec, None);
        assert_eq!((brief.bmc_racks, brief.boot_racks, brief.image), (vec![rack(3)], vec![rack(2)], None));
        assert_eq!((brief.lame, brief.away), (vec![(rack(4), dead.clone())], vec![]));
        // The one that could boot it is away for a moment, and so is the one that switches it.
        let (brief, _) = compose(&c, racks(&[1, 4]), &spec, None);
        assert_eq!((brief.boot_racks, brief.away), (vec![rack(2)], vec![rack(2), rack(3)]));
        assert_eq!((brief.lame, brief.unserved), (vec![(rack(4), dead)], None));
    }
}
