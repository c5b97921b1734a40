//! The LLDP reader on what lldpctl 1.0.16 printed (a neighbour in a network namespace), and on what it never printed.

use proptest::prelude::*;
use schema::lldp::{LldpError, LldpNeighbour, parse};

const XML: &str = include_str!("samples/lldpctl.xml");
const JSON: &str = include_str!("samples/lldpctl.json");
const JSON0: &str = include_str!("samples/lldpctl.json0");

fn neighbour() -> LldpNeighbour {
    LldpNeighbour {
        interface: "hxm1".into(),
        via: "LLDP".into(),
        chassis_id: "de:7c:89:4d:06:a9".into(),
        chassis_name: "vm".into(),
        chassis_description: "sw-a".into(),
        management_addresses: vec!["10.99.0.1".into(), "fe80::dc7c:89ff:fe4d:6a9".into()],
        port_id: "de:7c:89:4d:06:a9".into(),
        port_description: "hxm0".into(),
        vlan_ids: vec![],
    }
}

#[test]
fn the_three_forms_say_the_same() {
    for form in [XML, JSON, JSON0] {
        assert_eq!(parse(form.as_bytes()).unwrap(), [neighbour()]);
    }
}

#[test]
fn vlans_many_interfaces_and_none() {
    let xml = XML.replace("</interface>", "<vlan label=\"VLAN\" vlan-id=\"10\" pvid=\"yes\">office</vlan><vlan vlan-id=\"20\"/><vlan vlan-id=\"x\"/></interface>");
    assert_eq!(parse(xml.as_bytes()).unwrap()[0].vlan_ids, [10, 20]);
    let one = &JSON[JSON.find("{\n      \"hxm1\"").unwrap()..JSON.rfind("\n  }").unwrap()];
    let two = format!("{{\"lldp\":{{\"interface\":[{one},{}]}}}}", one.replace("hxm1", "eno2"));
    let names: Vec<_> = parse(two.as_bytes()).unwrap().into_iter().map(|n| n.interface).collect();
    assert_eq!(names, ["hxm1", "eno2"]);
    for nothing in ["", "\n", "<lldp label=\"LLDP neighbors\"/>", "{\"lldp\":{}}", "{\"lldp\":[{}]}"] {
        assert_eq!(parse(nothing.as_bytes()), Ok(vec![]), "{nothing}");
    }
}

#[test]
fn wrong_output_is_named() {
    for (text, part) in [
        ("lldpctl: not found", "not XML"),
        ("<html/>", "\"html\""),
        ("{\"nmap\":1}", "\"nmap\""),
        ("{\"lldp\"", "not JSON"),
        ("<!DOCTYPE x [<!ENTITY a \"b\">]><lldp>&a;</lldp>", "not XML"),
    ] {
        let error = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(matches!(parse(&[b'<', 0xff]), Err(LldpError::Utf8(1))));
}

proptest! {
    #[test]
    fn cut_and_changed_outputs_never_panic(form in 0_usize..3, cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = [XML, JSON, JSON0][form].as_bytes().to_vec();
        let at = cut.index(bytes.len());
        parse(&bytes[..at]).ok();
        bytes[at] = byte;
        parse(&bytes).ok();
    }

    #[test]
    fn arbitrary_text_never_panics(text in "[<{\\[].{0,100}") {
        parse(text.as_bytes()).ok();
    }
}
